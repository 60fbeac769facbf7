"""From a sound file or an array to a mono waveform, in blocks: there is never a second copy of a recording."""

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import soxr
from numpy.typing import ArrayLike, NDArray

from emolight.data.sound_file import BLOCK, AudioError, check_shape, content_hash, open_sound, read_bytes
from emolight.errors import EmolightError

__all__ = ["AudioError", "Waveform", "content_hash", "fix_length", "from_array", "load_waveform"]
__all__ += ["profile", "read_audio", "read_bytes", "sound_range", "to_mono", "trim_silence"]

Waveform: TypeAlias = NDArray[np.float32]

MIN_SECONDS = 0.05
MAX_PEAK = 100.0  # float files may pass full scale (1.0); a peak beyond 40 dB above it is no sound in these units
SILENCE = 10 ** (-90 / 20)  # peak below which a recording counts as silent: -90 dBFS, the last bit of 16-bit dither
CANCELLED = 0.05
FRAME, HOP = 2048, 512
STEADY = 6  # frames of noise alone: 0.2 s at 16 kHz


def read_audio(
    path: str | Path,
    content: bytes | None = None,
    sample_rate: int | None = None,
    start: float | None = None,
    end: float | None = None,
) -> tuple[Waveform, int]:
    """A sound file, or its part from ``start`` to ``end`` (s), as samples [T] of full scale ±1, and its own rate in Hz.

    Channels are averaged; where they cancel each other (opposite phase) the loudest stands in, with a warning.
    ``content``: the bytes of the file, when they have been read already. ``sample_rate``: Hz of the result, by soxr HQ.
    An :class:`AudioError` names the path and why the file is no recording.
    """
    with open_sound(path, content, start, end) as sound:
        channel = _channel(sound.blocks(), sound.rate, path)
        return _at_rate(_mono(sound.blocks(), channel), sound.frames, sound.rate, sample_rate, path), sound.rate


def load_waveform(
    path: str | Path,
    sample_rate: int = 16000,
    trim_db: float | None = 30.0,
    content: bytes | None = None,
    start: float | None = None,
    end: float | None = None,
) -> Waveform:
    """Samples [T] as of :func:`read_audio`, trimmed as by :func:`sound_range`; a ``trim_db`` of None cuts nothing."""
    wave, _ = read_audio(path, content, sample_rate, start, end)
    return wave if trim_db is None else trim_silence(wave, trim_db)


def from_array(samples: ArrayLike) -> Waveform:
    """What soundfile, scipy, gradio or a list hold of a recording, as float32 ``[T, channels]`` of full scale ±1.

    Of ``[T]``, ``[T, channels]`` or ``[channels, T]`` the short axis is the channels. Floats stay as they are; integers
    count by the range of their type, unsigned ones around its middle. Those of 64 bits, such as Python's, and of 32
    that stay within 16 bits, are PCM of 16, 24 or 32 bits.
    """
    try:
        array = np.asarray(samples)
    except ValueError:
        array = np.empty(0, dtype=object)  # channels of different lengths
    if array.dtype.kind not in "fiu" or array.ndim not in (1, 2) or not array.size:
        problem = f"A waveform is [T], [T, channels] or [channels, T] of numbers, received {array.dtype} {array.shape}."
        raise EmolightError(problem, "Pass one recording; predict_batch takes several.")
    array = array[:, None] if array.ndim == 1 else array.T if array.shape[0] < array.shape[1] else array
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    scale = 2.0 ** (8 * array.dtype.itemsize - 1)
    if array.dtype.kind == "u" and array.dtype.itemsize <= 4:
        return ((array - scale) / scale).astype(np.float32)
    peak = max(int(array.max()), -int(array.min()))
    if array.dtype.itemsize >= 4 and peak <= 2**15:
        scale = 2.0**15 if peak > 1 else 1.0
    elif array.dtype.itemsize == 8:
        scale = 2.0**23 if peak <= 2**23 else 2.0**31
    return (array / scale).astype(np.float32)


