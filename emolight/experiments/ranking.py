"""Results ranked where they may be ranked together, and the tests of their differences.

Results are ranked together only where their fingerprints agree: task, split, scored clips and selection.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

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
from emolight.results import CROSSVAL, Result, read_result

SORTS = (*METRICS, "name", "seconds")
FACTS = ("seconds", "commit", "precision", "mode")
"""What is passed on of a result's facts."""


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
    pairs = [(one, other) for one, other in pairs if clips_of(one) == clips_of(other)]
    wilcoxon = [wilcoxon_actors(one.table, other.table) for one, other in pairs]
    mcnemar = [mcnemar_clips(one.table, other.table) for one, other in pairs]
    found = []
    for (one, other), *p_values in zip(pairs, wilcoxon, holm(wilcoxon), mcnemar, holm(mcnemar), strict=True):
        value, interval = paired_difference(one.table, other.table)
        low, high = interval if actors_of(one) > 1 else (None, None)
        found.append(Comparison(one.name, other.name, value, low, high, *p_values))
    return found


def clips_of(result: Result) -> set[str]:
    """The clips that a result scored."""
    return set(result.table["clip_id"])


def actors_of(result: Result) -> int:
    """How many actors speak them."""
    return int(result.table["actor"].nunique())


def seeds_of(result: Result) -> int:
    """How many seeds scored them."""
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
        clips = clips_of(result)
        record |= {"clips": len(clips), "actors": actors_of(result), "seeds": seeds_of(result)}
        record |= {"openings": result.openings, "leader": group.leader.name}
        record["same_clips_as_leader"] = clips == clips_of(group.leader)
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
