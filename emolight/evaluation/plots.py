"""The figures of a predictions table and of training; of several seeds every one shows the mean, as the tables do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from emolight.evaluation import style
from emolight.evaluation.predictions import class_names, confusion, scores, scores_by, wilson_interval
from emolight.evaluation.statistics import FEW_SPEAKERS, bootstrap, calibration_error
from emolight.evaluation.style import BLUE, GREY, INK, VERMILLION, clean_axis, legend_below, new_figure
from emolight.evaluation.style import save_figure as save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEX_COLOURS = {"female": style.ORANGE, "male": BLUE}
MOST_SPEAKERS = 48
"""Bars of a figure; of more speakers it shows the lowest and the highest."""
PLATE = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
"""Behind a text, so that a line may pass behind it."""
LOSSES = {"train/loss": ("training", BLUE, "o-"), "val/loss": ("validation", VERMILLION, "s--")}
SHARES = {"val/uar": ("UAR", style.GREEN, "o-"), "val/accuracy": ("accuracy", INK, "s--")}


def matrix_figure(
    percent: np.ndarray, texts: Sequence[Sequence[str]], rows: Sequence[str], columns: Sequence[str], title: str
) -> Figure:
    """A matrix of percentages ``[R, C]`` as colours with a text in every cell; a cell that is NaN stays white.

    The caller names the axes: ``figure.axes[0].set(xlabel=..., ylabel=...)``.
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, PowerNorm

    figure = new_figure(style.WIDTH, 1.7 + 0.62 * len(rows), title)
    axis = figure.subplots()
    # Light colours, on which black is legible; the root lifts a confusion of a few per cent off the white of none.
    light = ListedColormap(colormaps["Blues"](np.linspace(0, 0.55, 256)))
    axis.imshow(percent, cmap=light, norm=PowerNorm(0.6, 0, 100), aspect="auto")
    for row, column in np.ndindex(percent.shape):
        weight = "bold" if row == column and list(rows) == list(columns) else "normal"
        axis.text(column, row, texts[row][column], ha="center", va="center", fontsize=10, fontweight=weight)
    slanted: dict[str, Any] = (
        {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if sum(map(len, columns)) > 40 else {}
    )
    axis.set_xticks(range(len(columns)), columns, fontsize=10, parse_math=False, **slanted)
    axis.set_yticks(range(len(rows)), rows, fontsize=10, parse_math=False)
    axis.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axis.grid(which="minor", color=style.GRID, linewidth=1)
    axis.tick_params(which="both", length=0)
    axis.spines[:].set_visible(False)
    return figure


def confusion_figure(table: pd.DataFrame, title: str) -> Figure:
    """The confusion matrix of a predictions table: percentages of each true class above the clips."""
    names, counts = class_names(table), confusion(table)
    totals = counts.sum(axis=1, keepdims=True)
    percent = np.divide(100 * counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    digits, mean = (0, "") if np.array_equal(counts, counts.round()) else (1, ", mean")
    texts = [
        ["–" if np.isnan(share) else f"{share:.1f}\n({clips:.{digits}f})" for share, clips in zip(*line, strict=True)]
        for line in zip(percent, counts, strict=True)
    ]
    figure = matrix_figure(percent, texts, names, names, title)
    figure.axes[0].set_xlabel(f"predicted: % of each true label (clips{mean})", fontsize=10)
    figure.axes[0].set_ylabel("true", fontsize=10)
    return figure


def recall_figure(table: pd.DataFrame, title: str) -> Figure:
    """Recall of each class that occurs with a 95 % interval, the UAR and chance.

    The interval is by speaker from 6 speakers on; of fewer it is Wilson's by clip. The axis says which.
    """
    found, names = scores(table), class_names(table)
    shown, totals = found["recall"], dict(zip(names, confusion(table).sum(axis=1).round().astype(int), strict=True))
    by_speaker = table["speaker"].nunique() >= FEW_SPEAKERS
    intervals = bootstrap(table) if by_speaker else {}
    figure = new_figure(style.WIDTH, 4.2, title)
    axis = figure.subplots()
    for place, (name, share) in enumerate(shown.items()):
        low, high = intervals.get(f"recall {name}") or wilson_interval(share * totals[name], totals[name])
        recall, low, high = 100 * share, 100 * low, 100 * high
        axis.bar(place, recall, width=0.66, color=BLUE)
        # By rounding, the ends of the interval may lie inside a recall of 0 or 1.
        reach = [[max(0.0, recall - low)], [max(0.0, high - recall)]]
        # A dark core in a white edge shows on the bar and above it.
        axis.errorbar(place, recall, reach, fmt="none", ecolor="white", elinewidth=4)
        axis.errorbar(place, recall, reach, fmt="none", ecolor=INK, elinewidth=1.5, capsize=4)
        axis.text(place, max(high, recall) + 2, f"{recall:.1f}", ha="center", color=INK, bbox=PLATE, zorder=3)
    uar, chance = 100 * found["uar"], 100 / len(names)
    lines = [
        axis.axhline(uar, color=VERMILLION, linewidth=1.8, linestyle="--", label=f"UAR {uar:.1f} %"),
        axis.axhline(chance, color=GREY, linewidth=1.8, linestyle=":", label=f"chance {chance:.1f} %"),
    ]
    clean_axis(axis)
    axis.set(ylim=(0, 112), yticks=range(0, 101, 20))
    axis.set_xticks(range(len(shown)), [f"{name}\nn = {totals[name]}" for name in shown], parse_math=False)
    axis.tick_params(axis="x", length=0, labelsize=10 if len(shown) <= 6 else 9)
    axis.set_ylabel(f"recall (%), 95 % interval by {'speaker' if by_speaker else 'clip'}")
    legend_below(figure, lines)
    return figure


def speaker_figure(table: pd.DataFrame, title: str) -> Figure:
    """The UAR of each speaker, coloured by ``sex`` where the table has it."""
    from matplotlib.patches import Patch

    rows = scores_by(table, "speaker")
    rows["sex"] = table.groupby("speaker")["sex"].first() if "sex" in table else ""
    means = 100 * rows.groupby("sex")["uar"].mean()
    handles: list[Any] = [
        Patch(color=colour, label=f"{sex}, mean {means[sex]:.1f} %")
        for sex, colour in SEX_COLOURS.items()
        if sex in means
    ]
    mean, same = 100 * rows["uar"].mean(), rows["n"].nunique() == 1
    label = f"speaker ({rows['n'].iloc[0]} clips each)" if same else "speaker (clips)"
    if len(rows) > MOST_SPEAKERS:
        half, ordered = MOST_SPEAKERS // 2, rows.sort_values("uar")
        label += f": the {half} lowest and the {half} highest of {len(rows)}"
        rows = pd.concat([ordered[:half], ordered[-half:]])
    values, places = 100 * rows["uar"], range(len(rows))
    figure = new_figure(style.WIDTH, 1.7 + 0.235 * len(values), title)
    axis = figure.subplots()
    colours = rows["sex"].map(SEX_COLOURS).fillna(GREY if handles else BLUE)
    axis.barh(places, values, height=0.72, color=list(colours))
    for place, value in enumerate(values):
        axis.text(value + 1, place, f"{value:.1f}", va="center", fontsize=9, color=INK, bbox=PLATE, zorder=3)
    line = axis.axvline(mean, color=INK, linewidth=1.5, linestyle="--", label=f"mean of speakers {mean:.1f} %")
    clean_axis(axis, "x")
    axis.set(xlim=(0, 110), xticks=range(0, 101, 20), ylim=(len(values) - 0.4, -0.6))
    axis.set_yticks(places, [str(who) if same else f"{who} ({n})" for who, n in rows["n"].items()], parse_math=False)
    axis.tick_params(axis="y", length=0, labelsize=9)
    axis.set_title(label, loc="left", fontsize=10)
    axis.set_xlabel("UAR (%)")
    legend_below(figure, [line, *handles])
    return figure


def curves_figure(metrics: pd.DataFrame | Sequence[pd.DataFrame], title: str = "learning curves") -> Figure:
    """Learning curves: losses above, validation UAR and accuracy below; epochs count from 1.

    ``metrics`` is Lightning's ``metrics.csv`` of a run: a row a logging event, with gaps. Of an epoch that was logged
    twice, as after a resume, the last counts. Of several runs each is a thin line, and their mean a thick one as far as
    all of them go.
    """
    from matplotlib.ticker import MaxNLocator

    runs = []
    for table in [metrics] if isinstance(metrics, pd.DataFrame) else metrics:
        events = table.dropna(subset=["epoch"]) if "epoch" in table else pd.DataFrame({"epoch": []})
        by_epoch = events.replace([np.inf, -np.inf], np.nan).groupby("epoch").last()  # last() skips the gaps
        runs.append(by_epoch.set_axis(by_epoch.index.astype(int) + 1))
    many = len(runs) > 1
    figure = new_figure(style.WIDTH, 5.6, title)
    axes = figure.subplots(2, 1, sharex=True)
    for axis, what, scale, kinds in ((axes[0], "loss", 1, LOSSES), (axes[1], "validation (%)", 100, SHARES)):
        clean_axis(axis)
        for column, (label, colour, dots) in kinds.items():
            curves = [scale * run[column].dropna() for run in runs if column in run and run[column].notna().any()]
            for curve in curves:
                # A curve of a single point needs its marker whatever the number of epochs.
                size = 6 if len(curve) == 1 else 4 if len(curve) <= 40 and not many else 0
                thin = {"linewidth": 0.8, "alpha": 0.45} if many else {"linewidth": 1.8, "label": label}
                axis.plot(curve.index, curve, dots, color=colour, markersize=size, **thin)
            if curves and many:
                mean = pd.concat(curves, axis=1).dropna().mean(axis=1)
                axis.plot(mean.index, mean, dots[1:], color=colour, linewidth=2.6, label=f"{label}, mean")
        axis.set_ylabel(what)
        if not axis.lines:
            axis.text(0.5, 0.5, "nothing logged", ha="center", color=GREY, transform=axis.transAxes)
            axis.set_yticks([])
            continue
        if not many and scale == 100 and "val/uar" in runs[0] and len(uar := runs[0]["val/uar"].dropna()):
            highest = f"highest UAR {100 * uar.max():.1f} %, epoch {uar.idxmax()}"
            axis.axvline(uar.idxmax(), color=GREY, linestyle=":", label=highest)
        # Above the axes, where it covers no curve.
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=10, borderaxespad=0)
    figure.align_ylabels()
    axes[1].set_xlabel("epoch")
    axes[1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def reliability_figure(table: pd.DataFrame, title: str = "") -> Figure:
    """Accuracy against confidence, and how many predictions each bin has (Guo et al. 2017, figure 1)."""
    found = calibration_error(table)
    bins = 100 * pd.DataFrame(found["bins"])
    figure = new_figure(4.8, 5.2, title)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    gap = f"gap, {100 * found['ece']:.1f} points in the mean (ECE)"
    between = (bins["confidence"], bins["confidence"], bins["accuracy"])
    handles = [
        *top.plot([0, 100], [0, 100], color=GREY, linestyle=":", linewidth=1.8, label="perfect"),
        *top.plot(*between[1:], "o-", color=BLUE, linewidth=1.6, markersize=6, label="measured"),
        top.vlines(*between, color=VERMILLION, linewidth=2.4, alpha=0.75, label=gap),
    ]
    width = bins["high"] - bins["low"]
    bottom.bar(bins["low"], bins["n"] / 100, width=width, align="edge", color=BLUE, edgecolor="white")
    for axis in (top, bottom):
        clean_axis(axis)
    top.set(ylabel="right (%)", xlim=(0, 100), ylim=(-3, 103))
    bottom.set(ylabel="predictions", xlabel="confidence: probability of the prediction (%)")
    legend_below(figure, handles, 2)
    return figure
