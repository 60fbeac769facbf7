"""The waveform cache: right samples, whatever happened to its files, and one builder among many processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from emolight.data.audio import load_waveform
from emolight.data.cache import WaveformCache, open_cache
from emolight.errors import EmolightError

RATE = 16000


def write_clip(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    soundfile.write(path, rng.normal(0, 0.1, int(rng.integers(4000, 9000))), RATE, "PCM_16")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(6):
        write_clip(folder / f"clip{number}.wav", number)
    return folder


def table(root: Path) -> pd.DataFrame:
    paths = sorted(root.iterdir())
    return pd.DataFrame({"clip_id": [path.stem for path in paths], "path": [path.name for path in paths]})


def opened(root: Path, rate: int = RATE, trim_db: float | None = 60.0) -> WaveformCache:
    return open_cache(root, table(root), root.parent / "cache", rate, trim_db, progress=False)


def check_samples(cache: WaveformCache, root: Path) -> None:
    for path in root.iterdir():
        np.testing.assert_array_equal(cache.waveform(path.stem), load_waveform(path, RATE, 60.0))


def test_waveforms_are_those_of_the_recordings_and_read_only(root: Path) -> None:
    cache = opened(root)
    check_samples(cache, root)
    wave = cache.waveform("clip0")
    assert (wave.ndim, wave.dtype, wave.flags.writeable) == (1, np.float32, False)
    assert cache.durations["clip0"] == len(wave) / RATE
    assert cache.problems == {}
    assert len(set(cache.hashes.values())) == 6


def test_second_opening_decodes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(root)
    monkeypatch.setattr("emolight.data.cache.load_waveform", None)
    assert set(opened(root).durations) == {path.stem for path in root.iterdir()}


def test_changed_recording_changes_the_key(root: Path) -> None:
    before = opened(root)
    write_clip(root / "clip3.wav", 99)
    after = opened(root)
    assert after.folder != before.folder
    check_samples(after, root)


def test_change_of_same_size_and_time_is_seen(root: Path) -> None:
    path = root / "clip3.wav"
    long_ago = time.time_ns() - 10**12
    os.utime(path, ns=(long_ago, long_ago))
    before = opened(root)
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(long_ago, long_ago))
    assert opened(root).folder != before.folder


def test_changed_parameter_changes_the_key(root: Path) -> None:
    folders = [opened(root, rate, trim).folder for rate, trim in ((RATE, 60.0), (8000, 60.0), (RATE, None))]
    assert len(set(folders)) == 3
    assert opened(root, RATE, 60).folder == folders[0]


def test_moved_corpus_keeps_the_key_and_names_its_own_paths(root: Path) -> None:
    (root / "clip2.wav").write_bytes(b"no sound")
    before = opened(root)
    moved = root.rename(root.with_name("moved"))
    after = opened(moved)
    assert after.folder == before.folder
    assert after.problems["clip2"].startswith(f"{moved / 'clip2.wav'}: not readable")


def test_unreadable_recordings_are_recorded_and_stop_nothing(root: Path) -> None:
    clips = table(root)
    (root / "clip1.wav").write_bytes(b"")
    (root / "clip4.wav").unlink()
    for _ in range(2):  # built, then reopened
        cache = open_cache(root, clips, root.parent / "cache", RATE, 60.0)
        assert cache.problems == {
            "clip1": f"{root / 'clip1.wav'}: the file is empty",
            "clip4": f"{root / 'clip4.wav'}: there is no such file",
        }
        assert set(cache.durations) == {"clip0", "clip2", "clip3", "clip5"}
        np.testing.assert_array_equal(cache.waveform("clip5"), load_waveform(root / "clip5.wav"))
        with pytest.raises(EmolightError, match="the file is empty"):
            cache.waveform("clip1")


def test_corpus_without_one_usable_recording_opens(root: Path) -> None:
    for path in root.iterdir():
        path.write_bytes(b"text")
    for _ in range(2):
        assert len(opened(root).problems) == 6


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": cut,
    "bit flipped": flip,
    "text": lambda path: path.write_bytes(b"<html>" * 100),
    "wrong shape": lambda path: path.write_bytes(b'{"crc32": 1, "parameters": [], "hashes": 3, "clips": null}'),
    "list": lambda path: path.write_bytes(b"[1, 2, 3]"),
    "deep": lambda path: path.write_bytes(b"[" * 100_000),
}


@pytest.mark.parametrize("name", ["waveforms.f32", "index.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_cache_is_rebuilt_with_a_line_that_says_so(
    root: Path, name: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = opened(root).folder
    assert capsys.readouterr().err == ""
    DAMAGES[damage](folder / name)
    cache = opened(root)
    check_samples(cache, root)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert str(folder) in said[0]
    assert "is damaged" in said[0]
    opened(root)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("damage", [damage for damage in DAMAGES if damage != "missing"])
def test_damaged_memory_of_hashes_does_no_harm(root: Path, damage: str) -> None:
    for path in root.iterdir():
        os.utime(path, (1, 1))
    before = opened(root)
    for memo in (root.parent / "cache").glob("hashes-*.json"):
        DAMAGES[damage](memo)
    after = opened(root)
    assert after.hashes == before.hashes
    check_samples(after, root)


def test_wrong_remembered_hash_is_found_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emolight.data.cache.SETTLED_NS", -(10**15))
    hashes = opened(root).hashes
    (memo,) = (root.parent / "cache").glob("hashes-*.json")
    content = json.loads(memo.read_text())
    assert len(content) == 6
    content[str(root / "clip0.wav")][-1] = "0" * 32
    memo.write_text(json.dumps(content))
    after = opened(root)
    assert after.hashes == hashes
    check_samples(after, root)


def test_cache_travels_to_another_process_without_its_samples(root: Path) -> None:
    cache = opened(root)
    cache.waveform("clip0")
    parcel = pickle.dumps(cache)
    assert len(parcel) < 5000
    check_samples(pickle.loads(parcel), root)


def test_removed_cache_is_an_error_of_ours(root: Path) -> None:
    cache = pickle.loads(pickle.dumps(opened(root)))
    (cache.folder / "waveforms.f32").unlink()
    with pytest.raises(EmolightError, match="missing or damaged"):
        cache.waveform("clip0")


def open_and_sum(root: Path) -> float:
    cache = opened(root)
    check_samples(cache, root)
    return float(sum(cache.waveform(clip_id).sum() for clip_id in cache.durations))


def test_processes_that_start_at_once_share_one_cache(root: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        sums = pool.map(open_and_sum, [root] * 3, chunksize=1)
    assert len(set(sums)) == 1
    assert len([path for path in (root.parent / "cache").iterdir() if path.is_dir()]) == 1


KILLED_BUILDER = """
import os, sys
from pathlib import Path
import emolight.data.cache as cache
from tests.data.test_cache import opened

