"""Decoded waveforms of a corpus in one memory-mapped array, keyed by content and parameters."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import track

from emolight.data.audio import AudioError, Waveform, load_waveform, read_bytes
from emolight.errors import EmolightError
from emolight.files import remove_left_overs, write_text

if TYPE_CHECKING:
    import pandas as pd

VERSION = 2
"""Version of layout and decoding: a change of either must change it, so that old caches are not taken."""
ITEM = 4
SETTLED_NS = 2_000_000_000
THREADS = min(8, os.cpu_count() or 1)

Hashes = dict[str, str]
Spans = dict[str, tuple[int, int, int]]
"""Clip id → first sample, number of samples, CRC-32 of their bytes."""


class _DamagedError(Exception):
    pass


class _ChangedError(Exception):
    pass


class WaveformCache:
    """Waveforms by clip id; only the place of the file travels to another process, never the samples.

    Attributes:
        folder: where the cache lies.
        sample_rate: Hz.
        hashes: clip id → content hash of its recording (an empty string where it could not be read).
        problems: clip id → path and reason, for recordings that could not be used.
        durations: clip id → seconds, for those that could.
    """

    def __init__(self, folder: Path, sample_rate: int, spans: Spans, hashes: Hashes, problems: Hashes) -> None:
        self.folder, self.sample_rate, self.hashes, self.problems = folder, sample_rate, hashes, problems
        self.durations = {clip_id: length / sample_rate for clip_id, (_, length, _) in spans.items()}
        self._spans = spans
        self._samples: Waveform | None = None

    def waveform(self, clip_id: str) -> Waveform:
        """Samples [T] of a clip, read-only.

        Raises:
            EmolightError: the clip has no waveform, or the cache was removed since it was opened.
        """
        if clip_id not in self._spans:
            raise EmolightError(self.problems.get(clip_id, f"There is no clip {clip_id} in the waveform cache."))
        if self._samples is None:
            self._samples = _map(self.folder / "waveforms.f32")
        start, length, _ = self._spans[clip_id]
        return self._samples[start : start + length]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_samples": None}


def open_cache(
    root: Path,
    clips: pd.DataFrame,
    cache_dir: Path | None,
    sample_rate: int,
    trim_db: float | None,
    progress: bool = True,
) -> WaveformCache:
    """Open the cache of these recordings, building it when there is none or when it is damaged.

    Every sample is checked against its checksum here. A recording that cannot be decoded goes to ``problems``.
    Several processes may call this at once: one builds, the others wait.

    Args:
        root: folder that the clips' paths are relative to.
        clips: clip table.
        cache_dir: folder of all caches; None is the user's cache folder.
        sample_rate: Hz.
        trim_db: see :func:`emolight.data.audio.load_waveform`.
        progress: show a progress bar if there is a terminal.

    Raises:
        EmolightError: the folder cannot be written, or recordings keep changing while they are read.
    """
    if cache_dir is None:
        import platformdirs

        cache_dir = Path(platformdirs.user_cache_dir("emolight"))
    root = Path(root)
    paths = {str(clip_id): root / path for clip_id, path in zip(clips["clip_id"], clips["path"], strict=True)}
    parameters = {
        "version": VERSION,
        "sample_rate": int(sample_rate),
        "trim_db": None if trim_db is None else float(trim_db),
    }
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        remove_left_overs(cache_dir, ".hashes-*.part")
        for remembered in (True, False):
            hashes = _content_hashes(paths, root, cache_dir, remembered)
            try:
                return _open_or_build(cache_dir, paths, hashes, parameters, progress)
            except _ChangedError as changed:
                what = changed
    except OSError as error:
        raise EmolightError(
            f"The waveform cache cannot be written in '{cache_dir}': {error.strerror or error}.",
            "Free space there, or choose another folder: --data.cache_dir DIR.",
        ) from None
    raise EmolightError(
        f"'{what}' changed while the waveform cache was built.", "Start again when nothing writes there."
    )


def _open_or_build(
    cache_dir: Path, paths: dict[str, Path], hashes: Hashes, parameters: dict[str, Any], progress: bool
) -> WaveformCache:
    identity = json.dumps([parameters, sorted(hashes.items())])
    key = hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()
    folder = cache_dir / key
    rate = int(parameters["sample_rate"])

    def opened() -> WaveformCache:
        spans, reasons = _read(folder, hashes, parameters)
        problems = {clip_id: f"{paths[clip_id]}: {reason}" for clip_id, reason in reasons.items()}
        return WaveformCache(folder, rate, spans, hashes, problems)

    try:
        if folder.exists():
            return opened()
    except _DamagedError:
        pass  # looked at again under the lock: another process may be mending it
    with FileLock(cache_dir / f"{key}.lock"):
        try:
            if folder.exists():
                return opened()
        except _DamagedError as damage:
            print(f"The waveform cache '{folder}' is damaged ({damage}): it is built anew.", file=sys.stderr)
            shutil.rmtree(folder)
        _remove_leftovers(cache_dir, key)
        _build(folder, paths, hashes, parameters, progress)
        try:
            return opened()
        except _DamagedError as damage:
            raise OSError(f"what was written is not what is read back ({damage})") from None


def _build(
    folder: Path, paths: dict[str, Path], hashes: Hashes, parameters: dict[str, Any], progress: bool
) -> None:
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    decode = partial(_decode, parameters=parameters)
    rows: dict[str, list[int] | str] = {}
    position = 0
    part.mkdir()
    try:
        with ThreadPoolExecutor(THREADS) as pool, (part / "waveforms.f32").open("wb") as stream:
            decoded = _in_order(pool, decode, [(paths[clip_id], hashes[clip_id]) for clip_id in paths])
            for clip_id, result in zip(_bar(list(paths), progress), decoded, strict=True):
                if isinstance(result, str):
                    rows[clip_id] = result
                    continue
                content = result.astype("<f4", copy=False).tobytes()
                stream.write(content)
                rows[clip_id] = [position, len(result), zlib.crc32(content)]
                position += len(result)
            stream.flush()
            os.fsync(stream.fileno())
        body = {"parameters": parameters, "hashes": hashes, "clips": rows}
        write_text(part / "index.json", json.dumps({"crc32": _crc(body), **body}))
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _decode(source: tuple[Path, str], parameters: dict[str, Any]) -> Waveform | str:
    """The waveform of a recording, or the reason why there is none."""
    path, expected = source
    try:
        content = read_bytes(path)
        if _hash(content) != expected:
            raise _ChangedError(path)
        return load_waveform(path, parameters["sample_rate"], parameters["trim_db"], content)
    except AudioError as error:
        return error.reason


def _in_order(pool: ThreadPoolExecutor, function: Any, items: list[Any]) -> Iterator[Any]:
    """``pool.map`` that runs ahead of its reader by a few dozen results, not by the whole corpus."""
    for start in range(0, len(items), 64):
        yield from pool.map(function, items[start : start + 64])


def _bar(clip_ids: list[str], progress: bool) -> Iterator[str]:
    console = Console(stderr=True)
    shown = progress and console.is_terminal
    yield from track(clip_ids, "Decoding the recordings", console=console, disable=not shown, transient=True)


def _read(folder: Path, hashes: Hashes, parameters: dict[str, Any]) -> tuple[Spans, Hashes]:
    """Spans and reasons from the index, after every sample was held to its checksum."""
    try:
        index = json.loads((folder / "index.json").read_bytes())
        body = {name: index[name] for name in ("parameters", "hashes", "clips")}
        if index["crc32"] != _crc(body) or body["parameters"] != parameters or body["hashes"] != hashes:
            raise _DamagedError("index.json is not as it was written")
        rows = body["clips"]
        spans: Spans = {name: (row[0], row[1], row[2]) for name, row in rows.items() if not isinstance(row, str)}
        samples = _map(folder / "waveforms.f32")
        if len(samples) != sum(length for _, length, _ in spans.values()):
            raise _DamagedError("waveforms.f32 has the wrong size")

        def sound(span: tuple[int, int, int]) -> bool:
            return zlib.crc32(samples[span[0] : span[0] + span[1]].data) == span[2]

        with ThreadPoolExecutor(THREADS) as pool:
            for clip_id, good in zip(spans, pool.map(sound, spans.values()), strict=True):
                if not good:
                    raise _DamagedError(f"the samples of {clip_id} are not as they were written")
    except EmolightError as error:
        raise _DamagedError(str(error).splitlines()[0]) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _DamagedError(f"{type(error).__name__} in reading it") from None
    return spans, {clip_id: row for clip_id, row in rows.items() if isinstance(row, str)}


def _map(path: Path) -> Waveform:
    try:
        if path.stat().st_size == 0:  # not one usable recording; an empty file cannot be mapped
            return np.zeros(0, dtype=np.float32)
        return np.memmap(path, dtype="<f4", mode="r").view(np.ndarray)
    except (OSError, ValueError):
        raise EmolightError(f"'{path}' is missing or damaged.", "Start again: it will be rebuilt.") from None


def _remove_leftovers(cache_dir: Path, key: str) -> None:
    """Remove what killed builders left: of this key, whose lock we hold, and of keys that nobody builds now."""
    for part in cache_dir.glob("[!.]*.*.part"):
        other = part.name.split(".")[0]
        if other == key:
            shutil.rmtree(part, ignore_errors=True)
            continue
        try:
            with FileLock(cache_dir / f"{other}.lock", timeout=0):
                shutil.rmtree(part, ignore_errors=True)
        except Timeout:
            pass


def _content_hashes(paths: dict[str, Path], root: Path, cache_dir: Path, remembered: bool) -> Hashes:
    """BLAKE2b of every file, from memory where size and times are those of last time.

    A file that was written in the last two seconds is not remembered: a second write within the resolution of
    the file system's clock would pass unseen.
    """
    name = hashlib.blake2b(os.fsencode(root.resolve()), digest_size=8).hexdigest()
    memo_path = cache_dir / f"hashes-{name}.json"
    try:
        memo = json.loads(memo_path.read_bytes()) if remembered else {}
        memo = memo if isinstance(memo, dict) else {}
    except (OSError, ValueError, RecursionError):
        memo = {}
    now = time.time_ns()

    def look(path: Path) -> tuple[str, list[Any] | None]:
        try:
            stat = path.stat()
            stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
            entry = memo.get(str(path.absolute()))
            if isinstance(entry, list) and entry[:3] == stamp and isinstance(entry[-1], str):
                return entry[-1], entry
            digest = _hash(read_bytes(path))
        except (OSError, AudioError):
            return "", None
        settled = now - max(stat.st_mtime_ns, stat.st_ctime_ns) > SETTLED_NS
        return digest, [*stamp, digest] if settled else None

    with ThreadPoolExecutor(THREADS) as pool:
        looks = list(pool.map(look, paths.values()))
    known = {str(path.absolute()): entry for path, (_, entry) in zip(paths.values(), looks, strict=True) if entry}
    if known != memo:
        with suppress(OSError):  # a cache that can be read but not written is still of use
            write_text(memo_path, json.dumps(known))
    return {clip_id: digest for clip_id, (digest, _) in zip(paths, looks, strict=True)}


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _crc(body: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True).encode())
