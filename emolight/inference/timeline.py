"""The probabilities of a long recording over time, as a picture."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from emolight.evaluation.style import WIDTH, new_figure, save_figure
from emolight.inference.prediction import Prediction

SILENCE = "#bdbdbd"


def timeline(prediction: Prediction, name: str) -> Any:
    """A figure with a row an emotion and a column a window, grey without sound, of the recording ``name``."""
    classes, times = list(prediction.probabilities), np.array([one.times for one in prediction.windows])
    centres, rows = times.mean(axis=1), np.arange(len(classes) + 1)
    edges = [times[0, 0], *(centres[:-1] + centres[1:]) / 2, times[-1, 1]]
    values = [[100 * one.probabilities.get(name, np.nan) for one in prediction.windows] for name in classes]
    figure = new_figure(WIDTH, 0.34 * len(classes) + 1.9, f"{name}\n{prediction}")
    axis = figure.subplots()
    drawn = axis.pcolormesh(edges, rows, np.ma.masked_invalid(values), cmap="Blues", vmin=0, vmax=100)
    drawn.set_edgecolor("face")
    axis.hlines(rows[1:-1], edges[0], edges[-1], color="white", linewidth=2)
    axis.set_facecolor(SILENCE)
    axis.set_yticks(rows[:-1] + 0.5, classes, parse_math=False)
    silent = "; grey: no sound" if any(one.silent for one in prediction.windows) else ""
    axis.set(xlim=(edges[0], edges[-1]), ylim=(len(classes), 0), xlabel=f"time (s){silent}")
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
    figure.colorbar(drawn, ax=axis, label="probability (%)", pad=0.02)
    return figure


def write_picture(figure: Any, path: Path) -> None:
    """Save a figure in whose title a file name stands: fonts lack characters of some."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        save_figure(figure, path)
