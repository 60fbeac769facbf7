"""Front-ends, waveform in and features out: spectrogram, mel spectrogram, MFCC, or the samples themselves.

The definitions are librosa's (0.11): ``librosa.stft`` with a centred Hann window and zero padding,
``librosa.filters.mel`` (Slaney scale and norm), ``librosa.power_to_db`` and ``librosa.feature.mfcc``.
"""

import copy
import math
import warnings
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torchaudio.functional as audio
from scipy.fft import dct
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from emolight.errors import EmolightError
from emolight.models.level import Level, LevelKind
from emolight.models.parts import Float32, Part


class FeatureAxis(NamedTuple):
    """What the rows of a feature image are; ``low`` and ``high`` are where the first and the last row stand."""

    name: str
    unit: str
    scale: str | None
    low: float
    high: float


class Features(Part, Float32):
    """A front-end. Derive your own from it: set ``rows``, and write :meth:`compute`.

    Its buffers and parameters stay float32, and it runs in float32, whatever the precision around it.

    Args:
        sample_rate: Hz of the waveforms; the classifier gives it.
        level: of every clip: as recorded (keep), one root mean square (rms), or one loudness by ITU-R BS.1770.

    Attributes:
        mode: one word for tables and file names.
        image: whether the result is ``[B, channels, rows, N]``; else it is ``[B, 1, T]``.
        hop_length: samples from one column to the next; column k is centred on sample ``k * hop_length``.
        unit: of the values in pictures, which ``normalised_in_pictures`` shows after the classifier's normalisation.

    Example:
        >>> class Loudness(Features):
        ...     rows, hop_length = 1, 160
        ...     def compute(self, waveform):
        ...         return waveform.unfold(-1, 160, 160).square().mean(-1)[:, None, None]
    """

    mode: str = "features"
    channels: int = 1
    rows: int = 1
    image: ClassVar[bool] = True
    hop_length: int = 1
    unit: ClassVar[str] = ""
    normalised_in_pictures: ClassVar[bool] = False

    def __init__(self, sample_rate: int, level: LevelKind = "keep") -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.level = None if level == "keep" else Level(level, sample_rate)

    def compute(self, waveform: Tensor) -> Tensor:
        """The features of float32 waveforms ``[B, T]``."""
        raise NotImplementedError(f"{type(self).__name__}.compute")

    def forward(self, waveform: Tensor) -> Tensor:
        """As :meth:`compute`, with autocast off; waveforms of any floating type."""
        # The mel product overflows float16, and bfloat16 has too few digits for decibels.
        with torch.autocast(waveform.device.type, enabled=False):
            waveform = waveform.float()
            return self.compute(waveform if self.level is None else self.level(waveform))

    @property
    def title(self) -> str:
        """What people call the features."""
        return self.mode

    @property
    def pictured(self) -> str:
        """What stands above a picture, which shows the first channel."""
        return f"{self.title}: first of {self.channels} channels" if self.channels > 1 else self.title

    @property
    def axis(self) -> FeatureAxis:
        """What the rows are."""
        return FeatureAxis("row", "", None, 0, self.rows - 1)

    def exportable(self) -> nn.Module:
        """The same features by operators that ONNX knows."""
        return self

    def check_length(self, length: int) -> None:
        """Raise :class:`EmolightError` where a clip of ``length`` samples has fewer than two columns."""
        fits = not self.image or self.hop_length <= length
        _check(fits, "hop_length", self.hop_length, f"at most a clip's length, {length} samples")


class Waveform(Features):
    """The samples themselves, ``[B, T]`` to ``[B, 1, T]``, for networks that learn their own filters."""

    mode, unit = "waveform", "amplitude"
    image = False

    def compute(self, waveform: Tensor) -> Tensor:
        """The samples with a channel."""
        return waveform.unsqueeze(1)


