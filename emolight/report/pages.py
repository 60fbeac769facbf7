"""What every page shares: pictures, sortable tables, numbers as text, and the template that it extends."""

from __future__ import annotations

import base64
import hashlib
import io
from typing import NamedTuple

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from matplotlib import rc_context
from matplotlib.figure import Figure

from emolight.models.parts import described
from emolight.run.progress import clock

PIXELS_PER_INCH = 96


class Picture(NamedTuple):
    """A figure for the page: data URI, text in its place, and the width in pixels."""

    source: str
    alt: str
    width: int


class Cell(NamedTuple):
    """A field of a table: text, what it is sorted by, value and interval of a strip beside it, a line below."""

    text: str
    key: float | str
    strip: tuple[float, float | None, float | None] | None = None
    note: str = ""


class Sheet(NamedTuple):
    """A table that is sorted by clicks on its headings; ``strong`` counts the first rows that stand out."""

    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    strong: int = 0

    @property
    def figures(self) -> list[bool]:
        """Which columns hold numbers, maybe beside empty cells."""
        return [any(not isinstance(cell.key, str) for cell in column) for column in zip(*self.rows, strict=True)]


def environment(package: str) -> Environment:
    """Jinja of the templates of ``package`` and of this room; what is undefined is an error."""
    loader = ChoiceLoader([PackageLoader(one, "templates") for one in (package, "emolight.report")])
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"percent": percent, "clock": clock, "csp_hash": csp_hash}
    made.globals |= {"between": between, "described": described}
    return made


def data_uri(kind: str, content: bytes) -> str:
    """``data:`` address of a file's bytes; ``kind`` is the media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def picture(figure: Figure, alt: str) -> Picture:
    """The figure as SVG: sharp at every zoom, the same bytes every time."""
    stream = io.BytesIO()
    with rc_context({"svg.hashsalt": "emolight"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return Picture(data_uri("image/svg+xml", stream.getvalue()), alt, round(figure.get_figwidth() * PIXELS_PER_INCH))


def csp_hash(script: str) -> str:
    """The source by which a Content-Security-Policy allows this script and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(str(script).encode()).digest()).decode()}'"


def percent(value: float) -> str:
    """``61.2 %``; the space does not break."""
    return f"{100 * value:.1f}\u00a0%"


def between(low: float, high: float) -> str:
    """``58.0 – 64.1 %``."""
    return f"{100 * low:.1f}\u00a0–\u00a0{percent(high)}"
