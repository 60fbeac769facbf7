"""Embeddings of clips by a frozen network, computed once a clip and kept beside the waveforms."""

import ast
import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from emolight.data.audio import Waveform, fix_length
from emolight.data.cache import WaveformCache, writing
from emolight.data.shards import lock

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

    Several processes may call this at once: one computes, the others wait and read.

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
    path = cache.folder.parent / f"embeddings-v1-{_digest(about).hex()[:16]}.sqlite"
    with writing(path.parent), lock(path), closing(sqlite3.connect(path)) as store:
        store.execute("CREATE TABLE IF NOT EXISTS clips (key BLOB PRIMARY KEY, shape TEXT, value BLOB)")
        known = {row[0] for row in store.execute("SELECT key FROM clips")}
        missing = sorted(
            {key: at for at, key in enumerate(keys) if key not in known}.values(),
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
            rows = [(keys[at], repr(found.shape[1:]), value.tobytes()) for at, value in zip(some, found, strict=True)]
            store.executemany("INSERT OR REPLACE INTO clips VALUES (?, ?, ?)", rows)
            if first % STEP < BATCH:
                store.commit()
        store.commit()
        values = dict(store.execute("SELECT key, value FROM clips").fetchall())
        (shape,) = store.execute("SELECT shape FROM clips LIMIT 1").fetchone()
    size = ast.literal_eval(shape)
    return np.stack([np.frombuffer(values[key], dtype=np.float32).reshape(size) for key in keys])


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
