"""``python -m emolight compare``: results side by side, and whether they differ by more than chance.

Results are ranked together only where their fingerprints agree: task, split, scored clips and selection.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from emolight.data.splits import describe_protocol
from emolight.errors import EmolightError
from emolight.evaluation.statistics import (
    METRICS,
    Interval,
    bootstrap,
    holm,
    mcnemar_clips,
    metrics_of,
    paired_difference,
    unit_counts,
    wilcoxon_actors,
)
from emolight.files import write_text
from emolight.results import CROSSVAL, Result, read_result

LOGS = Path("lightning_logs")
SORTS = (*METRICS, "name", "seconds")
FACTS = ("seconds", "commit", "precision", "mode")
"""What is passed on of a result's facts."""
SUBSETS = {"val": "validation", "test": "test"}
WIDTH = 100
FEW_ACTORS = 6
"""Of fewer actors Wilcoxon's test finds nothing at 5 %."""
LEAD = """\
lead: UAR of number 1 minus this one's, in points. p: Wilcoxon's signed-rank test over actors, McNemar's exact \
test over clips, each corrected by Holm for the comparisons of its table."""
OPENINGS = """\
openings: how often test clips of a result's runs were scored. One for each run is needed (a cross-validation has \
one for each fold and seed). What was chosen after looking at test scores, be it settings, model or seed, is \
flattered by them."""
VALIDATION = """\
validation: scores of the clips by which epochs and settings are chosen. They flatter whatever was chosen by them; \
only test clips tell what to expect of others."""


class Comparison(NamedTuple):
    """UAR of ``one`` minus that of ``other`` as a fraction, with its interval by actor; p values of the two tests.

    There is no interval from one actor. The p values stand as they are, and corrected by Holm.
    """

    one: str
    other: str
    difference: float
    difference_low: float | None
    difference_high: float | None
    wilcoxon_p: float
    wilcoxon_holm: float
    mcnemar_p: float
    mcnemar_holm: float


class Row(NamedTuple):
    """A result in its table: its ``rank`` by UAR, scores as fractions, and the leader ``against`` it if tested."""

    rank: int
    result: Result
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    against: Comparison | None


class Group(NamedTuple):
    """Results of one fingerprint: the ``leader`` by UAR, all ``rows`` as sorted, ``pairs`` if they are tested."""

    fingerprint: dict[str, str]
    leader: Result
    rows: list[Row]
    pairs: list[Comparison]


def find_results(folders: Sequence[Path]) -> tuple[list[Result], list[str]]:
    """Read the results in ``folders``: runs, cross-validations, or folders that contain such.

    Returns:
        The results, each once and of a unique name; and a line for each one below a folder that cannot be read.

    Raises:
        EmolightError: a folder is missing, has no readable result, or is itself a result that cannot be read.
    """
    results: dict[Path, Result] = {}
    skipped: dict[Path, str] = {}
    for folder in folders:
        if not folder.is_dir():
            fix = "Give lightning_logs/NAME/version_N or a folder above, or train first: python -m emolight fit."
            raise EmolightError(f"There is no folder '{folder}'.", fix)
        for found in _scan(folder):
            place = found.resolve()
            if place in results:
                continue
            try:
                results[place] = read_result(found)
            except EmolightError as error:
                if found == folder:
                    raise
                skipped[place] = f"skipped {found}: {str(error).splitlines()[0]}"
    if not results:
        where = ", ".join(f"'{folder}'" for folder in folders)
        unread = f" {len(skipped)} are not readable, one is {next(iter(skipped.values()))}" if skipped else ""
        raise EmolightError(f"There is no result in {where}.{unread}", "Train first: python -m emolight fit --help")
    count = Counter(result.name for result in results.values())
    named = [one if count[one.name] == 1 else one._replace(name=str(one.folder)) for one in results.values()]
    return named, list(skipped.values())


def _scan(folder: Path) -> Iterator[Path]:
    """``folder`` or the folders below it that hold a result; what lies inside of one is not listed by itself."""
    for path, inner, files in os.walk(folder):
        inner.sort()
        if {CROSSVAL, "config.yaml"} & set(files):
            inner.clear()
            yield Path(path)


def make_groups(results: Sequence[Result], sort: str = "uar", pairs: bool = False) -> list[Group]:
    """Rank the results of each fingerprint and test them against its leader, the one of the highest UAR.

    Args:
        results: of :func:`find_results`.
        sort: one of :data:`SORTS`, the order of the rows; scores fall, names and seconds rise.
        pairs: also test every pair.
    """
    found: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        found.setdefault(tuple(result.fingerprint.values()), []).append(result)
    return [_group(found[key], sort, pairs) for key in sorted(found)]