left = [3]

def decode_then_die(source, parameters):
    left[0] -= 1
    if not left[0]:
        os._exit(9)
    return load(source, parameters)

load, cache._decode, cache.THREADS = cache._decode, decode_then_die, 1
opened(Path(sys.argv[1]))
"""


def test_leftovers_of_a_killed_builder_are_removed(root: Path) -> None:
    project = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", KILLED_BUILDER, str(root)], cwd=project, check=False)
    assert killed.returncode == 9
    cache_dir = root.parent / "cache"
    assert len(list(cache_dir.glob("*.part"))) == 1
    write_clip(root / "clip0.wav", 50)  # another key: the leftover is nobody's
    check_samples(opened(root), root)
    assert not list(cache_dir.glob("*.part"))


def test_memory_of_hashes_that_a_killed_process_left_half_written_is_removed(root: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    cache_dir = root.parent / "cache"
    cache_dir.mkdir()
    gone, kept = (cache_dir / f".hashes-0123.json.{pid}.part" for pid in (dead.pid, os.getpid()))
    for path in (gone, kept):
        path.write_bytes(b"{")
    opened(root)
    assert not gone.exists()
    assert kept.exists()
    assert not (cache_dir / ".lock").exists()


def test_folder_that_cannot_be_made_is_an_error_of_ours(root: Path) -> None:
    (root.parent / "cache").write_text("a file stands here")
    with pytest.raises(EmolightError, match=r"cannot be written.*\n.*--data\.cache_dir"):
        opened(root)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk_is_an_error_of_ours_and_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really_open = Path.open

    def onto_full_disk(path: Path, *args: object, **options: object) -> object:
        return really_open(Path("/dev/full") if path.name == "waveforms.f32" else path, *args, **options)

    monkeypatch.setattr(Path, "open", onto_full_disk)
    with pytest.raises(EmolightError, match="No space left on device"):
        opened(root)
    assert not [path for path in (root.parent / "cache").iterdir() if path.is_dir()]


@pytest.mark.real
def test_real_corpus_is_built_without_a_problem(ravdess_root: Path, tmp_path: Path) -> None:
    paths = sorted(ravdess_root.rglob("*.wav"))
    clips = pd.DataFrame({"clip_id": [path.stem for path in paths], "path": [str(path) for path in paths]})
    cache = open_cache(ravdess_root, clips, tmp_path, RATE, 30.0, progress=False)
    assert cache.problems == {}
    assert len(cache.durations) == len(paths)
