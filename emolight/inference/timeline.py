"""The probabilities of a long recording over time, as a picture."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from emolight.evaluation.style import WIDTH, new_figure, save_figure
from emolight.inference.prediction import Prediction

SILENCE = "#bdbdbd"


def draw_timeline(axis: Any, prediction: Prediction, classes: list[str]) -> Any:
    """Draw a row an emotion, a column a window; windows without sound are grey.

    Args:
        axis: of Matplotlib.
        prediction: of a recording, with its windows.
        classes: the emotions, from top to bottom.

    Returns:
        What a colour bar needs.
    """
    centres = np.array([sum(one.times or (0, 0)) / 2 for one in prediction.windows])
    ends = [(prediction.windows[0].times or (0.0, 0.0))[0], (prediction.windows[-1].times or (0.0, 0.0))[1]]
    edges = np.array([ends[0], *(centres[:-1] + centres[1:]) / 2, ends[1]])
    rows = [[100 * one.probabilities.get(name, np.nan) for one in prediction.windows] for name in classes]
    values = np.ma.masked_invalid(np.array(rows))
    drawn = axis.pcolormesh(edges, np.arange(len(classes) + 1), values, cmap="Blues", vmin=0, vmax=100)
    drawn.set_edgecolor("face")
    axis.set_facecolor(SILENCE)
    axis.set_yticks(np.arange(len(classes)) + 0.5, classes)
    axis.set(xlim=(edges[0], edges[-1]), ylim=(len(classes), 0), xlabel="time (s)")
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
    for line in range(1, len(classes)):
        axis.axhline(line, color="white", linewidth=2)
    return drawn


def said(prediction: Prediction) -> str:
    """The verdict and how it was made, in words: "happy 63 %, mean of 23 windows of 2.25 s"."""
    label = prediction.label or "no answer"
    return f"{label} {100 * prediction.confidence:.0f} %" + (f", {prediction.how}" if prediction.how else "")


def write_timeline(prediction: Prediction, classes: list[str], name: str, path: Path) -> None:
    """Write :func:`draw_timeline`'s picture of a recording.

    Args:
        prediction: with windows.
        classes: the emotions.
        name: of the recording, above the picture.
        path: PNG or PDF.
    """
    plain = f"{name}\n{said(prediction)}".encode("utf-8", "replace").decode()
    figure = new_figure(WIDTH, 0.34 * len(classes) + 1.9, plain)
    axis = figure.subplots()
    figure.colorbar(draw_timeline(axis, prediction, classes), ax=axis, label="probability (%)", pad=0.02)
    if any(one.silent for one in prediction.windows):
        axis.set_xlabel("time (s); grey: no sound")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # of a file name
        save_figure(figure, path)
