"""Augmentations: each changes every clip of a batch by its own draw, and is the identity unless it is training.

Random numbers come from PyTorch's global generator of the device, so that the run's seed fixes them.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torchaudio.functional import add_noise, mask_along_axis_iid

from emolight.errors import EmolightError
from emolight.models.parts import Part, Spec

DEFAULT: tuple[Spec, ...] = (
    {"class_path": "TimeShift"},
    {"class_path": "Noise"},
    {"class_path": "Gain"},
    {"class_path": "SpecAugment"},
)
"""What training clips go through unless ``model.augment`` says otherwise; an empty list is nothing."""


class Augmentation(Part, nn.Module):
    """A change of training clips. Derive from it, set ``level``, and write :meth:`change`.

    Attributes:
        level: ``waveform``: it changes samples ``[B, T]``; ``image``: normalised features ``[B, C, F, N]``. Networks
            on raw samples leave the latter out.

    Example:
        >>> class Reverse(Augmentation):
        ...     level = "waveform"
        ...     def change(self, waveform):
        ...         return waveform.flip(-1)
    """

    level: ClassVar[Literal["waveform", "image"]] = "waveform"

    def change(self, clips: Tensor) -> Tensor:
        """The changed batch."""
        raise NotImplementedError(f"{type(self).__name__}.change")

    def forward(self, clips: Tensor) -> Tensor:
        """Changed copies of ``clips`` in training, ``clips`` itself in evaluation."""
        return self.change(clips) if self.training else clips


class TimeShift(Augmentation):
    """Moves the clip in time; silence moves in.

    Args:
        fraction: largest shift to either side, as a fraction of the clip's length.
    """

    def __init__(self, fraction: float = 0.1) -> None:
        super().__init__()
        self.fraction = _between("TimeShift.fraction", fraction, 1)

    def change(self, waveform: Tensor) -> Tensor:
        """The shifted batch ``[B, T]``."""
        clips, length = waveform.shape
        reach = int(self.fraction * length)
        shift = torch.randint(-reach, reach + 1, (clips, 1), device=waveform.device)
        source = torch.arange(length, device=waveform.device) - shift
        inside = (source >= 0) & (source < length)
        return waveform.gather(1, source.clamp(0, length - 1)) * inside


class Gain(Augmentation):
    """Changes the level.

    Args:
        decibels: largest change to either side.
    """

    def __init__(self, decibels: float = 3.0) -> None:
        super().__init__()
        self.decibels = _between("Gain.decibels", decibels, 100)

    def change(self, waveform: Tensor) -> Tensor:
        """The louder or quieter batch ``[B, T]``."""
        return waveform * 10 ** (self.decibels * _uniform(waveform) / 20)


class Noise(Augmentation):
    """Adds white noise.

    Args:
        decibels: smallest signal-to-noise ratio.
        spread: the ratio is drawn from ``decibels`` to this many decibels above.
    """

    def __init__(self, decibels: float = 20.0, spread: float = 30.0) -> None:
        super().__init__()
        self.decibels = _between("Noise.decibels", decibels, 200, least=-100)
        self.spread = _between("Noise.spread", spread, 200)

    def change(self, waveform: Tensor) -> Tensor:
        """The noisy batch ``[B, T]``; digital silence stays so."""
        ratio = self.decibels + self.spread * (1 + _uniform(waveform).squeeze(1)) / 2
        noisy: Tensor = add_noise(waveform, torch.randn_like(waveform), ratio)
        return noisy


class Speed(Augmentation):
    """Plays the clip faster or slower, to the same length: the end is cut, or silence follows.

    Pitch and formants move along. Interpolates linearly, which also dulls the highest frequencies a little.

    Args:
        fraction: largest change to either side.
    """

    def __init__(self, fraction: float = 0.1) -> None:
        super().__init__()
        self.fraction = _between("Speed.fraction", fraction, 0.9)

    def change(self, waveform: Tensor) -> Tensor:
        """The resampled batch ``[B, T]``."""
        return resample(waveform, 1 + self.fraction * _uniform(waveform))


class SpecAugment(Augmentation):
    """Masks bands of rows and of frames by 0, the mean after normalisation; all channels alike.

    Args:
        freq_masks: masks of rows a clip.
        freq_width: largest width of such a mask, as a fraction of the rows.
        time_masks: masks of frames a clip.
        time_width: largest width of such a mask, as a fraction of the frames.

    Source:
        Park et al., *SpecAugment*, 2019.
    """

    level = "image"

    def __init__(
        self, freq_masks: int = 2, freq_width: float = 0.15, time_masks: int = 2, time_width: float = 0.15
    ) -> None:
        super().__init__()
        self.freq_masks = int(_between("SpecAugment.freq_masks", freq_masks, 100))
        self.freq_width = _between("SpecAugment.freq_width", freq_width, 1)
        self.time_masks = int(_between("SpecAugment.time_masks", time_masks, 100))
        self.time_width = _between("SpecAugment.time_width", time_width, 1)

    def change(self, image: Tensor) -> Tensor:
        """The masked batch ``[B, C, F, N]``."""
        clips, _, rows, frames = image.shape
        kept = torch.ones(clips, 1, rows, frames, device=image.device, dtype=torch.float32)
        for axis, masks, width in (
            (2, self.freq_masks, self.freq_width * rows),
            (3, self.time_masks, self.time_width * frames),
        ):
            for _ in range(masks):
                kept = mask_along_axis_iid(kept, int(width) + 1, 0.0, axis)  # its widths are below that
        return image * kept.to(image.dtype)


def resample(waveform: Tensor, speed: Tensor) -> Tensor:
    """Play ``[B, T]`` at the speeds ``[B, 1]``, to the same length."""
    length = waveform.shape[1]
    source = torch.arange(length, device=waveform.device) * speed
    before = source.long()
    share = (source - before).to(waveform.dtype)
    padded = nn.functional.pad(waveform, (0, 2))
    before = before.clamp(max=length)
    return torch.lerp(padded.gather(1, before), padded.gather(1, before + 1), share)


def mixup(images: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Mix each clip with another of the batch, features and targets alike.

    Args:
        images: ``[B, ...]`` features.
        targets: ``[B, C]`` class probabilities.
        alpha: parameter of Beta(alpha, alpha); 0 returns the input.

    Source:
        Zhang et al., *mixup: Beyond Empirical Risk Minimization*, 2018; one share for each clip.
    """
    if alpha <= 0:
        return images, targets
    both = torch.tensor([alpha, alpha], dtype=torch.float32)  # whatever the default type is under bf16-true
    share = (
        torch.distributions.Beta(both[0], both[1], validate_args=False)
        .sample((len(images),))
        .to(targets.device, non_blocking=True)
    )
    share = torch.maximum(share, 1 - share)
    other = torch.randperm(len(images), device=images.device)
    of_image = share.view(-1, *[1] * (images.dim() - 1)).to(images.dtype)
    mixed_targets = share[:, None] * targets + (1 - share[:, None]) * targets[other]
    return of_image * images + (1 - of_image) * images[other], mixed_targets


def _uniform(waveform: Tensor) -> Tensor:
    """A number a clip from -1 to 1, ``[B, 1]``."""
    return 2 * torch.rand(len(waveform), 1, device=waveform.device, dtype=torch.float32) - 1


def _between(name: str, value: float, most: float, least: float = 0) -> float:
    if not least <= value <= most:
        raise EmolightError(
            f"{name} is {value:g}; it must be from {least:g} to {most:g}.", "Change model.augment in the configuration."
        )
    return value
