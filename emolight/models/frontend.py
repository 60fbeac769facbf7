"""Waveform in, feature image out: spectrogram, mel spectrogram, MFCC, or the raw waveform.

The definitions are librosa's (0.11): ``librosa.stft`` with a centred Hann window and zero padding,
``librosa.filters.mel`` (Slaney scale and norm), ``librosa.power_to_db`` and ``librosa.feature.mfcc``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.fft import dct
from torch import Tensor, nn

from emolight.errors import EmolightError, check_choice

MODES = ("spectrogram", "mel", "mfcc", "waveform")
AMIN = 1e-10
"""Power below which decibels are cut off, as in ``librosa.power_to_db``."""


@dataclass(frozen=True)
class Features:
    """What the network sees of a clip.

    Args:
        mode: ``spectrogram``, ``mel`` or ``mfcc`` for the ResNet18, ``waveform`` for the 1-D network.
        n_fft: length of the Fourier transform in samples.
        win_length: length of the Hann window in samples; null is ``n_fft``.
        hop_length: samples from one frame to the next.
        n_mels: mel bins (``mel`` and ``mfcc``).
        n_mfcc: coefficients (``mfcc``).
        f_min: lowest frequency in Hz; the spectrogram drops the bins below it.
        f_max: highest frequency in Hz; null is half the sample rate.
        top_db: dynamic range: what lies more decibels below the clip's loudest value is lifted to there.
    """

    mode: Literal["spectrogram", "mel", "mfcc", "waveform"] = "mfcc"
    n_fft: int = 512
    win_length: int | None = None
    hop_length: int = 512
    n_mels: int = 64
    n_mfcc: int = 40
    f_min: float = 0.0
    f_max: float | None = None
    top_db: float = 80.0

    def check(self, sample_rate: int) -> None:
        """Raise :class:`EmolightError` for values that cannot work at ``sample_rate`` (Hz)."""
        check_choice("features.mode", self.mode, MODES)
        nyquist = sample_rate / 2
        f_max = nyquist if self.f_max is None else self.f_max
        window = self.n_fft if self.win_length is None else self.win_length
        rules = [
            (self.n_fft >= 16, "n_fft", self.n_fft, "at least 16"),
            (self.hop_length >= 1, "hop_length", self.hop_length, "at least 1"),
            (1 <= window <= self.n_fft, "win_length", window, f"from 1 to n_fft = {self.n_fft}"),
            (0 <= self.f_min < f_max, "f_min", self.f_min, f"from 0 to below f_max = {f_max:g} Hz"),
            (f_max <= nyquist, "f_max", f_max, f"at most half the sample rate, {nyquist:g} Hz"),
            (self.n_mels >= 1, "n_mels", self.n_mels, "at least 1"),
            (
                self.mode != "mfcc" or 1 <= self.n_mfcc <= self.n_mels,
                "n_mfcc",
                self.n_mfcc,
                f"from 1 to n_mels = {self.n_mels}",
            ),
            (self.top_db > 0, "top_db", self.top_db, "above 0"),
        ]
        for holds, name, value, valid in rules:
            if not holds:
                raise EmolightError(
                    f"model.features.{name} is {value:g}; it must be {valid}.",
                    f"Change model.features.{name}.",
                )


def mel_filters(sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> np.ndarray:
    """Triangular mel filters on Slaney's scale, each of equal area, as ``librosa.filters.mel`` gives them.

    Returns:
        Array ``[n_mels, n_fft // 2 + 1]``, float32.

    Source:
        Slaney, *Auditory Toolbox*, 1998: linear below 1 kHz (3 mel per 200 Hz), logarithmic above.
    """
    linear_hz, break_hz, log_step = 200.0 / 3, 1000.0, np.log(6.4) / 27
    break_mel = break_hz / linear_hz

    def to_mel(hertz: float) -> float:
        return hertz / linear_hz if hertz < break_hz else break_mel + np.log(hertz / break_hz) / log_step

    mels = np.linspace(to_mel(f_min), to_mel(f_max), n_mels + 2)
    edges = np.where(mels < break_mel, mels * linear_hz, break_hz * np.exp(log_step * (mels - break_mel)))
    bins = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


class FrontEnd(nn.Module):
    """Features of a batch of waveforms, each clip for itself, in float32 whatever the precision around it.

    Args:
        features: which features, and their parameters.
        sample_rate: samples a second of the waveforms.

    Shape:
        ``[B, T]`` to ``[B, 1, n_rows, 1 + T // hop_length]``, in decibels or, for MFCC, their cosine transform;
        mode ``waveform`` gives ``[B, 1, T]``.

    Raises:
        EmolightError: parameters that cannot work together, or mel bins that no frequency falls into.
    """

    window: Tensor
    mel: Tensor
    dct: Tensor

    def __init__(self, features: Features, sample_rate: int) -> None:
        super().__init__()
        features.check(sample_rate)
        self.features = features
        f_max = sample_rate / 2 if features.f_max is None else features.f_max
        hertz = np.linspace(0, sample_rate / 2, features.n_fft // 2 + 1)
        kept = np.flatnonzero((hertz >= features.f_min) & (hertz <= f_max))
        self.first_bin, self.last_bin = (
            int(kept[0]) if kept.size else 0,
            int(kept[-1]) + 1 if kept.size else 0,
        )
        if features.mode == "waveform":
            self.n_rows = 1
            return
        length = features.n_fft if features.win_length is None else features.win_length
        left = (features.n_fft - length) // 2
        window = torch.zeros(features.n_fft)
        window[left : left + length] = torch.hann_window(length)
        self.register_buffer("window", window, persistent=False)
        if features.mode == "spectrogram":
            self.n_rows = self.last_bin - self.first_bin
            if not self.n_rows:
                raise EmolightError(
                    f"No frequency bin lies between f_min {features.f_min:g} and f_max {f_max:g} Hz.",
                    "Widen the range, or raise model.features.n_fft.",
                )
            return
        filters = mel_filters(sample_rate, features.n_fft, features.n_mels, features.f_min, f_max)
        empty = int((filters.max(axis=1) == 0).sum())
        if empty:
            raise EmolightError(
                f"{empty} of {features.n_mels} mel bins are empty with n_fft {features.n_fft}.",
                "Lower model.features.n_mels, or raise model.features.n_fft.",
            )
        used = np.flatnonzero(filters.any(axis=0))
        self.first_bin, self.last_bin = int(used[0]), int(used[-1]) + 1
        filters = filters[:, self.first_bin : self.last_bin]
        self.register_buffer("mel", torch.from_numpy(np.ascontiguousarray(filters.T)), persistent=False)
        self.n_rows = features.n_mels
        if features.mode == "mfcc":
            basis = dct(np.eye(features.n_mels), axis=0, norm="ortho")[: features.n_mfcc]
            self.register_buffer("dct", torch.from_numpy(basis.astype(np.float32)), persistent=False)
            self.n_rows = features.n_mfcc

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        """Compute the features; see the class for shapes."""
        # The mel product overflows float16, and bfloat16 has too few digits for decibels.
        with torch.autocast(waveform.device.type, enabled=False):
            waveform = waveform.float()
            if self.features.mode == "waveform":
                return waveform.unsqueeze(1)
            rows = self._power(waveform)
            if self.features.mode != "spectrogram":
                rows = rows @ self.mel
            image = self._decibels(rows.transpose(1, 2))
            if self.features.mode == "mfcc":
                image = self.dct @ image
            return image.unsqueeze(1)

    def _power(self, waveform: Tensor) -> Tensor:
        """Power spectra ``[B, N, bins]`` of the bins in use.

        The same as ``torch.stft(..., pad_mode="constant").abs().square()``, without its complex copies.
        """
        n_fft = self.features.n_fft
        padded = nn.functional.pad(waveform, (n_fft // 2, n_fft // 2))
        frames = padded.unfold(-1, n_fft, self.features.hop_length) * self.window
        spectrum = torch.view_as_real(torch.fft.rfft(frames)[..., self.first_bin : self.last_bin])
        real, imaginary = spectrum.unbind(-1)
        return torch.addcmul(real * real, imaginary, imaginary)

    def _decibels(self, power: Tensor) -> Tensor:
        """``librosa.power_to_db(power, ref=1, amin=1e-10, top_db)`` for each clip of ``[B, F, N]``."""
        level = power.clamp(min=AMIN).log10_().mul_(10)
        floor = level.amax(dim=(1, 2), keepdim=True) - self.features.top_db
        return torch.maximum(level, floor)
