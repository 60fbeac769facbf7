"""Augmentation as modules: each is the identity unless it is training.

Random numbers come from PyTorch's global generator of the device, so that the run's seed fixes them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from emolight.errors import EmolightError


@dataclass(frozen=True)
class Augment:
    """How strongly training clips are changed; 0 turns a part off.

    Args:
        speed: largest change of speed to either side, as a fraction; pitch and formants move along.
        time_shift: largest shift to either side, as a fraction of the clip's length; silence moves in.
        gain_db: largest change of level to either side, in dB.
        noise_db: smallest signal-to-noise ratio of added white noise in dB, drawn up to 30 dB above; null is off.
        freq_masks: SpecAugment frequency masks a clip.
        freq_width: largest width of a frequency mask, as a fraction of the rows.
        time_masks: SpecAugment time masks a clip.
        time_width: largest width of a time mask, as a fraction of the frames.
        mixup: parameter alpha of mixup's Beta(alpha, alpha) distribution.
    """

    speed: float = 0.0
    time_shift: float = 0.1
    gain_db: float = 3.0
    noise_db: float | None = 20.0
    freq_masks: int = 2
    freq_width: float = 0.15
    time_masks: int = 2
    time_width: float = 0.15
    mixup: float = 0.2

    def check(self) -> None:
        """Raise :class:`EmolightError` for a value out of its range."""
        fractions = ("speed", "time_shift", "freq_width", "time_width")
        for name in (*fractions, "gain_db", "freq_masks", "time_masks", "mixup"):
            value = getattr(self, name)
            if value < 0 or (name in fractions and value > 1):
                raise EmolightError(
                    f"model.augment.{name} is {value:g}; it must be at least 0"
                    + (" and at most 1." if name in fractions else "."),
                    f"Change model.augment.{name}; 0 turns it off.",
                )


class WaveformAugment(nn.Module):
    """Speed, time shift, gain and white noise on ``[B, T]`` waveforms, drawn for each clip."""

    def __init__(self, augment: Augment) -> None:
        super().__init__()
        self.augment = augment

    def forward(self, waveform: Tensor) -> Tensor:
        """Return changed copies of ``waveform`` in training, ``waveform`` itself in evaluation."""
        if not self.training:
            return waveform
        clips, length = waveform.shape
        device, settings = waveform.device, self.augment
        if settings.speed:
            speed = 1 + settings.speed * (2 * torch.rand(clips, 1, device=device) - 1)
            waveform = resample(waveform, speed)
        if reach := int(settings.time_shift * length):
            shift = torch.randint(-reach, reach + 1, (clips, 1), device=device)
            source = torch.arange(length, device=device) - shift
            inside = (source >= 0) & (source < length)
            waveform = waveform.gather(1, source.clamp(0, length - 1)) * inside
        if settings.noise_db is not None:
            ratio_db = settings.noise_db + 30 * torch.rand(clips, 1, device=device)
            power = waveform.square().mean(dim=1, keepdim=True)
            waveform = waveform + torch.randn_like(waveform) * (power * 10 ** (-ratio_db / 10)).sqrt()
        if settings.gain_db:
            gain_db = settings.gain_db * (2 * torch.rand(clips, 1, device=device) - 1)
            waveform = waveform * 10 ** (gain_db / 20)
        return waveform


def resample(waveform: Tensor, speed: Tensor) -> Tensor:
    """Play ``[B, T]`` at the speeds ``[B, 1]``, to the same length: the end is cut, or silence follows.

    Interpolates linearly, which also dulls the highest frequencies a little: good enough for augmentation.
    """
    length = waveform.shape[1]
    source = torch.arange(length, device=waveform.device) * speed
    before = source.long()
    share = (source - before).to(waveform.dtype)
    padded = nn.functional.pad(waveform, (0, 2))
    before = before.clamp(max=length)
    return torch.lerp(padded.gather(1, before), padded.gather(1, before + 1), share)


class SpecAugment(nn.Module):
    """Frequency and time masks on normalised ``[B, 1, F, N]`` features, drawn for each clip.

    Masked cells become 0, the mean after normalisation. Source: Park et al., *SpecAugment*, 2019.
    """

    def __init__(self, augment: Augment) -> None:
        super().__init__()
        self.augment = augment

    def forward(self, image: Tensor) -> Tensor:
        """Return masked copies of ``image`` in training, ``image`` itself in evaluation."""
        if not self.training:
            return image
        settings = self.augment
        for dim, masks, width in (
            (2, settings.freq_masks, settings.freq_width),
            (3, settings.time_masks, settings.time_width),
        ):
            for _ in range(masks):
                image = image * _band_mask(image, dim, width)
        return image


def _band_mask(image: Tensor, dim: int, width: float) -> Tensor:
    """One mask a clip: 0 inside a random band of ``dim``, 1 outside, in a shape that broadcasts."""
    clips, size = image.shape[0], image.shape[dim]
    widths = torch.rand(clips, 1, device=image.device) * width * size
    starts = torch.rand(clips, 1, device=image.device) * (size - widths)
    place = torch.arange(size, device=image.device)
    inside = (place >= starts.floor()) & (place < (starts + widths).floor())
    shape = [clips, 1, 1, 1]
    shape[dim] = size
    return (~inside).to(image.dtype).view(shape)


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
    share = torch.distributions.Beta(alpha, alpha).sample((len(images),)).to(images.device)
    share = torch.maximum(share, 1 - share)
    other = torch.randperm(len(images), device=images.device)
    of_image = share.view(-1, *[1] * (images.dim() - 1)).to(images.dtype)
    mixed_targets = share[:, None] * targets + (1 - share[:, None]) * targets[other]
    return of_image * images + (1 - of_image) * images[other], mixed_targets
