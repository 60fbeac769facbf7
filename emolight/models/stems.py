"""Several front-ends as channels, and a network with a stem for each: MFCC, mel and spectrogram in one ResNet18."""

import copy
import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from emolight.errors import EmolightError
from emolight.models.features import MFCC, FeatureAxis, Features, MelSpectrogram, Spectrogram
from emolight.models.level import LevelKind
from emolight.models.networks import CamLayer, Network
from emolight.models.parts import maker
from emolight.models.vision import ResNet18


class Stacked(Features):
    """Several front-ends as channels of one image, ``[B, T]`` to ``[B, channels, rows, 1 + T // hop_length]``.

    Args:
        parts: the front-ends, all of one hop; null is MFCC, mel spectrogram, and spectrogram up to 2.5 kHz.
        rows: of every channel: the rows of each front-end are interpolated linearly to as many.
        level: of every clip: keep, rms or loudness.

    Raises:
        EmolightError: fewer than one row, or front-ends of different hops or without rows.

    Example:
        >>> Stacked(16000, [MFCC, functools.partial(MFCC, n_mels=128)])(torch.zeros(1, 16000)).shape
        torch.Size([1, 2, 64, 32])
    """

    mode, unit = "stacked", "standard deviations"
    normalised_in_pictures = True  # the units differ

    def __init__(
        self,
        sample_rate: int,
        parts: list[Callable[[int], Features]] | None = None,
        rows: int = 64,
        level: LevelKind = "keep",
    ) -> None:
        super().__init__(sample_rate, level)
        if rows < 1:
            raise EmolightError(f"model.features.rows is {rows}; it must be at least 1.", "64 is usual.")
        low = functools.partial(Spectrogram, f_max=min(2500.0, sample_rate / 2))
        usual = [functools.partial(MFCC, n_fft=1024), functools.partial(MelSpectrogram, n_fft=1024), low]
        try:
            made = [maker(part, Features)(sample_rate) for part in (usual if parts is None else parts)]
        except EmolightError as error:
            named = str(error).replace("model.features.", "model.features.parts' ")
            raise EmolightError(*named.split("\n", 1)) from None
        if "parts" in (own := self.__dict__["_arguments"]):  # a class below may fix them
            own["parts"] = [part.spec for part in made]  # of plain values, which can be pickled
        hops = sorted({part.hop_length for part in made})
        if len(hops) != 1 or not all(part.image for part in made):
            found = ", ".join(f"{type(part).__name__} {part.hop_length}" for part in made) or "none"
            problem = f"model.features.parts have these hops: {found}; expected images of one hop_length."
            raise EmolightError(problem, "Give every part the same hop_length; Waveform gives no image.")
        self.rows, self.hop_length, self.channels = rows, hops[0], sum(part.channels for part in made)
        self.parts = nn.ModuleList(made)
        for number, part in enumerate(made):
            places, known = np.linspace(0, part.rows - 1, rows), np.arange(part.rows)
            weights = np.stack([np.interp(places, known, one) for one in np.eye(part.rows)], axis=1)
            self.register_buffer(f"weights_{number}", torch.from_numpy(weights).float(), persistent=False)

    def compute(self, waveform: Tensor) -> Tensor:
        """The front-ends' images with as many rows each."""
        images = [self.get_buffer(f"weights_{number}") @ part(waveform) for number, part in enumerate(self.parts)]
        return torch.cat(images, dim=1)

    @property
    def title(self) -> str:
        """Such as ``40 MFCC + 64 mel bins + spectrogram, 81 bins``."""
        return " + ".join(str(part.title) for part in self.parts)

    @property
    def axis(self) -> FeatureAxis:
        """That of the first part, which pictures show."""
        return self.parts[0].axis  # type: ignore[return-value]

    def exportable(self) -> nn.Module:
        """The same features by operators that ONNX knows."""
        other = copy.deepcopy(self)
        other.parts = nn.ModuleList([part.exportable() for part in self.parts if isinstance(part, Features)])
        return other


class MultiStemResNet18(Network):
    """ResNet18 with a stem and first stage for each channel; a 1×1 convolution joins them before the second stage.

    For channels that differ in kind, as those of :class:`Stacked`; embedding of 512.
    """

    recordable = True

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        each = [list(ResNet18(1, num_classes).network.children()) for _ in range(in_channels)]
        self.stems = nn.ModuleList([nn.Sequential(*layers[:5]) for layers in each])
        self.join = nn.Sequential(nn.Conv2d(64 * in_channels, 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        self.stages = nn.Sequential(*each[0][5:8])
        self.last = nn.Linear(512, num_classes)
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        """Logits; see :class:`Network`."""
        channels = [image[:, number : number + 1] for number in range(len(self.stems))]
        seen = [stem(channel) for stem, channel in zip(self.stems, channels, strict=True)]
        logits: Tensor = self.last(self.stages(self.join(torch.cat(seen, dim=1))).mean((2, 3)))
        return logits

    @property
    def cam_layer(self) -> CamLayer:
        """The last convolutions; five strides of 2, each with a kernel centred on its cell."""
        return CamLayer(self.stages, 32, 0.0)
