"""Kept embeddings: right ones whatever happens to their file, computed once, and read by who may not write."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from emolight.data import embeddings as module
from emolight.data.cache import open_cache
from emolight.errors import EmolightError

Make = Callable[[], np.ndarray]
VALUES = (1.5, -2.5)
"""Stand in each embedding."""


@pytest.fixture
def computed() -> list[int]:
    """How many clips each pass of the network had."""
    return []


@pytest.fixture
def make(tmp_path: Path, computed: list[int]) -> Make:
    """Embeddings of 20 clips: their first samples, and :data:`VALUES`."""
    rng = np.random.default_rng(0)
    for number in range(20):
        soundfile.write(tmp_path / f"{number}.wav", rng.normal(0, 0.1, 4000), 16000)
        os.utime(tmp_path / f"{number}.wav", (1e9, 1e9))
    paths = sorted(tmp_path.glob("*.wav"))
    clips = pd.DataFrame({"clip_id": [path.stem for path in paths], "file": list(map(str, paths))})
    cache = open_cache(clips, tmp_path / "cache", 16000, None, progress=False)

    def compute(samples: np.ndarray) -> np.ndarray:
        computed.append(len(samples))
        samples[:, 500:502] = VALUES
        return samples[:, :1000].reshape(-1, 2, 500)

    return lambda: module.embeddings(clips, cache, 3000, "first samples", compute)


def file_of(folder: Path) -> Path:
    (path,) = folder.glob("cache/*.sqlite")
    return path


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(struct.pack("<2f", *VALUES)) + 2] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "again"),
    [
        (lambda path: path.write_bytes(b""), 20),
        (lambda path: path.write_bytes(b"<html>" * 1000), 20),
        (lambda path: path.write_bytes(path.read_bytes()[:30000]), 20),
        (flip, 1),
    ],
    ids=["empty", "text", "cut", "bit flipped"],
)
def test_what_is_damaged_is_computed_again(
    damage: Callable[[Path], None], again: int, make: Make, computed: list[int], tmp_path: Path
) -> None:
    first = make()
    assert first.shape == (20, 2, 500)
    damage(file_of(tmp_path))
    computed.clear()
    for _ in range(2):
        np.testing.assert_array_equal(make(), first)
        assert sum(computed) == again


def test_who_may_not_write_reads_what_is_there(
    make: Make, computed: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    first = make()
    monkeypatch.setattr(module, "lock", refused)
    computed.clear()
    np.testing.assert_array_equal(make(), first)
    assert computed == []
    file_of(tmp_path).unlink()
    with pytest.raises(EmolightError, match=r"cannot be written.*\n.*--data\.cache_dir"):
        make()


def test_what_is_kept_can_be_read_while_more_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, counts = list("abcd"), list[int]()
    names = {"hashes": dict(zip(ids, ids, strict=True)), "durations": dict.fromkeys(ids, 1.0)}
    cache: Any = SimpleNamespace(folder=tmp_path / "waves", waveform=lambda _: np.zeros(9, np.float32), **names)

    def compute(samples: np.ndarray) -> np.ndarray:
        counts.extend(map(module.count, tmp_path.glob("*.sqlite")))
        return np.zeros((len(samples), 10**6), np.float32)  # more than SQLite keeps in memory

    monkeypatch.setattr(module, "BATCH", 1)
    module.embeddings(pd.DataFrame({"clip_id": ids}), cache, 9, "zeros", compute)
    assert counts == [0, 1, 1, 1]
