"""The one exception that users see, and the nearest-name help that its texts use."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class EmolightError(Exception):
    """A mistake or a broken input that the user can mend.

    The command line prints the text without a traceback and exits with code 2.

    Args:
        problem: what is wrong, in one line, with the value received.
        fix: what to do about it, in one line.
    """

    def __init__(self, problem: str, fix: str = "") -> None:
        # What a library says in several lines is quoted as one.
        problem, fix = (re.sub(r"\s*[\r\n]\s*", " ", text.strip()) for text in (problem, fix))
        super().__init__(f"{problem}\n{fix}" if fix else problem)


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint such as ``Did you mean 'angry'? `` for a mistyped name, or an empty string."""
    match = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.6)
    return f"Did you mean '{match[0]}'? " if match else ""


def check_choice(what: str, name: str, valid: Iterable[str]) -> None:
    """Raise :class:`EmolightError` unless ``name`` is one of ``valid``."""
    names = list(valid)
    if name not in names:
        raise EmolightError(f"Unknown {what}: '{name}'.", f"{nearest(name, names)}Valid: {', '.join(names)}.")
