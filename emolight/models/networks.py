"""Networks, features in and logits out: torchvision's image networks, and one for raw samples."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar, NamedTuple
from urllib.error import URLError

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from emolight.errors import EmolightError
from emolight.models.parts import Part, Spec, spec_of
from emolight.models.smallmaps import use_small_maps


class CamLayer(NamedTuple):
    """The layer that Grad-CAM looks at.

    Cell k of the layer's output is centred on position ``offset + k * stride`` of the network's input, along time
    and along the rows. Where ``stride`` is None, the cells are spread evenly over the input.
    """

    layer: nn.Module
    stride: float | None
    offset: float


class Network(Part, nn.Module):
    """A network of ``[B, in_channels, rows, N]`` to logits ``[B, num_classes]``; derive your own from it.

    Args:
        in_channels: channels of the features; the classifier gives it.
        num_classes: size of the last layer; the classifier gives it.

    Attributes:
        image: whether it takes images; else it takes samples ``[B, 1, T]``.
        recordable: whether its pass does the same work for every batch of one shape, so that a GPU may replay it.

    Example:
        >>> class Linear(Network):
        ...     def __init__(self, in_channels, num_classes, dropout=0.0):
        ...         super().__init__(in_channels, num_classes)
        ...         self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Dropout(dropout),
        ...                                     nn.Linear(64 * in_channels, num_classes))
        ...     def forward(self, image):
        ...         return self.layers(image)
    """

    image: bool = True
    recordable: ClassVar[bool] = False
    accepts: ClassVar[type] = nn.Module  # see ForeignNetwork

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()

    def rates(self) -> Iterable[tuple[list[nn.Parameter], float]]:
        """Groups of trained parameters, and their share of the learning rate."""
        return [([one for one in self.parameters() if one.requires_grad], 1.0)]

    @property
    def head(self) -> nn.Module:
        """The layer whose input ``[B, E]`` is the embedding: the last linear one."""
        return _last(self, nn.Linear)

    @property
    def cam_layer(self) -> CamLayer:
        """The layer that Grad-CAM looks at: the last convolution.

        Raises:
            EmolightError: there is none.
        """
        return CamLayer(_last(self, nn.Conv1d, nn.Conv2d), None, 0.0)

    def exportable(self) -> nn.Module:
        """The same network by operators that ONNX knows; EmolightError where there are none."""
        return self


class Embedder(Network):
    """A network in two parts, samples to a clip's embedding, and embedding to logits; it takes the samples as they are.

    Attributes:
        shape: of a clip's embedding.
        frozen: whether only the second part is trained: then embeddings are computed once a clip.
        key: what an embedding depends on, beside the clip.
    """

    hidden = True
    image = False
    shape: tuple[int, ...]
    frozen: bool = True
    key: str = ""

    def embed(self, samples: Tensor) -> Tensor:
        """Embeddings ``[B, *shape]`` float32 of samples ``[B, T]``, with zeros behind each clip."""
        raise NotImplementedError

    def classify(self, embeddings: Tensor) -> Tensor:
        """Logits of embeddings."""
        raise NotImplementedError

    def fit(self, embeddings: Tensor, labels: Tensor) -> None:
        """Fit what is fitted in one step to training embeddings ``[N, *shape]`` and labels ``[N]``."""

    @property
    def cam_layer(self) -> CamLayer:
        """There is none."""
        raise EmolightError(
            f"{type(self).__name__} has no convolution for Grad-CAM.", "explain works with networks such as ResNet18."
        )

    @torch.inference_mode()
    def embed_numpy(self, samples: np.ndarray) -> np.ndarray:
        """As :meth:`embed`, for arrays."""
        embeddings: np.ndarray = self.embed(torch.from_numpy(samples).to(next(self.parameters()).device)).cpu().numpy()
        return embeddings

    def forward(self, samples: Tensor) -> Tensor:
        """Logits of ``[B, 1, T]``."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            embeddings = self.embed(samples.squeeze(1))
        return self.classify(embeddings)


