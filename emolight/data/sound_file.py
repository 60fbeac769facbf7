"""A sound file in blocks, by libsndfile; and whether the file is whole, where libsndfile does not say."""

import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import soundfile
from numpy.typing import NDArray

from emolight.errors import EmolightError

RATES, MAX_CHANNELS, MAX_SECONDS = (1_000, 768_000), 32, 4 * 3600
MAX_BYTES = 2**30
BLOCK = 2**16  # samples of a channel that are decoded at once
TOLERANCE = 0.01  # seconds by which a part may end after its recording: labels are rounded
INEXACT = ("OGG", "MP3")
"""Formats that are decoded from their start: libsndfile 1.2.2 seeks to wrong samples in the last page of Vorbis."""

SIZES = re.compile(r"(?:data|SSND|Data Size|riff|Riff size) +: (\d+) \(should be (\d+)\)")
"""What libsndfile's log says of WAV, AIFF, AU, Wave64 and RF64 where the bytes of a header and of the file differ."""
NO_CHUNK = re.compile(r"Unknown chunk marker .* at position (\d+)")
ONCE = {
    b"RIFF": b"WAVEfmt ",
    b"RF64": b"WAVEds64",
    b"fLaC": b'fLaC\0\0\0"',
    b".snd": b".snd\0\0\0",
    b"OggS": b"OggS\0\2",
}
"""How a file starts → what stands at the start of each recording in it."""
ONCE_IN_MP3 = (b"Info\0\0\0\x0f", b"Xing\0\0\0\x0f")


