from __future__ import annotations

import numpy as np
import pytest

from emolight.data.audio import trim_silence
from emolight.experiments.disturb import (
    DISTURBANCES,
    NEAR_SILENCE,
    SPEECH_DB,
    add_silence,
    gain,
    middle,
    mu_law,
    random_of,
    reverberate,
    room_response,
    sampled_at,
    white_noise,
)

RATE = 16000
CLIP = "03-01-05-01-01-01-12"


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


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


@pytest.mark.parametrize("one", DISTURBANCES, ids=lambda one: one.name)
def test_every_disturbance_is_pure_repeatable_and_mono_float32(one: object) -> None:
    wave = quiet_ends()
    kept = wave.copy()
    first, second = (one.apply(wave, RATE, random_of(CLIP)) for _ in range(2))  # type: ignore[attr-defined]
    np.testing.assert_array_equal(wave, kept)
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32
    assert first.ndim == 1
    assert np.isfinite(first).all()
    if one.name == "clean":  # type: ignore[attr-defined]
        np.testing.assert_array_equal(first, wave)
    else:
        assert len(first) != len(wave) or np.abs(first - wave).max() > 1e-4


def test_names_are_unique_and_groups_stand_together() -> None:
    names = [one.name for one in DISTURBANCES]
    groups = [one.group for one in DISTURBANCES]
    assert len(set(names)) == len(names) == 15
    assert [one for one, before in zip(groups, [None, *groups], strict=False) if one != before] == list(
        dict.fromkeys(groups)
    )


def test_random_numbers_belong_to_the_clip() -> None:
    assert random_of(CLIP).random() == random_of(CLIP).random()
    assert random_of(CLIP).random() != random_of("03-01-05-01-01-01-13").random()