class ForeignNetwork(Network):
    """A plain ``nn.Module`` in the place of a network; it takes ``(in_channels, num_classes)`` too.

    Args:
        make: the class, or ``functools.partial`` of it.
        in_channels: channels of the features.
        num_classes: size of the last layer.
        image: whether the features are images.

    Raises:
        EmolightError: ``make`` is a function: a checkpoint could not make the same again.
    """

    hidden = True

    def __init__(self, make: Callable[..., nn.Module], in_channels: int, num_classes: int, image: bool) -> None:
        super().__init__(in_channels, num_classes)
        made = make if isinstance(make, functools.partial) else functools.partial(make)
        if not isinstance(made.func, type):
            raise EmolightError(
                f"The network comes from {made.func!r}, which a checkpoint cannot name.",
                "Give a class, or functools.partial(TheClass, argument=value).",
            )
        self.foreign = spec_of(made.func, made.keywords)
        self.module, self.image = made(in_channels, num_classes), image

    @property
    def spec(self) -> Spec:
        """The module's."""
        return self.foreign

    def forward(self, features: Tensor) -> Tensor:
        """The module's logits."""
        logits: Tensor = self.module(features)
        return logits


class _Torchvision(Network):
    """A network of torchvision with a stem for any number of channels.

    Args:
        in_channels: channels of the features; the classifier gives it.
        num_classes: size of the last layer; the classifier gives it.
        pretrained: start from the ImageNet weights. A one-channel stem is the sum over the three colours, so that
            a grey image gives the response that it gives as three equal channels; of several channels each takes an
            equal share of that sum.

    Raises:
        EmolightError: the weights are not on disk and cannot be downloaded, or their file is damaged.
    """

    name: ClassVar[str]
    weights: ClassVar[Any]
    stem: ClassVar[str] = "conv1"
    last: ClassVar[str] = "fc"
    cam: ClassVar[str] = "layer4"
    recordable = True

    def __init__(self, in_channels: int, num_classes: int, pretrained: bool = False) -> None:
        super().__init__(in_channels, num_classes)
        self.network: nn.Module = torchvision.models.get_model(self.name, weights=None, num_classes=num_classes)
        rgb = self.network.get_submodule(self.stem)
        assert isinstance(rgb, nn.Conv2d)
        stem = copy.deepcopy(rgb)
        stem.in_channels = in_channels
        stem.weight = nn.Parameter(torch.empty(rgb.out_channels, in_channels, *rgb.kernel_size))
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        self.network.set_submodule(self.stem, stem)
        if pretrained:
            self._take_imagenet(in_channels)
        use_small_maps(self.network)
        self.to(memory_format=torch.channels_last)

    def _take_imagenet(self, in_channels: int) -> None:
        state, stem = imagenet_state(self.weights), f"{self.stem}.weight"
        grey = state[stem].sum(dim=1, keepdim=True)
        state[stem] = grey.repeat(1, in_channels, 1, 1) / in_channels
        own = self.network.state_dict()
        head = {name: value for name, value in own.items() if name.startswith(f"{self.last}.")}
        self.network.load_state_dict({**state, **head})

    def forward(self, image: Tensor) -> Tensor:
        """Logits; see :class:`Network`."""
        if not torch.compiler.is_exporting():
            image = image.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(image)
        return logits

    @property
    def head(self) -> nn.Module:
        """The last linear layer."""
        return self.network.get_submodule(self.last)

    @property
    def cam_layer(self) -> CamLayer:
        """The last convolutions; five strides of 2, each with a kernel centred on its cell."""
        return CamLayer(self.network.get_submodule(self.cam), 32, 0.0)


class ResNet18(_Torchvision):
    """He et al., *Deep Residual Learning*, 2016: 11 million weights, embedding of 512."""

    name, weights = "resnet18", torchvision.models.ResNet18_Weights.IMAGENET1K_V1


class ResNet34(_Torchvision):
    """The same with 21 million weights."""

    name, weights = "resnet34", torchvision.models.ResNet34_Weights.IMAGENET1K_V1


class EfficientNetB0(_Torchvision):
    """Tan and Le, *EfficientNet*, 2019: 4 million weights, embedding of 1280."""

    name, weights = "efficientnet_b0", torchvision.models.EfficientNet_B0_Weights.IMAGENET1K_V1
    stem, last, cam = "features.0.0", "classifier.1", "features"


