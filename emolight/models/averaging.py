"""The moving average of the weights, which is validated and saved instead of the last step's weights."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class MovingAverage(WeightAveraging):
    """Exponential moving average of weights and batch statistics, a step at a time.

    After step t the average moves by ``max(1 - decay, 9 / (10 + t))`` of the way towards the weights, so that a
    short training is not held back by its first steps (the rule of TensorFlow's ``ExponentialMovingAverage``).

    Args:
        decay: from above 0 to below 1.
    """

    def __init__(self, decay: float) -> None:
        def move(average: Tensor, weights: Tensor, steps: Tensor) -> Tensor:
            if not average.is_floating_point():
                return weights
            # lerp leaves what never changes, such as the filters of the front-end, as it is to the bit.
            return torch.lerp(average, weights, max(1 - decay, 9 / (10 + int(steps))))

        super().__init__(avg_fn=move)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the average in the module, with the temperature that was fitted to it."""
        temperature = _temperature(pl_module).clone()
        super().on_train_end(trainer, pl_module)
        _temperature(pl_module).copy_(temperature)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the average with the temperature that was fitted to it, and the weights to go on from beside it."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        checkpoint["state_dict"]["temperature"] = _temperature(pl_module).clone()


def _temperature(module: pl.LightningModule) -> Tensor:
    assert isinstance(module.temperature, Tensor)
    return module.temperature
