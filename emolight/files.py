"""Writing files so that a reader sees the old content or the new, never a part."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def expand(path: str | Path) -> Path:
    """A path of a configuration, with ``~`` and ``$VARIABLES``; one that is not set stays as it is."""
    return Path(os.path.expandvars(path)).expanduser()


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success flush it to disk and rename it over ``path``.

    The folder is made when it is missing. When the block raises, the temporary file is removed and ``path``
    keeps its old content. A device or a pipe, such as ``/dev/null``, is written to and never replaced.
    """
    path = Path(path)
    apart = path.exists() and not (path.is_file() or path.is_dir() or path.is_symlink())
    if apart or path.parent == Path("/dev"):
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8 with ``\\n`` line ends, atomically."""
    with atomic_write(path) as part:
        part.write_bytes(text.encode("utf-8"))


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write plain values as JSON, indented, atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_table(path: str | Path, table: "pd.DataFrame") -> None:
    """Write a table as CSV with six decimals, atomically."""
    write_text(path, table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))


def remove_left_overs(folder: Path, pattern: str = "**/.*.part") -> None:
    """Remove what :func:`atomic_write` left of processes that are gone, as far as ``/proc`` tells."""
    for path in folder.glob(pattern):
        named = re.fullmatch(r"\..+\.(\d+)\.part", path.name)
        if named and Path("/proc/self").exists() and not Path("/proc", named[1]).exists():
            path.unlink(missing_ok=True)
