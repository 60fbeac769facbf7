"""``python -m emolight compare``: results ranked, and whether they differ by more than chance.

Results stand in one table only where their fingerprints agree and they scored the same clips. Every pair of a table
is tested, and p is corrected for all of them: number 1 was chosen by the same figures, so that a correction for the
comparisons with it alone would find differences between equal systems far too often.
"""

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from emolight.data.splits import SCORED
from emolight.errors import CommandParser, EmolightError
from emolight.evaluation import statistics
from emolight.evaluation.predictions import METRICS, metrics_of, unit_counts
from emolight.experiments.results import CROSSVAL, Result, read_result
from emolight.files import write_text
from emolight.run.folder import LOGS

LEVEL, WIDTH = 0.05, 100
LEAD = """\
lead: UAR of number 1 minus this one's, in points. p: paired permutation test of the lead, in which the clips of \
each speaker change sides together, corrected by Holm for all pairs of the table; differs: p is at most 0.05."""
TEST_SCORED = """\
test scored: how often the test clips of a result's runs were scored. Once for each run is needed (a \
cross-validation has one for each fold and seed). What was chosen after looking at test scores, be it settings, \
model or seed, is flattered by them."""
VALIDATION = """\
validation: scores of the clips by which epochs and settings are chosen. They flatter whatever was chosen by them; \
only test clips tell what to expect of others."""
ONE_SEED = """\
seeds: of one seed the test judges these trained networks, not their recipes. Cross-validate with more --seeds to \
compare recipes."""
LEADS = ("lead", "95 % by\nspeaker", "p", "dif-\nfers")

Group = dict[str, Any]


def find_results(folders: Sequence[Path]) -> tuple[list[Result], list[str]]:
    """The finished results in ``folders``, each once and of a unique name; and a line for each other one."""
    results: dict[Path, Result] = {}
    skipped: dict[Path, str] = {}
    for folder in folders:
        if not folder.is_dir():
            fix = "Give lightning_logs/NAME/version_N or a folder above, or train first: python -m emolight fit."
            raise EmolightError(f"There is no folder '{folder}'.", fix)
        for path, inner, files in os.walk(folder):
            inner.sort()
            if not {CROSSVAL, "config.yaml"} & set(files):
                continue
            inner.clear()  # what lies inside of a result is not listed by itself
            try:
                result = read_result(path)
                reason = "its training did not come to the end: it was killed, or still runs."
            except EmolightError as error:
                if Path(path) == folder:
                    raise
                result, reason = None, str(error).splitlines()[0]
            if result and result.finished:
                results.setdefault(Path(path).resolve(), result)
            else:
                skipped[Path(path).resolve()] = f"skipped {path}: {reason}"
    if not results:
        where = ", ".join(f"'{folder}'" for folder in folders)
        others = f" {len(skipped)} cannot be ranked, one is {next(iter(skipped.values()))}" if skipped else ""
        raise EmolightError(f"There is no result in {where}.{others}", "Train first: python -m emolight fit --help")
    count = Counter(result.name for result in results.values())
    named = [one if count[one.name] == 1 else one._replace(name=str(one.folder)) for one in results.values()]
    return named, list(skipped.values())


