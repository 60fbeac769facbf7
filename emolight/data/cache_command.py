"""``python -m emolight cache``: what is kept of recordings between runs, and the removal of what nobody uses."""

import shutil
import time
from pathlib import Path

from emolight.data import embeddings
from emolight.data.cache import VERSION, default_folder, writing
from emolight.data.shards import Shards, Writer, lock
from emolight.errors import CommandParser, EmolightError

OURS = (f"waveforms-v{VERSION}-", embeddings.NAME)


def main(argv: list[str]) -> int:
    """List the folders of decoded waveforms and the files of embeddings, and remove what nobody uses."""
    about = "List the kept waveforms and embeddings of recordings, or remove what was not used for long."
    parser = CommandParser("cache", f"{about} What is removed is computed again when it is needed.")
    parser.add_argument("--cache_dir", type=Path, metavar="DIR", help="default: the user's cache folder")
    how = "remove what was not used for so long; default: 30; 0 removes everything"
    parser.add_argument("--prune", type=float, nargs="?", const=30.0, metavar="DAYS", help=how)
    options = parser.parse_args(argv)
    if options.prune is not None and not options.prune >= 0:
        problem = f"--prune is {options.prune:g}; it must be at least 0."
        raise EmolightError(problem, "It is a number of days, such as 30.")
    cache_dir = (options.cache_dir or default_folder()).expanduser()
    found = sorted(path for path in cache_dir.glob("waveforms-v*") if path.is_dir())
    found += sorted(cache_dir.glob("embeddings-v*.sqlite"))
    if options.prune is not None:
        before = sum(map(_size, found))
        with writing(cache_dir):
            for path in found:
                _prune(path, options.prune)
        found = [path for path in found if path.exists()]
        print(f"{(before - sum(map(_size, found))) / 1e9:.2f} GB freed.")
    print(f"Waveforms and embeddings in '{cache_dir}':" if found else f"There is no cache in '{cache_dir}'.")
    for path in found:
        own = len(set(Shards(path).rows["key"].tolist())) if path.is_dir() else embeddings.count(path)
        clips = f"{own:,} clips" if path.name.startswith(OURS) else "of another version"
        days = min(map(_age, _files(path)), default=0.0)
        used = "today" if days < 1 else f"{days:.0f} days ago"
        print(f"  {path.name:<40}  {clips:>18}  {_size(path) / 1e9:>7.2f} GB  used {used}")
    return 0


def _prune(path: Path, days: float) -> None:
    """Remove what was not used for so long; all of it when another version made it."""
    ours = path.name.startswith(OURS)
    with lock(path):
        for file in path.glob("*.bin") if path.is_dir() else [path]:
            if _age(file) >= days or not ours:
                file.unlink()
        if path.is_dir() and (not list(path.glob("*.bin")) or not ours):
            shutil.rmtree(path)
        elif path.is_dir():
            Writer(Shards(path)).commit()


def _files(path: Path) -> list[Path]:
    return [*path.glob("*")] if path.is_dir() else [path]


def _age(path: Path) -> float:
    """Days since a file was used."""
    return (time.time() - path.stat().st_mtime) / 86_400


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in _files(path))
