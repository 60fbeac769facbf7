"""Augmentations: each changes clips of a batch, every one by its own draw, and is the identity unless it trains.

Random numbers come from PyTorch's global generator, so that the run's seed fixes them. The robustness card disturbs
recordings by the same classes: :meth:`Disturbance.disturb` takes the strength that a training draws.
"""

import functools
from typing import ClassVar, Literal

import soundfile
import torch
from torch import Tensor, nn
from torchaudio import functional as audio

from emolight.errors import EmolightError
from emolight.files import expand
from emolight.models.level import convolved
from emolight.models.parts import Part

DEFAULT = ("TimeShift", "Noise", "Gain", "SpecAugment")
"""What training clips go through unless ``model.augment`` says otherwise; an empty list is nothing."""
SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".aiff")
LONGEST = 30  # seconds that are read of each


class Augmentation(Part, nn.Module):
    """A change of training clips. Derive from it, set ``level``, and write :meth:`change`.

    Args:
        p: probability with which a clip is changed.

    Attributes:
        level: ``waveform``: it changes samples ``[B, T]``; ``image``: normalised features ``[B, C, F, N]``. Networks
            on raw samples leave the latter out.
        sample_rate: Hz of the samples; the classifier sets it.

    Example:
        >>> class Reverse(Augmentation):
        ...     level = "waveform"
        ...     def change(self, waveform):
        ...         return waveform.flip(-1)
    """

    level: ClassVar[Literal["waveform", "image"]] = "waveform"
    sample_rate: int = 16000

    def __init__(self, p: float = 1.0) -> None:
        super().__init__()
        self.p = self._checked("p", p, 0, 1)

    def change(self, clips: Tensor) -> Tensor:
        """The changed batch."""
        raise NotImplementedError(f"{type(self).__name__}.change")

    def forward(self, clips: Tensor) -> Tensor:
        """Changed copies of ``clips`` in training, ``clips`` itself in evaluation."""
        if not self.training or self.p == 1:
            return self.change(clips) if self.training else clips
        chosen = torch.rand(len(clips), device=clips.device, dtype=torch.float32) < self.p
        if not chosen.any():
            return clips
        changed = clips.clone()
        changed[chosen] = self.change(clips[chosen])
        return changed

    def _checked(self, name: str, value: float, least: float, most: float) -> float:
        if not least <= value <= most:
            problem = f"{type(self).__name__}.{name} is {value:g}; it must be from {least:g} to {most:g}."
            raise EmolightError(problem, "Change model.augment in the configuration.")
        return value


class Disturbance(Augmentation):
    """A change of waveforms by a strength, drawn for each clip from ``low`` to ``high``; write :meth:`disturb`."""

    hidden = True
    valid: ClassVar[tuple[float, float]] = (0.0, 100.0)

    def __init__(self, low: float, high: float, p: float = 1.0) -> None:
        super().__init__(p)
        self.low = self._checked("low", low, *self.valid)
        self.high = self._checked("high", high, low, self.valid[1])

    def disturb(self, waveform: Tensor, strength: Tensor) -> Tensor:
        """``[B, T]`` changed by ``[B, 1]``."""
        raise NotImplementedError(f"{type(self).__name__}.disturb")

    def change(self, waveform: Tensor) -> Tensor:
        """The changed batch ``[B, T]``."""
        share = torch.rand(len(waveform), 1, device=waveform.device, dtype=torch.float32)
        return self.disturb(waveform, self.low + (self.high - self.low) * share)


class TimeShift(Augmentation):
    """Moves the clip by at most a ``fraction`` of its length to either side; silence moves in."""

    def __init__(self, fraction: float = 0.1, p: float = 1.0) -> None:
        super().__init__(p)
        self.fraction = self._checked("fraction", fraction, 0, 1)

    def change(self, waveform: Tensor) -> Tensor:
        """The shifted batch ``[B, T]``."""
        clips, length = waveform.shape
        reach = int(self.fraction * length)
        shift = torch.randint(-reach, reach + 1, (clips,), device=waveform.device)
        places = nn.functional.pad(waveform, (reach, reach)).unfold(1, length, 1)  # a view of every shift
        return places[torch.arange(clips, device=waveform.device), reach - shift]


class Gain(Disturbance):
    """Changes the level by at most so many decibels to either side."""

    valid = (-100.0, 100.0)

    def __init__(self, decibels: float = 3.0, p: float = 1.0) -> None:
        self._checked("decibels", decibels, 0, 100)
        super().__init__(-decibels, decibels, p)

    def disturb(self, waveform: Tensor, decibels: Tensor) -> Tensor:
        """Louder or quieter."""
        return waveform * 10 ** (decibels / 20)


