"""From a recording, or a part of one, to the values that the cache keeps."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import numpy as np

from emolight.data.audio import AudioError, content_hash, load_waveform, read_bytes
from emolight.data.shards import Span, Values
from emolight.errors import EmolightError

AT_ONCE = 2**26
"""Bytes; larger files are not read into memory, but hashed first and then decoded in blocks."""
STEP = np.float32(2**-15)
"""Of 16 bits, with full scale ±1."""

Stat: TypeAlias = tuple[int, int, int]
"""Size, time of change and of creation or renaming of a file in ns; a size of -1 when there is none."""


class Part(NamedTuple):
    """A recording, or its part from ``start`` to ``end`` in seconds."""

    path: str
    start: float | None
    end: float | None

    def where(self) -> int:
        """A hash of what is asked for."""
        return int.from_bytes(_hash(8, *self), "little")

    def key(self, digest: bytes) -> bytes:
        """The same, of 16 bytes, for recordings of the same content, by its hash."""
        return _hash(16, digest.hex(), self.start, self.end)


def _hash(size: int, *values: object) -> bytes:
    return hashlib.blake2b(os.fsencode("\0".join(map(str, values))), digest_size=size).digest()


def look(path: str) -> Stat:
    """Size and times of a file."""
    try:
        stat = os.stat(path)  # noqa: PTH116 - of a hundred thousand
    except (OSError, ValueError):
        return -1, 0, 0
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def decode(
    part: Part, sample_rate: int, trim_db: float | None, stat: Stat, digest: bytes | None, known: Mapping[bytes, Span]
) -> tuple[bytes, Values | str | Span]:
    """Hash of a recording (empty when it cannot be read), and its samples, why there are none, or where they are.

    The samples are 16-bit integers where these are exact, as for a mono recording of 16 bits at its own sample rate.
    After resampling they are floats: in 16 bits the MFCC of a quiet voice would be up to 9 off (RAVDESS).
    """
    try:
        content = None
        if digest is None:
            content = read_bytes(part.path) if 0 <= stat[0] <= AT_ONCE else None
            digest = bytes.fromhex(content_hash(part.path, content))
        if (span := known.get(part.key(digest))) is not None:
            return digest, span
        wave = load_waveform(part.path, sample_rate, trim_db, content, part.start, part.end)
    except AudioError as error:
        return digest or b"", error.reason
    if look(part.path) != stat:
        raise EmolightError(
            f"'{part.path}' changed while the waveform cache was built.", "Start again when nothing writes there."
        )
    whole = np.rint(wave / STEP)
    exact = np.abs(whole).max() <= 32767 and np.array_equal(whole * STEP, wave)
    return digest, whole.astype("<i2") if exact else wave.astype("<f4", copy=False)