def to_mono(samples: Waveform, rate: int, path: str | Path, sample_rate: int | None = None) -> Waveform:
    """Samples ``[T, channels]`` of full scale ±1 as :func:`read_audio` gives those of a file; ``path`` names them."""
    check_shape(path, rate, samples.shape[1], len(samples))
    channel = _channel(_pieces(samples), rate, path)
    if samples.shape[1] == 1 and sample_rate in (None, rate):
        return samples[:, 0]
    return _at_rate(_mono(_pieces(samples), channel), len(samples), rate, sample_rate, path)


def _channel(some: Iterable[Waveform], rate: int, path: str | Path) -> int | None:
    """The one channel of blocks ``[N, channels]`` that stands in for all, or None for their mean; refusals."""
    frames, mono, measured = 0, 0.0, []
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are refused in the end
        for block in some:
            channels = np.ascontiguousarray(block.T)  # many times faster to measure
            frames += len(block)
            mono += float(np.square(channels.mean(axis=0)).sum())
            measured.append((channels.min(axis=1), channels.max(axis=1), np.einsum("ct,ct->c", channels, channels)))
        if not frames:
            raise AudioError(path, "has no samples")
        lows, highs, energies = map(np.stack, zip(*measured, strict=True))
        low, high, energy = lows.min(axis=0), highs.max(axis=0), energies.sum(axis=0, dtype=np.float64)
        peak = float(np.maximum(high, -low).max())
        offset = float((high - low).max()) < 2 * SILENCE
    reasons = {
        f"shorter than {1000 * MIN_SECONDS:.0f} ms ({frames} samples at {rate} Hz)": frames < MIN_SECONDS * rate,
        "has samples that are NaN or infinite": not np.isfinite(peak),
        f"has a peak of {peak:.3g} times full scale": peak > MAX_PEAK,
        "is silent (peak below -90 dBFS)": peak < SILENCE,
        f"is silent (a constant offset of {peak:.3g} and nothing else)": offset,
    }
    for reason, true in reasons.items():
        if true:
            raise AudioError(path, reason)
    if len(low) == 1 or mono >= CANCELLED**2 * energy.max():
        return None
    loudest = int(energy.argmax())
    warnings.warn(f"{path}: the channels cancel each other; only channel {loudest + 1} is used", stacklevel=4)
    return loudest


def _pieces(samples: Waveform) -> Iterator[Waveform]:
    return (samples[start : start + BLOCK] for start in range(0, len(samples), BLOCK))


def _mono(some: Iterable[Waveform], channel: int | None) -> Iterator[Waveform]:
    """The mean of the channels of each block, or one of them."""
    for block in some:
        channels = np.ascontiguousarray(block.T)
        yield channels[channel or 0] if channel is not None or len(channels) == 1 else channels.mean(axis=0)


def _resampled(some: Iterable[Waveform], rate: int, sample_rate: int) -> Iterator[Waveform]:
    """Blocks [N] at ``rate`` as blocks at ``sample_rate``; in sum what soxr gives for all at once, to the bit."""
    if rate == sample_rate:
        yield from some
        return
    stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    for block in some:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)


