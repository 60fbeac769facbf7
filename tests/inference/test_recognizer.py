from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from emolight.data.audio import load_waveform
from emolight.errors import EmolightError
from emolight.inference.prediction import judged_piece
from emolight.inference.recognizer import Contract, Recognizer, load, window_starts
from emolight.models.loading import load_classifier

from .conftest import CLASSES, voice


@pytest.fixture(scope="module")
def recognizer(checkpoint: Path) -> Recognizer:
    return load(checkpoint)


def with_pause() -> np.ndarray:
    """4 s of buzz, 3 s of digital silence, 4 s of buzz."""
    return np.concatenate([voice(4.0), np.zeros(48000, np.float32), voice(4.0, pitch=120)])


def test_probabilities_are_those_of_the_classifier_at_its_temperature(
    recognizer: Recognizer, checkpoint: Path, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", voice(1.6, 44100), 44100)
    model = load_classifier(checkpoint)
    wave = load_waveform(tmp_path / "a.wav", 16000, 30)
    start = (len(wave) - 16000) // 2
    with torch.no_grad():
        logits = model(torch.from_numpy(wave[start : start + 16000].copy())[None])
    expected = (logits / 0.7).softmax(dim=1)[0].tolist()
    prediction = recognizer.predict_file(tmp_path / "a.wav")
    assert list(prediction.probabilities) == CLASSES
    assert list(prediction.probabilities.values()) == pytest.approx(expected, abs=1e-6)
    assert prediction.probabilities[str(prediction.label)] == prediction.confidence == max(expected)
    assert (prediction.windows, prediction.how) == ((), "")


def test_arrays_of_every_library_and_files_give_the_same(recognizer: Recognizer, tmp_path: Path) -> None:
    wave = np.stack([voice(1.3, 22050), 0.5 * voice(1.3, 22050)])
    soundfile.write(tmp_path / "a.wav", wave.T, 22050, subtype="PCM_16")
    whole = soundfile.read(tmp_path / "a.wav", dtype="int16")[0]
    by_file = recognizer.predict_file(tmp_path / "a.wav")
    assert by_file.warnings == ()
    for array in (whole, whole.T, whole / 32768, (whole / 32768).tolist()):
        by_array = recognizer.predict(array, 22050)
        assert by_array.probabilities == pytest.approx(by_file.probabilities, abs=1e-6)
        assert by_array.warnings == by_file.warnings


def test_a_batch_gives_what_each_clip_gives_alone(recognizer: Recognizer) -> None:
    waves = [voice(seconds, pitch=pitch) for seconds, pitch in ((0.5, 120.0), (1.0, 200.0), (9.0, 280.0))]
    together = recognizer.predict_batch(waves, 16000)
    for wave, one in zip(waves, together, strict=True):
        alone = recognizer.predict(wave, 16000)
        assert alone.probabilities == pytest.approx(one.probabilities, abs=1e-5)
        assert len(alone.windows) == len(one.windows)
    assert len({one.confidence for one in together}) == 3
    assert recognizer.predict_batch([], 16000) == []


def test_abstains_below_the_confidence_asked_for(checkpoint: Path) -> None:
    confidence = load(checkpoint).predict(voice(), 16000).confidence
    assert load(checkpoint, abstain_below=confidence + 0.01).predict(voice(), 16000).label is None
    assert load(checkpoint, abstain_below=confidence - 0.01).predict(voice(), 16000).label is not None


def test_windows_lie_end_to_end() -> None:
    assert window_starts(11, 4, 3) == [0, 3, 6, 7]
    assert window_starts(10, 4, 3) == [0, 3, 6]
    assert window_starts(3, 4, 2) == [0]


def test_a_long_recording_is_the_mean_of_its_windows_with_sound(recognizer: Recognizer) -> None:
    wave = with_pause()
    found = recognizer.predict(wave, 16000)
    assert [one.times for one in found.windows] == [(n / 2, n / 2 + 1) for n in range(21)]
    silent = [one.times for one in found.windows if one.silent]
    assert silent == [(n / 2, n / 2 + 1) for n in range(8, 13)]
    assert all(one.label is None and one.warnings == ("silent",) for one in found.windows if one.silent)
    rows = [list(one.probabilities.values()) for one in found.windows if not one.silent]
    assert list(found.probabilities.values()) == pytest.approx(np.mean(rows, axis=0), abs=1e-6)
    assert found.how == "mean of 16 windows of 1 s, 5 silent left out"
    alone = recognizer.predict(wave[8000:24000], 16000, window=1.0)
    assert alone.probabilities == pytest.approx(found.windows[1].probabilities, abs=1e-5)


def test_quiet_noise_is_silence_beside_a_voice_and_a_sound_on_its_own(recognizer: Recognizer) -> None:
    noise = 3e-5 * np.random.default_rng(0).standard_normal(48000).astype(np.float32)
    assert any(one.silent for one in recognizer.predict(np.concatenate([voice(3.0), noise]), 16000).windows)
    assert not any(one.silent for one in recognizer.predict(10 * noise, 16000).windows)


def test_windows_of_ones_own_and_the_middle_alone(recognizer: Recognizer) -> None:
    wave = voice(3.2)
    own = recognizer.predict(wave, 16000, window=2.0, hop=0.5)
    assert [one.times for one in own.windows] == [(0, 2), (0.5, 2.5), (1, 3), (1.2, 3.2)]
    assert "windows of 2 s; the model was trained on 1 s" in own.warnings
    assert len(recognizer.predict(voice(0.8), 16000, hop=0.5).windows) == 1
    whole = recognizer.predict(wave, 16000, whole=True)
    assert whole.windows == ()
    assert re.fullmatch(r"the middle 1 s of \d\.\d\d s", whole.how)
    for window, hop in ((0.0, 0.5), (1.0, 0.0), (1.0, 2.0), (1000.0, 1.0)):
        with pytest.raises(EmolightError, match="Windows of"):
            recognizer.predict(wave, 16000, window=window, hop=hop)


def test_clips_like_those_of_the_training_are_judged_as_in_the_test(recognizer: Recognizer) -> None:
    training = {**recognizer.contract.training, "ranges": {"duration": [0.5, 5.0]}}
    wide = Recognizer(replace(recognizer.contract, training=training), recognizer.network)
    assert wide.predict(voice(4.0), 16000).windows == ()


def test_the_piece_behind_a_prediction(recognizer: Recognizer, tmp_path: Path) -> None:
    for seconds in (0.6, 1.4, 9.0):
        soundfile.write(tmp_path / "a.wav", voice(seconds), 16000, subtype="FLOAT")
        clip = recognizer.load_clip(tmp_path / "a.wav")
        (prediction,) = recognizer.predict_clips([clip])
        piece, start = judged_piece(recognizer.contract, clip, prediction)
        (row,), _ = recognizer.network(piece[None])
        shown = (
            prediction
            if not prediction.windows
            else max(prediction.windows, key=lambda one: one.probabilities[str(prediction.label)])
        )
        assert list(row) == pytest.approx(list(shown.probabilities.values()), abs=1e-5)
        if seconds > 1:
            np.testing.assert_array_equal(clip.waveform[round(start * 16000) :][: len(piece)], piece)


def test_warns_of_clips_and_speakers_of_the_training(recognizer: Recognizer, tmp_path: Path) -> None:
    expected = {
        "07": (),
        "02": ("the model was trained on other recordings of speaker 02",),
        "04": ("the model was chosen on other recordings of speaker 04",),
    }
    for speaker, warnings in expected.items():
        path = tmp_path / f"03-01-05-01-01-01-{speaker}.wav"
        soundfile.write(path, voice(), 16000)
        assert recognizer.predict_file(path).warnings == warnings
    digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    of_part = f"{digest} from 0.5 to 1.25"
    for name, verb, known in (("hashes", "trained", digest), ("val_hashes", "chosen", of_part)):
        training = {**recognizer.contract.training, name: [known]}
        knowing = Recognizer(replace(recognizer.contract, training=training), recognizer.network)
        for windows in ({}, {"window": 0.5}):
            (warning,) = (text for text in knowing.predict_file(path, **windows).warnings if "very" in text)
            assert warning == f"the model was {verb} on this very recording"
    two = {**recognizer.contract.training, "corpus": "RAVDESS + mine", "speakers": ["RAVDESS/04"]}
    of_two = Recognizer(replace(recognizer.contract, training=two), recognizer.network)
    assert of_two.predict_file(path).warnings == ("the model was trained on other recordings of speaker 04",)


@pytest.mark.parametrize(
    ("wave", "rate", "warning"),
    [
        (voice(2.5), 16000, r"duration 2\.\d+ s; the model was trained on"),
        (voice() * 1e-3, 16000, "level -[89].* dBFS"),
        (voice(1.0, 8000), 8000, "sample rate 8000 Hz; the model expects at least 16000 Hz"),
        (voice(1.0, 8000), 8000, "bandwidth 3[89].* Hz"),
    ],
)
def test_warns_of_sound_unlike_the_training(recognizer: Recognizer, wave: np.ndarray, rate: int, warning: str) -> None:
    whole = recognizer.predict(wave, rate, whole=True).warnings
    assert any(re.match(warning, text) for text in whole), whole
    if "duration" not in warning:
        windows = recognizer.predict(wave, rate, window=1.0).warnings
        assert any(re.match(warning, text) for text in windows), windows


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (np.zeros(16000, np.float32), "silent"),
        (np.full(16000, np.nan), "NaN"),
        (np.zeros((2, 3, 4)), r"\(2, 3, 4\)"),
        (np.zeros(0), r"float64 \(0,\)"),
        (voice()[:100], "shorter than 50 ms"),
    ],
)
def test_what_is_no_recording_is_refused(recognizer: Recognizer, wave: np.ndarray, message: str) -> None:
    with pytest.raises(EmolightError, match=message):
        recognizer.predict(wave, 16000)


