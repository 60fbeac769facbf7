"""For mkdocs: tables of recipes and options from the files that the command line itself reads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).resolve().parents[1]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in ``{{ recipes }}`` and ``{{ options }}``."""
    return markdown.replace("{{ recipes }}", _recipes()).replace("{{ options }}", _options())


class Docstrings(griffe.Extension):
    """Reads this project's docstrings: roles such as ``:class:`~a.b.Name```, and ``Example:``."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Write both as the parser knows them."""
        if obj.docstring:
            text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", obj.docstring.value)
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)


def _recipes() -> str:
    lines = ["| name | what it is |", "|---|---|"]
    for kind in ("configs", "configs/overlays", "sweeps"):
        for path in sorted((ROOT / kind).glob("*.yaml")):
            lines.append(f"| `{kind}/{path.stem}` | {path.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')} |")
    return "\n".join(lines)


def _options() -> str:
    known = json.loads((ROOT / "emolight" / "help.json").read_text(encoding="utf-8"))
    return "\n\n".join(f"### {name}\n\n```text\n{about['help'].rstrip()}\n```" for name, about in known.items())
