"""The waveform cache: right samples whatever happens to its files, no work done twice, one builder among many."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from emolight.data import cache as cache_module
from emolight.data import shards
from emolight.data.audio import load_waveform
from emolight.data.cache import WaveformCache, open_cache
from emolight.errors import EmolightError

RATE = 16000


def write_clip(path: Path, seed: int, rate: int = RATE) -> None:
    rng = np.random.default_rng(seed)
    soundfile.write(path, rng.normal(0, 0.1, int(rng.integers(4000, 9000))), rate, "PCM_16")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Recordings that were not changed just now; clip0 must be resampled."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(6):
        write_clip(folder / f"clip{number}.wav", number, RATE if number else 48000)
        os.utime(folder / f"clip{number}.wav", (1e9, 1e9))
    return folder


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the recordings that are decoded."""
    names: list[str] = []

    def counted(path: str, *rest: object) -> object:
        names.append(Path(path).name)
        return load_waveform(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("emolight.data.cache.load_waveform", counted)
    # What is made in a test counts as settled.
    monkeypatch.setattr(cache_module, "SETTLED_NS", -(10**15))
    return names


def table(root: Path) -> pd.DataFrame:
    paths = sorted(root.iterdir())
    return pd.DataFrame({"clip_id": [path.stem for path in paths], "file": [str(path) for path in paths]})


def opened(root: Path, rate: int = RATE, trim_db: float | None = 60.0) -> WaveformCache:
    return open_cache(table(root), root.parent / "cache", rate, trim_db, progress=False)


def check_samples(cache: WaveformCache, root: Path) -> None:
    for path in root.iterdir():
        np.testing.assert_array_equal(cache.waveform(path.stem), load_waveform(path, RATE, 60.0))


def test_waveforms_are_those_of_the_recordings_to_the_bit(root: Path) -> None:
    cache = opened(root)
    check_samples(cache, root)
    wave = cache.waveform("clip1")
    assert (wave.ndim, wave.dtype, wave.flags.writeable) == (1, np.float32, False)
    assert cache.durations["clip1"] == len(wave) / RATE
    assert cache.problems == {}
    assert len(set(cache.hashes.values())) == 6
    # 16 bits where they are exact, which they are not after resampling.
    sizes = {name: len(cache.waveform(name)) * (4 if name == "clip0" else 2) for name in cache.durations}
    assert sum(sizes.values()) <= (cache.folder / "0000.bin").stat().st_size < sum(sizes.values()) + 6 * 8


def test_parts_of_a_recording_are_clips_and_it_is_read_once(root: Path, decoded: list[str]) -> None:
    long = root / "long.wav"
    soundfile.write(long, np.random.default_rng(0).normal(0, 0.1, 100_000), RATE, "PCM_16")
    clips = pd.DataFrame(
        {
            "clip_id": ["a", "b", "all", "late"],
            "file": str(long),
            "start": [0.5, 2.0, None, 6.0],
            "end": [1.5, 2.5, np.nan, 7.0],
        }
    )
    cache = open_cache(clips, root.parent / "cache", RATE, None, progress=False)
    whole = load_waveform(long, RATE, None)
    np.testing.assert_array_equal(cache.waveform("a"), whole[8000:24000])
    np.testing.assert_array_equal(cache.waveform("b"), whole[32000:40000])
    np.testing.assert_array_equal(cache.waveform("all"), whole)
    assert cache.problems == {"late": f"{long}: has no part from 6 s to 7 s: it lasts 6.25 s"}
    assert len(set(cache.hashes.values())) == 2  # the empty one is of what cannot be used
    again = open_cache(clips, root.parent / "cache", RATE, None, progress=False)
    assert len(decoded) == 5
    assert again.problems == cache.problems


def test_only_what_is_new_is_decoded(root: Path, decoded: list[str]) -> None:
    def fresh() -> list[str]:
        check_samples(opened(root), root)
        names = sorted(decoded)
        decoded.clear()
        return names

    assert len(fresh()) == 6
    assert fresh() == []
    write_clip(root / "new.wav", 77)
    assert fresh() == ["new.wav"]
    write_clip(root / "clip3.wav", 99)
    assert fresh() == ["clip3.wav"]
    content = bytearray((root / "clip2.wav").read_bytes())
    content[500] ^= 1
    (root / "clip2.wav").write_bytes(content)  # of the same size and, now, time
    os.utime(root / "clip2.wav", (1e9, 1e9))
    assert fresh() == ["clip2.wav"]
    (root / "clip4.wav").touch()  # another time, the same content
    (root / "clip5.wav").rename(root / "renamed.wav")
    assert fresh() == []
    assert len(list((root.parent / "cache").glob("*/*.bin"))) == 1


def test_what_was_changed_just_now_is_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = root / "clip3.wav"
    path.write_bytes(path.read_bytes())
    before = opened(root)
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = opened(root)
    assert before.hashes["clip3"] != after.hashes["clip3"]
    check_samples(after, root)


def test_another_rate_or_trim_is_another_folder(root: Path) -> None:
    folders = [opened(root, rate, trim).folder for rate, trim in ((RATE, 60.0), (8000, 60.0), (RATE, None))]
    assert len(set(folders)) == 3
    assert opened(root, RATE, 60).folder == folders[0]


def test_moved_corpus_is_known_by_its_content_and_names_its_own_paths(root: Path, decoded: list[str]) -> None:
    (root / "clip2.wav").write_bytes(b"no sound")
    opened(root)
    decoded.clear()
    moved = root.rename(root.with_name("moved"))
    for _ in range(2):
        cache = opened(moved)
        assert set(decoded) <= {"clip2.wav"}
        assert cache.problems["clip2"].startswith(f"{moved / 'clip2.wav'}: not readable")
        assert len(cache.durations) == 5


def test_unreadable_recordings_are_told_each_time_and_stop_nothing(root: Path, decoded: list[str]) -> None:
    clips = table(root)
    (root / "clip1.wav").write_bytes(b"")
    (root / "clip4.wav").unlink()
    for turn in range(2):
        cache = open_cache(clips, root.parent / "cache", RATE, 60.0, progress=False)
        assert cache.problems == {
            "clip1": f"{root / 'clip1.wav'}: the file is empty",
            "clip4": f"{root / 'clip4.wav'}: there is no such file",
        }
        assert cache.hashes["clip4"] == ""
        assert set(cache.durations) == {"clip0", "clip2", "clip3", "clip5"}
        np.testing.assert_array_equal(cache.waveform("clip5"), load_waveform(root / "clip5.wav", RATE, 60.0))
        with pytest.raises(EmolightError, match="the file is empty"):
            cache.waveform("clip1")
        assert len(decoded) == 5 + turn  # what cannot be used is looked at again
    for path in root.iterdir():
        path.write_bytes(b"text")
    assert len(opened(root).problems) == 5


def test_who_may_not_write_reads_what_is_there(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(root)
    moved = root.rename(root.with_name("moved"))  # known by content alone
    (moved / "clip6.wav").write_bytes(b"no sound")

    def refused(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache_module, "lock", refused)
    cache = opened(moved)
    assert set(cache.problems) == {"clip6"}
    (moved / "clip6.wav").unlink()
    check_samples(cache, moved)
    write_clip(moved / "clip7.wav", 7)
    with pytest.raises(EmolightError, match=r"cannot be written.*Permission denied"):
        opened(moved)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "bit flipped": flip,
    "text": lambda path: path.write_bytes(b"<html>" * 1000),
}


@pytest.mark.parametrize("name", ["0000.bin", "index"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_mended_with_a_line_that_says_so(
    root: Path, name: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = opened(root).folder
    assert capsys.readouterr().err == ""
    DAMAGES[damage](folder / name)
    check_samples(opened(root), root)
    lines = capsys.readouterr().err.splitlines()
    assert all(str(folder) in line and "damaged" in line for line in lines)
    assert len(lines) == (0 if name == "index" and damage in ("missing", "empty") else 1)
    check_samples(opened(root), root)
    assert capsys.readouterr().err == ""


def test_damage_of_a_clip_whose_recording_is_gone_is_named(root: Path) -> None:
    cache = opened(root)
    flip(cache.folder / "0000.bin")
    shutil.move(root, root.with_name("away"))
    with pytest.raises(EmolightError, match=r"waveform of clip\d is damaged, and its recording '.*' is gone") as caught:
        list(map(cache.waveform, cache.durations))
    assert len(str(caught.value).splitlines()) == 2


def test_cache_travels_to_another_process_without_its_samples(root: Path) -> None:
    cache = opened(root)
    cache.waveform("clip0")
    parcel = pickle.dumps(cache)
    assert len(parcel) < 5000
    check_samples(pickle.loads(parcel), root)


def test_removed_cache_is_made_again_clip_by_clip(root: Path) -> None:
    cache = pickle.loads(pickle.dumps(opened(root)))
    for path in cache.folder.iterdir():
        path.unlink()
    check_samples(cache, root)


def open_and_sum(root: Path) -> float:
    cache_module.SETTLED_NS = -(10**15)  # in a process of its own: what the test has just made counts as settled
    cache = opened(root)
    check_samples(cache, root)
    return float(sum(cache.waveform(clip_id).sum() for clip_id in cache.durations))


def test_processes_that_start_at_once_share_one_cache(root: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        sums = pool.map(open_and_sum, [root] * 3, chunksize=1)
    assert len(set(sums)) == 1
    (index,) = (root.parent / "cache").glob("*/index")
    assert index.stat().st_size == 6 * shards.ROW.itemsize


KILLED_BUILDER = """
import os, sys
from pathlib import Path
from emolight.data import shards
from tests.data.test_cache import opened

def write_then_die(writer, *rest):
    write(writer, *rest)
    if len(writer.fresh) == 1 and writer.begin:
        (writer.folder / "index").open("ab").write(b"half")
        os._exit(9)

write, shards.Writer.add, shards.STEP_CLIPS = shards.Writer.add, write_then_die, 2
opened(Path(sys.argv[1]))
"""


def test_what_a_killed_builder_had_decoded_stays(root: Path, decoded: list[str]) -> None:
    project = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", KILLED_BUILDER, str(root)], cwd=project, check=False)
    assert killed.returncode == 9
    (folder,) = (path for path in (root.parent / "cache").iterdir() if path.is_dir())
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (folder / f".index.{dead.pid}.part").write_bytes(b"half")
    (folder / "0007.bin").write_bytes(b"of nobody")
    check_samples(opened(root), root)
    assert len(decoded) == 4
    check_samples(opened(root), root)
    assert len(decoded) == 4
    assert {path.name for path in folder.iterdir()} == {"0000.bin", "index"}


def test_files_are_added_to_until_they_are_full(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_BYTES", 30_000)
    monkeypatch.setattr(shards, "STEP_CLIPS", 2)
    for number in range(6):
        clips = table(root)[: number + 1]
        open_cache(clips, root.parent / "cache", RATE, 60.0, progress=False)
    cache = opened(root)
    check_samples(cache, root)
    sizes = [path.stat().st_size for path in sorted(cache.folder.glob("*.bin"))]
    assert len(sizes) > 1
    assert all(30_000 <= size < 60_000 for size in sizes[:-1])


def test_a_recording_that_changes_while_it_is_decoded_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def meddle(path: str, *rest: object) -> object:
        wave = load_waveform(path, *rest)  # type: ignore[arg-type]
        os.utime(path)
        return wave

    monkeypatch.setattr("emolight.data.cache.load_waveform", meddle)
    with pytest.raises(EmolightError, match=r"clip\d.wav' changed while the waveform cache was built"):
        opened(root)


def test_large_recordings_are_not_read_into_memory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emolight.data.cache.AT_ONCE", 1000)
    monkeypatch.setattr("emolight.data.cache.read_bytes", None)
    check_samples(opened(root), root)


def test_home_is_expanded_and_a_folder_that_cannot_be_made_is_an_error_of_ours(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(root.parent / "home"))
    cache = open_cache(table(root), "~/cache", RATE, 60.0, progress=False)
    assert cache.folder.parent == root.parent / "home" / "cache"
    (root.parent / "cache").write_text("a file stands here")
    with pytest.raises(EmolightError, match=r"cannot be written.*\n.*--data\.cache_dir"):
        opened(root)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk_is_an_error_of_ours(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really_open = Path.open

    def onto_full_disk(path: Path, *args: object, **options: object) -> object:
        return really_open(Path("/dev/full") if path.suffix == ".bin" else path, *args, **options)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", onto_full_disk)
        with pytest.raises(EmolightError, match="No space left on device"):
            opened(root)
    check_samples(opened(root), root)


@pytest.mark.usefixtures("decoded")
def test_what_is_decoded_is_said_and_once(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for said in ("Reading 6 clips, once, into '", ""):
        cache = open_cache(table(root), root.parent / "cache", RATE, 60.0)
        assert capsys.readouterr().err == (f"{said}{cache.folder}'.\n" if said else "")


def test_use_is_noted(root: Path) -> None:
    path = opened(root).folder / "0000.bin"
    os.utime(path, (1e9, 1e9))
    opened(root)
    assert time.time() - path.stat().st_mtime < 100