def test_a_rate_is_a_whole_number(recognizer: Recognizer) -> None:
    whole = recognizer.predict(voice(), 16000).probabilities
    assert recognizer.predict(voice(), 16000.0).probabilities == whole
    with pytest.raises(EmolightError, match=r"sample_rate is 16000\.5; it must be a whole number of Hz"):
        recognizer.predict(voice(), 16000.5)


def test_what_is_no_model_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(EmolightError, match="There is no checkpoint"):
        load(tmp_path / "none.ckpt")
    with pytest.raises(EmolightError, match="abstain_below is 2"):
        load(checkpoint, abstain_below=2)
    with pytest.raises(EmolightError, match="'abacus' cannot be used"):
        load(checkpoint, device="abacus")
    with pytest.raises(EmolightError):
        load(tmp_path)  # a folder without a run
    with pytest.raises(EmolightError, match="exported model runs on the CPU; the device is 'cuda'"):
        load("model.onnx", device="cuda")


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux alone")
def test_an_hour_takes_little_more_than_its_samples(tmp_path: Path) -> None:
    sound = voice(5.0)
    with soundfile.SoundFile(tmp_path / "hour.flac", "w", 16000, 1) as stream:
        for _ in range(720):
            stream.write(sound)
    code = f"""
import resource, numpy as np
from emolight.inference.recognizer import Contract, Recognizer
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
judge = lambda x: (np.full((len(x), 2), 0.5, "f4"), np.full(len(x), 2, "f4"))
model = Recognizer(Contract(["a", "b"], 16000, 2.25, 30.0), judge)
before = peak()
found = model.predict_file({str(tmp_path / "hour.flac")!r})
print(len(found.windows), peak() - before - 57_600_000 * 4 / 2**20)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    windows, extra = done.stdout.split()
    assert int(windows) == 3199
    assert float(extra) < 300


def test_importing_the_package_is_cheap_and_lazy() -> None:
    code = "import sys, emolight; print([name for name in ('torch', 'numpy', 'pandas') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_contract_length_is_in_samples() -> None:
    assert Contract(["a"], 16000, 2.25, None).length == 36000
