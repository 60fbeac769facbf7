"""For mkdocs: tables of recipes and options from the files that the command line itself reads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in ``{{ recipes }}`` and ``{{ options }}``."""
    return markdown.replace("{{ recipes }}", _recipes()).replace("{{ options }}", _options())


def on_page_content(html: str, **_: Any) -> str:
    """Roles of docstrings, such as ``:class:`~a.b.Name```, as the name alone."""
    return re.sub(r":\w+:<code>~?(?:[\w.]+\.)?(\w+)</code>", r"<code>\1</code>", html)


def _recipes() -> str:
    lines = ["| name | what it is |", "|---|---|"]
    for kind in ("configs", "configs/overlays", "sweeps"):
        for path in sorted((ROOT / kind).glob("*.yaml")):
            lines.append(f"| `{kind}/{path.stem}` | {path.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')} |")
    return "\n".join(lines)


def _options() -> str:
    known = json.loads((ROOT / "emolight" / "help.json").read_text(encoding="utf-8"))
    return "\n\n".join(f"### {name}\n\n```text\n{about['help'].rstrip()}\n```" for name, about in known.items())
