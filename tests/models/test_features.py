from __future__ import annotations

from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import torch
import torchaudio

from emolight.data.audio import load_waveform
from emolight.errors import EmolightError
from emolight.models.features import MFCC, Features, MelSpectrogram, Spectrogram, Waveform
from emolight.models.level import Level

KINDS: list[type[Features]] = [Spectrogram, MelSpectrogram, MFCC]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"n_fft": 1024, "hop_length": 256, "win_length": 400, "n_mels": 40, "n_mfcc": 13},
    {"f_min": 50.0, "f_max": 4000.0, "top_db": 60.0, "n_mels": 32, "n_mfcc": 20},
]
DEFAULTS = {"n_fft": 512, "hop_length": 512, "win_length": None, "n_mels": 64, "n_mfcc": 40, "f_min": 0.0}
DEFAULTS |= {"f_max": None, "top_db": 80.0}


def front_end(kind: type[Features], settings: dict[str, Any], sample_rate: int = 16000) -> Features:
    """A front-end with those of the settings that it has."""
    known = {MelSpectrogram: ["n_mfcc"], Spectrogram: ["n_mfcc", "n_mels"]}.get(kind, [])
    return kind(sample_rate, **{name: value for name, value in settings.items() if name not in known})


def by_librosa(wave: np.ndarray, kind: type[Features], settings: dict[str, Any], rate: int) -> np.ndarray:
    """The same features, clip by clip, by librosa."""
    its: dict[str, Any] = {**DEFAULTS, **settings}
    stft = {name: its[name] for name in ("n_fft", "hop_length", "win_length")}
    power = np.abs(librosa.stft(wave, pad_mode="constant", **stft)) ** 2
    f_max = its["f_max"] or rate / 2
    if kind is Spectrogram:
        hertz = librosa.fft_frequencies(sr=rate, n_fft=its["n_fft"])
        power = power[(hertz >= its["f_min"]) & (hertz <= f_max)]
        return librosa.power_to_db(power, top_db=its["top_db"])
    mel = librosa.feature.melspectrogram(
        S=power, sr=rate, n_fft=its["n_fft"], n_mels=its["n_mels"], fmin=its["f_min"], fmax=f_max
    )
    level = librosa.power_to_db(mel, top_db=its["top_db"])
    return level if kind is MelSpectrogram else librosa.feature.mfcc(S=level, n_mfcc=its["n_mfcc"])


def assert_equals_librosa(waves: np.ndarray, kind: type[Features], settings: dict[str, Any], rate: int) -> None:
    features = front_end(kind, settings, rate)
    found, top_db = features(torch.from_numpy(waves)), settings.get("top_db", 80)
    exported = features.exportable()(torch.from_numpy(waves))
    assert found.shape[1:3] == (features.channels, features.rows)
    for our, theirs, wave in zip(found[:, 0].numpy(), exported[:, 0].numpy(), waves, strict=True):
        reference = by_librosa(wave, kind, settings, rate)
        assert our.shape == theirs.shape == reference.shape
        # Of the range in dB at least: rounding in nearly empty cells depends on the processor's Fourier transform.
        most = 1e-4 * max(top_db, np.abs(reference).max())
        assert np.abs(our - reference).max() <= most
        assert np.abs(theirs - reference).max() <= 2 * most


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_equals_librosa_on_noise_and_tones(kind: type[Features], settings: dict[str, Any]) -> None:
    """So does what is exported."""
    rng = np.random.default_rng(0)
    time = np.arange(40000) / 16000
    waves = np.stack([0.1 * rng.standard_normal(40000), 0.5 * np.sin(2 * np.pi * 220 * time)]).astype(np.float32)
    waves[1] += 1e-3 * rng.standard_normal(40000).astype(np.float32)
    assert_equals_librosa(waves, kind, settings, 16000)


@pytest.mark.real
@pytest.mark.parametrize("kind", KINDS)
def test_equals_librosa_on_real_speech(kind: type[Features], ravdess_root: Path) -> None:
    files = sorted((ravdess_root / "Audio_Speech_Actors_01-24" / "Actor_07").glob("*.wav"))[:12]
    waves = np.stack([np.resize(load_waveform(file, 16000), 40000) for file in files])
    for settings in SETTINGS:
        assert_equals_librosa(waves, kind, settings, 16000)


