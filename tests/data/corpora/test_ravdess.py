from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from emolight.data.corpora import RAVDESS
from emolight.data.corpora.ravdess import ARTICLE, EMOTIONS
from emolight.errors import EmolightError

RAV = RAVDESS()
HAPPY = "03-01-03-01-01-01-01"
SUNG = "03-02-05-02-02-02-24"


def record(path: Path, seed: int = 0, rate: int = 16000, subtype: str = "PCM_16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-9000, 9000, 400) / 32768
    kind = "FLAC" if path.suffix.lower() == ".flac" else "WAV"
    soundfile.write(path, noise, rate, subtype=subtype, format=kind)
    return path


def test_a_name_gives_every_field() -> None:
    assert RAV.parse("03-02-06-02-01-02-24") == {
        "clip_id": "03-02-06-02-01-02-24",
        "emotion": "fearful",
        "speaker": "24",
        "sex": "female",
        "channel": "song",
        "intensity": "strong",
        "statement": "Kids are talking by the door",
        "repetition": "2",
    }
    clip = RAV.parse("03-01-08-01-02-01-07")
    assert clip is not None
    assert [clip[name] for name in ("emotion", "speaker", "sex", "channel")] == ["surprised", "07", "male", "speech"]


@pytest.mark.parametrize(
    "name",
    [
        "03-01-01-02-01-01-01",  # neutral has no strong intensity
        "03-02-07-01-01-01-01",  # disgust is not sung
        "03-02-08-01-01-01-01",
        "03-01-09-01-01-01-01",
        "03-01-00-01-01-01-01",
        "03-03-03-01-01-01-01",
        "03-01-03-03-01-01-01",
        "03-01-03-01-03-01-01",
        "03-01-03-01-01-00-01",
        "03-01-03-01-01-01-25",
        "03-01-03-01-01-01-00",
        "02-01-03-01-01-01-01",  # video
        "03-01-03-01-01-01",
        "03-01-03-01-01-01-01-01",
        "3-1-3-1-1-1-1",
        "03-01-03-01-01-01-01\n",
        "03-01-03-01-01-01-01 (1)",
        "٠٣-01-03-01-01-01-01",  # digits, but not ours
        "",
    ],
)
def test_a_name_outside_the_grammar_is_foreign(name: str) -> None:
    assert RAV.parse(name) is None


def test_the_published_set_has_1440_speech_and_1012_song_clips() -> None:
    clips = RAV.expected()
    assert clips["clip_id"].is_unique
    assert clips["clip_id"].is_monotonic_increasing
    assert dict(clips["channel"].value_counts()) == {"speech": 1440, "song": 1012}
    song, speech = (clips[clips["channel"] == name] for name in ("song", "speech"))
    assert set(song["speaker"]) == {f"{actor:02d}" for actor in range(1, 25)} - {"18"}
    assert set(song.groupby("speaker").size()) == {44}
    assert set(speech.groupby("speaker").size()) == {60}
    assert set(song["emotion"]) == set(EMOTIONS[:6])
    article = clips[clips["emotion"].isin(list(ARTICLE)) & (clips["speaker"] != "18")]
    assert set(article.groupby("speaker").size()) == {80}


@pytest.mark.parametrize(
    "path",
    [
        f"Audio_Speech_Actors_01-24/Actor_01/{HAPPY}.wav",
        f"{HAPPY}.wav",
        f"a/b/c/d/{HAPPY}.WAV",
        f"Actor_02/{HAPPY}.flac",  # the name decides, not the folder
        f"with space/{HAPPY}.Flac",
    ],
)
def test_a_clip_is_found_in_any_layout(tmp_path: Path, path: str) -> None:
    record(tmp_path / path)
    found = RAV.find(tmp_path)
    row = found.table.to_dict("records")[0]
    assert [row[name] for name in ("clip_id", "path", "speaker", "emotion")] == [HAPPY, path, "01", "happy"]


def test_the_table_is_sorted_by_clip_and_not_by_folder(tmp_path: Path) -> None:
    record(tmp_path / "a" / f"{SUNG}.wav")
    record(tmp_path / "b" / f"{HAPPY}.wav")
    table = RAV.find(str(tmp_path)).table
    assert table["clip_id"].tolist() == [HAPPY, SUNG]
    assert table.index.tolist() == [0, 1]


def test_what_is_no_clip_is_passed_over_and_counted(tmp_path: Path) -> None:
    record(tmp_path / f"{HAPPY}.wav")
    names = ["._" + HAPPY + ".wav", "01-01-03-01-01-01-01.mp4", "02-01-03-01-01-01-01.mp4", "talk.mov"]
    names += ["noise.wav", f"{HAPPY} (1).wav", "03-01-01-02-01-01-01.wav", "01-01-03-01-01-01-01.wav"]
    names += ["README.txt", "archive.zip", f".{HAPPY}.wav.71.part"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    found = RAV.find(tmp_path)
    assert found.passed_over == {
        "._ file": 1,
        ".mov file, which cannot be read": 1,
        ".mp4 file, which cannot be read": 2,
        "foreign name": 3,
        "sound of the video recordings, named 01-…: rename it to 03-… to use it": 1,
    }
    assert len(found.table) == 1


def test_a_lossy_copy_is_used_only_where_there_is_no_other(tmp_path: Path) -> None:
    record(tmp_path / "b" / f"{HAPPY}.flac")
    for stem in (HAPPY, SUNG):
        (tmp_path / "a").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "a" / f"{stem}.mp3", np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
    found = RAV.find(tmp_path)
    assert found.table["path"].tolist() == [f"b/{HAPPY}.flac", f"a/{SUNG}.mp3"]
    assert found.passed_over == {"lossy copy of a clip that is there without loss": 1}
    assert found.conflicts == found.duplicates == []


def test_the_same_bytes_twice_count_once(tmp_path: Path) -> None:
    record(tmp_path / "b" / f"{HAPPY}.wav")
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    found = RAV.find(tmp_path)
    assert found.table["path"].tolist() == [f"b/{HAPPY}.wav"]
    assert found.duplicates == [(f"b/{HAPPY}.wav", f"c/{HAPPY}.wav")]


def change_samples(path: Path) -> None:
    record(path, seed=1)


def change_rate(path: Path) -> None:
    record(path, rate=8000)


def break_file(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not audio")


def make_pipe(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)


@pytest.mark.parametrize("write_other", [change_samples, change_rate, break_file, make_pipe])
def test_one_clip_with_two_contents_is_an_error_that_names_both(tmp_path: Path, write_other) -> None:  # type: ignore[no-untyped-def]
    record(tmp_path / "a" / f"{HAPPY}.wav")
    write_other(tmp_path / "b" / f"{HAPPY}.wav")
    with pytest.raises(EmolightError, match=f"'a/{HAPPY}.wav' and 'b/{HAPPY}.wav'"):
        RAV.find(tmp_path)
    found = RAV.find(tmp_path, strict=False)
    assert found.conflicts == [(f"a/{HAPPY}.wav", f"b/{HAPPY}.wav")]
    assert found.table["path"].tolist() == [f"a/{HAPPY}.wav"]


def test_a_link_that_leads_nowhere_is_no_copy(tmp_path: Path) -> None:
    record(tmp_path / "b" / f"{HAPPY}.wav")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / f"{HAPPY}.wav").symlink_to(tmp_path / "gone.wav")
    with pytest.raises(EmolightError, match=f"'a/{HAPPY}.wav' and 'b/{HAPPY}.wav'"):
        RAV.find(tmp_path)
    assert RAV.find(tmp_path, strict=False).conflicts == [(f"a/{HAPPY}.wav", f"b/{HAPPY}.wav")]


def test_links_are_followed_once_and_a_loop_ends(tmp_path: Path) -> None:
    record(tmp_path / "disk" / "Actor_01" / f"{HAPPY}.wav")
    root = tmp_path / "root"
    root.mkdir()
    (root / "speech").symlink_to(tmp_path / "disk", target_is_directory=True)
    (root / "speech again").symlink_to(tmp_path / "disk", target_is_directory=True)
    (tmp_path / "disk" / "up").symlink_to(root, target_is_directory=True)
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    found = RAV.find(tmp_path / "link")
    assert found.table["path"].tolist() == [f"speech/Actor_01/{HAPPY}.wav"]
    assert found.duplicates == []


@pytest.mark.parametrize("kind", ["missing", "empty", "sound of the videos", "a file"])
def test_no_clip_says_the_three_ways_out(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "my data"
    if kind == "a file":
        root.write_bytes(b"")
    elif kind != "missing":
        root.mkdir()
    if kind == "sound of the videos":
        record(root / "01-01-03-01-01-01-01.wav")
    with pytest.raises(EmolightError) as caught:
        RAV.find(root)
    text = str(caught.value)
    assert len(text.splitlines()) <= 3
    assert f"python -m emolight download '{root}' --corpus RAVDESS" in text
    assert "--data.root DIR" in text
    assert "--config demo" in text
    assert ("rename it to 03-" in text) == (kind == "sound of the videos")


@pytest.mark.real
def test_the_recordings_are_found(ravdess_root: Path) -> None:
    found = RAV.find(ravdess_root)
    assert dict(found.table["channel"].value_counts()) == {"speech": 1440, "song": 1009}
    assert found.table["emotion"].isin(ARTICLE).sum() == 1878
    assert (found.passed_over, found.duplicates) == ({}, [])
