"""``python -m emolight compare``: results side by side, and whether they differ by more than chance."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from emolight.data.splits import describe_protocol
from emolight.errors import EmolightError
from emolight.evaluation.statistics import METRICS
from emolight.experiments.ranking import (
    SORTS,
    Comparison,
    Group,
    actors_of,
    clips_of,
    find_results,
    make_groups,
    seeds_of,
    to_csv,
    to_json,
    what_differs,
)
from emolight.files import write_text
from emolight.runs import LOGS

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
        clips = f"{len(clips_of(group.leader))} {SUBSETS.get(group.leader.subset, group.leader.subset)} clips"
        console.print(f"{marks['task']}, {marks['protocol']}: {clips}, actors: {actors_of(group.leader)}")
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
        cells += [str(seeds_of(row.result)), str(row.result.openings)]
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
    clips, actors = clips_of(group.leader), actors_of(group.leader)
    for row in group.rows:
        here = clips_of(row.result)
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