def _group(results: list[Result], sort: str, pairs: bool) -> Group:
    scored = []
    for result in results:
        counts = unit_counts(result.table, "actor")
        metrics = {name: float(value) for name, value in metrics_of(counts.sum(axis=0)).items()}
        # One actor drawn again and again is always the same: that is no interval.
        intervals = bootstrap(result.table, "actor") if len(counts) > 1 else {}
        scored.append((result, metrics, intervals))
    scored.sort(key=lambda one: (-one[1]["uar"], one[0].name))
    ranked = [result for result, *_ in scored]
    against = {one.other: one for one in _compare([(ranked[0], result) for result in ranked[1:]])}
    rows = [Row(rank, *one, against.get(one[0].name)) for rank, one in enumerate(scored, start=1)]
    if sort == "name":
        rows.sort(key=lambda row: row.result.name)
    elif sort == "seconds":
        rows.sort(key=lambda row: float("inf") if (time := row.result.facts.get("seconds")) is None else time)
    else:
        rows.sort(key=lambda row: -row.metrics[sort])
    every = _compare(list(combinations(ranked, 2))) if pairs else []
    return Group(ranked[0].fingerprint, ranked[0], rows, every)


def _compare(pairs: Sequence[tuple[Result, Result]]) -> list[Comparison]:
    """Those pairs that are of the same clips, their p values corrected for as many comparisons as these are."""
    pairs = [(one, other) for one, other in pairs if _clips(one) == _clips(other)]
    wilcoxon = [wilcoxon_actors(one.table, other.table) for one, other in pairs]
    mcnemar = [mcnemar_clips(one.table, other.table) for one, other in pairs]
    found = []
    for (one, other), *p_values in zip(pairs, wilcoxon, holm(wilcoxon), mcnemar, holm(mcnemar), strict=True):
        value, interval = paired_difference(one.table, other.table)
        low, high = interval if _actors(one) > 1 else (None, None)
        found.append(Comparison(one.name, other.name, value, low, high, *p_values))
    return found


def _clips(result: Result) -> set[str]:
    return set(result.table["clip_id"])


def _actors(result: Result) -> int:
    return int(result.table["actor"].nunique())


def _seeds(result: Result) -> int:
    return int(result.table["seed"].nunique()) if "seed" in result.table else 1


def what_differs(fingerprints: Sequence[dict[str, str]]) -> str:
    """Why there is more than one table, such as ``other split: emobox6 fold 1 / random seed 0``."""
    splits: dict[tuple[str, str], set[str]] = {}
    for one in fingerprints:
        splits.setdefault((one["task"], one["protocol"]), set()).add(one["split"])
    shown = [
        # The protocol tells two splits apart, unless one of them was made by hand or of other clips.
        {**one, "split": one["protocol"] + f" ({one['split']})" * (len(splits[one["task"], one["protocol"]]) > 1)}
        for one in fingerprints
    ]
    values = {name: dict.fromkeys(one[name] for one in shown) for name in shown[0] if name != "protocol"}
    return "; ".join(f"other {name}: {' / '.join(found)}" for name, found in values.items() if len(found) > 1)


def records(group: Group) -> list[dict[str, Any]]:
    """Everything of the rows in plain values: scores and differences as fractions, None where there is none."""
    found = []
    for row in group.rows:
        result, against = row.result, row.against
        record: dict[str, Any] = {"rank": row.rank, "name": result.name, "kind": result.kind}
        for name in METRICS:
            low, high = row.intervals.get(name, (None, None))
            record |= {name: row.metrics[name], f"{name}_low": low, f"{name}_high": high}
        clips = _clips(result)
        record |= {"clips": len(clips), "actors": _actors(result), "seeds": _seeds(result)}
        record |= {"openings": result.openings, "leader": group.leader.name}
        record["same_clips_as_leader"] = clips == _clips(group.leader)
        record |= {name: getattr(against, name, None) for name in Comparison._fields[2:]}
        record |= {name: result.facts.get(name) for name in FACTS}
        found.append({**record, "folder": str(result.folder)})
    return found


def to_json(groups: Sequence[Group], skipped: Sequence[str]) -> str:
    """All groups as a JSON document."""
    found = [
        {
            "fingerprint": group.fingerprint,
            "speakers": describe_protocol(group.fingerprint["protocol"]),
            "results": records(group),
            "pairs": [pair._asdict() for pair in group.pairs],
        }
        for group in groups
    ]
    return json.dumps({"groups": found, "skipped": list(skipped)}, indent=1, allow_nan=False) + "\n"


def to_csv(groups: Sequence[Group]) -> str:
    """All groups as CSV: a row a result, the fingerprint in front. Tests of pairs are in the JSON only."""
    rows = [
        {**group.fingerprint, "speakers": describe_protocol(group.fingerprint["protocol"]), **record}
        for group in groups
        for record in records(group)
    ]
    # As objects, integers stay integers in a column that has gaps.
    return pd.DataFrame(rows, dtype=object).to_csv(index=False, lineterminator="\n")


