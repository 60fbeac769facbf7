"""The pictures of a run, drawn for a page: predictions, learning curves, example features.

Colours are Okabe and Ito's, which the colour-blind tell apart. Every function returns a Figure without pyplot, so
that drawing in training leaves no global state behind.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from emolight.evaluation.predictions import class_names, confusion, scores, scores_by, wilson_interval
from emolight.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SEX_COLOURS = {"female": ORANGE, "male": BLUE}
INK, GREY, GRID = "#222222", "#767676", "#dddddd"
DPI = 130


def _figure(width: float, height: float, title: str) -> Figure:
    """An empty figure in inches; the title is wrapped to the width, which constrained layout does not do."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    lines = [textwrap.fill(line, int(width * 11)) for line in title.splitlines()]
    figure.suptitle("\n".join(lines), fontsize=12)
    return figure


def _clean(axis: Any, grid: str = "y") -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis=grid, color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)


def _percent_axis(axis: Any) -> None:
    axis.set_ylim(0, 112)
    axis.set_yticks(range(0, 101, 20))


def ink_on(colour: tuple[float, ...]) -> str:
    """Black or white, whichever has the higher contrast on an RGB colour of 0 to 1 (WCAG 2.1 luminance)."""
    rgb = np.asarray(colour[:3])
    linear = np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return "black" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "white"


def confusion_figure(table: pd.DataFrame, title: str) -> Figure:
    """The confusion matrix of a predictions table: counts, and percentages of each true class."""
    names, counts = class_names(table), confusion(table)
    totals = counts.sum(axis=1, keepdims=True)
    percent = np.divide(100 * counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    figure = _figure(9.6, 3.0 + 0.3 * len(names), title)
    axes = figure.subplots(1, 2, sharey=True)
    panels = ((counts.astype(float), "clips"), (percent, "% of the clips of each true emotion"))
    for axis, (values, what) in zip(axes, panels, strict=True):
        top = max(1.0, float(values.max())) if what == "clips" else 100.0
        image = axis.imshow(values, cmap="Blues", vmin=0, vmax=top, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            text = "–" if np.isnan(value) else f"{value:.0f}"
            colour = ink_on((1.0, 1.0, 1.0)) if np.isnan(value) else ink_on(image.cmap(image.norm(value)))
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=10)
        axis.set_title(what, fontsize=11)
        axis.set_xticks(range(len(names)), names, rotation=0 if len(names) < 6 else 35, rotation_mode="anchor")
        axis.set_xlabel("predicted")
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        if len(names) >= 6:
            for text in axis.get_xticklabels():
                text.set_horizontalalignment("right")
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylabel("true")
    return figure


def recall_figure(table: pd.DataFrame, title: str) -> Figure:
    """Recall of each class that occurs, with Wilson's 95 % interval by clips, the UAR and chance."""
    found, counts, names = scores(table), confusion(table), class_names(table)
    shown = list(found["recall"])
    totals = {name: int(counts[names.index(name)].sum()) for name in shown}
    figure = _figure(8, 4.2, title)
    axis = figure.subplots()
    for place, name in enumerate(shown):
        recall = 100 * found["recall"][name]
        low, high = (100 * end for end in wilson_interval(counts.diagonal()[names.index(name)], totals[name]))
        axis.bar(place, recall, width=0.66, color=BLUE)
        # By rounding, the ends of the interval may lie inside a recall of 0 or 1.
        reach = [[max(0.0, recall - low)], [max(0.0, high - recall)]]
        # A dark core in a white edge shows on the bar and above it.
        axis.errorbar(place, recall, reach, fmt="none", ecolor="white", elinewidth=4)
        axis.errorbar(place, recall, reach, fmt="none", ecolor=INK, elinewidth=1.5, capsize=4)
        plate = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}  # the UAR line may pass behind
        axis.text(place, max(high, recall) + 2, f"{recall:.1f}", ha="center", color=INK, bbox=plate, zorder=3)
    uar, chance = 100 * found["uar"], 100 / len(names)
    lines = [
        axis.axhline(uar, color=VERMILLION, linewidth=1.8, linestyle="--", label=f"UAR {uar:.1f} %"),
        axis.axhline(chance, color=GREY, linewidth=1.8, linestyle=":", label=f"chance {chance:.1f} %"),
    ]
    _clean(axis)
    _percent_axis(axis)
    axis.set_xticks(range(len(shown)), [f"{name}\nn = {totals[name]}" for name in shown])
    axis.tick_params(axis="x", length=0)
    axis.set_ylabel("recall (%), 95 % interval")
    figure.legend(handles=lines, loc="outside lower center", ncols=2, frameon=False)
    return figure


