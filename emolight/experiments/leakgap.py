"""``python -m emolight crossval leakgap``: what a random split flatters, by the same recipe under both."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

import pandas as pd

from emolight.errors import EmolightError
from emolight.evaluation.statistics import Difference, paired_difference
from emolight.evaluation.style import BLUE, INK, VERMILLION, WIDTH, clean_axis, new_figure, save_figure
from emolight.experiments.crossval import add_fit_options, cross_validate, data_of, logs_of, parse
from emolight.experiments.results import read_result
from emolight.experiments.summary import cell, score_row, write_table
from emolight.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def leak_gap(random: pd.DataFrame, held_out: pd.DataFrame) -> Difference:
    """UAR under the random split minus UAR with speakers held out, on the clips that both scored.

    Args:
        random: predictions of the random split's validation clips.
        held_out: predictions of a cross-validation by speaker, which scores every clip once a seed.
    """
    common = set(random["clip_id"]) & set(held_out["clip_id"])
    one, other = (table[table["clip_id"].isin(common)] for table in (random, held_out))
    return paired_difference(one, other)


def sentence(gap: Difference, protocol: str, clips: int) -> str:
    """What the gap means, in one sentence."""
    points, (low, high) = 100 * gap.value, (100 * end for end in gap.interval)
    ends = f"95 % by speaker: {low:+.1f} to {high:+.1f}"
    on = f"on the same {clips} clips"
    if low > 0:
        return (
            f"The random split flatters this recipe by {points:.1f} points of UAR ({ends}) {on}: that much is"
            f" lost with speakers held out ({protocol}), so its random figure says little about new voices."
        )
    if high < 0:
        return f"Speakers held out ({protocol}) score {-points:.1f} points of UAR higher ({ends}) {on}: seek a mistake."
    return f"No leak is seen: the random split gives {points:+.1f} points of UAR ({ends}) {on}; zero lies inside."


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
    parser = argparse.ArgumentParser(
        prog="python -m emolight crossval leakgap",
        description="Train one recipe under a random split and with speakers held out, and show the difference."
        " Finished cross-validations of the same --name are taken as they are. Unknown options go to `fit`.",
        allow_abbrev=False,
    )
    add_fit_options(parser)
    options, config = parse(parser, argv)
    held = data_of(config, None if options.protocol == "random" else options.protocol)
    protocol = held.split.protocol
    if not held.split.clips("test") or not held.split.speaker_independent("test"):
        raise EmolightError(
            f"Protocol '{protocol}' holds no speakers out, so there is no gap to measure.",
            "Give one that does: --protocol speakers5.",
        )
    place, tables = logs_of(config) / options.name, {}
    for data in (data_of(config, "random"), held):
        folder = place / f"crossval_{data.split.protocol}"
        cross_validate(config, data, folder, options.seeds, workers=options.workers)
        tables[data.split.protocol] = read_result(folder).table
    random, held_out = tables.values()
    gap = leak_gap(random, held_out)
    tables[f"{protocol}, same clips"] = held_out[held_out["clip_id"].isin(random["clip_id"])]
    rows = [score_row(table, split=name) for name, table in tables.items()]
    text = sentence(gap, protocol, rows[-1]["clips"])
    path = place / f"leakgap_{protocol}"
    difference = {"uar": gap.value, "low": gap.interval.low, "high": gap.interval.high}
    about = {"rows": rows, "gap": difference, "sentence": text}
    write_table(path.with_suffix(".csv"), pd.DataFrame([*rows, {"split": "random minus same clips", **difference}]))
    write_text(path.with_suffix(".json"), json.dumps(about, indent=2) + "\n")
    save_figure(gap_figure(rows, f"{options.name}: {text}"), path.with_suffix(".png"))
    for row in rows:
        print(f"{row['split']:<22} UAR {cell(row)} %, {row['clips']} clips")
    print(f"{text}\n{path}.csv\n{path}.json\n{path}.png")
    return 0
