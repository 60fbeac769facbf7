"""What a network is, features in and logits out; and one for raw samples."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from threading import get_ident
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from emolight.errors import EmolightError
from emolight.models.parts import Part, Spec, spec_of


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
        """The layer that Grad-CAM looks at, the last convolution; EmolightError where there is none."""
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
        level: of a front-end, for :meth:`embed_numpy`, which nothing stands in front of.
    """

    hidden = True
    image = False
    shape: tuple[int, ...]
    frozen: bool = True
    key: str = ""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.level: nn.Module | None = None

    @property
    def copies(self) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
        """What else the training clips are embedded by, as :meth:`embed_numpy`; :meth:`fit` gets all."""
        return {}

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
        problem = f"{type(self).__name__} has no convolution for Grad-CAM."
        raise EmolightError(problem, "explain works with networks such as ResNet18.")

    @torch.inference_mode()
    def embed_numpy(self, samples: np.ndarray) -> np.ndarray:
        """As :meth:`embed`, for arrays as they were recorded."""
        waves = torch.from_numpy(samples).to(next(self.parameters()).device)
        embeddings: np.ndarray = self.embed(waves if self.level is None else self.level(waves)).cpu().numpy()
        return embeddings

    def forward(self, samples: Tensor) -> Tensor:
        """Logits of ``[B, 1, T]``."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            embeddings = self.embed(samples.squeeze(1))
        return self.classify(embeddings)


class ForeignNetwork(Network):
    """A plain ``nn.Module`` in the place of a network; ``make`` is its class, or ``functools.partial`` of it.

    EmolightError where it is a function: a checkpoint could not make the same again.
    """

    hidden = True

    def __init__(self, make: Callable[..., nn.Module], in_channels: int, num_classes: int, image: bool) -> None:
        super().__init__(in_channels, num_classes)
        made = make if isinstance(make, functools.partial) else functools.partial(make)
        if not isinstance(made.func, type):
            problem = f"The network comes from {made.func!r}, which a checkpoint cannot name."
            raise EmolightError(problem, "Give a class, or functools.partial(TheClass, argument=value).")
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


class WaveCNN(Network):
    """Five layers of 1-D convolution on raw samples: ``[B, 1, T]`` to logits ``[B, num_classes]``.

    The first layer looks at 10 ms of sound (160 samples at 16 kHz) every 1.25 ms, as a learnt filter bank; the
    others follow M5 of Dai et al., *Very Deep Convolutional Neural Networks for Raw Waveforms*, 2017: kernels of
    3, batch norm, pooling by 4.

    Args:
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
    """What the network's head is given meanwhile in this thread; an empty list where it is not ``wanted``."""
    seen, own = list[Tensor](), get_ident()  # others may predict with the same model
    hooked: Any = network.head.register_forward_pre_hook if wanted else contextlib.nullcontext
    with hooked(lambda _, inputs: seen.extend(inputs[:1] if get_ident() == own else ())):
        yield seen


def _last(network: nn.Module, *kinds: type[nn.Module]) -> nn.Module:
    layers = [layer for layer in network.modules() if isinstance(layer, kinds)]
    if not layers:
        names = " or ".join(kind.__name__ for kind in kinds)
        problem = f"{type(network).__name__} has no layer {names}."
        raise EmolightError(problem, "Give the network the properties head and cam_layer.")
    return layers[-1]
