from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from emolight.__main__ import run
from emolight.errors import EmolightError
from emolight.inference.predict import find_recordings
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
    assert [Path(path).name for path in find_recordings([str(recordings)])] == ["a.wav", "b.flac", "c.ogg", "d.mp3"]
    assert [Path(path).name for path in find_recordings([f"{recordings}/**/*.ogg"])] == ["c.ogg"]
    once = find_recordings([str(recordings / "a.wav"), str(recordings)])
    assert len(once) == 4
    with pytest.raises(EmolightError, match="There is no file"):
        find_recordings([str(recordings / "*.opus")])
    (recordings / "empty").mkdir()
    with pytest.raises(EmolightError, match="No sound file is in the folder"):
        find_recordings([str(recordings / "empty")])


def test_csv_holds_every_probability(
    checkpoint: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["predict", str(checkpoint), str(recordings), "--format", "csv", "--batch-size", "3"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    recognizer = load(checkpoint)
    assert [Path(row["path"]).name for row in rows] == ["a.wav", "b.flac", "c.ogg", "d.mp3"]
    for row in rows:
        expected = recognizer.predict_file(row["path"])
        assert row["prediction"] == expected.label
        told = {name: float(row[f"prob_{name}"]) for name in recognizer.classes}
        assert told == pytest.approx(expected.probabilities, abs=1e-5)


def test_json_lines_go_to_the_output_file(checkpoint: Path, recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    words = ["--window", "0.6", "--hop", "0.2", "--output", str(out)]
    assert run(["predict", str(checkpoint), str(recordings / "a.wav"), *words]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["start"], row["end"]) for row in rows] == [(0, 0.6), (0.2, 0.8), (0.4, 1.0)]
    assert all(sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5) for row in rows)


def test_a_bad_file_is_one_line_and_the_rest_is_predicted(
    checkpoint: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (recordings / "bad.wav").write_bytes(b"RIFFnothing")
    assert run(["predict", str(checkpoint), str(recordings)]) == 1
    told = capsys.readouterr()
    assert len(told.err.splitlines()) == 1
    assert "bad.wav: not readable as audio" in told.err
    assert len(told.out.splitlines()) == 4


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
    assert out.splitlines()[-1] == "1 of 2 clips with a label in their name: 50.0% right"


def test_labelled_clips_are_drawn_and_explained(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    for take in (1, 2):
        soundfile.write(tmp_path / f"03-01-03-01-01-0{take}-07.wav", voice(pitch=100.0 * take), 16000)
    words = ["predict", str(checkpoint), str(tmp_path), "--draw", str(tmp_path / "grid.png")]
    assert run([*words, "--explain", str(tmp_path / "pictures")]) == 0
    assert (tmp_path / "grid.png").read_bytes()[:4] == b"\x89PNG"
    assert len(list((tmp_path / "pictures").glob("03-01-03-01-01-0?-07.png"))) == 2
    (tmp_path / "nameless").mkdir()
    soundfile.write(tmp_path / "nameless" / "a.wav", voice(), 16000)
    with pytest.raises(EmolightError, match="no clip has one of the model's emotions"):
        run(["predict", str(checkpoint), str(tmp_path / "nameless"), "--draw", "grid.png"])


def test_a_wav_comes_on_standard_input(checkpoint: Path, recordings: Path) -> None:
    command = [sys.executable, "-m", "emolight", "predict", str(checkpoint), "-", "--format", "jsonl"]
    with (recordings / "a.wav").open("rb") as stream:
        done = subprocess.run(command, stdin=stream, capture_output=True, check=True)
    expected = load(checkpoint).predict_file(recordings / "a.wav")
    assert json.loads(done.stdout)["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--hop", "0.1"], "--hop is given without --window"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--abstain-below", "3"], "abstain_below is 3"),
        (["--window", "1", "--explain", "x"], "show whole clips"),
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
    # The dangling link is no file: a folder passes it over, by name it is refused.
    assert run(["predict", str(checkpoint), str(tmp_path)]) == 1
    told = capsys.readouterr()
    lines = told.err.splitlines()
    assert sorted(line.split(".wav: ")[0].split("/")[-1] for line in lines) == sorted(set(made) - {"dangling"})
    assert all(len(line.split(".wav: ")[1]) > 10 for line in lines)
    assert len(told.out.splitlines()) == 1
    with pytest.raises(EmolightError, match=r"There is no file '.*dangling.wav'"):
        run(["predict", str(checkpoint), str(tmp_path / "dangling.wav")])
