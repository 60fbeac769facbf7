"""From a sound file to a mono waveform: decoding with refusals, resampling, trimming. Knows no corpus."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TypeAlias

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from emolight.data.headers import MAX_CHANNELS, header_fault, rate_fault
from emolight.errors import EmolightError

Waveform: TypeAlias = NDArray[np.float32]

MAX_BYTES = 2**30
MAX_SAMPLES = 2**28
MAX_SECONDS = 4 * 3600
"""Without it, hours at a low rate would pass as few samples and become many by resampling."""
UNKNOWN_LENGTH = 2**63 - 1
"""Number of samples that libsndfile gives for a FLAC stream whose header leaves it open."""
MIN_SECONDS = 0.05
MAX_PEAK = 100.0
"""Float files may pass full scale (1.0); a peak beyond 40 dB above it is no sound in these units."""
NO_FILE = "File does not exist"
"""What libsndfile says when its MP3 decoder finds no way on; the file is there."""
SILENCE = 10 ** (-90 / 20)
"""Peak below which a recording counts as silent: -90 dBFS, the last bit of 16-bit dither."""
CANCELLED = 0.05

FRAME, HOP = 2048, 512


class AudioError(EmolightError):
    """A recording that cannot be used; the text is ``path: reason`` in one line.

    Attributes:
        path: the file.
        reason: why it cannot be used.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        shown = str(path) if str(path).isprintable() else ascii(str(path))  # names may hold line ends
        super().__init__(f"{shown}: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type[AudioError], tuple[str | Path, str]]:
        return type(self), (self.path, self.reason)


class _Bytes(io.BytesIO):
    """Takes the negative positions that broken files make libsndfile seek, which would print a traceback."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return super().seek(max(offset, 0) if whence == 0 else offset, whence)


def read_bytes(path: str | Path) -> bytes:
    """Content of a file of at most 1 GiB.

    Raises:
        AudioError: it is no regular file, is too large, or the system does not let us read it.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise AudioError(path, "is a folder" if path.is_dir() else "there is no such file")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise AudioError(path, f"too large for a recording of a sentence ({size / 2**30:.1f} GiB)")
        return path.read_bytes()
    except OSError as error:
        raise AudioError(path, f"cannot be read ({error.strerror})") from None


def read_audio(path: str | Path, content: bytes | None = None) -> tuple[Waveform, int]:
    """Decode a sound file to mono, by content and not by suffix.

    Channels are averaged; where they cancel each other (opposite phase) the loudest stands in, with a warning.

    Args:
        path: WAV, FLAC or anything else that libsndfile reads.
        content: the bytes of the file, when they have been read already.

    Returns:
        Samples [T], full scale ±1, and the sample rate in Hz.

    Raises:
        AudioError: not readable, not audio, cut short, without samples, shorter than 50 ms or longer than 4 h,
            silent (peak below -90 dBFS, a constant offset aside), with NaN or infinity, or with an absurd rate,
            length, peak or number of channels.
    """
    content = read_bytes(path) if content is None else content
    if not content:
        raise AudioError(path, "the file is empty")
    if reason := header_fault(content):
        raise AudioError(path, reason)
    try:
        with soundfile.SoundFile(_Bytes(content)) as stream:
            rate, channels, frames = stream.samplerate, stream.channels, stream.frames
            if frames == UNKNOWN_LENGTH:
                raise AudioError(path, "its header leaves the length open: convert it to WAV")
            if reason := _shape_fault(rate, channels, frames):
                raise AudioError(path, reason)
            # The number is for codecs that cannot seek, such as GSM.
            samples = stream.read(frames, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        text = error.error_string.strip().rstrip(".")
        text = "the decoder gives up" if text.startswith(NO_FILE) else text
        raise AudioError(path, f"not readable as audio ({text})") from None
    except (RuntimeError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise AudioError(path, f"not readable as audio ({type(error).__name__})") from None
    if len(samples) < frames:
        raise AudioError(path, f"cut short: {len(samples)} of the {frames} samples that its header promises")
    return to_mono(samples, rate, path), rate


def to_mono(samples: Waveform, rate: int, path: str | Path) -> Waveform:
    """Check decoded samples and average their channels.

    Args:
        samples: ``[T, channels]``, full scale ±1.
        rate: Hz.
        path: names the recording in errors.

    Raises:
        AudioError: see :func:`read_audio`.
    """
    if reason := _shape_fault(rate, samples.shape[1], len(samples)):
        raise AudioError(path, reason)
    peak = float(np.abs(samples).max())
    if not np.isfinite(peak):
        raise AudioError(path, "has samples that are NaN or infinite")
    if peak > MAX_PEAK:
        raise AudioError(path, f"has a peak of {peak:.3g} times full scale")
    if peak < SILENCE:
        raise AudioError(path, "is silent (peak below -90 dBFS)")
    if float(np.ptp(samples, axis=0).max()) < 2 * SILENCE:
        raise AudioError(path, f"is silent (a constant offset of {peak:.3g} and nothing else)")
    if samples.shape[1] == 1:
        return samples[:, 0]
    mono: Waveform = samples.mean(axis=1)
    loudness = np.sqrt(np.mean(samples**2, axis=0))
    if np.sqrt(np.mean(mono**2)) >= CANCELLED * loudness.max():
        return mono
    loudest = int(loudness.argmax())
    warnings.warn(f"{path}: the channels cancel each other; only channel {loudest + 1} is used", stacklevel=3)
    return np.ascontiguousarray(samples[:, loudest])


def _shape_fault(rate: int, channels: int, frames: int) -> str | None:
    if reason := rate_fault(rate):
        return reason
    if not 1 <= channels <= MAX_CHANNELS:
        return f"absurd number of channels: {channels} (at most {MAX_CHANNELS})"
    if frames < 1:
        return "has no samples"
    if frames * channels > MAX_SAMPLES or frames > MAX_SECONDS * rate:
        return f"absurd length of {frames / rate:.0f} s"
    if frames < MIN_SECONDS * rate:
        return f"shorter than {1000 * MIN_SECONDS:.0f} ms ({frames} samples at {rate} Hz)"
    return None


def trim_silence(wave: Waveform, trim_db: float) -> Waveform:
    """Cut silence at both ends, by the rule of ``librosa.effects.trim`` with its defaults.

    Frames of 2048 samples every 512, centred, with zeros outside the signal. A frame counts as sound when its
    mean square, floored at 1e-10, is less than ``trim_db`` below the loudest frame's. What stays runs from the
    centre of the first such frame to one hop past the centre of the last.

    Args:
        wave: samples [T].
        trim_db: decibels, above 0.

    Returns:
        A view of ``wave``.

    Raises:
        EmolightError: ``trim_db`` is not a positive number.
    """
    if not 0 < trim_db < np.inf:
        raise EmolightError(f"data.trim_db is {trim_db}; it must be above 0.", "Use 30, or null to cut nothing.")
    padded = np.pad(wave, FRAME // 2)
    blocks = padded[: len(padded) // HOP * HOP].reshape(-1, HOP).astype(np.float64)
    energy = np.einsum("bh,bh->b", blocks, blocks)
    per_frame = FRAME // HOP
    power = np.convolve(energy, np.ones(per_frame), mode="valid") / FRAME
    decibels = 10 * np.log10(np.maximum(power, 1e-10))
    sound = np.flatnonzero(decibels > decibels.max() - trim_db)
    return wave[sound[0] * HOP : (sound[-1] + 1) * HOP]


def load_waveform(
    path: str | Path, sample_rate: int = 16000, trim_db: float | None = 30.0, content: bytes | None = None
) -> Waveform:
    """Decode a recording, resample it with soxr HQ, then cut the silence at both ends.

    Args:
        path: sound file.
        sample_rate: Hz of the result.
        trim_db: see :func:`trim_silence`, applied at ``sample_rate``; None cuts nothing.
        content: the bytes of the file, when they have been read already.

    Returns:
        Samples [T], mono.

    Raises:
        AudioError: see :func:`read_audio`; also when nothing is left below the new Nyquist frequency.
    """
    wave, rate = read_audio(path, content)
    return prepare(wave, rate, sample_rate, trim_db, path)


def prepare(wave: Waveform, rate: int, sample_rate: int, trim_db: float | None, path: str | Path) -> Waveform:
    """Resample a decoded recording and trim it; see :func:`load_waveform`. ``path`` names it in errors."""
    if rate != sample_rate:
        wave = soxr.resample(wave, rate, sample_rate, quality="HQ")
        if not len(wave) or np.abs(wave).max() < SILENCE:
            raise AudioError(path, f"is silent at {sample_rate} Hz")
    return wave if trim_db is None else trim_silence(wave, trim_db)


def fix_length(wave: Waveform, length: int, start: int | None = None) -> Waveform:
    """A waveform [T] of ``length`` samples: zeros behind a shorter one, a piece of a longer one.

    Args:
        wave: samples [T].
        length: samples of the result.
        start: first sample of the piece; None takes the middle.
    """
    spare = len(wave) - length
    if spare <= 0:
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
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(512)))).mean(axis=0)
    highest = int(np.flatnonzero(power > power.max() * 1e-6)[-1])
    return {
        "duration": len(wave) / sample_rate,
        "level": float(10 * np.log10(np.mean(np.square(wave, dtype=np.float64)))),
        "bandwidth": highest * sample_rate / 512,
    }
