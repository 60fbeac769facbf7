"""How every figure looks: colours, sizes, clean axes; and how it is saved.

Colours are Okabe and Ito's, which the colour-blind tell apart. Figures are made without pyplot, so that drawing in
training leaves no global state behind. They are at most 6.4 inches wide with texts of 9 points and more: legible at
400 pixels, as on a telephone.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emolight.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
INK, GREY, GRID = "#222222", "#767676", "#dddddd"
WIDTH = 6.4
DPI = 130


def new_figure(width: float = WIDTH, height: float = 4.2, title: str = "") -> Figure:
    """An empty figure in inches; the title is wrapped to the width, which constrained layout does not do."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    if title:
        lines = [textwrap.fill(line, int(width * 12)) for line in title.splitlines()]
        figure.suptitle("\n".join(lines), fontsize=11, parse_math=False)
    return figure


def clean_axis(axis: Any, grid: str = "y") -> None:
    """Take the frame's upper and right line away and put a light grid behind."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis=grid, color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)


def legend_below(figure: Figure, handles: list[Any], columns: int = 3) -> None:
    """A legend under the whole figure, where it covers no curve."""
    if handles:
        columns = min(columns, len(handles))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=10)


def ink_on(colour: Any) -> str:
    """Black or white, whichever has the higher contrast on an RGB colour of 0 to 1 (WCAG 2.1 luminance)."""
    rgb = np.asarray(colour[:3])
    linear = np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return "black" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "white"


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write the figure atomically, at 130 dpi, in the format of the suffix (``.png``, or ``.pdf`` for a paper)."""
    path = Path(path).expanduser()
    with atomic_write(path) as part:
        figure.savefig(part, format=path.suffix.removeprefix(".") or "png", dpi=DPI)