class Clipping(Disturbance):
    """Raises the level by ``low`` to ``high`` decibels, and clips at full scale as a converter does."""

    def __init__(self, low: float = 0.0, high: float = 20.0, p: float = 1.0) -> None:
        super().__init__(low, high, p)

    def disturb(self, waveform: Tensor, decibels: Tensor) -> Tensor:
        """Louder, within ±1."""
        return (waveform * 10 ** (decibels / 20)).clamp(-1, 1)


class Noise(Disturbance):
    """Adds noise at a signal-to-noise ratio of ``decibels`` to ``spread`` more; digital silence stays so.

    It is white, or by sound files anywhere in a ``folder``, such as MUSAN's; at most 30 s of each are read.
    """

    valid = (-100.0, 400.0)

    def __init__(self, decibels: float = 20.0, spread: float = 30.0, p: float = 1.0, folder: str | None = None) -> None:
        self._checked("decibels", decibels, -100, 200)
        super().__init__(decibels, decibels + self._checked("spread", spread, 0, 200), p)
        self.folder = folder

    def noise(self, waveform: Tensor) -> Tensor:
        """``[B, T]``: white, or of a file for every clip, from any place in it; a short file is repeated."""
        if self.folder is None:
            return torch.randn_like(waveform)
        places = torch.arange(waveform.shape[1])
        drawn = drawn_sounds(self.folder, self.sample_rate, len(waveform))
        pieces = [sound[(places + int(torch.randint(len(sound), ()))) % len(sound)] for sound in drawn]
        return torch.stack(pieces).to(waveform)

    def disturb(self, waveform: Tensor, ratio: Tensor, lengths: Tensor | None = None) -> Tensor:
        """With noise at a ratio to the first ``lengths`` [B] samples."""
        noise = self.noise(waveform)
        noisy: Tensor = audio.add_noise(waveform, noise, ratio.squeeze(1), lengths)
        # A piece of a file may be silent.
        return noisy if self.folder is None else torch.where(noise.any(dim=1, keepdim=True), noisy, waveform)


class Hiss(Disturbance):
    """Fills digital silence, such as behind a short clip, with white noise of ``low`` to ``high`` dBFS."""

    valid = (-200.0, 0.0)

    def __init__(self, low: float = -90.0, high: float = -60.0, p: float = 1.0) -> None:
        super().__init__(low, high, p)

    def disturb(self, waveform: Tensor, decibels: Tensor) -> Tensor:
        """With noise where the samples are 0."""
        return torch.where(waveform == 0, torch.randn_like(waveform) * 10 ** (decibels / 20), waveform)


class Reverb(Disturbance):
    """Puts the clip into a synthetic room where sound falls by 60 dB in ``low`` to ``high`` seconds.

    It has a direct path, and decaying noise of the same energy (Polack, 1988), as at the critical distance. With a
    ``folder`` rooms are sound files anywhere in it, such as RIRS_NOISES; each begins at its highest peak.
    """

    valid = (0.01, 10.0)

    def __init__(self, low: float = 0.2, high: float = 1.0, p: float = 1.0, folder: str | None = None) -> None:
        super().__init__(low, high, p)
        self.folder = folder

    def disturb(self, waveform: Tensor, rt60: Tensor) -> Tensor:
        """The clips in their rooms, as long as before."""
        return convolved(waveform, self.rooms(rt60).to(waveform))

    def rooms(self, rt60: Tensor) -> Tensor:
        """Responses of unit energy, ``[B, R]``."""
        if self.folder is not None:
            drawn = drawn_sounds(self.folder, self.sample_rate, len(rt60))
            peaked = [room[int(room.abs().argmax()) :] for room in drawn]
            return nn.functional.normalize(nn.utils.rnn.pad_sequence(peaked, batch_first=True), dim=1)
        samples = torch.arange(1, round(float(rt60.max()) * self.sample_rate), device=rt60.device)
        tail = torch.randn(len(rt60), len(samples), device=rt60.device, dtype=torch.float32)
        tail = nn.functional.normalize(tail * 10 ** (-3 * samples / (self.sample_rate * rt60)), dim=1)
        return nn.functional.pad(tail, (1, 0), value=1.0) / 2**0.5


class Band(Disturbance):
    """Cuts off what lies above a limit of ``low`` to ``high`` Hz, as a recording at twice that rate does."""

    valid = (1.0, 1e6)

    def __init__(self, low: float = 2000.0, high: float = 8000.0, p: float = 1.0) -> None:
        super().__init__(low, high, p)

    def disturb(self, waveform: Tensor, limit: Tensor) -> Tensor:
        """Without what lies above the limit; the last 5 % below it fall off, unless it is half the rate."""
        bins = waveform.shape[1] // 2 + 1
        hertz = torch.linspace(0, self.sample_rate / 2, bins, device=waveform.device, dtype=torch.float32)
        left = ((limit - hertz) / (0.05 * limit)).clamp(0, 1).where(limit < self.sample_rate / 2, 1.0)
        cut: Tensor = torch.fft.irfft(torch.fft.rfft(waveform) * left, waveform.shape[1])
        return cut