@pytest.mark.parametrize(
    ("rate", "n_fft", "n_mels", "low", "high"), [(16000, 512, 64, 0, 8000), (48000, 2048, 128, 80, 12000)]
)
def test_mel_filters_equal_librosa(
    rate: int, n_fft: int, n_mels: int, low: float, high: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "set_default_dtype", None)  # it is that of all threads, which may load models, too
    ours = MelSpectrogram(rate, n_mels, n_fft=n_fft, f_min=low, f_max=high)
    reference = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=low, fmax=high)
    kept = reference[:, ours.first_bin : ours.last_bin]
    assert kept.sum() == reference.sum()
    np.testing.assert_allclose(ours.mel.T.numpy(), kept, rtol=1e-5, atol=1e-9)


def test_deltas_are_further_channels_and_equal_librosa() -> None:
    wave = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    images = MFCC(16000, n_mfcc=13, deltas=2)(wave).numpy()
    assert images.shape == (2, 3, 13, 32)
    np.testing.assert_array_equal(images[:, :1], MFCC(16000, n_mfcc=13)(wave).numpy())
    for lower, upper in zip(images[0], images[0][1:], strict=False):
        np.testing.assert_allclose(upper, librosa.feature.delta(lower, width=5, mode="nearest"), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_does_not_depend_on_its_neighbours(kind: type[Features]) -> None:
    quiet = 1e-3 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    loud = torch.randn(1, 16000, generator=torch.Generator().manual_seed(1))
    alone, beside = kind(16000)(quiet), kind(16000)(torch.cat([loud, quiet, loud]))[1:2]
    torch.testing.assert_close(alone, beside, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_runs_in_float32_whatever_the_precision_around_it(dtype: torch.dtype) -> None:
    """Under autocast, cast as a module, and made where the default type is another."""
    features, wave = MFCC(16000), torch.randn(2, 16000)
    expected = features(wave)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(features(wave), expected)
    assert torch.equal(features.to(dtype)(wave), expected)
    torch.set_default_dtype(dtype)
    try:
        assert torch.equal(MFCC(16000)(wave), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_waveform_passes_the_samples_through() -> None:
    wave = torch.randn(2, 800)
    assert torch.equal(Waveform(16000)(wave), wave[:, None])
    assert not Waveform(16000).image


def test_rows_know_what_they_are() -> None:
    spectrogram = Spectrogram(16000, f_min=50.0, f_max=4000.0)
    assert spectrogram.axis == ("frequency", "Hz", "linear", 62.5, 4000.0)
    assert spectrogram.title == "spectrogram, 127 bins"
    assert MelSpectrogram(16000, f_min=50.0).axis == ("frequency", "Hz", "mel", 50.0, 8000.0)
    assert MFCC(16000, 13, deltas=1).axis == ("coefficient", "", None, 0, 12)
    assert MFCC(16000, 13, deltas=1).title == "13 MFCC with deltas"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"f_min": 9000.0}, "f_min is 9000"),
        ({"f_min": 4000.0, "f_max": 3000.0}, "below f_max = 3000 Hz"),
        ({"f_max": 9000.0}, "at most half the sample rate, 8000 Hz"),
        ({"n_mfcc": 65}, "from 1 to n_mels = 64"),
        ({"win_length": 513}, "from 1 to n_fft = 512"),
        ({"n_mels": 300}, "44 of 300 mel bins are empty with model.features.n_fft 512"),
        ({"n_mels": 0}, "n_mels is 0"),
        ({"hop_length": 0}, "hop_length is 0"),
        ({"top_db": -1.0}, "top_db is -1"),
        ({"top_db": float("nan")}, "top_db is nan"),
        ({"deltas": 3}, "deltas is 3"),
        ({"level": "loud"}, "model.features.level is 'loud'.\nValid: keep, rms, loudness."),
    ],
)
def test_settings_that_cannot_work_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EmolightError) as caught:
        MFCC(16000, **settings)
    assert message in str(caught.value)


