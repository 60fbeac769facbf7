"""Recordings that the words of a command line mean."""

import glob
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

from emolight.data.corpus import OTHER_MEDIA, READ, walk
from emolight.errors import EmolightError

STDIN = "-"
CONVERT = "Convert them first: ffmpeg -i FILE FILE.wav"


def find_recordings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Files that the words of a command line mean: files, folders (searched for sound files), globs, ``-``.

    Returns paths to read; and the sound and video files in folders that are of formats which cannot be read.
    """
    found: list[str] = []
    unreadable: list[str] = []
    for word in words:
        place, problem, fix = Path(word).expanduser(), f"There is no file '{word}'", "Give files, folders, globs, or -."
        if place.is_dir():
            files = sorted(place / path for path in walk(place, Counter()) if not path.name.startswith("._"))
            inside = [str(path) for path in files if path.suffix.lower() in READ and _listed(path)]
            others = [str(path) for path in files if path.suffix.lower() in OTHER_MEDIA]
            problem = f"No sound file that can be read is in the folder '{word}'"
            problem, fix = (f"{problem}: it has {count_suffixes(others)}", CONVERT) if others else (problem, fix)
            unreadable += others
        elif word == STDIN or place.is_file():
            inside = [str(place)]
        else:
            inside = sorted(path for path in glob.glob(str(place), recursive=True) if _listed(Path(path)))
        if not inside:
            raise EmolightError(f"{problem}.", fix)
        found += inside
    return list(dict.fromkeys(found)), unreadable


def _listed(path: Path) -> bool:
    """Whether it is a file, or a link to one that is gone, which reading tells."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def count_suffixes(paths: Iterable[str]) -> str:
    """``3 × .m4a, 1 × .mp4``."""
    suffixes = Counter(PurePath(path).suffix.lower() for path in paths)
    return ", ".join(f"{number} × {suffix}" for suffix, number in sorted(suffixes.items()))