class Spectrogram(Features):
    """Power spectrogram in decibels, ``[B, T]`` to ``[B, 1, bins, 1 + T // hop_length]``.

    Args:
        n_fft: length of the Fourier transform in samples.
        win_length: length of the Hann window in samples; null is ``n_fft``.
        hop_length: samples from one frame to the next.
        f_min: lowest frequency in Hz; the spectrogram drops the bins below it.
        f_max: highest frequency in Hz; null is half the sample rate.
        top_db: dynamic range: what lies more decibels below the clip's loudest value is lifted to there.
        level: of every clip: keep, rms or loudness.

    Raises:
        EmolightError: parameters that cannot work together; so do the classes below.
    """

    mode, unit = "spectrogram", "dB"
    window: Tensor
    basis: Tensor | None

    def __init__(
        self,
        sample_rate: int,
        n_fft: int = 512,
        win_length: int | None = None,
        hop_length: int = 512,
        f_min: float = 0.0,
        f_max: float | None = None,
        top_db: float = 80.0,
        level: LevelKind = "keep",
    ) -> None:
        super().__init__(sample_rate, level)
        length, high = n_fft if win_length is None else win_length, sample_rate / 2 if f_max is None else f_max
        _check(n_fft >= 16, "n_fft", n_fft, "at least 16")
        _check(hop_length >= 1, "hop_length", hop_length, "at least 1")
        _check(1 <= length <= n_fft, "win_length", length, f"from 1 to n_fft = {n_fft}")
        _check(0 <= f_min < high, "f_min", f_min, f"from 0 to below f_max = {high:g} Hz")
        _check(high <= sample_rate / 2, "f_max", high, f"at most half the sample rate, {sample_rate / 2:g} Hz")
        _check(0 < top_db < math.inf, "top_db", top_db, "above 0")
        self.n_fft, self.hop_length, self.top_db = n_fft, hop_length, top_db
        self.f_min, self.f_max = f_min, high
        left = (n_fft - length) // 2
        window = torch.hann_window(length, dtype=torch.float32)
        self._constant("window", nn.functional.pad(window, (left, n_fft - length - left)))
        self.register_buffer("basis", None, persistent=False)
        hertz = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)
        bins = np.flatnonzero((hertz >= f_min) & (hertz <= high))
        if not len(bins):
            problem = f"No frequency bin lies between f_min {f_min:g} and f_max {high:g} Hz."
            raise EmolightError(problem, "Widen the range, or raise model.features.n_fft.")
        self.first_bin, self.last_bin = int(bins[0]), int(bins[-1]) + 1
        self.rows = len(bins)

    def _constant(self, name: str, values: Tensor) -> None:
        self.register_buffer(name, values.float().contiguous(), persistent=False)

    @torch.no_grad()
    def compute(self, waveform: Tensor) -> Tensor:
        """Decibels of the power spectra."""
        return self._decibels(self._power(waveform))

    def _power(self, waveform: Tensor) -> Tensor:
        """Power spectra ``[B, N, bins]`` of the bins in use, as ``torch.stft`` without its complex copies."""
        padded = nn.functional.pad(waveform, (self.n_fft // 2, self.n_fft // 2))
        if self.basis is not None:
            spectrum = nn.functional.conv1d(padded.unsqueeze(1), self.basis, stride=self.hop_length)
            real, imaginary = spectrum.transpose(1, 2).chunk(2, dim=2)
        else:
            frames = padded.unfold(-1, self.n_fft, self.hop_length) * self.window
            bins = torch.fft.rfft(frames)[..., self.first_bin : self.last_bin]
            real, imaginary = torch.view_as_real(bins).unbind(-1)
        return torch.addcmul(real * real, imaginary, imaginary)

    def _decibels(self, power: Tensor) -> Tensor:
        """``librosa.power_to_db(power, top_db)`` of each clip: ``[B, N, F]`` to ``[B, 1, F, N]``."""
        power = power.transpose(1, 2).unsqueeze(1)  # without a channel top_db would count from the loudest clip
        decibels: Tensor = audio.amplitude_to_DB(power, 10.0, 1e-10, 0.0, self.top_db)
        return decibels

    @property
    def title(self) -> str:
        """Such as ``spectrogram, 257 bins``."""
        return f"spectrogram, {self.rows} bins"

    @property
    def axis(self) -> FeatureAxis:
        """Frequency in Hz."""
        each = self.sample_rate / self.n_fft
        return FeatureAxis("frequency", "Hz", "linear", self.first_bin * each, (self.last_bin - 1) * each)

    def exportable(self) -> nn.Module:
        """The same features by a convolution with windowed cosines and sines: ONNX Runtime's DFT is far slower."""
        other = copy.deepcopy(self)
        bins = torch.arange(self.first_bin, self.last_bin)[:, None]
        turns = (bins * torch.arange(self.n_fft) % self.n_fft).double() * (2 * math.pi / self.n_fft)
        waves = torch.cat([turns.cos(), turns.sin()]) * self.window.double().cpu()
        other.basis = waves.float().unsqueeze(1).to(self.window.device)
        return other


class MelSpectrogram(Spectrogram):
    """Mel spectrogram in decibels, ``[B, T]`` to ``[B, 1, n_mels, 1 + T // hop_length]``.

    Args:
        n_mels: mel bins on the scale of Slaney's *Auditory Toolbox*, 1998, by filters of equal area.
        options: as of :class:`Spectrogram`.
    """

    mode = "mel"
    mel: Tensor

    def __init__(self, sample_rate: int, n_mels: int = 64, **options: Any) -> None:
        super().__init__(sample_rate, **options)
        _check(n_mels >= 1, "n_mels", n_mels, "at least 1")
        with warnings.catch_warnings(), _Float64():
            warnings.simplefilter("ignore")  # of empty filters, which are an error here
            bins = self.n_fft // 2 + 1
            filters = audio.melscale_fbanks(bins, self.f_min, self.f_max, n_mels, sample_rate, "slaney", "slaney")
        if empty := int((filters.amax(dim=0) == 0).sum()):
            problem = f"{empty} of {n_mels} mel bins are empty with model.features.n_fft {self.n_fft}."
            raise EmolightError(problem, "Lower model.features.n_mels, or raise model.features.n_fft.")
        used = filters.amax(dim=1).nonzero()
        self.first_bin, self.last_bin = int(used[0]), int(used[-1]) + 1
        self._constant("mel", filters[self.first_bin : self.last_bin])
        self.rows = n_mels

    @torch.no_grad()
    def compute(self, waveform: Tensor) -> Tensor:
        """Decibels of the mel bins."""
        return self._decibels(self._power(waveform) @ self.mel)

    @property
    def title(self) -> str:
        """Such as ``64 mel bins``."""
        return f"{self.rows} mel bins"

    @property
    def axis(self) -> FeatureAxis:
        """Frequency in Hz on Slaney's mel scale, ``librosa.mel_frequencies(n_mels, fmin=low, fmax=high)``."""
        return FeatureAxis("frequency", "Hz", "mel", self.f_min, self.f_max)


class MFCC(MelSpectrogram):
    """Mel-frequency cepstral coefficients, ``[B, T]`` to ``[B, 1 + deltas, n_mfcc, 1 + T // hop_length]``.

    Args:
        n_mfcc: coefficients.
        n_mels: mel bins of which they are the cosine transform.
        deltas: further channels: 1 adds the slopes over 5 frames, 2 the slopes of these too.
        options: as of :class:`Spectrogram`.
    """

    mode, unit = "mfcc", "standard deviations"
    normalised_in_pictures = True  # the first coefficient's size would hide the others
    dct: Tensor

    def __init__(self, sample_rate: int, n_mfcc: int = 40, n_mels: int = 64, deltas: int = 0, **options: Any) -> None:
        super().__init__(sample_rate, n_mels, **options)
        _check(1 <= n_mfcc <= n_mels, "n_mfcc", n_mfcc, f"from 1 to n_mels = {n_mels}")
        _check(0 <= deltas <= 2, "deltas", deltas, "0, 1 or 2")
        self._constant("dct", torch.from_numpy(dct(np.eye(n_mels), axis=0, norm="ortho")[:n_mfcc]))
        self.rows, self.channels = n_mfcc, 1 + deltas

    @torch.no_grad()
    def compute(self, waveform: Tensor) -> Tensor:
        """Cosine transform of the decibels, and its slopes."""
        images = [self.dct @ super().compute(waveform)]
        while len(images) < self.channels:
            images.append(slopes(images[-1]))
        return torch.cat(images, dim=1)

    @property
    def title(self) -> str:
        """Such as ``40 MFCC`` or ``13 MFCC with deltas``."""
        return f"{self.rows} MFCC" + ("", " with deltas", " with deltas and their deltas")[self.channels - 1]

    @property
    def axis(self) -> FeatureAxis:
        """Coefficients from 0."""
        return FeatureAxis("coefficient", "", None, 0, self.rows - 1)


class _Float64(TorchFunctionMode):
    """Torchaudio's filters in float64, in this thread: PyTorch's default type is that of all threads."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}), **({"dtype": torch.float64} if func is torch.linspace else {}))


def slopes(image: Tensor) -> Tensor:
    """Of a line through 5 frames; torchaudio's ``compute_deltas``, which ONNX cannot express for any batch."""
    padded = nn.functional.pad(image, (2, 2, 0, 0), mode="replicate")
    return (padded[..., 3:-1] - padded[..., 1:-3] + 2 * (padded[..., 4:] - padded[..., :-4])) / 10


def _check(holds: bool, name: str, value: float, valid: str) -> None:
    if not holds:
        name = f"model.features.{name}"
        raise EmolightError(f"{name} is {value:g}; it must be {valid}.", f"Change {name}.")
