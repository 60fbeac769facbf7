"""Decoded waveforms of any corpus, kept on disk: one entry a clip, found by the content of its recording.

There is a folder (:mod:`emolight.data.shards`) for each sample rate and way of trimming, for the clips of all corpora.
"""

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track

from emolight.data.audio import AudioError, Waveform, content_hash, load_waveform, read_bytes
from emolight.data.shards import Maps, Shards, Span, Values, Writer, lock, read
from emolight.errors import EmolightError, refusals

VERSION = 6
"""Of layout and decoding: a change of either must change it, so that old caches are not taken."""
SETTLED_NS = 2_000_000_000
"""A file changed so recently is read again next time: a second change in the same tick of its clock stays unseen."""
THREADS = min(16, os.cpu_count() or 1)
USED_SECONDS = 3600  # when a file was used last is noted no more often
AT_ONCE = 2**26  # bytes; larger recordings are not read into memory, but hashed first and then decoded in blocks
STEP = np.float32(2**-15)  # of 16 bits, with full scale ±1

Part: TypeAlias = tuple[str, float | None, float | None]
"""Path of a recording, and start and end of its part in seconds."""


def _hash(size: int, *values: object) -> bytes:
    return hashlib.blake2b(os.fsencode("\0".join(map(str, values))), digest_size=size).digest()


def _stat(path: str) -> tuple[int, int, int]:
    """Size, time of change and of creation or renaming of a file in ns; a size of -1 when there is none."""
    try:
        stat = os.stat(path)  # noqa: PTH116 - of a hundred thousand
    except (OSError, ValueError):
        return -1, 0, 0
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


class WaveformCache:
    """Waveforms by clip id; only their place travels to another process, never the samples.

    A clip's checksum is looked at when a process first reads it; a damaged clip is decoded again. By clip id, too:
    content ``hashes`` of the recordings (an empty string where one cannot be used), ``problems`` of those that
    cannot be used, ``durations`` in seconds of those that can.
    """

    def __init__(self, folder: Path, sample_rate: int, trim_db: float | None) -> None:
        self.folder, self.sample_rate, self.trim_db = folder, sample_rate, trim_db
        self.hashes, self.problems, self.durations = dict[str, str](), dict[str, str](), dict[str, float]()
        self._parts: dict[str, Part] = {}
        self._spans: dict[str, Span] = {}
        self._maps: Maps = {}
        self._checked: set[str] = set()

    def waveform(self, clip_id: str) -> Waveform:
        """Samples [T] of a clip, read-only; an error where there are none, or they and their recording are gone."""
        if (span := self._spans.get(clip_id)) is None:
            raise EmolightError(self.problems.get(clip_id, f"There is no clip {clip_id} in the waveform cache."))
        values = read(self.folder, span, self._maps, check=clip_id not in self._checked)
        if values is None:
            values = self._mend(clip_id)
        self._checked.add(clip_id)
        if values.dtype == np.int16:
            values = np.multiply(values, STEP)
            values.flags.writeable = False
        return values

    def content(self, clip_id: str) -> str:
        """The hash of a clip's recording, and of a part of one its times; empty where it cannot be used."""
        digest, (_, start, end) = self.hashes[clip_id], self._parts[clip_id]
        return f"{digest} from {start} to {end}" if digest and (start or end) else digest

    def _mend(self, clip_id: str) -> Values:
        """Decode a damaged clip again; once."""
        print(f"The waveform cache '{self.folder}' was damaged; {clip_id} is read again.", file=sys.stderr)
        clips = pd.DataFrame([(clip_id, *self._parts[clip_id])], columns=["clip_id", "file", "start", "end"])
        fresh = open_cache(clips, self.folder.parent, self.sample_rate, self.trim_db, False, self._spans[clip_id])
        self._maps.clear()
        span = fresh._spans.get(clip_id) if fresh.hashes[clip_id] == self.hashes[clip_id] else None
        if span is None or (values := read(self.folder, span, self._maps)) is None:
            path = self._parts[clip_id][0]
            problem = f"The waveform of {clip_id} is damaged, and its recording '{path}' is gone or changed."
            raise EmolightError(problem, "Restore it, or start again with the recordings as they are now.")
        self._spans[clip_id] = span
        return values

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}, "_checked": set()}


