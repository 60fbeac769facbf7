"""The command that lists and prunes caches."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from emolight.data import shards
from emolight.data.audio import load_waveform
from emolight.data.cache import WaveformCache, open_cache
from emolight.data.cache_command import main
from emolight.data.embeddings import NAME, embeddings
from emolight.errors import EmolightError

LONG_AGO = (1e9, 1e9)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WaveformCache:
    """Four clips in two files."""
    monkeypatch.setattr(shards, "MAX_BYTES", 10_000)
    monkeypatch.setattr(shards, "STEP_CLIPS", 2)
    return opened(tmp_path)


def opened(tmp_path: Path) -> WaveformCache:
    paths = [tmp_path / f"clip{number}.wav" for number in range(4)]
    for number, path in enumerate(paths):
        if not path.exists():
            soundfile.write(path, np.random.default_rng(number).normal(0, 0.1, 4000), 16000)
    clips = pd.DataFrame({"clip_id": [path.stem for path in paths], "file": [str(path) for path in paths]})
    return open_cache(clips, tmp_path / "cache", 16000, None, progress=False)


def lines(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_it_lists_folders_with_clips_size_and_use(cache: WaveformCache, capsys: pytest.CaptureFixture[str]) -> None:
    for path in cache.folder.iterdir():
        os.utime(path, LONG_AGO)
    assert main(["--cache_dir", str(cache.folder.parent)]) == 0
    words = capsys.readouterr().out.splitlines()[-1].split()
    assert words[:5] == [cache.folder.name, "4", "clips", "0.00", "GB"]
    assert words[-2:] == ["days", "ago"]


def test_it_removes_what_was_not_used_and_the_rest_is_decoded_again(
    cache: WaveformCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--cache_dir", str(cache.folder.parent), "--prune"]
    old = cache.folder.with_name("waveforms-v1-of-old")
    old.mkdir()
    (old / "data").write_bytes(b"1")
    os.utime(cache.folder / "0000.bin", LONG_AGO)
    assert main(words) == 0
    assert {path.name for path in cache.folder.iterdir()} == {"0001.bin", "0002.bin", "index"}
    assert not old.exists()
    assert "2 clips" in capsys.readouterr().out
    fresh = opened(tmp_path)
    for clip_id in cache.durations:  # one opened before, and one opened after
        wave = load_waveform(tmp_path / f"{clip_id}.wav", 16000, None)
        np.testing.assert_array_equal(cache.waveform(clip_id), wave)
        np.testing.assert_array_equal(fresh.waveform(clip_id), wave)
    assert main([*words, "1"]) == 0
    assert cache.folder.exists()
    assert main([*words, "0"]) == 0
    assert not cache.folder.exists()


def test_embeddings_are_listed_and_removed_too(
    cache: WaveformCache, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, words = pd.DataFrame({"clip_id": [*cache.durations]}), ["--cache_dir", str(cache.folder.parent)]

    def kept() -> Path:
        embeddings(clips, cache, 4000, "first samples", lambda samples: samples[:, :10])
        (path,) = cache.folder.parent.glob(f"{NAME}*.sqlite")
        return path

    path, old = kept(), cache.folder.with_name("embeddings-v1-0.sqlite")
    old.write_bytes(b"of an older version")
    for days, used in ((20, "20 days ago"), (0, "today")):
        os.utime(path, (time.time() - days * 86_400,) * 2)
        capsys.readouterr()
        assert main(words) == 0
        out = capsys.readouterr().out
        assert re.search(rf"{path.name} +4 clips +0.00 GB  used {used}", out)
        assert re.search(rf"{old.name} +of another version", out)
    os.utime(path, LONG_AGO)
    kept()  # is a use
    assert main([*words, "--prune"]) == 0
    assert path.exists()
    assert not old.exists()
    os.utime(path, LONG_AGO)
    assert main([*words, "--prune"]) == 0
    assert not path.exists()


def test_mistakes_and_no_cache_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--prune=-1"], ["--prune", "nan"]):
        with pytest.raises(EmolightError, match=r"--prune is"):
            main(words)
    assert main(["--cache_dir", str(tmp_path / "none")]) == 0
    assert "There is no cache" in capsys.readouterr().out