class AudioError(EmolightError):
    """A recording that cannot be used: its ``path`` and the ``reason``, in one line."""

    def __init__(self, path: str | Path, reason: str) -> None:
        shown = str(path) if str(path).isprintable() else ascii(str(path))  # names may hold line ends
        super().__init__(f"{shown}: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type[Self], tuple[str | Path, str]]:
        return type(self), (self.path, self.reason)


@contextmanager
def _opened(path: str | Path) -> Iterator[io.BufferedReader]:
    try:
        if not Path(path).is_file():
            raise AudioError(path, "is a folder" if Path(path).is_dir() else "there is no such file")
        with Path(path).open("rb") as stream:
            yield stream
    except OSError as error:
        raise AudioError(path, f"cannot be read ({error.strerror})") from None


def read_bytes(path: str | Path) -> bytes:
    """Content of a file of at most 1 GiB; the other functions take the path of a larger one."""
    with _opened(path) as stream:
        if (size := stream.seek(0, 2)) > MAX_BYTES:
            raise AudioError(path, f"has {size / 2**30:.1f} GiB; at most 1 GiB is read into memory")
        stream.seek(0)
        return stream.read()


def content_hash(path: str | Path, content: bytes | None = None) -> str:
    """BLAKE2b of a file's bytes, 32 hexadecimal digits: how a checkpoint knows what it was trained on."""
    with _opened(path) if content is None else io.BytesIO(content) as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


class _Source:
    """Bytes as libsndfile reads them: it seeks negative positions in broken files, and prints what is raised.

    Four bytes from ``endless`` on are read as 0xFF: a size that means "until the end".
    """

    def __init__(self, raw: io.BufferedReader | io.BytesIO) -> None:
        self.raw, self.size, self.endless = raw, raw.seek(0, io.SEEK_END), -9

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place = offset + (0, self.raw.tell(), self.size)[whence]
        return self.raw.seek(max(0, min(place, self.size)))

    def tell(self) -> int:
        return self.raw.tell()

    def readinto(self, buffer: Any) -> int:
        place, count = self.raw.tell(), self.raw.readinto(buffer)
        for at in range(max(0, self.endless - place), min(count, self.endless + 4 - place)):
            buffer[at : at + 1] = b"\xff"
        return count

    def at(self, place: int, count: int) -> bytes:
        self.seek(place)
        return self.raw.read(count)

    def count(self, name: bytes) -> int:
        return sum(self.at(start, 2**20 + len(name) - 1).count(name) for start in range(0, self.size, 2**20))


def _fault(source: _Source) -> str:
    """Why libsndfile would read less than there is, where it does not know; or an empty string."""
    magic = source.at(0, 4)
    mp3 = magic[:3] == b"ID3" or magic[:1] == b"\xff"
    if sum(map(source.count, ONCE_IN_MP3 if mp3 else [name for start, name in ONCE.items() if start == magic])) > 1:
        return "holds several recordings: cut it into one file each"
    if magic == b"OggS":  # the last page must be whole (RFC 3533, section 6)
        tail = max(0, source.size - 2**17)
        page = source.at(tail, 2**17)
        page = page[max(0, page.rfind(magic)) :]
        sizes = page[27 : 27 + page[26]] if len(page) > 26 else b""
        return "cut short: its last page is not whole" if 27 + len(sizes) + sum(sizes) > len(page) else ""
    return ""


@lru_cache(256)
def _fault_of_file(path: str | Path, size: int, changed: int) -> str:
    """Remembered, for recordings of which many parts are read."""
    with _opened(path) as raw:
        return _fault(_Source(raw))


class _Stream(soundfile.SoundFile):  # type: ignore[misc]
    """Where a file calls itself seekable, soundfile seeks after every block."""

    def seekable(self) -> bool:
        return False


class SoundFile:
    """An open sound file, or a part of one: its ``rate``, ``channels``, and ``frames`` (None where it does not say)."""

    def __init__(self, path: str | Path, source: _Source, start: float | None, end: float | None) -> None:
        self.path, self._source, self._first = path, source, 0
        with self._open() as stream:
            self.rate, self.channels, frames, log = stream.samplerate, stream.channels, stream.frames, stream.extra_info
        for size, there in (map(int, sizes) for sizes in SIZES.findall(log)):
            # ffmpeg, sox and arecord write these where they do not know the length; GStreamer writes 0.
            open_end = 0xFFFFFF00 <= size <= 0xFFFFFFFF or 0x7FFFF000 <= size <= 0x80000000
            if size > there and not open_end:
                raise AudioError(path, f"cut short: {there} of the {size} bytes that its header promises")
        place = int(match[1]) if (match := NO_CHUNK.search(log)) else 0
        if place and not re.match(rb"[ -~]{4}", source.at(place - 1, 4)):  # a chunk behind an odd number of bytes
            if frames:
                raise AudioError(path, f"its header promises {frames} samples, but there are more")
            source.endless = place - 4
            with self._open() as stream:
                frames = stream.frames
        self.frames: int | None = None if frames == 2**63 - 1 else frames
        if start is not None or end is not None:
            there = 2**62 if self.frames is None else self.frames
            first, last = round((start or 0.0) * self.rate), there if end is None else round(end * self.rate)
            last = there if there < last <= there + TOLERANCE * self.rate else last
            if not 0 <= first < last <= there:
                part = f"from {start or 0:g} s to {'its end' if end is None else f'{end:g} s'}"
                raise AudioError(path, f"has no part {part}: it lasts {there / self.rate:.2f} s")
            self._first, self.frames = first, None if self.frames is None and end is None else last - first
        check_shape(path, self.rate, self.channels, self.frames or 0)

    @contextmanager
    def _open(self) -> Iterator[_Stream]:
        """The stream from its start; what libsndfile and soundfile raise is an :class:`AudioError`."""
        try:
            self._source.seek(0)
            with _Stream(self._source) as stream:
                yield stream
        except soundfile.LibsndfileError as error:
            text = error.error_string.strip().rstrip(".")
            # Its MP3 decoder says "File does not exist" of a file that is there.
            text = "the decoder gives up" if text.startswith("File does not") else text
            raise AudioError(self.path, f"not readable as audio ({text})") from None
        except (RuntimeError, ValueError, TypeError, OverflowError, MemoryError) as error:
            raise AudioError(self.path, f"not readable as audio ({type(error).__name__})") from None

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """The samples from the first to the last, as blocks ``[N, channels]``; may be asked for again."""
        done = 0
        with self._open() as stream:
            if self._first and stream.format not in INEXACT and soundfile.SoundFile.seekable(stream):
                stream.seek(self._first)
            elif self._first:
                for start in range(0, self._first, BLOCK):
                    stream.read(min(BLOCK, self._first - start), always_2d=True)
            while count := BLOCK if self.frames is None else min(BLOCK, self.frames - done):
                block = stream.read(count, dtype="float32", always_2d=True)
                if not len(block):
                    break
                done += len(block)
                check_shape(self.path, self.rate, self.channels, done)
                yield block
        if done < (self.frames or 0):
            raise AudioError(self.path, f"cut short: {done} of the {self.frames} samples that its header promises")


@contextmanager
def open_sound(
    path: str | Path, content: bytes | None = None, start: float | None = None, end: float | None = None
) -> Iterator[SoundFile]:
    """Open a file, its content, or its part from ``start`` to ``end`` in seconds; refusals as :class:`AudioError`."""
    with _opened(path) if content is None else io.BytesIO(content) as raw:
        source = _Source(raw)
        if not source.size:
            raise AudioError(path, "the file is empty")
        whole = content is not None
        reason = _fault(source) if whole else _fault_of_file(path, source.size, Path(path).stat().st_mtime_ns)
        if reason:
            raise AudioError(path, reason)
        yield SoundFile(path, source, start, end)


def check_shape(path: str | Path, rate: int, channels: int, frames: int) -> None:
    """Raise :class:`AudioError` for a sample rate, number of channels or length that nobody records with."""
    if not RATES[0] <= rate <= RATES[1]:
        raise AudioError(path, f"absurd sample rate of {rate} Hz (expected {RATES[0]} to {RATES[1]})")
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(path, f"has {channels} channels; at most {MAX_CHANNELS} are read")
    if frames > MAX_SECONDS * min(rate, 48_000):  # 2.8 GB of float32 a channel
        most = f"at most {MAX_SECONDS * min(1, 48_000 / rate) / 3600:g} h are read at {rate} Hz"
        raise AudioError(path, f"lasts {frames / rate / 3600:.1f} h; {most}")
