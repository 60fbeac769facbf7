from __future__ import annotations

from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import torch

from emolight.data.audio import load_waveform
from emolight.errors import EmolightError
from emolight.models.frontend import Features, FrontEnd, mel_filters


def by_librosa(wave: np.ndarray, features: Features, sample_rate: int) -> np.ndarray:
    """The same features, clip by clip, by librosa."""
    stft = {"n_fft": features.n_fft, "hop_length": features.hop_length, "win_length": features.win_length}
    power = np.abs(librosa.stft(wave, pad_mode="constant", **stft)) ** 2
    f_max = features.f_max or sample_rate / 2
    if features.mode == "spectrogram":
        hertz = librosa.fft_frequencies(sr=sample_rate, n_fft=features.n_fft)
        power = power[(hertz >= features.f_min) & (hertz <= f_max)]
        return librosa.power_to_db(power, top_db=features.top_db)
    mel = librosa.feature.melspectrogram(
        S=power, sr=sample_rate, n_fft=features.n_fft, n_mels=features.n_mels, fmin=features.f_min, fmax=f_max
    )
    level = librosa.power_to_db(mel, top_db=features.top_db)
    return level if features.mode == "mel" else librosa.feature.mfcc(S=level, n_mfcc=features.n_mfcc)


PARAMETERS: list[dict[str, Any]] = [
    {},
    {"n_fft": 1024, "hop_length": 256, "win_length": 400, "n_mels": 40, "n_mfcc": 13},
    {"f_min": 50.0, "f_max": 4000.0, "top_db": 60.0, "n_mels": 32, "n_mfcc": 20},
]


def assert_equals_librosa(waves: np.ndarray, features: Features, sample_rate: int) -> None:
    ours = FrontEnd(features, sample_rate)(torch.from_numpy(waves))[:, 0].numpy()
    for our, wave in zip(ours, waves, strict=True):
        reference = by_librosa(wave, features, sample_rate)
        assert our.shape == reference.shape
        # Of the range in dB at least: rounding in nearly empty cells depends on the processor's Fourier transform.
        assert np.abs(our - reference).max() <= 1e-4 * max(features.top_db, np.abs(reference).max())


@pytest.mark.parametrize("mode", ["spectrogram", "mel", "mfcc"])
@pytest.mark.parametrize("parameters", PARAMETERS)
def test_equals_librosa_on_noise_and_tones(mode: Any, parameters: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    time = np.arange(40000) / 16000
    waves = np.stack([0.1 * rng.standard_normal(40000), 0.5 * np.sin(2 * np.pi * 220 * time)]).astype(np.float32)
    waves[1] += 1e-3 * rng.standard_normal(40000).astype(np.float32)
    assert_equals_librosa(waves, Features(mode=mode, **parameters), 16000)


@pytest.mark.real
@pytest.mark.parametrize("mode", ["spectrogram", "mel", "mfcc"])
@pytest.mark.parametrize("parameters", PARAMETERS)
def test_equals_librosa_on_real_speech(mode: Any, parameters: dict[str, Any], ravdess_root: Path) -> None:
    files = sorted((ravdess_root / "Audio_Speech_Actors_01-24" / "Actor_07").glob("*.wav"))[:12]
    waves = np.stack([np.resize(load_waveform(file, 16000), 40000) for file in files])
    assert_equals_librosa(waves, Features(mode=mode, **parameters), 16000)


@pytest.mark.parametrize("mode", ["spectrogram", "mel", "mfcc"])
def test_a_clip_does_not_depend_on_its_neighbours(mode: Any) -> None:
    front_end = FrontEnd(Features(mode=mode), 16000)
    quiet = 1e-3 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    loud = torch.randn(1, 16000, generator=torch.Generator().manual_seed(1))
    alone, beside = front_end(quiet), front_end(torch.cat([loud, quiet, loud]))[1:2]
    torch.testing.assert_close(alone, beside, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_runs_in_float32_under_autocast(dtype: torch.dtype) -> None:
    front_end, wave = FrontEnd(Features(mode="mfcc"), 16000), torch.randn(2, 16000)
    with torch.autocast("cpu", dtype=dtype):
        image = front_end(wave)
    assert image.dtype == torch.float32
    assert torch.equal(image, front_end(wave))


def test_waveform_mode_passes_the_samples_through() -> None:
    wave = torch.randn(2, 800)
    assert torch.equal(FrontEnd(Features(mode="waveform"), 16000)(wave), wave[:, None])


@pytest.mark.parametrize(
    ("rate", "n_fft", "n_mels", "low", "high"), [(16000, 512, 64, 0, 8000), (48000, 2048, 128, 80, 12000)]
)
def test_mel_filters_equal_librosa(rate: int, n_fft: int, n_mels: int, low: float, high: float) -> None:
    reference = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=low, fmax=high)
    np.testing.assert_allclose(mel_filters(rate, n_fft, n_mels, low, high), reference, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"f_min": 9000.0}, "f_min is 9000"),
        ({"f_min": 4000.0, "f_max": 3000.0}, "below f_max = 3000 Hz"),
        ({"f_max": 9000.0}, "at most half the sample rate, 8000 Hz"),
        ({"n_mfcc": 65}, "from 1 to n_mels = 64"),
        ({"win_length": 513}, "from 1 to n_fft = 512"),
        ({"n_mels": 300}, "mel bins are empty"),
        ({"hop_length": 0}, "hop_length is 0"),
        ({"top_db": -1.0}, "top_db is -1"),
        ({"mode": "melody"}, "Did you mean 'mel'"),
        ({"mode": "spectrogram", "f_min": 10.0, "f_max": 20.0}, "No frequency bin"),
    ],
)
def test_parameters_that_cannot_work_are_named(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(EmolightError) as caught:
        FrontEnd(Features(**{"mode": "mfcc", **parameters}), 16000)
    assert message in str(caught.value)
