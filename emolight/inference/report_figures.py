"""The figures and tables of the report, ready for its page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import soundfile

from emolight.data.audio import Waveform
from emolight.evaluation.plots import (
    BLUE,
    GREEN,
    GREY,
    INK,
    VERMILLION,
    _clean,
    _figure,
    _percent_axis,
    actor_figure,
    confusion_figure,
)
from emolight.evaluation.predictions import class_names, confusion
from emolight.inference.examples import RATE
from emolight.pages import Cell, Sheet, between, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STATEMENTS = {1: "Kids are talking by the door", 2: "Dogs are sitting by the door"}
CONTROL_NOTES = {
    "majority": "always the most frequent emotion of the training clips",
    "duration": "logistic regression on how long the clip is",
    "MFCC": "no network: mean, spread and range of each coefficient",
    "labels permuted": "the same after shuffling the training labels: what is left is chance",
}


def flac(wave: Waveform) -> bytes:
    """Samples [T] at 16 kHz as a FLAC file of 16 bits."""
    stream = io.BytesIO()
    soundfile.write(stream, wave.clip(-1, 1), RATE, format="FLAC", subtype="PCM_16")
    return stream.getvalue()


def confusion_of(table: pd.DataFrame, seeds: int) -> Figure:
    """The confusion matrix; of several seeds it counts a clip once for each."""
    figure = confusion_figure(table, "")
    if seeds > 1:
        figure.axes[0].set_title(f"predictions, {seeds} seeds a clip", fontsize=11)
    return figure


def actors_of(table: pd.DataFrame, actors: Sequence[Mapping[str, Any]], seeds: int) -> Figure:
    """UAR of each actor, a mean over the seeds; ``actors`` as ``summarise`` groups them."""
    figure = actor_figure(table, "")
    if seeds > 1:
        # The figure counts rows, and a clip has one for each seed.
        figure.axes[0].set_xticks(range(len(actors)), [f"{one['group']}\n{one['n']}" for one in actors])
        figure.axes[0].set_xlabel("actor, and clips")
    return figure


def recalls(pooled: Mapping[str, Any], clips: Mapping[str, int], chance: float) -> Figure:
    """Recall of each class with its interval by actor, the UAR and chance.

    Args:
        pooled: as of :func:`~emolight.evaluation.statistics.summarise`.
        clips: emotion to its clips, in class order; one without recall is left out.
        chance: recall of guessing.
    """
    shown = [name for name in clips if f"recall {name}" in pooled]
    figure = _figure(max(4.5, 0.9 * len(shown)), 4.2, "")
    axis = figure.subplots()
    for place, name in enumerate(shown):
        found = pooled[f"recall {name}"]
        value, (low, high) = 100 * found["value"], (100 * end for end in found["by_actor"])
        reach = [[max(0.0, value - low)], [max(0.0, high - value)]]
        axis.bar(place, value, width=0.66, color=BLUE)
        axis.errorbar(place, value, reach, fmt="none", ecolor="white", elinewidth=4)
        axis.errorbar(place, value, reach, fmt="none", ecolor=INK, elinewidth=1.5, capsize=4)
        plate = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        axis.text(place, max(high, value) + 2, f"{value:.1f}", ha="center", color=INK, bbox=plate, zorder=3)
    uar = 100 * pooled["uar"]["value"]
    lines = [
        axis.axhline(uar, color=VERMILLION, linewidth=1.8, linestyle="--", label=f"UAR {uar:.1f} %"),
        axis.axhline(100 * chance, color=GREY, linewidth=1.8, linestyle=":", label=f"chance {100 * chance:.1f} %"),
    ]
    _clean(axis)
    _percent_axis(axis)
    axis.set_xticks(range(len(shown)), [f"{name}\nn = {clips[name]}" for name in shown])
    axis.tick_params(axis="x", length=0)
    axis.set_ylabel("recall (%), 95 % interval by actor")
    figure.legend(handles=lines, loc="outside lower center", ncols=2, frameon=False)
    return figure


def curves_of_runs(metrics: Sequence[pd.DataFrame]) -> Figure:
    """Learning curves of several runs: each a thin line, their mean a thick one as far as all of them go.

    Args:
        metrics: Lightning's ``metrics.csv`` of each run; ``epoch`` counts from 0 and is shown from 1.
    """
    from matplotlib.ticker import MaxNLocator

    curves = [
        one.dropna(subset=["epoch"]).replace([np.inf, -np.inf], np.nan).groupby("epoch").last() for one in metrics
    ]
    figure = _figure(9.6, 4.0, "")
    axes = figure.subplots(1, 2)
    losses = {"train/loss": ("training", BLUE, "-"), "val/loss": ("validation", VERMILLION, "--")}
    shares = {"val/uar": ("UAR", GREEN, "-")}
    for axis, what, scale, kinds in ((axes[0], "loss", 1, losses), (axes[1], "validation UAR (%)", 100, shares)):
        _clean(axis)
        for column, (label, colour, style) in kinds.items():
            found = [scale * one[column].dropna() for one in curves if column in one and one[column].notna().any()]
            for curve in found:
                marker = "o" if len(curve) == 1 else None
                axis.plot(curve.index + 1, curve, style, color=colour, linewidth=0.8, alpha=0.45, marker=marker)
            if found:
                mean = pd.concat(found, axis=1).dropna().mean(axis=1)
                axis.plot(mean.index + 1, mean, style, color=colour, linewidth=2.8, label=f"{label}, mean")
        axis.set_xlabel("epoch")
        axis.set_ylabel(what)
        if axis.lines:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axis.legend(edgecolor="none", framealpha=0.9)
        else:
            axis.text(0.5, 0.5, "nothing logged", ha="center", color=GREY, transform=axis.transAxes)
            axis.set(xticks=[], yticks=[])
    return figure


def reliability(calibration: Mapping[str, Any]) -> Figure:
    """Accuracy against confidence, and how many predictions each bin has.

    Args:
        calibration: as of :func:`~emolight.evaluation.statistics.calibration_error`.

    Source:
        Guo et al., *On Calibration of Modern Neural Networks*, 2017, figure 1.
    """
    bins = calibration["bins"]
    low, width = [100 * one["low"] for one in bins], [100 * (one["high"] - one["low"]) for one in bins]
    confidence, accuracy = ([100 * one[name] for one in bins] for name in ("confidence", "accuracy"))
    figure = _figure(4.5, 4.8, "")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    top.plot([0, 100], [0, 100], color=GREY, linestyle=":", linewidth=1.8, label="as told")
    top.vlines(confidence, confidence, accuracy, color=VERMILLION, linewidth=2.4, alpha=0.75, label="gap")
    top.plot(confidence, accuracy, "o-", color=BLUE, linewidth=1.6, markersize=6, label="as it came")
    bottom.bar(low, [one["n"] for one in bins], width=width, align="edge", color=BLUE, edgecolor="white")
    for axis in (top, bottom):
        _clean(axis)
    top.set(ylabel="right (%)", xlim=(0, 100), ylim=(-3, 103))
    bottom.set(ylabel="predictions", xlabel="confidence: probability of the prediction (%)")
    top.legend(loc="upper left", edgecolor="none", framealpha=0.9)
    return figure


def controls_sheet(name: str, summary: Mapping[str, Any]) -> Sheet:
    """The result above its controls."""
    pooled = summary["pooled"]
    own = {name: pooled[name]["value"] for name in ("uar", "wa", "macro_f1")}
    own["uar_low"], own["uar_high"] = pooled["uar"]["by_actor"]
    rows = [{"name": name, **own}, *summary.get("controls", [])]
    notes = {
        one["name"]: note for one in rows[1:] for key, note in CONTROL_NOTES.items() if one["name"].startswith(key)
    }
    cells = [
        [
            Cell(one["name"], one["name"], note=notes.get(one["name"], "")),
            Cell(percent(one["uar"]), one["uar"], (one["uar"], one["uar_low"], one["uar_high"])),
            Cell(between(one["uar_low"], one["uar_high"]), one["uar_low"]),
            *(Cell(percent(one[name]), one[name]) for name in ("wa", "macro_f1")),
        ]
        for one in rows
    ]
    columns = ["predictor", "UAR", "95 % by actor", "accuracy", "macro-F1"]
    return Sheet("The result and its controls", columns, cells, strong=1)


def group_sheet(table: pd.DataFrame, groups: Sequence[Mapping[str, Any]], column: str) -> Sheet:
    """Scores of the groups of a column."""
    rows = []
    extra = {"actor": ("sex", "sex"), "fold": ("actor", "actors")}.get(column)
    for one in groups:
        note = STATEMENTS.get(one["group"], "") if column == "statement" else ""
        cells = [Cell(str(one["group"]), one["group"], note=note)]
        if extra:
            of_group = ", ".join(str(name) for name in sorted(set(table[table[column] == one["group"]][extra[0]])))
            cells.append(Cell(of_group, of_group))
        cells += [Cell(str(one["n"]), one["n"]), Cell(percent(one["uar"]), one["uar"], (one["uar"], None, None))]
        rows.append([*cells, Cell(percent(one["wa"]), one["wa"])])
    more = [extra[1]] if extra else []
    return Sheet(f"Results by {column}", [column, *more, "clips", "UAR", "accuracy"], rows)


def recall_sheet(pooled: Mapping[str, Any], clips: Mapping[str, int]) -> Sheet:
    """Recall of each class with both intervals."""
    rows = []
    for name, count in clips.items():
        if found := pooled.get(f"recall {name}"):
            low, high = found["by_actor"]
            strip = Cell(percent(found["value"]), found["value"], (found["value"], low, high))
            rows.append([Cell(name, name), Cell(str(count), count), strip, Cell(between(low, high), low)])
    return Sheet("Recall per class", ["emotion", "clips", "recall", "95 % by actor"], rows)


def confusions(table: pd.DataFrame, count: int = 3) -> list[tuple[str, str, float]]:
    """The most frequent confusions: true emotion, predicted one, share of the true one's clips."""
    names, counts = class_names(table), confusion(table)
    found = [
        (true, other, counts[row, column] / counts[row].sum())
        for row, true in enumerate(names)
        for column, other in enumerate(names)
        if row != column and counts[row, column]
    ]
    return sorted(found, key=lambda one: -one[2])[:count]
