from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from emolight.data.audit import audit, corpus_in, main, probe
from emolight.data.corpora import EMODB, RAVDESS, Synthetic, Table
from emolight.errors import EmolightError

RATE = 1000
SPEECH = {"channel": ["speech"]}


def tone(seed: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (80, channels)).astype(np.float32)


def write(path: Path, samples: object, **how: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.asarray(samples), RATE, **how)
    return path


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The complete published set with clips of 80 milliseconds."""
    root = tmp_path_factory.mktemp("complete")
    header = write(root / "one.wav", tone(0)).read_bytes()[:-160]
    (root / "one.wav").unlink()
    random = np.random.default_rng(0)
    for name in RAVDESS().expected()["path"]:
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


def test_a_complete_set_passes_and_reports_in_json(complete: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(complete), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["corpus"], report["missing"]) == (True, "RAVDESS", [])
    assert report["emotions"]["angry"] == [376, 376]
    assert list(report["emotions"]) == list(RAVDESS.emotions)
    assert report["speakers"]["18"] == [60, 60]
    assert (report["sample_rates"], report["channel_counts"]) == ({str(RATE): 2452}, {"1": 2452})
    assert report["seconds"] == {"min": 0.08, "median": 0.08, "max": 0.08}


def test_every_fault_of_a_damaged_copy_is_named(
    speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, silent, broken, twice, clash, clipped = (f"03-01-03-01-01-01-{actor:02d}" for actor in range(1, 7))
    clip_path(speech, missing).unlink()
    write(clip_path(speech, silent), np.zeros(80))
    clip_path(speech, broken).write_bytes(b"RIFF")
    (speech / "copy").mkdir()
    (speech / "copy" / f"{twice}.wav").write_bytes(clip_path(speech, twice).read_bytes())
    write(speech / "copy" / f"{clash}.wav", tone(5))
    write(clip_path(speech, clipped), np.tile([1.0, -1.0], 40))
    (speech / "01-01-03-01-01-01-01.mp4").write_bytes(b"")
    other_name = clip_path(speech, "03-01-03-01-01-01-09")
    other_name.write_bytes(clip_path(speech, "03-01-03-01-01-01-08").read_bytes())

    report = audit(speech, only=SPEECH)
    assert report["missing"] == [missing]
    assert [Path(path).stem for path in report["silent"]] == [silent]
    assert [Path(path).stem for path, _ in report["unreadable"]] == [broken]
    assert [Path(path).stem for path, _ in report["duplicates"]] == [twice]
    assert [Path(path).stem for path, _ in report["conflicts"]] == [clash]
    assert [Path(path).stem for path in report["clipped"]] == [clipped]
    assert [[Path(path).stem[-2:] for path in pair] for pair in report["same_samples"]] == [["08", "09"]]
    assert sum(report["passed_over"].values()) == 1
    assert report["speakers"]["01"] == [59, 60]
    assert not report["ok"]

    assert main([str(speech), "--filter", "channel=speech"]) == 1
    text = capsys.readouterr().out
    assert all(name in text for name in (missing, silent, broken, twice, clash, clipped))
    assert text.index("ERROR: missing clips: 1") < text.index("warning: duplicates, counted once: 1")
    assert "1 of them not complete:\n    01: 59 / 60" in text


def test_the_part_that_is_not_asked_for_may_be_missing(speech: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(audit(speech)["missing"]) == 1012
    name = "03-01-03-01-01-01-01"
    write(clip_path(speech, name), np.tile([1.0, -1.0], 40))
    (speech / f"{name}.wav").write_bytes(clip_path(speech, name).read_bytes())
    report = audit(speech, only=SPEECH)
    assert (len(report["duplicates"]), len(report["clipped"]), report["ok"]) == (1, 1, True)
    assert main([str(speech), "--filter", "channel=song"]) == 1
    text = capsys.readouterr().out
    assert "missing clips: 1012" in text
    assert "992 more" in text


def test_a_clip_that_was_never_published_is_a_warning(complete: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "set").symlink_to(complete, target_is_directory=True)
    write(root / "03-02-03-01-01-01-18.wav", tone(9999))
    report = audit(root)
    assert (report["unpublished"], report["ok"]) == (["03-02-03-01-01-01-18"], True)


def test_a_corpus_known_by_its_counts_lacks_clips_by_emotion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("03a01Fa", "03a01Fc", "08a01Wa")):
        write(tmp_path / f"{name}.wav", tone(number))
    write(tmp_path / "notes.wav", tone(9))
    assert isinstance(corpus_in(tmp_path), EMODB)
    report = audit(tmp_path)
    assert ["happy", "2 of 71"] in report["too_few"]
    assert len(report["too_few"]) == 7
    assert report["emotions"]["angry"] == [1, 127]
    assert report["passed_over"] == {"foreign name": 1}
    assert main([str(tmp_path)]) == 1
    assert "2 / 71" in capsys.readouterr().out


def test_a_table_is_checked_for_its_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "sound" / "a.wav", tone(1))
    write(tmp_path / "sound" / "b.wav", np.zeros(80))
    rows = ["file,emotion,speaker,start,end", "a.wav,joy,x,0,0.04", "a.wav,anger,x,0.04,0.08", "b.wav,joy,y,0,0.08"]
    (tmp_path / "sound" / "mine.csv").write_text("\n".join(rows), encoding="utf-8")
    assert isinstance(corpus_in(tmp_path / "sound" / "mine.csv"), Table)
    assert main([str(tmp_path / "sound" / "mine.csv"), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["silent"], report["same_samples"]) == (["b.wav"], [])  # two parts of one file are no copies
    assert report["emotions"] == {"anger": [1, None], "joy": [2, None]}
    (tmp_path / "sound" / "mine.csv").write_text("\n".join(rows[:3]), encoding="utf-8")
    assert main([str(tmp_path / "sound"), "--corpus", str(tmp_path / "sound" / "mine.csv")]) == 0
    said = capsys.readouterr().out
    assert "what was published is not known" in said
    assert "mine: clips found\n" in said
    assert "1 file of 1000 Hz" in said
    wrong = [*rows[:3], "a.wav,Joy,x,7,8", "a.wav,joy,y,0.01,0.03"]
    (tmp_path / "sound" / "mine.csv").write_text("\n".join(wrong), encoding="utf-8")
    assert main([str(tmp_path / "sound" / "mine.csv")]) == 1
    said = capsys.readouterr().out
    assert "parts that lie outside of their recordings: 1\n    a_7.000_8.000" in said
    assert "what `fit` refuses: 1\n    The labels of mine 'Joy' and 'joy' differ in writing only." in said
    (tmp_path / "sound" / "mine.csv").write_text("\n".join([*rows[:2], "a.wav,,x,0,0.03"]), encoding="utf-8")
    with pytest.raises(EmolightError, match=r"line 3: no emotion\.\nFill it in, or delete the line"):
        main([str(tmp_path / "sound" / "mine.csv")])


def test_mistakes_are_told_as_such(tmp_path: Path, complete: Path, corpus: Path) -> None:
    assert isinstance(corpus_in(corpus), Synthetic)
    write(tmp_path / "hello.wav", tone(1))
    for words, problem in (
        ([str(tmp_path / "absent")], "no folder"),
        ([str(tmp_path)], r"(?s)Of the 1 sound files.*--corpus RAVDESS\|EMODB"),
        ([str(complete), "--corpus", "RAVDES"], "Did you mean 'RAVDESS'"),
        ([str(complete), "--filter", "sexx=female"], "Did you mean 'sex'"),
        ([str(complete), "--filter", "channel"], "has no '='"),
        ([str(complete), "--filter", "channel=video"], "no clip with"),
    ):
        with pytest.raises(EmolightError, match=problem):
            main(words)


def test_probe_refuses_what_training_refuses(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.wav", tone(0))
    cut = tmp_path / "cut.wav"
    cut.write_bytes(whole.read_bytes()[:-60])
    nan = write(tmp_path / "nan.wav", [0.1, float("nan"), 0.2] * 30, subtype="FLOAT")
    assert probe(whole).error == ""
    assert "cut short" in probe(cut).error
    assert probe(tmp_path / "absent.wav").error
    assert "NaN or infinite" in probe(nan).error
    assert probe(write(tmp_path / "c.wav", np.full(80, 1 / 32768))).silent
    assert not probe(write(tmp_path / "d.wav", np.tile([3 / 32768, -3 / 32768], 40))).silent
    with pytest.warns(UserWarning, match="cancel each other"):
        assert not probe(write(tmp_path / "e.wav", np.hstack([tone(0), -tone(0)]))).silent


@pytest.mark.parametrize(("run", "clipped"), [(2, False), (3, True)])
@pytest.mark.parametrize("top", [32767, -32768])
def test_clipping_needs_three_samples_in_a_row(tmp_path: Path, run: int, top: int, clipped: bool) -> None:
    samples = np.zeros((60, 2), dtype=np.int16)
    samples[5 : 5 + run, 1] = samples[20, 1] = top
    assert probe(write(tmp_path / "a.wav", samples)).clipped is clipped


@pytest.mark.real
def test_the_packed_recordings_lack_three_song_files(ravdess_root: Path) -> None:
    report = audit(ravdess_root)
    assert report["missing"] == ["03-02-01-01-01-01-24", "03-02-02-01-01-02-17", "03-02-03-01-01-01-17"]
    assert all(report[name] == [] for name in ("conflicts", "unreadable", "silent", "duplicates"))
    assert report["channel_counts"] == {"1": 2444, "2": 5}
    assert report["sample_rates"] == {"24000": 1009, "48000": 1440}
    # Both takes of this sentence hold the same samples here (the speech files are said to be as published).
    assert [[Path(path).stem for path in pair] for pair in report["same_samples"]] == [
        ["03-01-03-01-02-01-07", "03-01-03-01-02-02-07"]
    ]
