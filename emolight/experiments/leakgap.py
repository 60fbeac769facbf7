"""``python -m emolight crossval leakgap``: what a random split flatters, by the same recipe under both."""

from typing import Any

from matplotlib.figure import Figure

from emolight.errors import CommandParser, EmolightError
from emolight.evaluation.statistics import Difference, few_speakers, paired_difference
from emolight.evaluation.style import BLUE, INK, VERMILLION, WIDTH, clean_axis, new_figure
from emolight.experiments.crossval import add_fit_options, all_folds, cross_validate, data_of, parse
from emolight.experiments.summary import cell, score_row, write_found
from emolight.run.folder import logs_of


def sentence(gap: Difference, protocol: str, clips: int) -> str:
    """What the gap means, in one sentence."""
    low, high = gap.interval
    if low > 0:
        verdict = "The random split flatters this recipe, so its figure says little about new voices"
    else:
        verdict = "Seek a mistake, the random split is the harder one" if high < 0 else "No leak is seen"
    ends = f"95 % by speaker: {100 * low:+.1f} to {100 * high:+.1f}"
    gained = f"{100 * gap.value:+.1f} points of UAR ({ends}) against speakers held out ({protocol})"
    return f"{verdict}: {gained}, on the same {clips} clips."


def gap_figure(rows: list[dict[str, Any]], title: str) -> Figure:
    """Rows of :func:`~emolight.experiments.summary.score_row` below each other, a dot with its interval each."""
    figure = new_figure(WIDTH, 1.8 + 0.5 * len(rows), title)
    axis = figure.subplots()
    for place, row in enumerate(rows):
        uar, low, high = (100 * row[name] for name in ("uar", "low", "high"))
        axis.hlines(place, low, high, color=INK, linewidth=1.6)
        axis.plot(uar, place, "o", color=BLUE if place else VERMILLION, markersize=8)
        axis.text(uar, place - 0.16, f"{uar:.1f}", ha="center", va="bottom", color=INK)
    clean_axis(axis, "x")
    axis.set(xlim=(0, 100), ylim=(len(rows) - 0.5, -0.7), xlabel="UAR (%), 95 % interval by speaker")
    axis.set_yticks(range(len(rows)), [f"{row['split']}\n{row['clips']} clips" for row in rows])
    axis.tick_params(axis="y", length=0)
    return figure


def main(argv: list[str]) -> int:
    """Run the command."""
    about = (
        "Train one recipe under a random split and with speakers held out, and show the difference. Finished"
        " cross-validations of the same --name are taken as they are. Unknown options go to `fit`."
    )
    parser = CommandParser("crossval leakgap", about)
    add_fit_options(parser)
    options, config = parse(parser, argv)
    held = data_of(config, None if options.protocol == "random" else options.protocol)
    protocol = held.split.protocol
    if not held.split.clips("test") or not held.split.speaker_independent("test"):
        problem = f"Protocol '{protocol}' holds no speakers out, so there is no gap to measure."
        raise EmolightError(problem, "Give one that does: --protocol speakers5.")
    place, drawn = logs_of(config) / options.name, data_of(config, "random")
    if not all_folds(held) and not {*held.split.clips("test")} & {*drawn.split.clips("val")}:
        problem = f"No test clip of protocol '{protocol}' is among those that the random split holds out."
        raise EmolightError(problem, "Take --protocol speakers5, or another --data.split_seed.")
    random, held_out = (
        cross_validate(config, data, place / f"crossval_{name}", options.seeds, workers=options.workers).table
        for name, data in (("random", drawn), (protocol, held))
    )
    same = held_out[held_out["clip_id"].isin(random["clip_id"])]
    gap = paired_difference(random[random["clip_id"].isin(same["clip_id"])], same)
    tables = {"random": random, protocol: held_out, f"{protocol}, same clips": same}
    rows = [score_row(table, split=name) for name, table in tables.items()]
    for row in rows:
        print(f"{row['split']:<22} UAR {cell(row)} %, {row['clips']} clips")
    text = sentence(gap, protocol, rows[-1]["clips"])
    print(text)
    if few := few_speakers(same["speaker"].nunique()):
        print(f"note: {few}")
    difference = {"uar": gap.value, "low": gap.interval.low, "high": gap.interval.high}
    figure = gap_figure(rows, f"{options.name}: {text}")
    rows.append({"split": "random minus same clips", **difference})
    write_found(place / f"leakgap_{protocol}", rows, figure, gap=difference, sentence=text)
    return 0