def actor_figure(table: pd.DataFrame, title: str, metric: str = "uar") -> Figure:
    """One score for each actor, coloured by sex.

    Args:
        table: predictions table.
        title: above the figure.
        metric: ``uar`` or ``wa``.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    by_actor = scores_by(table, "actor")
    sexes = table.groupby("actor")["sex"].first()
    values = 100 * by_actor[metric].to_numpy(dtype=float)
    figure = _figure(max(7.6, 0.36 * len(values) + 1.2), 4.0, title)
    axis = figure.subplots()
    places = np.arange(len(values))
    colours = [SEX_COLOURS.get(sex, GREY) for sex in sexes]
    axis.bar(places, values, width=0.72, color=colours)
    for place, (value, colour) in enumerate(zip(values, colours, strict=True)):
        # At the foot of the bar, where the mean line does not strike them out; a very low bar has no room.
        high, ink = (2.0, ink_on(to_rgb(colour))) if value >= 10 else (value + 2, INK)
        axis.text(place, high, f"{value:.0f}", ha="center", fontsize=9, color=ink)
    mean = float(values.mean())
    handles: list[Any] = [
        axis.axhline(mean, color=INK, linewidth=1.5, linestyle="--", label=f"mean of actors {mean:.1f} %")
    ]
    for sex in sorted(set(sexes)):
        label = f"{sex}, mean {values[(sexes == sex).to_numpy()].mean():.1f} %"
        handles.append(Patch(color=SEX_COLOURS.get(sex, GREY), label=label))
    _clean(axis)
    _percent_axis(axis)
    axis.set_xlim(-0.8, len(values) - 0.2)
    same = by_actor["n"].nunique() == 1
    axis.set_xticks(places, [str(who) if same else f"{who}\n{n}" for who, n in by_actor["n"].items()])
    axis.set_xlabel(f"actor ({by_actor['n'].iloc[0]} clips each)" if same else "actor, and clips")
    axis.tick_params(axis="x", length=0)
    axis.set_ylabel("UAR (%)" if metric == "uar" else "accuracy (%)")
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def curves_figure(metrics: pd.DataFrame) -> Figure:
    """Learning curves from Lightning's ``metrics.csv``: loss, and validation UAR and accuracy.

    Args:
        metrics: a row a logging event, with gaps; ``epoch`` counts from 0 and is shown from 1. Columns that are
            missing are left out. Of an epoch that was logged twice, as after a resume, the last counts.
    """
    from matplotlib.ticker import MaxNLocator

    events = metrics.dropna(subset=["epoch"]) if "epoch" in metrics else pd.DataFrame({"epoch": []})
    by_epoch = events.replace([np.inf, -np.inf], np.nan).groupby("epoch").last()  # last() skips the gaps
    by_epoch.index = by_epoch.index.astype(int) + 1
    figure = _figure(9.6, 4.0, "learning curves")
    axes = figure.subplots(1, 2)
    uar = by_epoch["val/uar"].dropna() if "val/uar" in by_epoch else pd.Series(dtype=float)
    losses = {"train/loss": ("training", BLUE, "o-"), "val/loss": ("validation", VERMILLION, "s--")}
    shares = {"val/uar": ("UAR", GREEN, "o-"), "val/accuracy": ("accuracy", INK, "s--")}
    panels = (("loss", 1, losses), ("validation (%)", 100, shares))
    for axis, (what, scale, curves) in zip(axes, panels, strict=True):
        _clean(axis)
        size = 4 if len(by_epoch) <= 40 else 0
        for column, (label, colour, style) in curves.items():
            if column in by_epoch and by_epoch[column].notna().any():
                curve = scale * by_epoch[column].dropna()
                # A curve of a single point needs its marker whatever the number of epochs.
                marker = size if len(curve) > 1 else 6
                axis.plot(curve.index, curve, style, color=colour, label=label, markersize=marker, linewidth=1.8)
        axis.set_xlabel("epoch")
        axis.set_ylabel(what)
        if not axis.lines:
            axis.text(0.5, 0.5, "nothing logged", ha="center", color=GREY, transform=axis.transAxes)
            axis.set(xticks=[], yticks=[])
            continue
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.set_xlim(by_epoch.index.min() - 0.5, by_epoch.index.max() + 0.5)
        if len(uar):
            best = f"highest UAR {100 * uar.max():.1f} %, epoch {uar.idxmax()}"
            axis.axvline(uar.idxmax(), color=GREY, linestyle=":", label=best if scale == 100 else None)
        axis.legend(edgecolor="none", framealpha=0.9)
    return figure


def features_figure(
    images: Mapping[str, np.ndarray], hop_seconds: float, y_label: str, title: str, value_label: str = ""
) -> Figure:
    """Feature images in a grid with one colour bar.

    Args:
        images: heading, such as the emotion, to features ``[F, N]``; at least one.
        hop_seconds: time from one frame to the next.
        y_label: what the F rows are.
        title: above the figure.
        value_label: what the colours are, such as ``dB``.
    """
    rows = 1 if len(images) <= 3 else 2
    columns = -(-len(images) // rows)
    finite = np.concatenate([image[np.isfinite(image)].ravel() for image in images.values()])
    # One loud coefficient, as the first of an MFCC, must not take the whole range of colours.
    low, high = (float(end) for end in np.percentile(finite, (1, 99))) if finite.size else (0.0, 0.0)
    high = high if high > low else low + 1
    figure = _figure(max(5.4, 2.4 * columns + 1.2), 2.2 * rows + 0.9, title)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axis, (name, image) in zip(axes.flat, images.items(), strict=False):
        height, frames = image.shape
        # Frame k is centred on k hops.
        extent = (-0.5 * hop_seconds, (frames - 0.5) * hop_seconds, -0.5, height - 0.5)
        drawn = axis.imshow(image, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=low, vmax=high)
        axis.set_title(name, fontsize=11)
    for axis in axes.flat[len(images) :]:
        axis.set_visible(False)
    for axis in axes.flat[: len(images)][-columns:]:  # the lowest of each column, also above an empty place
        axis.tick_params(labelbottom=True)
    for axis in axes[-1]:
        axis.set_xlabel("time (s)")
    for axis in axes[:, 0]:
        axis.set_ylabel(y_label)
    figure.colorbar(drawn, ax=axes, label=value_label, extend="both", fraction=0.04, pad=0.02)
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write the figure atomically, at 130 dpi, in the format of the suffix (``.png``, or ``.pdf`` for a paper)."""
    path = Path(path)
    with atomic_write(path) as part:
        figure.savefig(part, format=path.suffix.removeprefix(".") or "png", dpi=DPI)