def default_folder() -> Path:
    """The folder of all caches of this user."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("emolight"))


def open_cache(
    clips: pd.DataFrame,
    cache_dir: str | Path | None,
    sample_rate: int,
    trim_db: float | None,
    progress: bool = True,
    suspect: Span | None = None,
) -> WaveformCache:
    """Open the waveforms of clips, decoding those that are not there yet; what cannot be decoded goes to ``problems``.

    ``clips`` has ``clip_id``, ``file`` (absolute path), and for parts of recordings ``start`` and ``end`` in seconds.
    Several processes may call this at once: one decodes, the others wait. What a killed process had decoded stays.
    ``suspect``: where damaged samples were read.
    """
    cache_dir = Path(cache_dir).expanduser() if cache_dir else default_folder()
    trim = "untrimmed" if trim_db is None else f"trimmed{float(trim_db)!r}dB"
    folder = cache_dir / f"waveforms-v{VERSION}-{int(sample_rate)}Hz-{trim}"
    with writing(cache_dir):
        folder.mkdir(parents=True, exist_ok=True)
        opening = _Opening(clips, WaveformCache(folder, int(sample_rate), trim_db), suspect)
        if opening.missing:
            try:
                with lock(folder):
                    opening.look()  # another process may have decoded them meanwhile
                    opening.decode(progress)
            except OSError:  # who may not write may still read what was written
                opening.look_at_content()
                if opening.missing:
                    raise
        return opening.result()


class _Opening:
    """The clips that are asked for, by their numbers, and which of them are there."""

    def __init__(self, clips: pd.DataFrame, cache: WaveformCache, suspect: Span | None) -> None:
        self.cache, self.suspect, self.clip_ids = cache, suspect, clips["clip_id"].astype(str).tolist()
        times = clips.reindex(columns=["start", "end"]).astype(object)
        times = times.where(times.notna(), None)
        self.parts = list(zip(clips["file"].astype(str), times["start"], times["end"], strict=True))
        files = list(dict.fromkeys(path for path, *_ in self.parts))
        some = [files[start : start + 1000] for start in range(0, len(files), 1000)]
        with ThreadPoolExecutor(THREADS) as pool:
            stats = [stat for stats in pool.map(lambda paths: list(map(_stat, paths)), some) for stat in stats]
        self.stats = dict(zip(files, stats, strict=True))
        self.stamps = [_hash(8, *part, *self.stats[part[0]]) for part in self.parts]
        self.digests, self.keys, self.refused = dict[str, bytes](), dict[int, bytes](), dict[int, AudioError]()
        """By path and by number, of what was read just now: content hashes, keys of clips, what cannot be used."""
        self.look()

    def look(self) -> None:
        """Find the rows of the clips: by place, size and times of their files, or by content when that was read."""
        self.shards = Shards(self.cache.folder, self.suspect)
        self.rows = np.array(self.shards.find("stamp", self.stamps), dtype=np.int64)
        self.rows[list(self.keys)] = self.shards.find("key", self.keys.values())
        self.missing = [number for number in np.flatnonzero(self.rows < 0).tolist() if number not in self.refused]

    def decode(self, progress: bool) -> None:
        """Decode what is missing and add it to the folder, whose lock is held."""
        if not self.missing:
            return
        folder, now, console = self.cache.folder, time.time_ns(), Console(stderr=True)
        if self.shards.damaged:
            print(f"The waveform cache '{folder}' is damaged: what is lost is read again.", file=sys.stderr)
        if progress:
            print(f"Reading {len(self.missing)} clips, once, into '{folder}'.", file=sys.stderr)
        shown = progress and console.is_terminal
        with Writer(self.shards) as writer:
            clips = track(
                self._read(), "Decoding", len(self.missing), console=console, transient=True, disable=not shown
            )
            for number, values in clips:
                path, key = self.parts[number][0], self.keys[number]
                settled = now - max(self.stats[path][1:]) > SETTLED_NS
                if settled or not isinstance(values, tuple):
                    values = self.known.get(key, values)
                    stamp = self.stamps[number] if settled else bytes(8)
                    self.known[key] = writer.add(stamp, self.digests[path], key, values)
        self.look()
        if self.missing:
            raise OSError("what was written is not what is read back")

    def look_at_content(self) -> None:
        """Find by content what is missing, or why it cannot be used, and write nothing."""
        self.look()
        for _, values in self._read():
            if not isinstance(values, tuple):
                break
        self.look()

    def _read(self) -> Iterator[tuple[int, Values | Span]]:
        """What is missing and can be used, as of :meth:`_decoded`; notes its keys, and why the rest cannot be used."""
        self.known = dict(zip(self.shards.rows["key"].tolist(), self.shards.spans(slice(None)), strict=True))
        some = (self.missing[start : start + 4 * THREADS] for start in range(0, len(self.missing), 4 * THREADS))
        with ThreadPoolExecutor(THREADS) as pool:
            found = (one for part in some for one in pool.map(self._decoded, part))
            for number, values in zip(self.missing, found, strict=True):
                if isinstance(values, AudioError):
                    self.refused[number] = values
                else:
                    self.keys[number] = self._key(number)
                    yield number, values

    def _key(self, number: int) -> bytes:
        path, *times = self.parts[number]
        return _hash(16, self.digests[path].hex(), *times)

    def _decoded(self, number: int) -> Values | Span | AudioError:
        """The samples of a clip, where they are, or why there are none.

        They are 16-bit integers where these are exact, as for a mono recording of 16 bits at its own sample rate.
        After resampling they are floats: in 16 bits the MFCC of a quiet voice would be up to 9 off (RAVDESS).
        """
        (path, start, end), content = self.parts[number], None
        try:
            if path not in self.digests:
                content = read_bytes(path) if 0 <= self.stats[path][0] <= AT_ONCE else None
                self.digests[path] = bytes.fromhex(content_hash(path, content))
            known: Span | None = self.known.get(self._key(number))
            if known is not None:
                return known
            wave = load_waveform(path, self.cache.sample_rate, self.cache.trim_db, content, start, end)
        except AudioError as error:
            return error
        if _stat(path) != self.stats[path]:
            problem = f"'{path}' changed while the waveform cache was built."
            raise EmolightError(problem, "Start again when nothing writes there.")
        whole: Values = np.rint(wave / STEP)
        exact = np.abs(whole).max() <= 32767 and np.array_equal(whole * STEP, wave)
        return whole.astype("<i2") if exact else wave.astype("<f4", copy=False)

    def result(self) -> WaveformCache:
        """The cache, with what is known of each clip."""
        cache, numbers = self.cache, np.flatnonzero(self.rows >= 0)
        there, rows = [self.clip_ids[number] for number in numbers], self.rows[numbers]
        digests = [digest.hex() for digest in self.shards.rows["digest"][rows].tolist()]
        cache.hashes = {**dict.fromkeys(self.clip_ids, ""), **dict(zip(there, digests, strict=True))}
        cache.problems = {self.clip_ids[number]: str(error) for number, error in self.refused.items()}
        cache._parts = dict(zip(self.clip_ids, self.parts, strict=True))
        cache._spans = dict(zip(there, self.shards.spans(rows), strict=True))
        cache.durations = {clip_id: span[2] / cache.sample_rate for clip_id, span in cache._spans.items()}
        for shard in {span[0] for span in cache._spans.values()}:
            note_use(cache.folder / f"{shard:04}.bin")
        return cache


def note_use(path: Path) -> None:
    """Note in the time of a file that it was used now, which pruning asks for."""
    with suppress(OSError):  # who may not write may still read
        if time.time() - path.stat().st_mtime > USED_SECONDS:
            os.utime(path)


def writing(folder: Path) -> AbstractContextManager[None]:
    """For what writes to a cache: what the system refuses is an :class:`EmolightError`."""
    fix = "Free space there, or choose another folder: --data.cache_dir DIR."
    return refusals(f"The waveform cache cannot be written in '{folder}'", fix)
