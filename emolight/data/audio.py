"""From a sound file or an array to a mono waveform: refusals, resampling, trimming. Knows no corpus.

Everything works in blocks: beside the result there is never a second copy of a long recording.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import soxr
from numpy.typing import ArrayLike, NDArray

from emolight.data.sound_file import BLOCK, AudioError, check_shape, content_hash, open_sound, read_bytes
from emolight.errors import EmolightError

__all__ = ["AudioError", "Waveform", "blocks", "content_hash", "fix_length", "from_array", "load_waveform"]
__all__ += ["prepare", "profile", "read_audio", "read_bytes", "sound_range", "to_mono", "trim_silence"]

Waveform: TypeAlias = NDArray[np.float32]

MIN_SECONDS = 0.05
MAX_PEAK = 100.0
"""Float files may pass full scale (1.0); a peak beyond 40 dB above it is no sound in these units."""
SILENCE = 10 ** (-90 / 20)
"""Peak below which a recording counts as silent: -90 dBFS, the last bit of 16-bit dither."""
CANCELLED = 0.05

FRAME, HOP = 2048, 512


def read_audio(
    path: str | Path,
    content: bytes | None = None,
    sample_rate: int | None = None,
    start: float | None = None,
    end: float | None = None,
) -> tuple[Waveform, int]:
    """Decode a sound file to mono, by content and not by suffix.

    Channels are averaged; where they cancel each other (opposite phase) the loudest stands in, with a warning.

    Args:
        path: WAV, FLAC or anything else that libsndfile reads.
        content: the bytes of the file, when they have been read already.
        sample_rate: Hz of the result, by soxr HQ; None leaves the recording's own.
        start, end: seconds; None are those of the recording. Only that part is decoded.

    Returns:
        Samples [T], full scale ±1, and the sample rate of the recording in Hz.

    Raises:
        AudioError: not readable, not audio, cut short, several recordings in one file, no such part, shorter than
            50 ms or longer than 4 h, silent (peak below -90 dBFS, a constant offset aside; or so at the new rate),
            with NaN or infinity, or with a rate, peak or number of channels of no recording.
    """
    with open_sound(path, content, start, end) as sound:
        rate = sample_rate or sound.rate
        samples = None if sound.frames is None else -(-sound.frames * rate // sound.rate)
        levels = _Levels()
        wave = _collect(_resampled(_mono(levels.of(sound.blocks())), sound.rate, rate), samples)
        if (channel := levels.verdict(sound.rate, path)) is not None:
            wave = _collect(_resampled(_mono(sound.blocks(), channel), sound.rate, rate), samples)
        if rate != sound.rate:
            _check_sound(wave, rate, path)
        return wave, sound.rate


def blocks(source: str | Path | bytes, sample_rate: int, seconds: float) -> Iterator[Waveform]:
    """A recording of up to 4 h in blocks, of which one is in memory; its samples are those of :func:`read_audio`.

    The file is decoded twice: all of it is checked before the first block comes.

    Args:
        source: sound file, or its bytes.
        sample_rate: Hz of the blocks.
        seconds: of a block.

    Yields:
        Samples [round(seconds * sample_rate)], mono; the last block is shorter.

    Raises:
        AudioError: see :func:`read_audio`.
    """
    path, content = ("recording", source) if isinstance(source, bytes) else (source, None)
    length, held, count = round(seconds * sample_rate), list[Waveform](), 0
    with open_sound(path, content) as sound:
        channel = _channel(sound.blocks(), sound.rate, path)
        for block in _resampled(_mono(sound.blocks(), channel), sound.rate, sample_rate):
            held.append(block)
            count += len(block)
            while count >= length:
                whole = np.concatenate(held)
                yield whole[:length]
                held, count = [whole[length:]], count - length
        if count:
            yield np.concatenate(held)


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

    Args:
        samples: ``[T]``, ``[T, channels]`` or ``[channels, T]``: the short axis is the channels. Floats stay as
            they are; integers count by the range of their type, unsigned ones around its middle. Those of 64 bits,
            such as Python's, and of 32 that stay within 16 bits, are PCM of 16, 24 or 32 bits.

    Raises:
        EmolightError: no numbers, no samples, or more than two axes.
    """
    try:
        array = np.asarray(samples)
    except ValueError:
        array = np.empty(0, dtype=object)  # channels of different lengths
    if array.dtype.kind not in "fiu" or array.ndim not in (1, 2) or not array.size:
        raise EmolightError(
            f"A waveform is [T], [T, channels] or [channels, T] of numbers, received {array.dtype} {array.shape}.",
            "Pass one recording; predict_batch takes several.",
        )
    if array.ndim == 1:
        array = array[:, None]
    elif array.shape[0] < array.shape[1]:
        array = array.T
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    if array.dtype.kind == "u" and array.dtype.itemsize <= 4:
        middle = 2.0 ** (8 * array.dtype.itemsize - 1)
        return ((array - middle) / middle).astype(np.float32)
    peak = max(int(array.max()), -int(array.min()))
    scale = 2.0 ** (8 * array.dtype.itemsize - 1)
    if array.dtype.itemsize >= 4 and peak <= 2**15:
        scale = 2.0**15 if peak > 1 else 1.0
    elif array.dtype.itemsize == 8:
        scale = 2.0**23 if peak <= 2**23 else 2.0**31
    return (array / scale).astype(np.float32)