class MuLaw(Augmentation):
    """Codes samples within ±1 in 255 levels, of which one is zero, by the continuous curve of ITU-T G.711."""

    def change(self, waveform: Tensor) -> Tensor:
        """The coded batch ``[B, T]``."""
        coded: Tensor = audio.mu_law_decoding(audio.mu_law_encoding(waveform.clamp(-1, 1), 255), 255)
        return coded.to(waveform.dtype)


class Crop(Disturbance):
    """Keeps a piece of ``low`` to ``high`` seconds of the clip, from its start on; zeros follow."""

    def __init__(self, low: float = 1.0, high: float = 2.0, p: float = 1.0) -> None:
        super().__init__(low, high, p)

    def disturb(self, waveform: Tensor, seconds: Tensor, place: Tensor | None = None) -> Tensor:
        """The piece that leaves a share ``place`` [B, 1] of the rest before it; by default a random one."""
        length, kept = waveform.shape[1], (seconds * self.sample_rate).round()
        place = torch.rand(len(waveform), 1, device=waveform.device, dtype=torch.float32) if place is None else place
        end = length - (waveform != 0).flip(1).float().argmax(1, keepdim=True)  # zeros behind a clip are none of it
        source = torch.arange(length, device=waveform.device)
        moved = (source + (place * (end - kept).clamp(min=0)).long()).clamp(max=length - 1)
        return waveform.gather(1, moved) * (source < kept)


class SpecAugment(Augmentation):
    """Masks bands of rows and of frames, of widths up to a fraction of all, by 0, the mean; Park et al., 2019."""

    level = "image"

    def __init__(
        self, freq_masks: int = 2, freq_width: float = 0.15, time_masks: int = 2, time_width: float = 0.15
    ) -> None:
        super().__init__()
        self.freq_masks = int(self._checked("freq_masks", freq_masks, 0, 100))
        self.freq_width = self._checked("freq_width", freq_width, 0, 1)
        self.time_masks = int(self._checked("time_masks", time_masks, 0, 100))
        self.time_width = self._checked("time_width", time_width, 0, 1)

    def change(self, image: Tensor) -> Tensor:
        """The masked batch ``[B, C, F, N]``."""
        clips, _, rows, frames = image.shape
        kept = torch.ones(clips, 1, rows, frames, device=image.device, dtype=torch.float32)
        masks = [(2, self.freq_width * rows)] * self.freq_masks + [(3, self.time_width * frames)] * self.time_masks
        for axis, width in masks:
            kept = audio.mask_along_axis_iid(kept, int(width) + 1, 0.0, axis)  # its widths are below that
        return image * kept.to(image.dtype)


def mixup(images: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Mix features ``[B, ...]`` and targets ``[B, C]`` of clips by shares of Beta(alpha, alpha); Zhang et al., 2018."""
    if alpha <= 0:
        return images, targets
    both = torch.tensor([alpha, alpha], dtype=torch.float32)  # whatever the default type is under bf16-true
    drawn = torch.distributions.Beta(both[0], both[1], validate_args=False).sample((len(images),))
    share = drawn.to(targets.device, non_blocking=True)
    share = torch.maximum(share, 1 - share)
    other = torch.randperm(len(images), device=images.device)
    of_image = share.view(-1, *[1] * (images.dim() - 1)).to(images.dtype)
    mixed_targets = share[:, None] * targets + (1 - share[:, None]) * targets[other]
    return of_image * images + (1 - of_image) * images[other], mixed_targets


def drawn_sounds(folder: str, sample_rate: int, count: int) -> list[Tensor]:
    """Sounds of a folder, drawn with replacement."""
    sounds = read_sounds(folder, sample_rate)
    return [sounds[int(place)] for place in torch.randint(len(sounds), (count,))]


@functools.lru_cache(maxsize=8)
def read_sounds(folder: str, sample_rate: int) -> list[Tensor]:
    """The sound files of a tree, sorted, mono, at most :data:`LONGEST` seconds of each; read once.

    EmolightError where there are none, or one cannot be read.
    """
    sounds = []
    for path in sorted(path for path in expand(folder).rglob("*") if path.suffix.lower() in SOUNDS):
        try:
            with soundfile.SoundFile(path) as file:
                samples = torch.from_numpy(file.read(LONGEST * file.samplerate, "float32", always_2d=True).mean(axis=1))
                rate = file.samplerate
        except (OSError, soundfile.LibsndfileError) as error:
            raise EmolightError(f"{path} cannot be read: {error}", "Take it out of the folder.") from None
        if samples.any():
            sounds.append(audio.resample(samples, rate, sample_rate))
    if not sounds:
        raise EmolightError(f"No sound file is in the folder '{folder}'.", "Change folder in model.augment.")
    return sounds
