"""A folder of waveforms: files that only grow, each with an index that is replaced as a whole.

``0003.bin`` holds the samples of many clips; ``0003.idx`` says where each lies, its checksum, and of which recording it
is. Whoever writes holds the folder's lock; readers need none. What a killed writer left behind is written over.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from emolight.files import atomic_write, remove_left_overs

STAMP, SPAN = ("where", "size", "mtime", "ctime"), ("shard", "start", "length", "crc", "kind")
ROW = np.dtype(
    [
        *(("where", "<u8"), ("size", "<i8"), ("mtime", "<i8"), ("ctime", "<i8")),
        *(("digest", "<u8", 2), ("key", "<u8", 2)),
        *(("shard", "<i4"), ("start", "<i8"), ("length", "<i8"), ("crc", "<u4"), ("kind", "u1")),
    ]
)
"""Hash of a path and part, size and times that the file had, hash of its content, of content and part; and number of
the file with the samples, their first byte, how many there are, checksum of their bytes, and which of :data:`TYPES`."""
TEXT, TYPES = 0, (np.dtype("u1"), np.dtype("<i2"), np.dtype("<f4"))
"""A text says why there are no samples."""
MAX_CLIPS, MAX_BYTES = 4096, 2**30
"""A file with so many is not added to."""
STEP_CLIPS, STEP_BYTES = 256, 2**26
"""So many are lost, at most, when a writer is killed."""

Values: TypeAlias = NDArray[Any]
Stamp: TypeAlias = tuple[int, int, int, int]
Span: TypeAlias = tuple[int, int, int, int, int]
"""What :data:`STAMP` and :data:`SPAN` name of a row."""
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


class Shards:
    """The rows of a folder, as its indexes stand now; where several agree in a column, the last counts.

    Args:
        folder: where they lie.
        suspect: number of a file whose samples are checked.

    Attributes:
        indexes: number of a file → the rows of its index whose samples are there.
        rows: those of all indexes.
        damaged: numbers of the files of which the index cannot be read, or samples are lost.
    """

    def __init__(self, folder: Path, suspect: int = -1) -> None:
        self.folder, self.indexes, self.damaged = folder, dict[int, Values](), set[int]()
        sizes = {int(path.stem): path.stat().st_size for path in folder.glob("*.bin")}
        there = np.full(max(sizes, default=0) + 2, -1)
        there[list(sizes)] = list(sizes.values())
        for path in sorted(folder.glob("*.idx")):
            content, number = path.read_bytes(), int(path.stem)
            intact = len(content) % ROW.itemsize == 4 and zlib.crc32(content[:-4]) == int.from_bytes(
                content[-4:], "little"
            )
            rows = np.frombuffer(content[:-4] if intact else b"", dtype=ROW)
            whole = _ends(rows) <= there[np.minimum(rows["shard"], len(there) - 1)]
            for at in np.flatnonzero(whole & (rows["shard"] == suspect)):
                whole[at] = read(folder, rows[list(SPAN)][at].item(), {}) is not None
            self.indexes[number] = rows[whole]
            if not len(rows) or not whole[rows["shard"] == number].all():
                self.damaged.add(number)
        self.rows = np.concatenate([np.empty(0, dtype=ROW), *self.indexes.values()])

    def find(self, column: str, wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The last row with each of the values ``[N]`` or ``[N, 2]`` of a column, or -1."""
        if not len(self.rows):
            return np.full(len(wanted), -1)
        have, wanted = self.rows[column].reshape(len(self.rows), -1), wanted.reshape(len(wanted), -1)
        order = np.argsort(have[:, 0], kind="stable")
        place = np.searchsorted(have[order, 0], wanted[:, 0], side="right") - 1
        row = order[place]
        found: NDArray[np.int64] = np.where((place >= 0) & (have[row] == wanted).all(axis=1), row, -1)
        return found

    def spans(self, rows: NDArray[np.int64]) -> list[Span]:
        """Where the values of some rows lie."""
        some = self.rows[rows]
        return list(zip(*(some[name].tolist() for name in SPAN), strict=True))


class Writer:
    """Adds to a folder whose lock is held; first removes what is damaged there and what killed writers left."""

    def __init__(self, shards: Shards) -> None:
        self.folder = shards.folder
        remove_left_overs(self.folder, ".*.part")
        for number in shards.damaged:
            self._write_index(number, shards.indexes[number])
        kept = set(shards.rows["shard"].tolist())
        for path in self.folder.glob("*.bin"):
            if int(path.stem) not in kept:
                path.unlink()
        # Readers may have mapped a file that lost samples: it must not be cut short.
        self.number = max(kept | shards.indexes.keys(), default=0) + bool(shards.damaged)
        self.rows = shards.indexes.get(self.number, shards.rows[:0])
        self.end = int(_ends(shards.rows[shards.rows["shard"] == self.number]).max(initial=0))
        self._open()

    def _open(self) -> None:
        if len(self.rows) >= MAX_CLIPS or self.end >= MAX_BYTES:
            self.number, self.rows, self.end = self.number + 1, self.rows[:0], 0
        self.end = self.done = self.end + -self.end % 8
        self.stream = (self.folder / f"{self.number:04}.bin").open("ab")
        if self.stream.tell() != self.end:
            self.stream.truncate(self.end)
        self.fresh: list[tuple[Any, ...]] = []

    def add(self, stamp: Stamp, digest: bytes, key: bytes, values: Values | str | Span) -> Span:
        """Write the values of a clip, why there are none, or where they are already; returns where."""
        if isinstance(values, str):
            values = np.frombuffer(values.encode(), dtype=np.uint8)
        if not isinstance(values, tuple):
            padding = -values.nbytes % 8  # the next values lie where a processor likes them
            self.stream.write(values.data)
            self.stream.write(bytes(padding))
            start, self.end = self.end, self.end + values.nbytes + padding
            values = (self.number, start, len(values), zlib.crc32(values.data), TYPES.index(values.dtype))
        self.fresh.append((*stamp, struct.unpack("<2Q", digest), struct.unpack("<2Q", key), *values))
        if len(self.fresh) >= STEP_CLIPS or self.end - self.done >= STEP_BYTES:
            self.commit()
            self._open()
        return values

    def commit(self) -> None:
        """Close: from here on what was added is there for all, whatever becomes of this process."""
        with self.stream:
            self.stream.flush()
            os.fsync(self.stream.fileno())
        if self.fresh:
            self.rows = np.concatenate([self.rows, np.array(self.fresh, dtype=ROW)])
            self._write_index(self.number, self.rows)

    def _write_index(self, number: int, rows: Values) -> None:
        path = self.folder / f"{number:04}.idx"
        if not len(rows):
            path.unlink(missing_ok=True)
            return
        with atomic_write(path) as part:
            part.write_bytes(rows.tobytes() + zlib.crc32(rows.tobytes()).to_bytes(4, "little"))

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or not issubclass(kind, OSError):
            self.commit()


def _ends(rows: Values) -> NDArray[np.int64]:
    """The byte behind the values of each row."""
    ends: NDArray[np.int64] = rows["start"] + rows["length"] * np.array([one.itemsize for one in TYPES])[rows["kind"]]
    return ends
