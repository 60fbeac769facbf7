from __future__ import annotations

import numpy as np
import pytest

from emolight.data.audio import trim_silence
from emolight.experiments.disturb import DISTURBANCES, SPEECH_DB, Disturbed

RATE = 16000
CLIP = "03-01-05-01-01-01-12"
BY_NAME = {one.name: one for one in DISTURBANCES}


def voice(seconds: float, pitch: float = 200.0) -> np.ndarray:
    """A buzz with harmonics and a little noise ``[T]``, loud in the middle."""
    time = np.arange(round(seconds * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 12)) * np.sin(np.pi * time / seconds) ** 2
    return (0.1 * buzz + 0.002 * np.random.default_rng(0).standard_normal(len(time))).astype(np.float32)


def power(wave: np.ndarray) -> float:
    return float(np.mean(np.square(wave, dtype=np.float64)))


def quiet_ends(seconds: float = 0.5) -> np.ndarray:
    """Speech between digital silences."""
    silence = np.zeros(round(seconds * RATE), np.float32)
    return np.concatenate([silence, voice(2.0), silence])


def changed(name: str, wave: np.ndarray, rate: int = RATE) -> np.ndarray:
    return BY_NAME[name].apply(wave, rate, CLIP)


@pytest.mark.parametrize("one", DISTURBANCES, ids=lambda one: one.name)
def test_every_disturbance_is_pure_repeatable_and_mono_float32(one: Disturbed) -> None:
    wave = quiet_ends()
    kept = wave.copy()
    first, second = (one.apply(wave, RATE, CLIP) for _ in range(2))
    np.testing.assert_array_equal(wave, kept)
    np.testing.assert_array_equal(first, second)
    assert (first.dtype, first.ndim) == (np.float32, 1)
    assert np.isfinite(first).all()
    if one.name == "clean":
        np.testing.assert_array_equal(first, wave)
    else:
        assert len(first) != len(wave) or np.abs(first - wave).max() > 1e-4


def test_names_are_unique_and_groups_stand_together() -> None:
    groups = [one.group for one in DISTURBANCES]
    assert len(BY_NAME) == len(DISTURBANCES) == 15
    assert [one for one, before in zip(groups, [None, *groups], strict=False) if one != before] == list(
        dict.fromkeys(groups)
    )


def test_random_numbers_belong_to_the_clip() -> None:
    noise = BY_NAME["white noise, SNR 0 dB"]
    first, other = (noise.apply(voice(1.0), RATE, clip) for clip in (CLIP, "03-01-05-01-01-01-13"))
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("snr", [30, 20, 10, 5, 0])
def test_noise_has_the_ratio_to_the_speech(snr: int) -> None:
    """Whatever the silence around it."""
    for seconds in (0.2, 1.5):
        wave = quiet_ends(seconds)
        noise = changed(f"white noise, SNR {snr} dB", wave) - wave
        assert 10 * np.log10(power(trim_silence(wave, SPEECH_DB)) / power(noise)) == pytest.approx(snr, abs=0.15)
    spectrum = np.square(np.abs(np.fft.rfft(noise)))
    low, high = spectrum[: len(spectrum) // 2].mean(), spectrum[len(spectrum) // 2 :].mean()
    assert 10 * np.log10(low / high) == pytest.approx(0, abs=0.5)


def test_a_recording_that_has_the_lower_rate_already_stays() -> None:
    wave = voice(1.0)[:15999]
    assert len(changed("sampled at 4 kHz (2 kHz bandwidth)", wave)) == 15999
    np.testing.assert_allclose(changed("sampled at 4 kHz (2 kHz bandwidth)", wave, 4000), wave, atol=1e-6)


def test_gain_is_in_decibels_and_clips_at_full_scale() -> None:
    wave = voice(1.0) / 100
    for name, decibels in (("gain +20 dB, clipped at full scale", 20), ("gain -20 dB", -20)):
        assert 10 * np.log10(power(changed(name, wave)) / power(wave)) == pytest.approx(decibels, abs=1e-3)
    assert np.abs(changed("gain +20 dB, clipped at full scale", voice(1.0))).max() == 1


def test_silence_is_added_before_and_behind() -> None:
    wave = voice(1.0)
    long = changed("1 s of near silence at both ends", wave)
    assert len(long) == 3 * RATE
    np.testing.assert_array_equal(long[RATE:-RATE], wave)
    for end in (long[:RATE], long[-RATE:]):
        assert 10 * np.log10(power(end)) == pytest.approx(-80, abs=0.3)


def test_crop_is_the_middle_second_of_the_speech() -> None:
    silence = np.zeros(RATE, np.float32)
    wave = np.concatenate([silence, silence, voice(2.0)])
    speech = trim_silence(wave, SPEECH_DB)
    start = (len(speech) - RATE) // 2
    np.testing.assert_array_equal(changed("only the middle second", wave), speech[start : start + RATE])
    short = voice(0.5)
    np.testing.assert_array_equal(changed("only the middle second", short), trim_silence(short, SPEECH_DB))


def test_a_room_goes_on_behind_the_recording() -> None:
    wave = voice(0.5)
    wet = changed("reverberation, RT60 0.3 s", wave)
    assert len(wet) == len(wave) + round(0.3 * RATE)
    assert power(wet[len(wave) :]) > 0
