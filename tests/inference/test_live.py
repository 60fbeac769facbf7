"""``predict --live``: a file is played into the microphone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from emolight.__main__ import main, run
from emolight.inference.live import listen, newest_windows, predict_live
from emolight.inference.recognizer import load

from .conftest import voice

RATE = 16000
FAKE = """
import threading, time
import soundfile

class PortAudioError(Exception):
    pass

def query_devices(kind):
    if not {path!r}:
        raise PortAudioError("Error querying device -1")
    return {{"name": "a played file", "default_samplerate": float(soundfile.info({path!r}).samplerate)}}

class InputStream:
    def __init__(self, samplerate, channels, dtype, callback):
        assert (channels, dtype) == (1, "float32")
        self.callback, self.active = callback, True

    def __enter__(self):
        self.thread = threading.Thread(target=self.play, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.active = False
        self.thread.join()

    def play(self):
        wave = soundfile.read({path!r}, dtype="float32", always_2d=True)[0]
        while self.active:
            for start in range(0, len(wave), 800):
                self.callback(wave[start : start + 800], 800, None, None)
                time.sleep(0.002)
            self.active = self.active and {again}
"""


def library(path: Path | str, again: bool = False) -> str:
    """A sounddevice whose microphone hears a file, over and over or once; or that has no microphone."""
    return textwrap.dedent(FAKE).format(path=str(path), again=again)


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """Three seconds of the noise of a room, three of a voice in it, four of the room."""
    noise = np.random.default_rng(0).standard_normal(10 * RATE).astype(np.float32) * 0.001
    noise[3 * RATE : 6 * RATE] += voice(3.0, seed=3)
    soundfile.write(tmp_path / "talk.wav", noise, RATE, subtype="FLOAT")
    return tmp_path / "talk.wav"


class Played:
    rate = RATE

    def __init__(self, path: Path, size: int, gain: float = 1.0) -> None:
        self.wave, self.size = soundfile.read(path, dtype="float32")[0] * np.float32(gain), size

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.wave[start : start + self.size] for start in range(0, len(self.wave), self.size))


def play(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("sounddevice")
    exec(text, vars(module))
    monkeypatch.setitem(sys.modules, "sounddevice", module)


def test_a_file_that_is_played_gives_its_windows_and_silence_is_told_apart(checkpoint: Path, talk: Path) -> None:
    recognizer = load(checkpoint)
    windows = recognizer.predict_file(talk, hop=0.5).windows
    for gain in (1.0, 0.3):
        said = [one.prediction for one in predict_live(recognizer, Played(talk, 700, gain))]
        assert [one.times for one in said] == [one.times for one in windows]
        heard = [one.times for one in said if not one.silent]
        assert heard == [(start, start + 1) for start in (2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5)]
        assert {one.warnings for one in said if one.silent} == {("silent",)}
    for one, expected in zip(predict_live(recognizer, Played(talk, 8000)), windows, strict=True):
        if not one.prediction.silent:
            assert one.prediction.probabilities == pytest.approx(expected.probabilities, abs=1e-5)


def test_a_slow_computer_leaves_windows_out_and_stays_in_time() -> None:
    blocks = [np.arange(10.0), np.arange(10.0, 35.0), np.arange(35.0, 37.0)]
    found = [(start, list(wave)) for start, wave in newest_windows(blocks, 8, 4)]
    assert found == [(0, list(range(8))), (24, list(range(24, 32))), (28, list(range(28, 36)))]


def test_lines_come_until_ctrl_c(checkpoint: Path, talk: Path, tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text(library(talk, again=True))
    process = subprocess.Popen(
        [sys.executable, "-m", "emolight", "predict", str(checkpoint), "--live"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored by what runs in the background
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        rest, complaints = process.communicate(timeout=60)
        assert process.returncode == 0
        assert " s  " in lines[0]
        assert complaints == "listening to a played file; windows of 1 s every 0.5 s; Ctrl-C ends it\n", rest
    finally:
        process.kill()


def test_json_lines_and_a_microphone_that_is_pulled_out(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "cd.wav", voice(4.0, rate=44100), 44100)
    play(library(tmp_path / "cd.wav"), monkeypatch)
    with pytest.raises(SystemExit) as end:
        main(["predict", str(checkpoint), "--live", "--format", "jsonl", "--window", "0.5", "--hop", "0.5"])
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert end.value.code == 2
    assert "The microphone 'a played file' has stopped." in printed.err
    assert rows
    assert all(row["path"] == "microphone" and row["end"] == row["start"] + 0.5 for row in rows)
    assert any("windows of 0.5 s; the model was trained on 1 s" in row["warnings"] for row in rows)


def test_a_warning_is_told_once(checkpoint: Path, talk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listen(load(checkpoint), Played(talk, 4000), window=0.5)
    printed = capsys.readouterr().out
    assert printed.count("warning: windows of 0.5 s") == 1
    assert len([line for line in printed.splitlines() if " s  " in line and "warning" not in line]) == 39


@pytest.mark.parametrize(
    ("words", "module", "message"),
    [
        ("--live", None, 'pip install "emolight[live]"'),
        ("--live", library(""), "No microphone can be used: Error querying device -1."),
        ("--live a.wav --whole", library(""), "it takes no recordings, --whole."),
        ("--live --output a.txt", library(""), "it takes no --output."),
        ("--live --format csv", library(""), "it takes no --format csv."),
        ("", None, "No recordings are given."),
    ],
)
def test_mistakes_are_three_lines(
    words: str,
    module: str | None,
    message: str,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    if module:
        play(module, monkeypatch)
    with pytest.raises(SystemExit) as end:
        main(["predict", str(checkpoint), *words.split()])
    printed = capsys.readouterr()
    assert end.value.code == 2
    assert message in printed.err
    assert printed.err.count("\n") <= 3
    assert not printed.out


def test_impossible_windows_are_refused_before_the_first(
    checkpoint: Path, talk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(library(talk, again=True), monkeypatch)
    with pytest.raises(Exception, match="Windows of 100 s"):
        run(["predict", str(checkpoint), "--live", "--window", "100"])
