"""Disturbances of a recording: noise, band limits, level, silence, crops, coding, rooms.

Functions of a mono waveform [T], full scale ±1, at a rate in Hz. None changes its input, and none knows the model:
where speech begins and ends is decided by :data:`SPEECH_DB`, so that all models get the same disturbed recordings.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torchaudio import functional

from emolight.data.audio import Waveform, fix_length, trim_silence

SPEECH_DB = 30.0
"""Speech is what :func:`~emolight.data.audio.trim_silence` leaves with this."""
LEVELS = 255
"""Of µ-law. With 256, torchaudio's coding has no zero."""
NEAR_SILENCE = 1e-4
"""Root mean square of added silence: -80 dBFS, about the noise of a good recording chain."""

Change: TypeAlias = Callable[[Waveform, int, np.random.Generator], Waveform]


class Disturbance(NamedTuple):
    """A disturbance: its ``name`` and ``group`` for people, and what it does to a waveform at a rate."""

    name: str
    group: str
    apply: Change


def random_of(clip_id: str) -> np.random.Generator:
    """The random numbers of a clip: always the same ones, whichever clips and disturbances come before it."""
    return np.random.default_rng(zlib.crc32(clip_id.encode()))


def white_noise(wave: Waveform, rate: int, random: np.random.Generator, snr: float) -> Waveform:
    """Add Gaussian noise, white up to half the rate, over the whole recording.

    Args:
        wave: samples [T].
        rate: Hz; not used.
        random: of the noise.
        snr: mean power of the speech over mean power of the noise, in dB. The silence at both ends is not counted,
            as :func:`torchaudio.functional.add_noise` would: a recording with more of it would get less noise.
    """
    noise = random.standard_normal(len(wave))
    speech = trim_silence(wave, SPEECH_DB).astype(np.float64)
    factor = np.sqrt(np.mean(speech**2) / np.mean(noise**2)) * 10 ** (-snr / 20)
    noisy: Waveform = (wave + factor * noise).astype(np.float32)
    return noisy


def sampled_at(wave: Waveform, rate: int, random: np.random.Generator, lower: int) -> Waveform:
    """The recording as if it had been made at ``lower`` Hz: resampled to it and back, by soxr HQ.

    Half of ``lower`` is left as bandwidth: 4 kHz of a recording at 8 kHz, 2 kHz of one at 4 kHz. A recording at
    ``lower`` Hz or less stays as it is.
    """
    if rate <= lower:
        return wave
    narrow = soxr.resample(soxr.resample(wave, rate, lower, quality="HQ"), lower, rate, quality="HQ")
    same: Waveform = np.pad(narrow, (0, max(0, len(wave) - len(narrow))))[: len(wave)]
    return same


def gain(wave: Waveform, rate: int, random: np.random.Generator, decibels: float) -> Waveform:
    """Multiply by a gain and clip at full scale, as a converter does."""
    louder: Waveform = np.clip(wave * np.float32(10 ** (decibels / 20)), -1, 1)
    return louder


def add_silence(wave: Waveform, rate: int, random: np.random.Generator, seconds: float) -> Waveform:
    """Put ``seconds`` of white noise at -80 dBFS before the recording and as much behind it."""
    before, behind = (NEAR_SILENCE * random.standard_normal(round(seconds * rate)) for _ in range(2))
    return np.concatenate([before, wave, behind]).astype(np.float32)


def middle(wave: Waveform, rate: int, random: np.random.Generator, seconds: float) -> Waveform:
    """The middle ``seconds`` of the speech; shorter speech stays whole."""
    speech = trim_silence(wave, SPEECH_DB)
    return fix_length(speech, min(len(speech), round(seconds * rate)))


def mu_law(wave: Waveform, rate: int, random: np.random.Generator) -> Waveform:
    """Code every sample in 8 bits and decode it, at the rate that it has; beyond full scale it is clipped.

    Source:
        ITU-T Recommendation G.711, 1988: the continuous curve, which the standard's 8 straight segments follow.
        Sign and magnitude have 255 levels, one of them zero; so µ is 254 here, where the standard has 255.
    """
    coded = functional.mu_law_encoding(torch.from_numpy(wave).clamp(-1, 1), LEVELS)
    decoded: Waveform = functional.mu_law_decoding(coded, LEVELS).numpy()
    return decoded


def room_response(rate: int, random: np.random.Generator, rt60: float) -> NDArray[np.float64]:
    """A synthetic room response, ``[round(rt60 · rate)]``, of unit energy.

    The direct path is the first sample; Gaussian noise follows whose power falls by 60 dB in ``rt60`` seconds. Both
    have the same energy, which is what a listener gets at the critical distance from the speaker.

    Source:
        Polack, *La transmission de l'énergie sonore dans les salles*, 1988 (the decaying noise); Kuttruff, *Room
        Acoustics* (critical distance).
    """
    time = np.arange(round(rt60 * rate)) / rate
    response = random.standard_normal(len(time)) * 10 ** (-3 * time / rt60)
    response[0] = 0
    response /= np.sqrt(2 * np.sum(response**2))
    response[0] = np.sqrt(0.5)
    return response


def reverberate(wave: Waveform, rate: int, random: np.random.Generator, rt60: float) -> Waveform:
    """The recording in a room, see :func:`room_response`; it grows by the room's tail."""
    room = torch.from_numpy(room_response(rate, random, rt60))
    result: Waveform = functional.fftconvolve(torch.from_numpy(wave).double(), room).float().numpy()
    return result


def unchanged(wave: Waveform, rate: int, random: np.random.Generator) -> Waveform:
    """The recording itself."""
    return wave


DISTURBANCES: tuple[Disturbance, ...] = (
    Disturbance("clean", "clean", unchanged),
    *(Disturbance(f"white noise, SNR {snr} dB", "noise", partial(white_noise, snr=snr)) for snr in (30, 20, 10, 5, 0)),
    *(
        Disturbance(f"sampled at {k} kHz ({k // 2} kHz bandwidth)", "band", partial(sampled_at, lower=1000 * k))
        for k in (8, 4)
    ),
    Disturbance("gain +20 dB, clipped at full scale", "level", partial(gain, decibels=20)),
    Disturbance("gain -20 dB", "level", partial(gain, decibels=-20)),
    Disturbance("1 s of near silence at both ends", "time", partial(add_silence, seconds=1)),
    Disturbance("only the middle second", "time", partial(middle, seconds=1)),
    Disturbance("8-bit mu-law", "coding", mu_law),
    *(Disturbance(f"reverberation, RT60 {rt60} s", "room", partial(reverberate, rt60=rt60)) for rt60 in (0.3, 0.8)),
)
"""The undisturbed recording first, then every disturbance of the robustness card, by group."""
