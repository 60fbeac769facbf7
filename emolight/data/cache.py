"""Decoded waveforms of any corpus, kept on disk: one entry a clip, found by the content of its recording.

There is a folder (:mod:`emolight.data.shards`) for each sample rate and way of trimming, for the clips of all corpora.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track

from emolight.data.audio import AudioError, Waveform, content_hash
from emolight.data.decoding import STEP, Part, decode, look
from emolight.data.shards import STAMP, TEXT, Maps, Shards, Span, Stamp, Values, Writer, lock, read
from emolight.errors import EmolightError

VERSION = 3
"""Of layout and decoding: a change of either must change it, so that old caches are not taken."""
SETTLED_NS = 2_000_000_000
"""A file changed so recently is read again next time: a second change in the same tick of its clock stays unseen."""
THREADS = min(16, os.cpu_count() or 1)
USED_SECONDS = 3600
"""When a file was used last is noted no more often."""


class WaveformCache:
    """Waveforms by clip id; only their place travels to another process, never the samples.

    A clip's checksum is looked at when a process first reads it; a damaged clip is decoded again.

    Attributes:
        folder: where the waveforms lie.
        sample_rate: Hz.
        trim_db: see :func:`open_cache`.
        hashes: clip id → content hash of its recording (an empty string where it could not be read).
        problems: clip id → path and reason, for recordings that could not be used.
        durations: clip id → seconds, for those that could.
    """

    def __init__(self, folder: Path, sample_rate: int, trim_db: float | None) -> None:
        self.folder, self.sample_rate, self.trim_db = folder, sample_rate, trim_db
        self.hashes, self.problems, self.durations = dict[str, str](), dict[str, str](), dict[str, float]()
        self._parts: dict[str, Part] = {}
        self._spans: dict[str, Span] = {}
        self._maps: Maps = {}
        self._checked: set[str] = set()

    def waveform(self, clip_id: str) -> Waveform:
        """Samples [T] of a clip, read-only.

        Raises:
            EmolightError: the clip has no waveform, or it is damaged and its recording is gone or changed.
        """
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

    def _mend(self, clip_id: str) -> Values:
        """Drop what is damaged in a clip's file, and decode the clip again; once."""
        with refusals(self.folder), lock(self.folder):
            shards = Shards(self.folder, suspect=self._spans[clip_id][0])
            if shards.damaged:
                print(f"The waveform cache '{self.folder}' was damaged; {clip_id} is read again.", file=sys.stderr)
                Writer(shards).commit()
        clips = pd.DataFrame([(clip_id, *self._parts[clip_id])], columns=["clip_id", "file", "start", "end"])
        fresh = open_cache(clips, self.folder.parent, self.sample_rate, self.trim_db, progress=False)
        self._maps.clear()
        span = fresh._spans.get(clip_id) if fresh.hashes[clip_id] == self.hashes[clip_id] else None
        values = read(self.folder, span, self._maps) if span else None
        if span is None or values is None:
            path = self._parts[clip_id].path
            raise EmolightError(
                f"The waveform of {clip_id} is damaged, and its recording '{path}' is gone or changed.",
                "Restore it, or start again with the recordings as they are now.",
            )
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
) -> WaveformCache:
    """Open the waveforms of clips, decoding those that are not there yet.

    A recording that cannot be decoded goes to ``problems``. Several processes may call this at once: one decodes, the
    others wait. What a killed process had decoded stays.

    Args:
        clips: columns ``clip_id``, ``file`` (absolute path), and for parts of recordings ``start`` and ``end`` (s).
        cache_dir: folder of all caches; None is the user's cache folder.
        sample_rate: Hz.
        trim_db: see :func:`emolight.data.audio.load_waveform`.
        progress: say what is decoded, and show a bar on a terminal.

    Raises:
        EmolightError: the folder cannot be written, or a recording changes while it is read.
    """
    cache_dir = Path(cache_dir).expanduser() if cache_dir else default_folder()
    trim = "untrimmed" if trim_db is None else f"trimmed{float(trim_db)!r}dB"
    folder = cache_dir / f"waveforms-v{VERSION}-{int(sample_rate)}Hz-{trim}"
    with refusals(cache_dir):
        folder.mkdir(parents=True, exist_ok=True)
        opening = _Opening(clips, WaveformCache(folder, int(sample_rate), trim_db))
        if opening.missing:
            with lock(folder):
                opening.look()  # another process may have decoded them meanwhile
                opening.decode(progress)
        return opening.result()


