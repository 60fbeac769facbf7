"""``python -m emolight cache``: the folders of decoded waveforms, and removing what nobody uses."""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import numpy as np

from emolight.data.cache import VERSION, default_folder, refusals
from emolight.data.shards import Shards, lock
from emolight.errors import EmolightError

DAY = 86_400


def prune(folder: Path, days: float) -> None:
    """Remove the files of a folder that were not used for ``days``; all of it when another version made it."""
    with lock(folder):
        for path in folder.glob("*.bin"):
            if time.time() - path.stat().st_mtime >= days * DAY:
                path.with_suffix(".idx").unlink(missing_ok=True)
                path.unlink()
        if not list(folder.glob("*.bin")) or not folder.name.startswith(f"waveforms-v{VERSION}-"):
            shutil.rmtree(folder)


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m emolight cache",
        description="List the folders of decoded waveforms, or remove what was not used for long. "
        "What is removed is decoded again when it is needed.",
        allow_abbrev=False,
    )
    parser.add_argument("--cache_dir", type=Path, metavar="DIR", help="default: the user's cache folder")
    parser.add_argument("--prune", action="store_true", help="remove what was not used for long")
    parser.add_argument("--older-than", type=float, metavar="DAYS", help="with --prune: for so long; default: 30")
    parser.add_argument("--all", action="store_true", help="with --prune: remove everything")
    options = parser.parse_args(argv)
    days = 0.0 if options.all else 30.0 if options.older_than is None else options.older_than
    if not options.prune and (options.all or options.older_than is not None):
        raise EmolightError("--all and --older-than say what to prune.", "Add --prune.")
    if not days >= 0:
        raise EmolightError(f"--older-than is {days:g}; it must be at least 0.", "It is a number of days, such as 30.")
    cache_dir = (options.cache_dir or default_folder()).expanduser()
    found = sorted(path for path in cache_dir.glob("waveforms-v*") if path.is_dir())
    before = sum(map(_size, found))
    if options.prune:
        with refusals(cache_dir):
            for folder in found:
                prune(folder, days)
        found = [folder for folder in found if folder.exists()]
        print(f"{(before - sum(map(_size, found))) / 1e9:.2f} GB freed.")
    if not found:
        print(f"There is no cache in '{cache_dir}'.")
        return 0
    print(f"Decoded waveforms in '{cache_dir}':")
    width = max(len(folder.name) for folder in found)
    for folder in found:
        ours = folder.name.startswith(f"waveforms-v{VERSION}-")
        clips = f"{len(np.unique(Shards(folder).rows['key'], axis=0)):,} clips" if ours else "of another version"
        days = (time.time() - max((path.stat().st_mtime for path in folder.glob("*")), default=0.0)) / DAY
        used = "today" if days < 1 else f"{days:.0f} days ago"
        print(f"  {folder.name:<{width}}  {clips:>18}  {_size(folder) / 1e9:>7.2f} GB  used {used}")
    return 0


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*"))
