"""A folder of waveforms that only grows: files of samples, and one index of rows, each with its checksum.

``0003.bin`` holds the samples of many clips; a row of ``index`` says where a clip's lie, their checksum, and of which
recording it is. Whoever writes holds the folder's lock; readers need none. Samples are on the disk before their row is:
what a killed writer left has no row, or half of one, and is not read.
"""

import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from emolight.files import atomic_write, remove_left_overs

INDEX = "index"
SPAN = ("shard", "start", "length", "crc", "kind")
ROW = np.dtype(
    [
        *(("stamp", "V8"), ("digest", "V16"), ("key", "V16")),
        *(("shard", "<i4"), ("start", "<i8"), ("length", "<i8"), ("crc", "<u4"), ("kind", "u1"), ("check", "<u4")),
    ]
)
"""Hashes of a path, part, and the size and times that the file had; of its content; of content and part. Number of the
file with the samples, their first byte, how many there are, checksum of their bytes, which of :data:`TYPES`; and
checksum of the row."""
TYPES = (np.dtype("<i2"), np.dtype("<f4"))
MAX_BYTES = 2**30  # a file with so many is not added to
STEP_CLIPS, STEP_BYTES = 256, 2**26  # so many are lost, at most, when a writer is killed

Values: TypeAlias = NDArray[Any]
Span: TypeAlias = tuple[int, int, int, int, int]  # what :data:`SPAN` names of a row
Maps: TypeAlias = dict[int, NDArray[np.uint8]]


def lock(folder: Path) -> FileLock:
    """The lock that whoever changes a folder holds; beside it, so that the folder can be removed."""
    return FileLock(folder.with_name(f"{folder.name}.lock"))


def read(folder: Path, span: Span, maps: Maps, check: bool = True) -> Values | None:
    """Values as a read-only view of their file, which is mapped into ``maps``; None when they are damaged."""
    shard, start, length, crc, kind = span
    end = start + length * TYPES[kind].itemsize
    if (data := maps.get(shard)) is None or len(data) < end:
        try:
            data = maps[shard] = np.memmap(folder / f"{shard:04}.bin", dtype=np.uint8, mode="r").view(np.ndarray)
        except (OSError, ValueError):  # gone, or empty
            return None
    if len(data) < end or (check and zlib.crc32(data[start:end].data) != crc):
        return None
    return data[start:end].view(TYPES[kind])


def _checks(rows: Values) -> list[int]:
    raw = rows.tobytes()
    return [zlib.crc32(raw[at : at + ROW.itemsize - 4]) for at in range(0, len(raw), ROW.itemsize)]


class Shards:
    """The rows of a folder as they stand now, without those of the ``suspect`` span; of equal ones the last counts.

    ``damaged``: some rows cannot be read, or their samples are not there. ``numbers``: of the files that rows name.
    """

    def __init__(self, folder: Path, suspect: Span | None = None) -> None:
        self.folder, path = folder, folder / INDEX
        content = path.read_bytes() if path.exists() else b""
        rows = np.frombuffer(content[: len(content) - len(content) % ROW.itemsize], dtype=ROW)
        rows = rows[rows["check"] == _checks(rows)]
        sizes = {int(path.stem): path.stat().st_size for path in folder.glob("*.bin")}
        ends = rows["start"] + rows["length"] * np.array([2, 4])[rows["kind"] % 2]
        rows = rows[ends <= np.array([sizes.get(shard, -1) for shard in rows["shard"].tolist()])]
        self.damaged, self.numbers = len(rows) * ROW.itemsize < len(content), set(rows["shard"].tolist())
        self.rows = rows if suspect is None else rows[[span != suspect for span in rows[list(SPAN)].tolist()]]

    def find(self, column: str, wanted: Iterable[bytes]) -> list[int]:
        """The last row with each of the values of a column, or -1."""
        last = {value: row for row, value in enumerate(self.rows[column].tolist())}
        return [last.get(value, -1) for value in wanted]

    def spans(self, rows: NDArray[np.int64] | slice) -> list[Span]:
        """Where the values of some rows lie."""
        spans: list[Span] = self.rows[list(SPAN)][rows].tolist()
        return spans


class Writer:
    """Adds to a folder whose lock is held; first removes rows that are damaged, and files that no row names."""

    def __init__(self, shards: Shards) -> None:
        self.folder = shards.folder
        remove_left_overs(self.folder, ".*.part")
        if shards.damaged:
            with atomic_write(self.folder / INDEX) as part:
                part.write_bytes(shards.rows.tobytes())
        for path in self.folder.glob("*.bin"):
            if int(path.stem) not in shards.numbers:
                path.unlink()
        self.number, self.fresh = max(shards.numbers, default=0), list[tuple[Any, ...]]()
        self._open()

    def _open(self) -> None:
        self.stream = (self.folder / f"{self.number:04}.bin").open("ab")
        self.begin = self.stream.tell()
        if self.begin >= MAX_BYTES:
            self.stream.close()
            self.number += 1
            self._open()

    def add(self, stamp: bytes, digest: bytes, key: bytes, values: Values | Span) -> Span:
        """Write the values of a clip, or where they are already; returns where."""
        if not isinstance(values, tuple):
            self.stream.write(bytes(-self.stream.tell() % 8))  # values lie where a processor likes them
            start = self.stream.tell()
            self.stream.write(values.data)
            values = (self.number, start, len(values), zlib.crc32(values.data), TYPES.index(values.dtype))
        self.fresh.append((stamp, digest, key, *values, 0))
        if len(self.fresh) >= STEP_CLIPS or self.stream.tell() - self.begin >= STEP_BYTES:
            self.commit()
            self._open()
        return values

    def commit(self) -> None:
        """Close: from here on what was added is there for all, whatever becomes of this process."""
        with self.stream:
            self.stream.flush()
            os.fsync(self.stream.fileno())
        rows = np.array(self.fresh, dtype=ROW)
        rows["check"] = _checks(rows)
        with (self.folder / INDEX).open("ab") as index:
            index.write(rows.tobytes())
            index.flush()
            os.fsync(index.fileno())
        self.fresh = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or not issubclass(kind, OSError):
            self.commit()