def to_mono(samples: Waveform, rate: int, path: str | Path) -> Waveform:
    """Check decoded samples ``[T, channels]`` of full scale ±1, and average their channels as :func:`read_audio` does.

    Returns:
        Samples [T]; a view where there is one channel.

    Raises:
        AudioError: see :func:`read_audio`; ``path`` names the recording.
    """
    check_shape(path, rate, samples.shape[1], len(samples))
    channel = _channel(_pieces(samples), rate, path)
    return samples[:, 0] if samples.shape[1] == 1 else _collect(_mono(_pieces(samples), channel), len(samples))


def prepare(wave: Waveform, rate: int, sample_rate: int, trim_db: float | None, path: str | Path) -> Waveform:
    """Resample a decoded recording and trim it; see :func:`load_waveform`. ``path`` names it in errors."""
    if rate != sample_rate:
        wave = _collect(_resampled(_pieces(wave), rate, sample_rate), -(-len(wave) * sample_rate // rate))
        _check_sound(wave, sample_rate, path)
    return wave if trim_db is None else trim_silence(wave, trim_db)


class _Levels:
    """Peak, offset and loudness of the channels of blocks ``[N, channels]``."""

    def __init__(self) -> None:
        self.frames, self.mono_energy = 0, 0.0
        self.low = self.high = self.energy = np.zeros(1)

    def of(self, some: Iterable[Waveform]) -> Iterator[Waveform]:
        """The same blocks, when each was measured."""
        for block in some:
            channels = np.ascontiguousarray(block.T)  # many times faster to measure
            low, high = channels.min(axis=1), channels.max(axis=1)
            self.low = np.minimum(self.low, low) if self.frames else low
            self.high = np.maximum(self.high, high) if self.frames else high
            self.frames += len(block)
            if len(channels) > 1:
                with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are refused in the end
                    self.energy = self.energy + np.einsum("ct,ct->c", channels, channels)
                    self.mono_energy += float(np.square(channels.mean(axis=0)).sum())
            yield block

    def verdict(self, rate: int, path: str | Path) -> int | None:
        """The one channel that stands in for all, or None for their mean; raises :class:`AudioError`."""
        if not self.frames:
            raise AudioError(path, "has no samples")
        if self.frames < MIN_SECONDS * rate:
            raise AudioError(path, f"shorter than {1000 * MIN_SECONDS:.0f} ms ({self.frames} samples at {rate} Hz)")
        peak = float(np.maximum(self.high, -self.low).max())
        if not np.isfinite(peak):
            raise AudioError(path, "has samples that are NaN or infinite")
        if peak > MAX_PEAK:
            raise AudioError(path, f"has a peak of {peak:.3g} times full scale")
        if peak < SILENCE:
            raise AudioError(path, "is silent (peak below -90 dBFS)")
        if float((self.high - self.low).max()) < 2 * SILENCE:
            raise AudioError(path, f"is silent (a constant offset of {peak:.3g} and nothing else)")
        if len(self.low) == 1 or self.mono_energy >= CANCELLED**2 * self.energy.max():
            return None
        loudest = int(self.energy.argmax())
        warnings.warn(f"{path}: the channels cancel each other; only channel {loudest + 1} is used", stacklevel=4)
        return loudest


def _channel(some: Iterable[Waveform], rate: int, path: str | Path) -> int | None:
    """The verdict on blocks."""
    levels = _Levels()
    deque(levels.of(some), maxlen=0)
    return levels.verdict(rate, path)


def _pieces(samples: Waveform) -> Iterator[Waveform]:
    return (samples[start : start + BLOCK] for start in range(0, len(samples), BLOCK))


def _mono(some: Iterable[Waveform], channel: int | None = None) -> Iterator[Waveform]:
    """The mean of the channels of each block, or one of them."""
    for block in some:
        channels = np.ascontiguousarray(block.T)
        if channel is not None or len(channels) == 1:
            yield channels[channel or 0]
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            mono: Waveform = channels.mean(axis=0)
        yield mono


def _resampled(some: Iterable[Waveform], rate: int, sample_rate: int) -> Iterator[Waveform]:
    """Blocks [N] at ``rate`` as blocks at ``sample_rate``; in sum what soxr gives for all at once, to the bit."""
    if rate == sample_rate:
        yield from some
        return
    stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    for block in some:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)


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


def _check_sound(wave: Waveform, rate: int, path: str | Path) -> None:
    if not len(wave) or max(float(wave.max()), -float(wave.min())) < SILENCE:
        raise AudioError(path, f"is silent at {rate} Hz")


def sound_range(wave: Waveform, trim_db: float) -> tuple[int, int]:
    """First sample, and last but one, of a waveform without the silence at both ends.

    The rule of ``librosa.effects.trim`` with its defaults: frames of 2048 samples every 512, centred, with zeros
    outside the signal. A frame is sound when its mean square, floored at 1e-10, is less than ``trim_db`` below the
    loudest frame's. What stays runs from the centre of the first such frame to one hop past that of the last.

    Args:
        wave: samples [T].
        trim_db: decibels, above 0.

    Raises:
        EmolightError: ``trim_db`` is not a positive number.
    """
    if not 0 < trim_db < np.inf:
        raise EmolightError(f"data.trim_db is {trim_db}; it must be above 0.", "Use 30, or null to cut nothing.")
    energy = np.zeros((len(wave) + FRAME) // HOP)
    before = FRAME // 2 // HOP
    for start in range(0, len(wave), BLOCK):
        piece = wave[start : start + BLOCK].astype(np.float64)
        piece = np.pad(piece, (0, -len(piece) % HOP)).reshape(-1, HOP)
        place = before + start // HOP
        energy[place : place + len(piece)] = np.einsum("bh,bh->b", piece, piece)
    power = np.convolve(energy, np.ones(FRAME // HOP), mode="valid") / FRAME
    decibels = 10 * np.log10(np.maximum(power, 1e-10))
    sound = np.flatnonzero(decibels > decibels.max() - trim_db)
    return int(sound[0]) * HOP, min(len(wave), (int(sound[-1]) + 1) * HOP)


def trim_silence(wave: Waveform, trim_db: float) -> Waveform:
    """A view of a waveform [T] without the silence at both ends; see :func:`sound_range`."""
    return wave[slice(*sound_range(wave, trim_db))]


def fix_length(wave: Waveform, length: int, start: int | None = None) -> Waveform:
    """A waveform [T] of ``length`` samples: zeros behind a shorter one, a piece of a longer one.

    Args:
        wave: samples [T].
        length: samples of the result.
        start: first sample of the piece; None takes the middle.
    """
    spare = len(wave) - length
    if spare == 0:
        return wave
    if spare < 0:
        return np.pad(wave, (0, -spare))
    start = spare // 2 if start is None else start
    return wave[start : start + length]


def profile(wave: Waveform, sample_rate: int) -> dict[str, float]:
    """What tells one kind of recording from another, whoever speaks.

    Args:
        wave: samples [T], trimmed.
        sample_rate: Hz.

    Returns:
        ``duration`` in seconds, ``level`` (root mean square) in dBFS, and ``bandwidth`` in Hz: the highest
        frequency at which the mean power spectrum (512 samples, Hann) lies less than 60 dB below its highest value.
    """
    frames = np.lib.stride_tricks.sliding_window_view(fix_length(wave, max(len(wave), 512)), 512)[::256]
    power, window = np.zeros(257), np.hanning(512).astype(wave.dtype)  # float32 is twice as fast
    for start in range(0, len(frames), 1024):
        spectra = np.fft.rfft(frames[start : start + 1024] * window)
        power += (spectra.real**2 + spectra.imag**2).sum(axis=0)
    highest = int(np.flatnonzero(power > power.max() * 1e-6)[-1])
    energy = float(np.einsum("t,t->", wave, wave, dtype=np.float64))
    return {
        "duration": len(wave) / sample_rate,
        "level": 10 * float(np.log10(energy / len(wave))),
        "bandwidth": highest * sample_rate / 512,
    }