def show(groups: Sequence[Group], seconds: bool = False) -> None:
    """Print a table for each group, and what its columns mean; ``seconds`` of training are shown on demand."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal or console.width > WIDTH:
        console.width = WIDTH
    if len(groups) > 1:
        why = what_differs([group.fingerprint for group in groups])
        console.print(f"{len(groups)} tables, whose results must not be ranked together: {why}.\n")
    for group in groups:
        marks = group.fingerprint
        clips = f"{len(_clips(group.leader))} {SUBSETS.get(group.leader.subset, group.leader.subset)} clips"
        console.print(f"{marks['task']}, {marks['protocol']}: {clips}, actors: {_actors(group.leader)}")
        console.print(describe_protocol(marks["protocol"]))
        console.print(f"split {marks['split']}; {marks['selection']}\n")
        console.print(_leaderboard(group, seconds), "")
        if group.pairs:
            console.print("every pair:", _pairs(group), "", sep="\n")
        for note in _notes(group):
            console.print(f"note: {note}")
        console.print()
    rows = [row for group in groups for row in group.rows]
    tested = any(row.against for row in rows) or any(group.pairs for group in groups)
    for line, needed in (
        (LEAD, tested),
        (OPENINGS, max(row.result.openings for row in rows) > 1),
        (VALIDATION, any(row.result.subset == "val" for row in rows)),
    ):
        if needed:
            console.print(line)


def _leaderboard(group: Group, seconds: bool) -> Table:
    compared = len(group.rows) > 1
    headings = ["UAR\n%", "95 % by\nactor", "WA\n%", "macro\nF1 %", "seeds", "open-\nings"]
    headings += ["lead", "95 % by\nactor", "Wil-\ncoxon\np", "Mc-\nNemar\np"] * compared
    table = _table(["#"], ["name"], headings + ["sec-\nonds"] * seconds)
    for row in group.rows:
        uar, wa, macro_f1 = (f"{100 * row.metrics[name]:.1f}" for name in METRICS)
        inside = row.intervals.get("uar")
        interval = f"{100 * inside.low:.1f}–{100 * inside.high:.1f}" if inside else "–"
        cells = [str(row.rank), row.result.name, uar, interval, wa, macro_f1]
        cells += [str(_seeds(row.result)), str(row.result.openings)]
        cells += (_cells(row.against) if row.against else ["–"] * 4) * compared
        time = row.result.facts.get("seconds")
        table.add_row(*cells, *["–" if time is None else f"{time:.0f}"] * seconds)
    return table


def _pairs(group: Group) -> Table:
    table = _table([], ["name", "against"], ["lead", "95 % by\nactor", "Wil-\ncoxon\np", "Mc-\nNemar\np"])
    for pair in group.pairs:
        table.add_row(pair.one, pair.other, *_cells(pair))
    return table


def _table(ranks: Sequence[str], names: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for heading in (*ranks, *names, *numbers):
        name = heading in names
        table.add_column(heading, justify="left" if name else "right", overflow="fold", no_wrap=not name)
    return table


def _cells(pair: Comparison) -> list[str]:
    low, high = pair.difference_low, pair.difference_high
    interval = "–" if low is None or high is None else f"{100 * low:+z.1f}, {100 * high:+z.1f}"
    p_values = (pair.wilcoxon_holm, pair.mcnemar_holm)
    return [f"{100 * pair.difference:+z.1f}", interval, *("<0.001" if p < 0.001 else f"{p:.3f}" for p in p_values)]


def _notes(group: Group) -> Iterator[str]:
    clips, actors = _clips(group.leader), _actors(group.leader)
    for row in group.rows:
        here = _clips(row.result)
        if here != clips:
            differ = f"lacks {len(clips - here)} of them and has {len(here - clips)} others"
            yield f"{row.result.name} is not tested against the clips of {group.leader.name}: it {differ}."
    if len(group.rows) > 1 and actors < FEW_ACTORS:
        lowest = f"Wilcoxon's p is never below {2 / 2**actors:.3g}"
        yield f"with less than {FEW_ACTORS} actors intervals are too narrow, and {lowest}: compare all folds."


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m emolight compare",
        description="Rank results that may be ranked together, and test their differences.",
    )
    about = "runs, cross-validations, or folders that contain such; default: lightning_logs"
    parser.add_argument("folders", nargs="*", type=Path, default=[LOGS], metavar="RUN", help=about)
    parser.add_argument("--sort", choices=SORTS, default="uar", help="order of the rows; default: %(default)s")
    parser.add_argument("--pairs", action="store_true", help="test every pair, not only against number 1")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all tables, in full precision")
    parser.add_argument("--json", metavar="FILE", help="the same as JSON; - prints it and nothing else")
    options = parser.parse_args(argv)
    results, skipped = find_results(options.folders)
    for line in skipped:
        print(line, file=sys.stderr)
    groups = make_groups(results, options.sort, options.pairs)
    document = to_json(groups, skipped)
    printed = options.json == "-"
    if printed:
        print(document, end="")
    else:
        show(groups, options.sort == "seconds")
    for path, text in ((options.csv, to_csv(groups)), (None if printed else options.json, document)):
        if path is not None:
            try:
                write_text(path, text)
            except OSError as error:
                raise EmolightError(f"Cannot write '{path}': {error.strerror}.", "Give another place.") from None
    return 0