@pytest.mark.parametrize("snr", [30, 20, 10, 5, 0])
def test_noise_has_the_ratio_to_the_speech(snr: int) -> None:
    wave = quiet_ends()
    noise = white_noise(wave, RATE, random_of(CLIP), snr) - wave
    speech = trim_silence(wave, SPEECH_DB)
    assert len(speech) < len(wave) - RATE // 2
    assert 10 * np.log10(power(speech) / power(noise)) == pytest.approx(snr, abs=0.1)
    spectrum = np.square(np.abs(np.fft.rfft(noise)))
    low, high = spectrum[: len(spectrum) // 2].mean(), spectrum[len(spectrum) // 2 :].mean()
    assert 10 * np.log10(low / high) == pytest.approx(0, abs=0.5)


def test_noise_does_not_depend_on_the_silence_around() -> None:
    short, long = (quiet_ends(seconds) for seconds in (0.2, 1.5))
    levels = [power(white_noise(wave, RATE, random_of(CLIP), 10) - wave) for wave in (short, long)]
    assert 10 * np.log10(levels[0] / levels[1]) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("lower", [8000, 4000])
def test_lower_rate_keeps_a_tone_below_half_of_it_and_removes_one_above(lower: int) -> None:
    inner = slice(1000, -1000)
    below, above = tone(0.8 * lower / 2), tone(1.2 * lower / 2)
    kept, gone = (sampled_at(wave, RATE, random_of(CLIP), lower) for wave in (below, above))
    assert len(kept) == len(below)
    np.testing.assert_allclose(kept[inner], below[inner], atol=0.005)
    assert 10 * np.log10(power(gone[inner]) / power(above)) < -80


def test_lower_rate_keeps_an_odd_length_and_a_recording_that_has_it_already() -> None:
    wave = voice(1.0)[:15999]
    assert len(sampled_at(wave, RATE, random_of(CLIP), 4000)) == 15999
    np.testing.assert_array_equal(sampled_at(wave, 4000, random_of(CLIP), 4000), wave)


def test_gain_is_in_decibels_and_clips_at_full_scale() -> None:
    wave = tone(440) / 10
    for decibels in (20, -20):
        changed = gain(wave, RATE, random_of(CLIP), decibels)
        assert 10 * np.log10(power(changed) / power(wave)) == pytest.approx(decibels, abs=1e-3)
    loud = gain(tone(440), RATE, random_of(CLIP), 20)
    assert loud.max() == 1
    assert loud.min() == -1
    assert (np.abs(loud) == 1).mean() > 0.8


def test_silence_is_added_before_and_behind() -> None:
    wave = voice(1.0)
    long = add_silence(wave, RATE, random_of(CLIP), 1.0)
    assert len(long) == 3 * RATE
    np.testing.assert_array_equal(long[RATE:-RATE], wave)
    for end in (long[:RATE], long[-RATE:]):
        assert np.sqrt(power(end)) == pytest.approx(NEAR_SILENCE, rel=0.03)
    assert len(trim_silence(long, 30)) < 1.1 * RATE


def test_crop_is_the_middle_second_of_the_speech() -> None:
    silence = np.zeros(RATE, np.float32)
    wave = np.concatenate([silence, silence, voice(2.0)])
    cropped = middle(wave, RATE, random_of(CLIP), 1.0)
    assert len(cropped) == RATE
    speech = trim_silence(wave, SPEECH_DB)
    start = (len(speech) - RATE) // 2
    np.testing.assert_array_equal(cropped, speech[start : start + RATE])
    short = voice(0.5)
    np.testing.assert_array_equal(middle(short, RATE, random_of(CLIP), 1.0), trim_silence(short, SPEECH_DB))


def test_mu_law_has_the_levels_of_the_formula_with_zero_among_them() -> None:
    wave = np.linspace(-1.2, 1.2, 20001, dtype=np.float32)
    coded = mu_law(wave, RATE, random_of(CLIP))
    levels = np.arange(-127, 128) / 127
    expected = np.sign(levels) * (255.0 ** np.abs(levels) - 1) / 254
    np.testing.assert_allclose(np.unique(coded), expected, rtol=1e-4, atol=1e-9)
    nearest = expected[np.abs(_compressed(expected)[:, None] - _compressed(np.clip(wave, -1, 1))).argmin(axis=0)]
    assert (np.abs(coded - nearest) < 1e-4).mean() > 0.999  # but for samples in the middle between two levels
    assert coded[wave == 0] == 0


def _compressed(x: np.ndarray) -> np.ndarray:
    return np.sign(x) * np.log1p(254 * np.abs(x.astype(np.float64))) / np.log(255)


def test_mu_law_noise_is_about_38_db_below_speech_at_any_usual_level() -> None:
    for level in (0.5, 0.05):
        wave = level * voice(1.0) / np.abs(voice(1.0)).max()
        coded = mu_law(wave, RATE, random_of(CLIP))
        assert 33 < 10 * np.log10(power(wave) / power(coded - wave)) < 40


@pytest.mark.parametrize("rt60", [0.3, 0.8])
def test_room_decays_by_60_db_in_its_time(rt60: float) -> None:
    response = room_response(RATE, random_of(CLIP), rt60)
    assert len(response) == round(rt60 * RATE)
    assert response.argmax() == 0
    assert np.sum(response**2) == pytest.approx(1)
    assert response[0] ** 2 == pytest.approx(0.5)
    tail = response[1:]
    decay = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1] / np.sum(tail**2))  # Schroeder's backward integral
    inside = np.flatnonzero((decay < -5) & (decay > -35))
    slope = np.polyfit(inside / RATE, decay[inside], 1)[0]
    assert -60 / slope == pytest.approx(rt60, rel=0.1)


def test_reverberation_is_the_convolution_with_the_room() -> None:
    wave = voice(0.5)
    wet = reverberate(wave, RATE, random_of(CLIP), 0.3)
    response = room_response(RATE, random_of(CLIP), 0.3)
    assert len(wet) == len(wave) + len(response) - 1
    np.testing.assert_allclose(wet, np.convolve(wave, response), atol=1e-5)
