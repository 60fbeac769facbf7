"""The training pass of a network, recorded once on a CUDA device and replayed from there on.

A ResNet18 on a batch of clips is some hundred small kernels forward and twice as many backward; to start them one by
one takes longer than to run them. A CUDA graph starts all of them at once.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn


class Replay:
    """A network as a function ``[B, ...]`` to logits, recorded when it is first called; elsewhere it is just called.

    What differs from the recording (a batch of another shape, weights that are frozen or buffers that are replaced
    meanwhile, as by averaged weights) runs as it would without. The weights' gradients are views of the recording: they
    must be set to None before each backward pass. The network must have no hooks.
    """

    def __init__(self, network: nn.Module, allowed: bool = False) -> None:
        self.network, self.allowed = network, allowed
        self.recorded: Callable[[Tensor], Tensor] | None = None
        self._own = [own for module in network.modules() for own in (module._parameters, module._buffers)]
        self._like: Any = None

    def __call__(self, image: Tensor) -> Tensor:
        """The network's logits."""
        if self.allowed and self.recorded is None and image.is_cuda and not image.requires_grad:
            self._record(image)
        if self.recorded is None or self._state(image) != self._like:
            logits: Tensor = self.network(image)
            return logits
        return self.recorded(image)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "allowed": False, "recorded": None}  # a copy has weights of its own

    def _state(self, image: Tensor) -> Any:
        weights = [(one.data_ptr(), one.requires_grad) for own in self._own for one in own.values() if one is not None]
        return image.shape, image.dtype, image.requires_grad, self.network.training, torch.is_grad_enabled(), weights

    def _record(self, image: Tensor) -> None:
        self.allowed = False  # whatever becomes of this, once
        kept = [buffer.clone() for buffer in self.network.buffers()]
        dtype, cast = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        devices = range(torch.cuda.device_count())
        try:
            with (
                torch.autocast("cuda", dtype=dtype, enabled=cast, cache_enabled=False),
                torch.random.fork_rng(devices),  # else dropout would draw otherwise where a resumed run records
                warnings.catch_warnings(),
            ):
                warnings.filterwarnings("ignore", "Attempting to run cuBLAS")  # the backward thread's first call
                # A module of its own: what is recorded takes the place of its forward method.
                around = nn.Sequential(self.network)
                around.training = self.network.training  # and not train(): parts of it may be in evaluation
                torch.cuda.make_graphed_callables(around, (image.clone(),))
            self.recorded = around
            self._like = self._state(image)
        except RuntimeError as error:
            rank_zero_warn(f"The training step is not recorded as a CUDA graph: {' '.join(str(error).split())[:200]}")
        with torch.no_grad():
            for buffer, before in zip(self.network.buffers(), kept, strict=True):
                buffer.copy_(before)  # the passes of the recording went into the running statistics