def make_groups(results: Sequence[Result]) -> list[Group]:
    """Rank the results of each fingerprint and the same clips, and test every pair.

    Of each table come in plain values ``fingerprint``, ``speaker_independent``, ``results`` and ``pairs``, the higher
    UAR first. Scores and differences are fractions, with intervals by speaker that are None from one speaker.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Result]] = {}
    for result in results:
        clips = result.table[["clip_id", "speaker", "label"]].drop_duplicates().sort_values("clip_id")
        digest = hashlib.sha256(clips.to_csv(index=False).encode()).hexdigest()
        marks = {**result.fingerprint, "clips": f"{len(clips)} ({digest[:6]})"}
        groups.setdefault(tuple(marks.items()), []).append(result)
    return [{"fingerprint": dict(marks), **_ranked(ranked)} for marks, ranked in sorted(groups.items())]


def _ranked(results: list[Result]) -> Group:
    rows, drawn, shares = [], {}, {}
    for result in results:
        counts = unit_counts(result.table, "speaker")
        # The same speakers are drawn for all. One speaker drawn again and again is no interval.
        of_draws = drawn[result.name] = metrics_of(statistics.resampled_counts(counts))
        shares[result.name] = statistics.speaker_shares(result.table)
        row: dict[str, Any] = {"rank": 0, "name": result.name, "kind": result.kind}
        for name, value in metrics_of(counts.sum(axis=0)).items():
            low, high = statistics.percentiles(of_draws[name]) if len(counts) > 1 else (None, None)
            row |= {name: float(value), f"{name}_low": low, f"{name}_high": high}
        row |= {"clips": int(result.table["clip_id"].nunique()), "speakers": len(counts)}
        row["seeds"] = counts.shape[1] // result.facts.get("draws", 1)  # of enrolled clips each seed has several
        row |= {"test_scored": result.openings, "speaker_independent": result.speaker_independent}
        row |= {name: result.facts.get(name) for name in ("seconds", "commit", "precision")}
        rows.append({**row, "folder": str(result.folder)})
    rows.sort(key=lambda row: (-row["uar"], row["name"]))
    couples = [(one["name"], other["name"], one["uar"] - other["uar"]) for one, other in combinations(rows, 2)]
    p_values = [statistics.sign_flip(shares[one] - shares[other]) for one, other, _ in couples]
    pairs = []
    for (one, other, difference), p, p_holm in zip(couples, p_values, statistics.holm(p_values), strict=True):
        interval = statistics.percentiles(drawn[one]["uar"] - drawn[other]["uar"])
        low, high = interval if len(shares[one]) > 1 else (None, None)
        found = {"one": one, "other": other, "difference": difference, "low": low, "high": high}
        pairs.append({**found, "p": p, "p_holm": p_holm, "differs": p_holm <= LEVEL})
    leads = {pair["other"]: pair for pair in pairs if pair["one"] == rows[0]["name"]}
    for rank, row in enumerate(rows, start=1):
        lead = leads.get(row["name"], {})
        row |= {"rank": rank, **{name: lead.get(name) for name in ("p", "p_holm", "differs")}}
        row |= {f"lead_{name}": lead.get(name) for name in ("difference", "low", "high")}
    return {"speaker_independent": all(row["speaker_independent"] for row in rows), "results": rows, "pairs": pairs}


def show(groups: Sequence[Group], pairs: bool = False) -> None:
    """Print a table for each group, and what its columns mean."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal or console.width > WIDTH:
        console.width = WIDTH
    if len(groups) > 1:
        marks = [group["fingerprint"] for group in groups]
        other = ", ".join(name for name in marks[0] if len({one[name] for one in marks}) > 1)
        console.print(f"{len(groups)} tables, whose results must not be ranked together: other {other}.\n")
    for group in groups:
        marks, rows, several = group["fingerprint"], group["results"], bool(group["pairs"])
        clips, speakers = f"{rows[0]['clips']} {SCORED[marks['clips scored']]} clips", rows[0]["speakers"]
        console.print(f"{marks['corpus']}, {marks['task']}, {marks['protocol']}: {clips}, speakers: {speakers}")
        console.print(
            "speaker-independent: no speaker of these clips was in training"
            if group["speaker_independent"]
            else "speaker-dependent: speakers of these clips were in training too, which flatters"
        )
        console.print(f"split {marks['split']}; {marks['selection']}\n")
        headings = ("UAR\n%", "95 % by\nspeaker", "accu-\nracy %", "macro\nF1 %", "seeds", "test\nscored")
        table = _table(["#", "name"], headings + LEADS * several)
        for row in rows:
            uar, *others = (f"{100 * row[name]:.1f}" for name in METRICS)
            ends = "–" if row["uar_low"] is None else f"{100 * row['uar_low']:.1f}–{100 * row['uar_high']:.1f}"
            cells = [str(row["rank"]), row["name"], uar, ends, *others, str(row["seeds"]), str(row["test_scored"])]
            table.add_row(*cells, *_lead(row, "lead_") * several)
        console.print(table, "")
        if pairs and several:
            table = _table(["name", "against"], LEADS)
            for pair in group["pairs"]:
                table.add_row(pair["one"], pair["other"], *_lead(pair))
            console.print("every pair:", table, "", sep="\n")
        if few := statistics.few_speakers(speakers):
            console.print(f"note: {few}\n")
        if several and speakers < statistics.FEW_SPEAKERS:
            least = f"{2 / 2**speakers:.3g}"
            console.print(f"note: From {speakers} speakers p is never below {least}: nothing can be told to differ.\n")
    tested = [group for group in groups if group["pairs"]]
    for line, needed in (
        (LEAD, tested),
        (ONE_SEED, any(row["seeds"] == 1 for group in tested for row in group["results"])),
        (TEST_SCORED, any(row["test_scored"] > 1 for group in groups for row in group["results"])),
        (VALIDATION, any(group["fingerprint"]["clips scored"] == "val" for group in groups)),
    ):
        if needed:
            console.print(line)


def _table(names: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for heading in (*names, *numbers):
        word = heading in ("name", "against")
        table.add_column(heading, justify="left" if word else "right", overflow="fold", no_wrap=not word)
    return table


def _lead(one: dict[str, Any], prefix: str = "") -> list[str]:
    """Lead, its interval where there is one, p, and the answer."""
    difference, low, high = (one[f"{prefix}{name}"] for name in ("difference", "low", "high"))
    if difference is None:
        return ["–"] * 4
    ends = "–" if low is None else f"{100 * low:+z.1f}, {100 * high:+z.1f}"
    p = "<0.001" if one["p_holm"] < 0.001 else f"{one['p_holm']:.3f}"
    return [f"{100 * difference:+z.1f}", ends, p, "yes" if one["differs"] else "no"]


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = CommandParser("compare", "Rank results that may be ranked together, and test their differences.")
    about = "runs, cross-validations, or folders that contain such; default: lightning_logs"
    parser.add_argument("folders", nargs="*", type=Path, default=[LOGS], metavar="RUN", help=about)
    parser.add_argument("--pairs", action="store_true", help="show every pair, not only against number 1")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all tables, in full precision")
    parser.add_argument("--json", metavar="FILE", help="the same and every pair as JSON; - prints it alone")
    options = parser.parse_args(argv)
    results, skipped = find_results([folder.expanduser() for folder in options.folders])
    print(*skipped, sep="\n", end="\n" * bool(skipped), file=sys.stderr)
    groups = make_groups(results)
    document = json.dumps({"groups": groups, "skipped": skipped}, indent=1, allow_nan=False) + "\n"
    if options.json == "-":
        print(document, end="")
    else:
        show(groups, options.pairs)
    if options.json not in (None, "-"):
        write_text(Path(options.json).expanduser(), document)
    if options.csv:
        rows = [{**group["fingerprint"], **row} for group in groups for row in group["results"]]
        # As objects, integers stay integers in a column that has gaps.
        write_text(options.csv.expanduser(), pd.DataFrame(rows, dtype=object).to_csv(index=False, lineterminator="\n"))
    return 0
