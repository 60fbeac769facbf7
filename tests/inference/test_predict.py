from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

from emolight.__main__ import run
from emolight.errors import EmolightError
from emolight.inference.predict import find_recordings, predict_files
from emolight.inference.predict_writers import Result
from emolight.inference.recognizer import load

from .conftest import voice


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    (folder / "deeper").mkdir(parents=True)
    soundfile.write(folder / "a.wav", voice(pitch=120), 16000)
    soundfile.write(folder / "b.flac", voice(rate=48000, pitch=250), 48000)
    soundfile.write(folder / "deeper" / "c.ogg", np.stack([voice(rate=44100)] * 2, axis=1), 44100)
    soundfile.write(folder / "deeper" / "d.mp3", voice(rate=22050), 22050)
    (folder / "notes.txt").write_text("not a sound")
    (folder / "._a.wav").write_bytes(b"\0")
    return folder


def test_a_folder_is_searched_for_sound_files(recordings: Path) -> None:
    paths, unreadable = find_recordings([str(recordings)])
    assert ([Path(path).name for path in paths], unreadable) == (["a.wav", "b.flac", "c.ogg", "d.mp3"], [])
    assert [Path(path).name for path in find_recordings([f"{recordings}/**/*.ogg"])[0]] == ["c.ogg"]
    assert len(find_recordings([str(recordings / "a.wav"), str(recordings)])[0]) == 4
    with pytest.raises(EmolightError, match="There is no file"):
        find_recordings([str(recordings / "*.opus")])
    (recordings / "gone.wav").symlink_to("nowhere.wav")  # is told when it is read, not left out
    for word in (recordings, recordings / "*"):
        assert str(recordings / "gone.wav") in find_recordings([str(word)])[0]
    (recordings / "empty").mkdir()
    with pytest.raises(EmolightError, match="No sound file that can be read is in the folder"):
        find_recordings([str(recordings / "empty")])