class _Opening:
    """The clips that are asked for, and which of them are there."""

    def __init__(self, clips: pd.DataFrame, cache: WaveformCache) -> None:
        self.cache, self.clip_ids, nothing = cache, clips["clip_id"].astype(str).tolist(), [None] * len(clips)
        times = [
            clips[name].astype(object).where(clips[name].notna(), None).tolist() if name in clips else nothing
            for name in ("start", "end")
        ]
        self.parts = list(map(Part, clips["file"].astype(str).tolist(), *times))
        files = list({part.path: None for part in self.parts})
        some = [files[start : start + 1000] for start in range(0, len(files), 1000)]
        with ThreadPoolExecutor(THREADS) as pool:
            stats = [stat for stats in pool.map(lambda paths: list(map(look, paths)), some) for stat in stats]
        stat_of = dict(zip(files, stats, strict=True))
        self.stamps: list[Stamp] = [(part.where(), *stat_of[part.path]) for part in self.parts]
        self.keys: dict[int, bytes] = {}
        """Number of a clip → its key, for those whose recording was read just now."""
        self.refused: dict[int, str] = {}
        """Number of a clip → why its recording cannot even be read."""
        self.look()

    def look(self) -> None:
        """Find the rows of the clips: by place, size and times of their files, or by content when that was read."""
        self.shards = Shards(self.cache.folder)
        stamps = np.array(self.stamps, dtype=[(name, self.shards.rows.dtype[name]) for name in STAMP])
        rows = self.shards.find("where", stamps["where"])
        for name in STAMP[1:] if len(self.shards.rows) else ():
            rows[self.shards.rows[name][rows] != stamps[name]] = -1
        if self.keys:
            keys = np.frombuffer(b"".join(self.keys.values()), dtype="<u8").reshape(-1, 2)
            rows[list(self.keys)] = self.shards.find("key", keys)
        self.spans = dict(zip(np.flatnonzero(rows >= 0).tolist(), self.shards.spans(rows[rows >= 0]), strict=True))
        self.reasons = dict(self.refused)
        for number in [number for number, span in self.spans.items() if span[-1] == TEXT]:
            if (text := read(self.cache.folder, self.spans.pop(number), {})) is None:
                rows[number] = -1
            else:
                self.reasons[number] = text.tobytes().decode()
        self.rows = rows
        self.missing = [number for number in np.flatnonzero(rows < 0).tolist() if number not in self.refused]

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
        raw = np.ascontiguousarray(self.shards.rows["key"]).tobytes()
        spans = self.shards.spans(np.arange(len(self.shards.rows)))
        known = {raw[16 * row : 16 * row + 16]: span for row, span in enumerate(spans) if span[-1] != TEXT}
        clips = track(self.missing, "Decoding", console=console, transient=True, disable=not shown)
        with Writer(self.shards) as writer, ThreadPoolExecutor(THREADS) as pool:
            for number, (digest, values) in zip(clips, self._decoded(pool, known), strict=True):
                if not digest:
                    self.refused[number] = str(values)
                    continue
                self.keys[number] = key = self.parts[number].key(digest)
                where, size, changed, created = self.stamps[number]
                settled = now - max(changed, created) > SETTLED_NS
                if settled or not isinstance(values, tuple):
                    stamp = (where, size if settled else -1, changed, created)
                    known[key] = writer.add(stamp, digest, key, known.get(key, values))
        self.look()
        if self.missing:
            raise OSError("what was written is not what is read back")

    def _decoded(
        self, pool: ThreadPoolExecutor, known: dict[bytes, Span]
    ) -> Iterator[tuple[bytes, Values | str | Span]]:
        """What :func:`decode` finds for the missing clips, a few of them ahead of the reader."""
        clips_of, digests = Counter(self.parts[number].path for number in self.missing), dict[str, bytes]()
        waiting: deque[Future[tuple[bytes, Values | str | Span]]] = deque()
        for number in self.missing:
            part = self.parts[number]
            if clips_of[part.path] > 1 and part.path not in digests:
                with suppress(AudioError):  # the clip itself will say so
                    digests[part.path] = bytes.fromhex(content_hash(part.path))
            words = (part, self.cache.sample_rate, self.cache.trim_db, self.stamps[number][1:], digests.get(part.path))
            waiting.append(pool.submit(decode, *words, known))
            if len(waiting) > 2 * THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def result(self) -> WaveformCache:
        """The cache, with what is known of each clip."""
        cache, numbers = self.cache, np.flatnonzero(self.rows >= 0).tolist()
        digests = np.ascontiguousarray(self.shards.rows["digest"][self.rows[numbers]]).tobytes().hex()
        cache.hashes = dict.fromkeys(self.clip_ids, "")
        cache.hashes |= {self.clip_ids[number]: digests[32 * at : 32 * at + 32] for at, number in enumerate(numbers)}
        for number, reason in sorted(self.reasons.items()):
            cache.problems[self.clip_ids[number]] = str(AudioError(self.parts[number].path, reason))
        cache._parts = dict(zip(self.clip_ids, self.parts, strict=True))
        cache._spans = {self.clip_ids[number]: span for number, span in self.spans.items()}
        cache.durations = {clip_id: span[2] / cache.sample_rate for clip_id, span in cache._spans.items()}
        for shard in {span[0] for span in self.spans.values()}:
            path = cache.folder / f"{shard:04}.bin"
            with suppress(OSError):  # who may not write may still read
                if time.time() - path.stat().st_mtime > USED_SECONDS:
                    os.utime(path)
        return cache


@contextmanager
def refusals(folder: Path) -> Iterator[None]:
    """What the system refuses, as :class:`EmolightError`."""
    try:
        yield
    except OSError as error:
        raise EmolightError(
            f"The waveform cache cannot be written in '{folder}': {error.strerror or error}.",
            "Free space there, or choose another folder: --data.cache_dir DIR.",
        ) from None
