"""How every figure looks, and how it is saved.

Colours are Okabe and Ito's, which the colour-blind tell apart. Figures are made without pyplot, so that drawing in
training leaves no global state behind. They are at most 6.4 inches wide with texts of 9 points and more: legible at
400 pixels, as on a telephone.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emolight.errors import EmolightError
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
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)  # inches: no label may touch the edge of a page
    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")
    if title:
        lines = [textwrap.fill(line, int(width * 12)) for line in plain(title).splitlines()]
        figure.suptitle("\n".join(lines), fontsize=11, parse_math=False)
    return figure


def plain(text: str) -> str:
    """Text that a font can draw, whatever bytes a file name has."""
    return text.encode("utf-8", "replace").decode()


def clean_axis(axis: Any, grid: str = "y") -> None:
    """Take the frame's upper and right line away and put a light grid behind."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis=grid, color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)


def legend_below(figure: Figure, handles: list[Any], columns: int = 3) -> None:
    """A legend under the whole figure, where it covers no curve."""
    look: dict[str, Any] = {"frameon": False, "fontsize": 10, "handlelength": 1.7, "columnspacing": 1.4}
    figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)), **look)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write the figure atomically, at 130 dpi, in the format of the suffix (``.png``, or ``.pdf`` for a paper)."""
    path = Path(path).expanduser()
    kind = path.suffix.removeprefix(".").lower() or "png"
    if kind not in figure.canvas.get_supported_filetypes():
        raise EmolightError(f"'{path}' cannot be drawn: its suffix names no format.", "Take .png, .svg or .pdf.")
    with atomic_write(path) as part:
        figure.savefig(part, format=kind, dpi=DPI)
