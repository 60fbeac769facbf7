"""A loader for the fuzz to find out: it dies or hangs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def die_or_hang(path: str | Path, content: bytes) -> Any:
    """Abort at an input of even length, never come back from one of odd length."""
    if len(content) % 2 == 0:
        os.abort()
    while True:
        pass