def test_formats_that_cannot_be_read_are_named(
    checkpoint: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("x.m4a", "deeper/y.MP4", "z.webm"):
        (recordings / name).write_bytes(b"ftypM4A ")
    assert run(["predict", str(checkpoint), str(recordings)]) == 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 4
    assert "not read: 1 × .m4a, 1 × .mp4, 1 × .webm: " in printed.err
    assert all(name in printed.err for name in ("x.m4a", "y.MP4", "z.webm", "ffmpeg -i"))
    for name in ("a.wav", "b.flac", "deeper/c.ogg", "deeper/d.mp3"):
        (recordings / name).unlink()
    with pytest.raises(EmolightError, match=r"No sound file that can be read(.|\n)*1 × .m4a(.|\n)*ffmpeg"):
        run(["predict", str(checkpoint), str(recordings)])


def test_csv_holds_every_probability(checkpoint: Path, recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", str(checkpoint), str(recordings), "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    recognizer = load(checkpoint)
    assert [Path(row["path"]).name for row in rows] == ["a.wav", "b.flac", "c.ogg", "d.mp3"]
    for row in rows:
        expected = recognizer.predict_file(row["path"])
        assert row["prediction"] == expected.label
        probabilities = {name: float(row[f"prob_{name}"]) for name in recognizer.classes}
        assert probabilities == pytest.approx(expected.probabilities, abs=1e-5)


def test_a_long_recording_has_a_summary_and_a_time_line_in_every_format(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.concatenate([voice(3.0), np.zeros(40000, np.float32), voice(3.0)]), 16000)
    for suffix in ("csv", "jsonl", "json", "txt"):
        assert run(["predict", str(checkpoint), str(path), "--output", str(tmp_path / f"out.{suffix}")]) == 0
        assert "predictions of 1 of 1 recordings" in capsys.readouterr().out
    with (tmp_path / "out.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    (whole,) = json.loads((tmp_path / "out.json").read_text())
    text = (tmp_path / "out.txt").read_text().splitlines()
    assert len(table) == len(lines) == 17
    assert whole["windows"] == lines[1:]
    assert {**lines[0], "windows": lines[1:]} == whole
    assert table[0]["start"] == ""
    assert table[0]["how"] == lines[0]["how"] == "mean of 12 windows of 1 s, 4 silent left out"
    for row, line in zip(table[1:], lines[1:], strict=True):
        assert (float(row["start"]), float(row["end"])) == (line["start"], line["end"])
        assert row["prediction"] == (line["prediction"] or "")
    silent = [row for row in table if row["warnings"] == "silent"]
    assert [float(row["start"]) for row in silent] == [3, 3.5, 4, 4.5]
    assert {row["prediction"] + row["confidence"] + row["prob_calm"] for row in silent} == {""}
    assert ", mean of 12 windows of 1 s, 4 silent left out" in text[0]
    assert [line for line in text if "silent" in line][1:] == [
        f"  {n}-{m} s  silent" for n, m in (("3.00", "4.00"), ("3.50", "4.50"), ("4.00", "5.00"), ("4.50", "5.50"))
    ]
    assert run(["predict", str(checkpoint), str(path), "--whole"]) == 0
    assert ", the middle 1 s of" in capsys.readouterr().out


def test_the_time_line_is_drawn(checkpoint: Path, recordings: Path, tmp_path: Path) -> None:
    picture = tmp_path / "new" / "line.png"
    assert run(["predict", str(checkpoint), str(recordings / "a.wav"), "--timeline", str(picture)]) == 0
    assert imread(picture).shape[1] > 600
    with pytest.raises(EmolightError, match="--timeline draws one recording; 4 are given"):
        run(["predict", str(checkpoint), str(recordings), "--timeline", str(picture)])


def test_a_bad_file_is_one_line_and_the_rest_is_predicted(
    checkpoint: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (recordings / "bad.wav").write_bytes(b"RIFFnothing")
    assert run(["predict", str(checkpoint), str(recordings)]) == 1
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert "bad.wav: not readable as audio" in printed.err
    assert len(printed.out.splitlines()) == 4


def test_right_and_wrong_are_marked_by_the_file_name(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = load(checkpoint).predict(voice(), 16000).label
    other = "happy" if label != "happy" else "sad"
    numbers = {"calm": "02", "happy": "03", "sad": "04", "disgust": "07"}
    for name in (str(label), other, "disgust"):
        soundfile.write(tmp_path / f"03-01-{numbers[name]}-01-01-01-07.wav", voice(), 16000, subtype="FLOAT")
    assert run(["predict", str(checkpoint), str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.count("  right\n") == 1
    assert f"  wrong: it is {other}" in out
    assert "it is disgust, which the model does not know" in out
    assert out.splitlines()[-1] == "1 of 2 recordings with a label in their name: 50.0% right"
    model = load(checkpoint)
    model.contract.training["column"] = "sex"
    (told,) = predict_files(model, [str(tmp_path / "03-01-07-01-01-01-07.wav")])
    assert isinstance(told, Result)
    assert told.truth == "male"


def test_recordings_are_explained(checkpoint: Path, tmp_path: Path) -> None:
    for take in (1, 2):
        soundfile.write(tmp_path / f"03-01-03-01-01-0{take}-07.wav", voice(pitch=100.0 * take), 16000)
    assert run(["predict", str(checkpoint), str(tmp_path), "--explain", str(tmp_path / "pictures")]) == 0
    assert len(list((tmp_path / "pictures").glob("03-01-03-01-01-0?-07.png"))) == 2


def test_a_wav_comes_on_standard_input(small_onnx: Path, recordings: Path) -> None:
    command = [sys.executable, "-m", "emolight", "predict", str(small_onnx), "-", "--format", "jsonl"]
    with (recordings / "a.wav").open("rb") as stream:
        done = subprocess.run(command, stdin=stream, capture_output=True, check=True)
    expected = load(small_onnx).predict_file(recordings / "a.wav")
    assert json.loads(done.stdout)["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_no_encoding_knows_are_printed_and_written(small_onnx: Path, tmp_path: Path) -> None:
    folder = tmp_path / "rec"
    folder.mkdir()
    for name in (b"M\xfcller.wav", "запись.wav".encode()):
        soundfile.write(tmp_path / "x.wav", voice(), 16000)
        (tmp_path / "x.wav").rename(folder / os.fsdecode(name))
    command = [sys.executable, "-m", "emolight", "predict", str(small_onnx), str(folder)]
    for encoding in ("utf-8:strict", "cp1252"):
        env = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run(command, capture_output=True, env=env)
        assert (done.returncode, done.stderr) == (0, b"")
        assert len(done.stdout.splitlines()) == 2
    for suffix in ("csv", "jsonl", "json", "txt"):
        assert run([*command[3:], "--output", str(tmp_path / f"out.{suffix}")]) == 0
        written = (tmp_path / f"out.{suffix}").read_text(encoding="utf-8")
        assert "запись" in written or "\\u0437\\u0430" in written


def test_a_reader_that_has_seen_enough_ends_it_quietly(small_onnx: Path, recordings: Path) -> None:
    words = f"predict {small_onnx} {recordings} --window 0.05 --hop 0.0005"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m emolight {words} | head -1"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (141, "", 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "p.xlsx"], r"its suffix names no format(.|\n)*\.csv, \.jsonl, \.json, \.txt"),
        (["--abstain-below", "3"], "abstain_below is 3"),
        (["--window", "1", "--whole"], "--whole judges one piece"),
        (["--window", "100"], "Windows of 100 s"),
    ],
)
def test_options_that_cannot_be_met_are_refused(
    checkpoint: Path, recordings: Path, words: list[str], message: str
) -> None:
    with pytest.raises(EmolightError, match=message):
        run(["predict", str(checkpoint), str(recordings), *words])


def odd_recordings() -> dict[str, Callable[[Path], None]]:
    """Sixteen files that are no good recording, or only just one; each made at the path it is given."""

    def sound(samples: np.ndarray, rate: int = 16000, **options: str) -> Callable[[Path], None]:
        return lambda path: soundfile.write(path, samples, rate, **options)

    def cut(path: Path) -> None:
        soundfile.write(path, voice(), 16000)
        path.write_bytes(path.read_bytes()[:9000])

    def flac_cut(path: Path) -> None:
        soundfile.write(path.with_suffix(".flac"), voice(), 16000)
        path.write_bytes(path.with_suffix(".flac").read_bytes()[:5000])
        path.with_suffix(".flac").unlink()

    def header(path: Path) -> None:
        soundfile.write(path, voice(), 16000)
        path.write_bytes(path.read_bytes()[:44])

    def patched(offset: int, value: bytes) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            soundfile.write(path, voice(), 16000)
            content = bytearray(path.read_bytes())
            content[offset : offset + len(value)] = value
            path.write_bytes(content)

        return make

    nothing_but_nan = np.full(16000, np.nan)
    return {
        "empty": lambda path: path.write_bytes(b""),
        "text": lambda path: path.write_text("Kids are talking by the door."),
        "noise": lambda path: path.write_bytes(np.random.default_rng(0).bytes(20000)),
        "header_only": header,
        "cut": cut,
        "cut_flac": flac_cut,
        "rate_0": patched(24, bytes(4)),
        "rate_4e9": patched(24, (4_000_000_000).to_bytes(4, "little")),
        "channels_0": patched(22, bytes(2)),
        "channels_1000": patched(22, (1000).to_bytes(2, "little")),
        "nan": sound(nothing_but_nan, subtype="FLOAT"),
        "infinite": sound(np.full(16000, np.inf), subtype="FLOAT"),
        "huge": sound(voice() * 1e30, subtype="FLOAT"),
        "silent": sound(np.zeros(16000)),
        "one_sample": sound(np.ones(1)),
        "dangling": lambda path: path.symlink_to("nowhere.wav"),
    }


def test_sixteen_odd_recordings_are_a_sentence_each(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = odd_recordings()
    assert len(made) == 16
    for name, make in made.items():
        make(tmp_path / f"{name}.wav")
    soundfile.write(tmp_path / "good.wav", voice(), 16000)
    # A dangling link in a folder, as of a data set whose files were not fetched, is told, too.
    assert run(["predict", str(checkpoint), str(tmp_path)]) == 1
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert sorted(line.split(".wav: ")[0].split("/")[-1] for line in lines) == sorted(made)
    assert all(len(line.split(".wav: ")[1]) > 10 for line in lines)
    assert len(printed.out.splitlines()) == 1
    assert run(["predict", str(checkpoint), str(tmp_path / "dangling.wav")]) == 1
    assert "dangling.wav: " in capsys.readouterr().err
