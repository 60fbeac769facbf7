from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import soundfile

from emolight.data.audit import audit, main, misplacement, probe, twin_share
from emolight.data.ravdess import expected_clips
from emolight.errors import EmolightError

RATE = 1000


def tone(seed: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (80, channels)).astype(np.float32)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The complete published set with clips of 80 milliseconds."""
    root = tmp_path_factory.mktemp("complete")
    soundfile.write(root / "one.wav", tone(0), RATE)
    header = (root / "one.wav").read_bytes()[:-160]
    (root / "one.wav").unlink()
    random = np.random.default_rng(0)
    for name in expected_clips()["path"]:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(header + random.integers(-9000, 9000, 80, dtype="<i2").tobytes())
    return root


@pytest.fixture
def speech(complete: Path, tmp_path: Path) -> Path:
    folder = "Audio_Speech_Actors_01-24"
    shutil.copytree(complete / folder, tmp_path / "speech" / folder)
    return tmp_path / "speech"


def clip_path(root: Path, name: str) -> Path:
    return root / "Audio_Speech_Actors_01-24" / f"Actor_{name[-2:]}" / f"{name}.wav"


def test_a_complete_set_passes_and_reports_in_json(
    complete: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = tmp_path / "new" / "classes.png"
    assert main([str(complete), "--json", "--figure", str(figure)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert report["missing"] == []
    assert report["totals"] == {"speech": [1440, 1440], "song": [1012, 1012]}
    assert report["counts"]["emotion"]["song"]["disgust"] == [0, 0]
    assert report["counts"]["actor"]["song"]["18"] == [0, 0]
    assert report["sound"]["speech"] == {
        "sample_rates": {str(RATE): 1440},
        "channel_counts": {"1": 1440},
        "seconds": {"min": 0.08, "median": 0.08, "max": 0.08},
    }
    shares = {name: twins["share"] for name, twins in report["twin_share"].items()}
    assert shares["emobox6"] == shares["luna5"] == shares["loso"] == 0
    assert 0.7 < shares["random"] < 0.95
    assert report["figure"] == str(figure)
    height, width, _ = matplotlib.image.imread(figure).shape
    assert width > height > 300


def test_the_table_for_people_shows_counts_and_verdict(
    complete: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(complete)]) == 0
    text = capsys.readouterr().out
    assert "1440 / 1440" in text
    assert "1012 / 1012" in text
    assert "emobox6 fold 1" in text
    assert "not complete" not in text
    assert "The set is complete and sound." in text
    assert (tmp_path / "emolight-audit.png").exists()


def test_every_fault_of_a_damaged_copy_is_named(
    speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, silent, broken, twice, clash, moved, clipped = (
        f"03-01-03-01-01-01-{actor:02d}" for actor in range(1, 8)
    )
    clip_path(speech, missing).unlink()
    soundfile.write(clip_path(speech, silent), np.zeros(80), RATE)
    clip_path(speech, broken).write_bytes(b"RIFF")
    (speech / "copy").mkdir()
    (speech / "copy" / f"{twice}.wav").write_bytes(clip_path(speech, twice).read_bytes())
    soundfile.write(speech / "copy" / f"{clash}.wav", tone(5), RATE)
    target = speech / "Audio_Song_Actors_01-24" / "Actor_06" / f"{moved}.wav"
    target.parent.mkdir(parents=True)
    clip_path(speech, moved).rename(target)
    soundfile.write(clip_path(speech, clipped), np.tile([1.0, -1.0], 40), RATE)
    (speech / "01-01-03-01-01-01-01.mp4").write_bytes(b"")
    other_name = clip_path(speech, "03-01-03-01-01-01-09")
    other_name.write_bytes(clip_path(speech, "03-01-03-01-01-01-08").read_bytes())

    report = audit(speech, ["speech"])
    assert report["missing"] == [missing]
    assert [Path(path).stem for path in report["silent"]] == [silent]
    assert [Path(path).stem for path, _ in report["unreadable"]] == [broken]
    assert [Path(path).stem for path, _ in report["duplicates"]] == [twice]
    assert [Path(path).stem for path, _ in report["conflicts"]] == [clash]
    assert report["misplaced"] == [[f"Audio_Song_Actors_01-24/Actor_06/{moved}.wav", "is speech"]]
    assert [Path(path).stem for path in report["clipped"]] == [clipped]
    assert [[Path(path).stem[-2:] for path in pair] for pair in report["same_samples"]] == [["08", "09"]]
    assert report["passed_over"] == {"video file": 1}
    assert not report["ok"]

    figure = str(tmp_path / "x.png")
    assert main([str(speech), "--channels", "speech", "--figure", figure]) == 1
    text = capsys.readouterr().out
    assert all(name in text for name in (missing, silent, broken, twice, clash, moved, clipped))
    assert text.index("ERROR: 1 missing") < text.index("warning: 1 duplicates")


def test_duplicates_and_clipping_alone_are_no_failure(speech: Path, tmp_path: Path) -> None:
    name = "03-01-03-01-01-01-01"
    soundfile.write(clip_path(speech, name), np.tile([1.0, -1.0], 40), RATE)
    (speech / f"{name}.wav").write_bytes(clip_path(speech, name).read_bytes())
    report = audit(speech, ["speech"])
    assert (len(report["duplicates"]), len(report["clipped"]), report["ok"]) == (1, 1, True)


def test_a_missing_channel_is_wrong_unless_it_is_not_asked_for(speech: Path) -> None:
    report = audit(speech)
    assert len(report["missing"]) == 1012
    assert not report["ok"]
    assert audit(speech, ["speech"])["ok"]
    assert "song" in report["twin_share"]["random"]["why_not"]


def test_a_channel_without_any_clip_is_reported_not_crashed(
    speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(speech), "--channels", "song", "--figure", str(tmp_path / "x.png")]) == 1
    text = capsys.readouterr().out
    assert "1012 missing clips" in text
    assert "992 more" in text


def test_a_clip_that_was_never_published_is_a_warning(complete: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "set").symlink_to(complete, target_is_directory=True)
    soundfile.write(root / "03-02-03-01-01-01-18.wav", tone(9999), RATE)
    report = audit(root)
    assert (report["unpublished"], report["ok"]) == (["03-02-03-01-01-01-18"], True)


def write(path: Path, samples: object, **how: str) -> Path:
    soundfile.write(path, np.asarray(samples), RATE, **how)
    return path


def test_probe_refuses_what_cannot_be_used(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.wav", tone(0))
    cut = tmp_path / "cut.wav"
    cut.write_bytes(whole.read_bytes()[:-60])
    flac = write(tmp_path / "whole.flac", np.tile(tone(0), (500, 1)))
    cut_flac = tmp_path / "cut.flac"
    cut_flac.write_bytes(flac.read_bytes()[: flac.stat().st_size // 2])
    (tmp_path / "empty.wav").write_bytes(b"")
    nan = write(tmp_path / "nan.wav", [0.1, float("nan"), 0.2] * 30, subtype="FLOAT")
    infinite = write(tmp_path / "inf.wav", [0.1, float("-inf"), 0.2] * 30, subtype="FLOAT")
    assert probe(whole).error == ""
    assert "cut short" in probe(cut).error
    assert probe(cut_flac).error
    assert probe(tmp_path / "empty.wav").error
    assert probe(tmp_path / "absent.wav").error
    assert probe(write(tmp_path / "zero.wav", np.zeros(0))).error == "has no samples"
    assert "NaN or infinite" in probe(nan).error
    assert "NaN or infinite" in probe(infinite).error


def test_a_chunk_behind_the_samples_is_no_truncation(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(0))
    path.write_bytes(path.read_bytes() + b"junk")
    assert probe(path).error == ""


def test_silence_is_what_training_refuses(tmp_path: Path) -> None:
    wave = tone(0)
    with pytest.warns(UserWarning, match="cancel each other"):
        assert not probe(write(tmp_path / "a.wav", np.hstack([wave, -wave]))).silent
    assert not probe(write(tmp_path / "b.wav", np.hstack([wave, wave]))).silent
    assert probe(write(tmp_path / "c.wav", np.full(80, 1 / 32768))).silent
    assert not probe(write(tmp_path / "d.wav", np.tile([3 / 32768, -3 / 32768], 40))).silent


@pytest.mark.parametrize(("run", "clipped"), [(1, False), (2, False), (3, True)])
@pytest.mark.parametrize("top", [32767, -32768])
def test_clipping_needs_three_samples_in_a_row(tmp_path: Path, run: int, top: int, clipped: bool) -> None:
    samples = np.zeros((60, 2), dtype=np.int16)
    samples[5 : 5 + run, 1] = samples[20, 1] = top
    assert probe(write(tmp_path / "a.wav", samples)).clipped is clipped


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("Audio_Speech_Actors_01-24/Actor_07/x.wav", ""),
        ("x.wav", ""),
        ("RAVDESS speech and song/actor 7/x.wav", ""),
        ("Actor_08/x.wav", "is by actor 7"),
        ("Song/Actor_07/x.wav", "is speech"),
    ],
)
def test_misplacement_reads_the_folders(path: str, why: str) -> None:
    assert misplacement(path, {"actor": 7, "channel": "speech"}) == why


def test_twin_share_counts_the_other_take_only() -> None:
    rows = [
        ("03-01-03-01-01-01-01", "val"),  # its twin trains
        ("03-01-03-01-01-02-01", "train"),
        ("03-01-03-01-02-01-01", "val"),  # another statement trains
        ("03-01-04-01-01-01-01", "val"),  # both takes validate
        ("03-01-04-01-01-02-01", "val"),
        ("03-01-03-01-02-02-02", "train"),
    ]
    assert twin_share(pd.DataFrame(rows, columns=["clip_id", "subset"])) == 0.25


def test_mistakes_are_told_as_such(tmp_path: Path, speech: Path) -> None:
    with pytest.raises(EmolightError, match="no folder"):
        main([str(tmp_path / "absent")])
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EmolightError, match=re.escape("--figure PATH")):
        main([str(speech), "--figure", str(tmp_path / "file" / "x.png")])


@pytest.mark.real
def test_the_packed_recordings_lack_three_song_files(
    ravdess_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(ravdess_root), "--json", "--figure", str(tmp_path / "x.png")]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["missing"] == ["03-02-01-01-01-01-24", "03-02-02-01-01-02-17", "03-02-03-01-01-01-17"]
    assert all(report[name] == [] for name in ("conflicts", "unreadable", "silent", "misplaced", "duplicates"))
    assert report["sound"]["speech"]["channel_counts"] == {"1": 1435, "2": 5}
    assert report["sound"]["speech"]["sample_rates"] == {"48000": 1440}
    assert report["sound"]["song"]["sample_rates"] == {"24000": 1009}
    # Both takes of this sentence hold the same samples here (the speech files are said to be as published).
    assert [[Path(path).stem for path in pair] for pair in report["same_samples"]] == [
        ["03-01-03-01-02-01-07", "03-01-03-01-02-02-07"]
    ]
