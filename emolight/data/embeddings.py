"""Embeddings of clips by a frozen network, computed once a clip and kept beside the waveforms."""

import hashlib
import io
import sqlite3
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from emolight.data.audio import Waveform, fix_length
from emolight.data.cache import WaveformCache, note_use, writing
from emolight.data.shards import lock

NAME = "embeddings-v2-"
"""Begins the names of the files; another layout, or other embeddings of the same clips, must change it."""
BATCH = 16
STEP = 256
"""So many are lost, at most, when the process is killed."""


def embeddings(
    clips: pd.DataFrame,
    cache: WaveformCache,
    length: int,
    network: str,
    compute: Callable[[Waveform], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Embeddings ``[N, ...]`` of clips, computing those that are not kept yet.

    Several processes may call this at once: one computes, the others wait and read. What is damaged is computed again.

    Args:
        clips: column ``clip_id``, and ``start`` and ``end`` for parts of recordings.
        cache: their waveforms.
        length: samples of a clip at most; longer ones are cropped in the middle.
        network: what an embedding depends on beside the clip.
        compute: samples ``[B, T]``, zeros behind each clip, to embeddings ``[B, ...]``.
    """
    ids = clips["clip_id"].tolist()
    parts = clips.reindex(columns=["start", "end"]).to_numpy()
    keys = [_digest(f"{cache.hashes[name]} {part}") for name, part in zip(ids, parts.tolist(), strict=True)]
    about = f"{network} {length} {cache.folder.name}"
    path = cache.folder.parent / f"{NAME}{_digest(about).hex()[:16]}.sqlite"

    def kept(mode: str) -> dict[bytes, NDArray[np.float32]]:
        """What is there of the clips and undamaged, and what is computed now."""
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True)) as store:
            store.text_factory = bytes  # of a damaged row
            store.execute("PRAGMA cache_spill = 0")  # else others could not read until what is computed is committed
            store.execute("CREATE TABLE IF NOT EXISTS clips (key BLOB PRIMARY KEY, value BLOB, crc INTEGER)")
            rows, wanted = store.execute("SELECT key, value, crc FROM clips"), set(keys)
            sound = (row for row in rows if row[0] in wanted and isinstance(row[1], bytes) and crc32(row[1]) == row[2])
            values = {key: np.load(io.BytesIO(value), allow_pickle=False) for key, value, _ in sound}
            missing = sorted(
                {key: at for at, key in enumerate(keys) if key not in values}.values(),
                key=lambda at: cache.durations[ids[at]],
            )  # clips of one length beside each other
            if missing:
                print(f"Computing the embeddings of {len(missing)} clips, once, into '{path}'.", flush=True)
            steps = range(0, len(missing), BATCH)
            for first in track(steps, "embeddings", console=Console(), disable=not Console().is_terminal):
                some = missing[first : first + BATCH]
                waves = [cache.waveform(ids[at]) for at in some]
                longest = min(length, max(map(len, waves)))
                found = compute(np.stack([fix_length(wave, longest) for wave in waves]))
                values |= zip((keys[at] for at in some), found, strict=True)
                packed = [(keys[at], _packed(value)) for at, value in zip(some, found, strict=True)]
                add = "INSERT OR REPLACE INTO clips VALUES (?, ?, ?)"
                store.executemany(add, [(key, value, crc32(value)) for key, value in packed])
                if first % STEP < BATCH:
                    store.commit()
            store.commit()
        return values

    with writing(path.parent), ExitStack() as stack:
        mode = "rwc"
        try:
            stack.enter_context(lock(path))
        except OSError:  # who may not write may still read
            mode = "ro"
        try:
            values = kept(mode)
        except sqlite3.OperationalError as error:
            raise OSError(str(error)) from None
        except sqlite3.DatabaseError:
            print(f"The embeddings in '{path}' are damaged: they are computed again.", file=sys.stderr)
            for one in (path, path.with_name(f"{path.name}-journal")):
                one.unlink(missing_ok=True)
            values = kept(mode)
        note_use(path)
    return np.stack([values[key] for key in keys])


def count(path: Path) -> int:
    """How many clips a file has the embeddings of; 0 if it is damaged."""
    try:
        with closing(sqlite3.connect(path)) as store:
            return int(store.execute("SELECT COUNT(*) FROM clips").fetchone()[0])
    except sqlite3.DatabaseError:
        return 0


def _packed(value: NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, value)
    return stream.getvalue()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
