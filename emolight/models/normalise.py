"""Normalisation of features by statistics of the training clips."""

from collections.abc import Iterable

import torch
from torch import Tensor

from emolight.models.parts import Float32


class Normalise(Float32):
    """Zero mean and unit deviation of every feature row; a checkpoint carries the statistics, in float32."""

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
        mean, std = (self.mean, self.std) if features.dim() == 4 else (self.mean[0], self.std[0])
        return (features - mean) / std

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Set mean and standard deviation from batches of features."""
        count, sums = 0, torch.zeros(2, *self.mean.shape, dtype=torch.float64)
        for features in batches:
            values = features.cpu().double().reshape(len(features), *self.mean.shape[:2], -1)
            sums += torch.stack([values, values.square()]).sum(dim=(1, 4)).unsqueeze(-1)
            count += values.shape[0] * values.shape[3]
        mean, square = sums / count
        std = (square - mean.square()).clamp(min=0).sqrt()
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 1e-5, std, 1.0))  # a row that never changes stays at zero
        self.fitted.fill_(True)