def _at_rate(
    some: Iterable[Waveform], frames: int | None, rate: int, sample_rate: int | None, path: str | Path
) -> Waveform:
    new = sample_rate or rate
    wave = _collect(_resampled(some, rate, new), None if frames is None else -(-frames * new // rate))
    if not len(wave) or max(float(wave.max()), -float(wave.min())) < SILENCE:
        raise AudioError(path, f"is silent at {new} Hz")
    return wave


def _collect(some: Iterable[Waveform], samples: int | None) -> Waveform:
    """Blocks as one array, which grows in place: a header may promise more than there is."""
    step = 2**24
    wave, count = np.empty(min(step, step if samples is None else samples), dtype=np.float32), 0
    for block in some:
        if count + len(block) > len(wave):
            wave.resize(count + len(block) + step, refcheck=False)
        wave[count : count + len(block)] = block
        count += len(block)
    wave.resize(count, refcheck=False)
    return wave


def sound_range(wave: Waveform, trim_db: float) -> tuple[int, int]:
    """First sample, and last but one, of a waveform [T] without the silence at both ends.

    The rule of ``librosa.effects.trim`` with its defaults: frames of 2048 samples every 512, centred, zeros outside. A
    frame is sound when its mean square, floored at 1e-10, is less than ``trim_db`` below the loudest's. Where noise is
    louder than that, ends are cut that are as steady as noise: :data:`STEADY` frames or more, from 1 dB below to 2 dB
    above the quietest tenth of all. Speech is never so steady, unless most of it lies below 1e-10.
    """
    energy = np.zeros((len(wave) + FRAME) // HOP)
    for start in range(0, len(wave), BLOCK):
        piece = wave[start : start + BLOCK].astype(np.float64)
        piece = np.pad(piece, (0, -len(piece) % HOP)).reshape(-1, HOP)
        place = (FRAME // 2 + start) // HOP
        energy[place : place + len(piece)] = np.einsum("bh,bh->b", piece, piece)
    power = np.convolve(energy, np.ones(FRAME // HOP), mode="valid") / FRAME
    decibels = 10 * np.log10(np.maximum(power, 1e-10))
    sound = np.flatnonzero(decibels > decibels.max() - trim_db)
    first, last, inner = sound[0], sound[-1], decibels[2:-2]  # without the zeros outside
    if inner.size and (floor := np.percentile(inner, 10)) > max(decibels.max() - trim_db, -99.9):
        loud = np.flatnonzero(inner > floor + 2)
        before, behind = (inner[: loud[0]], inner[loud[-1] + 1 :]) if loud.size else (inner[:0], inner[:0])
        first = loud[0] + 2 if before.size >= STEADY and before.min() > floor - 1 else first
        last = loud[-1] + 2 if behind.size >= STEADY and behind.min() > floor - 1 else last
    return int(first) * HOP, min(len(wave), (int(last) + 1) * HOP)


def trim_silence(wave: Waveform, trim_db: float) -> Waveform:
    """A view of a waveform [T] without the silence at both ends; see :func:`sound_range`."""
    return wave[slice(*sound_range(wave, trim_db))]


def fix_length(wave: Waveform, length: int, start: int | None = None) -> Waveform:
    """A waveform [T] of ``length`` samples: zeros behind a shorter one; a piece from ``start``, or else the middle."""
    spare = len(wave) - length
    if spare <= 0:
        return np.pad(wave, (0, -spare)) if spare else wave
    start = spare // 2 if start is None else start
    return wave[start : start + length]


def profile(wave: Waveform, sample_rate: int) -> dict[str, float]:
    """What tells one kind of recording from another, whoever speaks, of a trimmed waveform [T].

    ``duration`` in seconds, ``level`` (root mean square) in dBFS, and ``bandwidth`` in Hz: the highest frequency at
    which the mean power spectrum (512 samples, Hann) lies less than 60 dB below its highest value.
    """
    frames = np.lib.stride_tricks.sliding_window_view(fix_length(wave, max(len(wave), 512)), 512)[::256]
    power, window = np.zeros(257), np.hanning(512).astype(wave.dtype)  # float32 is twice as fast
    for start in range(0, len(frames), 1024):
        spectra = np.fft.rfft(frames[start : start + 1024] * window)
        power += (spectra.real**2 + spectra.imag**2).sum(axis=0)
    highest = int(np.flatnonzero(power > power.max() * 1e-6)[-1])
    energy = float(np.einsum("t,t->", wave, wave, dtype=np.float64))
    level = 10 * float(np.log10(energy / len(wave)))
    return {"duration": len(wave) / sample_rate, "level": level, "bandwidth": highest * sample_rate / 512}
