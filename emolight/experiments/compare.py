"""``python -m emolight compare``: results side by side, and whether they differ by more than chance."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from emolight.errors import EmolightError
from emolight.evaluation.predictions import METRICS
from emolight.evaluation.statistics import FEW_SPEAKERS, few_speakers
from emolight.experiments.ranking import (
    SORTS,
    Comparison,
    Group,
    find_results,
    make_groups,
    seeds_of,
    to_csv,
    to_json,
    what_differs,
)
from emolight.files import write_text
from emolight.run.folder import LOGS

SUBSETS = {"val": "validation", "test": "test"}
WIDTH = 100
LEAD = """\
lead: UAR of number 1 minus this one's, in points. p: paired permutation test of the lead, in which the clips of \
each speaker change sides together, corrected by Holm for all pairs of the table; differs: p is at most 0.05."""
SCORED = """\
test scored: how often the test clips of a result's runs were scored. Once for each run is needed (a \
cross-validation has one for each fold and seed). What was chosen after looking at test scores, be it settings, \
model or seed, is flattered by them."""
VALIDATION = """\
validation: scores of the clips by which epochs and settings are chosen. They flatter whatever was chosen by them; \
only test clips tell what to expect of others."""
ONE_SEED = """\
seeds: of one seed the test judges these trained networks, not their recipes. Cross-validate with more --seeds to \
compare recipes."""


def show(groups: Sequence[Group], pairs: bool = False, seconds: bool = False) -> None:
    """Print a table for each group, and what its columns mean; ``pairs`` and ``seconds`` are shown on demand."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal or console.width > WIDTH:
        console.width = WIDTH
    if len(groups) > 1:
        why = what_differs([group.fingerprint for group in groups])
        console.print(f"{len(groups)} tables, whose results must not be ranked together: {why}.\n")
    for group in groups:
        marks, leader = group.fingerprint, group.leader
        speakers = int(leader.table["speaker"].nunique())
        clips = f"{leader.table['clip_id'].nunique()} {SUBSETS.get(leader.subset, leader.subset)} clips"
        console.print(f"{marks['corpus']}, {marks['task']}, {marks['protocol']}: {clips}, speakers: {speakers}")
        console.print(
            "speaker-independent: no speaker of these clips was in training"
            if leader.speaker_independent
            else "speaker-dependent: speakers of these clips were in training too, which flatters"
        )
        console.print(f"split {marks['split']}; {marks['selection']}\n")
        console.print(_leaderboard(group, seconds), "")
        if pairs and group.pairs:
            console.print("every pair:", _pairs(group), "", sep="\n")
        for note in _notes(speakers, bool(group.pairs)):
            console.print(f"note: {note}\n")
    rows = [row for group in groups for row in group.rows]
    tested = [group for group in groups if group.pairs]
    for line, needed in (
        (LEAD, tested),
        (ONE_SEED, any(seeds_of(row.result) == 1 for group in tested for row in group.rows)),
        (SCORED, max(row.result.openings for row in rows) > 1),
        (VALIDATION, any(row.result.subset == "val" for row in rows)),
    ):
        if needed:
            console.print(line)


def _notes(speakers: int, tested: bool) -> Iterator[str]:
    if few := few_speakers(speakers):
        yield few
    if tested and speakers < FEW_SPEAKERS:
        yield f"From {speakers} speakers p is never below {2 / 2**speakers:.3g}: nothing can be told to differ."


def _leaderboard(group: Group, seconds: bool) -> Table:
    compared = len(group.rows) > 1
    headings = ["UAR\n%", "95 % by\nspeaker", "accu-\nracy %", "macro\nF1 %", "seeds", "test\nscored"]
    headings += ["lead", "95 % by\nspeaker", "p", "dif-\nfers"] * compared
    table = _table(["#"], ["name"], headings + ["sec-\nonds"] * seconds)
    for row in group.rows:
        uar, accuracy, macro_f1 = (f"{100 * row.metrics[name]:.1f}" for name in METRICS)
        inside = row.intervals.get("uar")
        interval = f"{100 * inside.low:.1f}–{100 * inside.high:.1f}" if inside else "–"
        cells = [str(row.rank), row.result.name, uar, interval, accuracy, macro_f1]
        cells += [str(seeds_of(row.result)), str(row.result.openings)]
        cells += (_cells(row.against) if row.against else ["–"] * 4) * compared
        time = row.result.facts.get("seconds")
        table.add_row(*cells, *["–" if time is None else f"{time:.0f}"] * seconds)
    return table


def _pairs(group: Group) -> Table:
    table = _table([], ["name", "against"], ["lead", "95 % by\nspeaker", "p", "dif-\nfers"])
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
    """Lead, its interval where there is one, p, and the answer."""
    low, high = pair.low, pair.high
    ends = "–" if low is None or high is None else f"{100 * low:+z.1f}, {100 * high:+z.1f}"
    p = "<0.001" if pair.p_holm < 0.001 else f"{pair.p_holm:.3f}"
    return [f"{100 * pair.difference:+z.1f}", ends, p, "yes" if pair.differs else "no"]


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m emolight compare",
        description="Rank results that may be ranked together, and test their differences.",
    )
    about = "runs, cross-validations, or folders that contain such; default: lightning_logs"
    parser.add_argument("folders", nargs="*", type=Path, default=[LOGS], metavar="RUN", help=about)
    parser.add_argument("--sort", choices=SORTS, default="uar", help="order of the rows; default: %(default)s")
    parser.add_argument("--pairs", action="store_true", help="show every pair, not only against number 1")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all tables, in full precision")
    parser.add_argument("--json", metavar="FILE", help="the same and every pair as JSON; - prints it alone")
    options = parser.parse_args(argv)
    results, skipped = find_results([folder.expanduser() for folder in options.folders])
    for line in skipped:
        print(line, file=sys.stderr)
    groups = make_groups(results, options.sort)
    document = to_json(groups, skipped)
    printed = options.json == "-"
    if printed:
        print(document, end="")
    else:
        show(groups, options.pairs, options.sort == "seconds")
    for path, text in ((options.csv, to_csv(groups)), (None if printed else options.json, document)):
        if path is not None:
            try:
                write_text(Path(path).expanduser(), text)
            except OSError as error:
                raise EmolightError(f"Cannot write '{path}': {error.strerror}.", "Give another place.") from None
    return 0
