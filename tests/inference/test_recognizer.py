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
from emolight.inference.recognizer import Contract, Recognizer, load
from emolight.models.classifier import load_classifier

from .conftest import CLASSES, voice


@pytest.fixture(scope="module")
def recognizer(checkpoint: Path) -> Recognizer:
    return load(checkpoint)


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
    assert list(recognizer.predict_file(tmp_path / "a.wav").probabilities.values()) == pytest.approx(
        expected, abs=1e-6
    )


def test_array_and_file_give_the_same(recognizer: Recognizer, tmp_path: Path) -> None:
    wave = np.stack([voice(1.3, 22050), 0.5 * voice(1.3, 22050)])
    soundfile.write(tmp_path / "a.wav", wave.T, 22050, subtype="PCM_16")
    whole = soundfile.read(tmp_path / "a.wav", dtype="int16")[0].T
    by_file = recognizer.predict_file(tmp_path / "a.wav").probabilities
    assert recognizer.predict(whole, 22050).probabilities == pytest.approx(by_file, abs=1e-6)
    assert recognizer.predict(whole / 32768, 22050).probabilities == pytest.approx(by_file, abs=1e-6)


def test_a_batch_gives_what_each_clip_gives_alone(recognizer: Recognizer) -> None:
    waves = [voice(seconds, pitch=pitch) for seconds, pitch in ((0.4, 120.0), (1.0, 200.0), (3.0, 280.0))]
    together = recognizer.predict_batch(waves, 16000)
    for wave, one in zip(waves, together, strict=True):
        assert recognizer.predict(wave, 16000).probabilities == pytest.approx(one.probabilities, abs=1e-5)
    assert len({one.confidence for one in together}) == 3
    assert recognizer.predict_batch([], 16000) == []


def test_the_label_is_the_likeliest_emotion_and_probabilities_sum_to_one(recognizer: Recognizer) -> None:
    one = recognizer.predict(voice(), 16000)
    assert list(one.probabilities) == CLASSES
    assert sum(one.probabilities.values()) == pytest.approx(1)
    assert one.probabilities[str(one.label)] == one.confidence == max(one.probabilities.values())


def test_abstains_below_the_confidence_asked_for(checkpoint: Path) -> None:
    confidence = load(checkpoint).predict(voice(), 16000).confidence
    assert load(checkpoint, abstain_below=confidence + 0.01).predict(voice(), 16000).label is None
    assert load(checkpoint, abstain_below=confidence - 0.01).predict(voice(), 16000).label is not None


def test_windows_cover_the_recording(recognizer: Recognizer, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", voice(3.2), 16000)
    found = recognizer.predict_windows(recognizer.load_clip(tmp_path / "long.wav", trim=False), 1.0, 0.5)
    assert [one.times for one in found] == [(0, 1), (0.5, 1.5), (1, 2), (1.5, 2.5), (2, 3), (2.5, 3.2)]
    short = recognizer.predict_windows(recognizer.load_clip(tmp_path / "long.wav", trim=False), 5.0, 1.0)
    assert [one.times for one in short] == [(0, 3.2)]


@pytest.mark.parametrize(("window", "hop"), [(0.0, 0.5), (1.0, 0.0), (1.0, 2.0), (1000.0, 1.0)])
def test_impossible_windows_are_refused(recognizer: Recognizer, tmp_path: Path, window: float, hop: float) -> None:
    soundfile.write(tmp_path / "a.wav", voice(), 16000)
    with pytest.raises(EmolightError, match="Windows of"):
        recognizer.predict_windows(recognizer.load_clip(tmp_path / "a.wav"), window, hop)


def test_warns_of_clips_and_actors_of_the_training(recognizer: Recognizer, tmp_path: Path) -> None:
    stranger, known = tmp_path / "03-01-05-01-01-01-07.wav", tmp_path / "03-01-05-01-01-01-02.wav"
    for path in (stranger, known):
        soundfile.write(path, voice(), 16000)
    assert recognizer.predict_file(stranger).warnings == ()
    assert recognizer.predict_file(known).warnings == ("the model was trained on other recordings of actor 2",)
    digest = hashlib.blake2b(stranger.read_bytes(), digest_size=16).hexdigest()
    training = {**recognizer.contract.training, "hashes": [digest]}
    knowing = Recognizer(replace(recognizer.contract, training=training), recognizer.network)
    assert knowing.predict_file(stranger).warnings == ("the model was trained on this very recording",)


@pytest.mark.parametrize(
    ("wave", "rate", "told"),
    [
        (voice(9.0), 16000, r"duration 8\.\d+ s; the model was trained on"),
        (voice() * 1e-3, 16000, "level -[89].* dBFS"),
        (voice(1.0, 8000), 8000, "sample rate 8000 Hz; the model expects at least 16000 Hz"),
        (voice(1.0, 8000), 8000, "bandwidth 3[89].* Hz"),
    ],
)
def test_warns_of_clips_unlike_the_training(recognizer: Recognizer, wave: np.ndarray, rate: int, told: str) -> None:
    warnings = recognizer.predict(wave, rate).warnings
    assert any(re.match(told, text) for text in warnings), warnings


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (np.zeros(16000, np.float32), "silent"),
        (np.full(16000, np.nan), "NaN"),
        (np.zeros((2, 3, 4)), r"received float64 \(2, 3, 4\)"),
        (np.array(["a"]), "floating point"),
        (np.zeros(0), "no samples"),
        (voice()[:100], "shorter than 50 ms"),
        (np.zeros((100, 16000)), "number of channels: 100"),
    ],
)
def test_what_is_no_recording_is_refused(recognizer: Recognizer, wave: np.ndarray, message: str) -> None:
    with pytest.raises(EmolightError, match=message):
        recognizer.predict(wave, 16000)


def test_what_is_no_model_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(EmolightError, match="There is no checkpoint"):
        load(tmp_path / "none.ckpt")
    with pytest.raises(EmolightError, match="abstain_below is 2"):
        load(checkpoint, abstain_below=2)
    with pytest.raises(EmolightError, match="'abacus' cannot be used"):
        load(checkpoint, device="abacus")


def test_importing_the_package_is_cheap_and_lazy() -> None:
    code = "import sys, emolight; print([name for name in ('torch', 'numpy', 'pandas') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_contract_length_is_in_samples() -> None:
    assert Contract(["a"], 16000, 2.25, None).length == 36000