def test_a_range_without_bins_and_a_hop_above_the_clip_are_named() -> None:
    with pytest.raises(EmolightError, match="No frequency bin"):
        Spectrogram(16000, f_min=10.0, f_max=20.0)
    with pytest.raises(EmolightError, match=r"model\.features\.hop_length is 100000; .* 36000 samples"):
        MFCC(16000, hop_length=100000).check_length(36000)


def test_a_front_end_of_ones_own_needs_rows_and_compute_only() -> None:
    class Loudness(Features):
        rows, hop_length = 1, 160

        def compute(self, waveform: torch.Tensor) -> torch.Tensor:
            return waveform.unfold(-1, 160, 160).square().mean(-1)[:, None, None]

    mine = Loudness(16000)
    assert mine(torch.ones(2, 1600).half()).dtype == torch.float32
    assert (mine.axis, mine.title, mine.exportable()) == (("row", "", None, 0, 0), "features", mine)
    assert mine.spec["init_args"] == {"level": "keep"}


def speech(clips: int, length: int, zeros: int = 0) -> torch.Tensor:
    """Noise that swells as syllables do, from -66 to -26 dBFS, with silence behind it."""
    swell = (torch.sin(torch.arange(length) / 1500) + 0.3).clamp(min=0.01)
    noise = torch.randn(clips, length, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.pad(noise * swell * torch.logspace(-3, -1, clips)[:, None], (0, zeros))


@pytest.mark.parametrize("kind", ["rms", "loudness"])
def test_a_level_does_not_depend_on_the_gain_or_on_the_silence_behind(kind: str) -> None:
    level, wave = Level(kind, 16000), speech(4, 36000)
    found = level(wave)
    torch.testing.assert_close(level(0.1 * wave[3:]), found[3:], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(level(speech(4, 36000, 9000))[:, :36000], found, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(level(wave[1:2]), found[1:2])
    silence = torch.zeros(2, 4000)
    assert torch.equal(level(silence), silence)
    short = level(wave[:, 3000:3800])
    assert short.isfinite().all()
    if kind == "rms":
        torch.testing.assert_close(found.square().mean(1), torch.full((4,), 0.01))


@pytest.mark.parametrize("rate", [16000, 22050, 48000])
def test_loudness_is_that_of_torchaudio(rate: int) -> None:
    wave = speech(3, 4 * rate)
    expected = torchaudio.functional.loudness(wave[:, None], rate)
    found = 10 * Level("loudness", rate).mean_square(wave)[:, 0].log10() - 0.691
    torch.testing.assert_close(found, expected, atol=0.3, rtol=0)
    levelled = torchaudio.functional.loudness(Level("loudness", rate)(wave)[:, None], rate)
    torch.testing.assert_close(levelled, torch.full((3,), -23.0), atol=0.3, rtol=0)


@pytest.mark.parametrize("level", ["rms", "loudness"])
@pytest.mark.parametrize("kind", [MFCC, Waveform])
def test_front_ends_and_their_exports_have_the_level(kind: type[Features], level: Any, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    features = kind(16000, level=level)
    assert features.spec["init_args"]["level"] == level
    torch.testing.assert_close(features(speech(3, 20000)), kind(16000)(Level(level, 16000)(speech(3, 20000))))
    program = torch.onnx.export(
        features.exportable().eval(),
        (torch.zeros(2, 36000),),
        input_names=["waveform"],
        dynamic_shapes={"waveform": {0: "batch", 1: "time"}},
        opset_version=18,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(str(tmp_path / "level.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "level.onnx"))
    for clips, length, zeros in ((1, 36000, 0), (3, 20000, 16000), (2, 800, 0), (1, 80000, 5000)):
        wave = speech(clips, length, zeros)
        found = torch.from_numpy(session.run(None, {"waveform": wave.numpy()})[0])
        torch.testing.assert_close(found, features(wave), rtol=1e-4, atol=2e-2 if kind is MFCC else 1e-4)
