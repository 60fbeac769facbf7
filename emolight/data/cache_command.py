"""``python -m emolight cache``: the folders of decoded waveforms, and removing what nobody uses."""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import numpy as np

from emolight.data.cache import VERSION, default_folder, refusals
from emolight.data.shards import Shards, Writer, lock
from emolight.errors import EmolightError


def _prune(folder: Path, days: float) -> None:
    """Remove the files of a folder that were not used for so long; all of it when another version made it."""
    with lock(folder):
        for path in folder.glob("*.bin"):
            if time.time() - path.stat().st_mtime >= days * 86_400:
                path.unlink()
        if not list(folder.glob("*.bin")) or not folder.name.startswith(f"waveforms-v{VERSION}-"):
            shutil.rmtree(folder)
        else:
            Writer(Shards(folder)).commit()


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*"))


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m emolight cache",
        description="List the folders of decoded waveforms, or remove what was not used for long. "
        "What is removed is decoded again when it is needed.",
        allow_abbrev=False,
    )
    parser.add_argument("--cache_dir", type=Path, metavar="DIR", help="default: the user's cache folder")
    how = "remove what was not used for so long; default: 30; 0 removes everything"
    parser.add_argument("--prune", type=float, nargs="?", const=30.0, metavar="DAYS", help=how)
    options = parser.parse_args(argv)
    if options.prune is not None and not options.prune >= 0:
        raise EmolightError(
            f"--prune is {options.prune:g}; it must be at least 0.", "It is a number of days, such as 30."
        )
    cache_dir = (options.cache_dir or default_folder()).expanduser()
    found = sorted(path for path in cache_dir.glob("waveforms-v*") if path.is_dir())
    if options.prune is not None:
        before = sum(map(_size, found))
        with refusals(cache_dir):
            for folder in found:
                _prune(folder, options.prune)
        found = [folder for folder in found if folder.exists()]
        print(f"{(before - sum(map(_size, found))) / 1e9:.2f} GB freed.")
    print(f"Decoded waveforms in '{cache_dir}':" if found else f"There is no cache in '{cache_dir}'.")
    for folder in found:
        ours = folder.name.startswith(f"waveforms-v{VERSION}-")
        clips = f"{len(np.unique(Shards(folder).rows['key'], axis=0)):,} clips" if ours else "of another version"
        days = (time.time() - max((path.stat().st_mtime for path in folder.glob("*")), default=0.0)) / 86_400
        used = "today" if days < 1 else f"{days:.0f} days ago"
        print(f"  {folder.name}  {clips:>18}  {_size(folder) / 1e9:>7.2f} GB  used {used}")
    return 0
