"""Normalisation of features by statistics of the training clips."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from emolight.models.parts import without_cast


class Normalise(nn.Module):
    """Zero mean and unit deviation of every feature row.

    The statistics are float32 buffers, so a checkpoint carries them.

    Args:
        channels: of the features.
        rows: of the features.
    """

    mean: Tensor
    std: Tensor
    fitted: Tensor

    def __init__(self, channels: int, rows: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, rows, 1))
        self.register_buffer("std", torch.ones(channels, rows, 1))
        self.register_buffer("fitted", torch.tensor(False))

    def forward(self, features: Tensor) -> Tensor:
        """Normalise ``[B, channels, rows, N]``, or ``[B, 1, T]``."""
        if features.dim() == 3:
            return (features - self.mean[0]) / self.std[0]
        return (features - self.mean) / self.std

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Set mean and standard deviation from batches of features."""
        channels, rows, _ = self.mean.shape
        total = square = torch.zeros(channels, rows, dtype=torch.float64)
        count = 0
        for features in batches:
            values = features.cpu().double().reshape(len(features), channels, rows, -1)
            total = total + values.sum(dim=(0, 3))
            square = square + values.square().sum(dim=(0, 3))
            count += values.shape[0] * values.shape[3]
        mean = total / count
        std = (square / count - mean.square()).clamp(min=0).sqrt()
        self.mean.copy_(mean[..., None])
        # A row that never changes carries nothing: leave it at zero instead of dividing by nothing.
        self.std.copy_(torch.where(std > 1e-5, std, 1.0)[..., None])
        self.fitted.fill_(True)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        return super()._apply(without_cast(fn), recurse)  # type: ignore[no-untyped-call]