class MobileNetV3(_Torchvision):
    """Howard et al., *Searching for MobileNetV3*, 2019, the small one: 1.5 million weights, embedding of 1024."""

    name, weights = "mobilenet_v3_small", torchvision.models.MobileNet_V3_Small_Weights.IMAGENET1K_V1
    stem, last, cam = "features.0.0", "classifier.3", "features"


def imagenet_state(weights: Any) -> dict[str, Tensor]:
    """ImageNet weights of torchvision, from PyTorch's cache folder or the internet, hash checked.

    Args:
        weights: one of a torchvision enum, such as ``ResNet18_Weights.IMAGENET1K_V1``.

    Raises:
        EmolightError: they are not on disk and cannot be downloaded, or their file is damaged.
    """
    target = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        state: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
            weights.url, map_location="cpu", check_hash=True, weights_only=True
        )
    except (URLError, TimeoutError, ConnectionError) as error:
        raise EmolightError(
            f"model.network.pretrained needs the ImageNet weights, and the download failed: {error}.",
            f"Download {weights.url} elsewhere and place it at {target}, or set model.network.pretrained false.",
        ) from None
    except (RuntimeError, EOFError, OSError, UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise EmolightError(
            f"The ImageNet weights at {target} cannot be read: {reason}", "Delete the file and run again."
        ) from None
    return state


class WaveCNN(Network):
    """Five layers of 1-D convolution on raw samples: ``[B, 1, T]`` to logits ``[B, num_classes]``.

    The first layer looks at 10 ms of sound (160 samples at 16 kHz) every 1.25 ms, as a learnt filter bank; the
    others follow M5 of Dai et al., *Very Deep Convolutional Neural Networks for Raw Waveforms*, 2017: kernels of
    3, batch norm, pooling by 4.

    Args:
        in_channels: channels of the features; the classifier gives it.
        num_classes: size of the last layer; the classifier gives it.
        width: channels of the first layer; the last has 4 times as many.
    """

    image = False

    def __init__(self, in_channels: int, num_classes: int, width: int = 64) -> None:
        super().__init__(in_channels, num_classes)
        self.layers = nn.Sequential(
            *_block(in_channels, width, kernel_size=160, stride=20),
            *_block(width, width, kernel_size=3),
            *_block(width, 2 * width, kernel_size=3),
            *_block(2 * width, 4 * width, kernel_size=3),
            *_block(4 * width, 4 * width, kernel_size=3),
        )
        self.last = nn.Linear(4 * width, num_classes)

    def forward(self, samples: Tensor) -> Tensor:
        """Logits; see :class:`Network`."""
        logits: Tensor = self.last(self.layers(samples).mean(dim=-1))
        return logits

    @property
    def cam_layer(self) -> CamLayer:
        """The last rectifier: four poolings by 4, each centred 1.5 inputs to the right, after a stride of 20."""
        return CamLayer(_last(self, nn.ReLU), 20 * 4**4, 20 * 127.5 - 0.5)


def _block(inputs: int, outputs: int, kernel_size: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv1d(inputs, outputs, kernel_size, stride, padding=kernel_size // 2, bias=False),
        nn.BatchNorm1d(outputs),
        nn.ReLU(),
        nn.MaxPool1d(4, ceil_mode=True),
    ]


@contextlib.contextmanager
def head_inputs(network: Network, wanted: bool = True) -> Iterator[list[Tensor]]:
    """What the network's head is given meanwhile; an empty list where it is not ``wanted``."""
    seen: list[Tensor] = []
    hooks = [network.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))] if wanted else []
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _last(network: nn.Module, *kinds: type[nn.Module]) -> nn.Module:
    layers = [layer for layer in network.modules() if isinstance(layer, kinds)]
    if not layers:
        names = " or ".join(kind.__name__ for kind in kinds)
        raise EmolightError(
            f"{type(network).__name__} has no layer {names}.", "Give the network the properties head and cam_layer."
        )
    return layers[-1]
