"""The optimiser and its learning rate."""

import math
from collections.abc import Sequence

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from emolight.errors import EmolightError


def one_cycle(
    groups: Sequence[tuple[list[nn.Parameter], float]],
    learning_rate: float,
    weight_decay: float,
    warmup: float,
    steps: float,
    fused: bool,
) -> OptimizerLRSchedulerConfig:
    """AdamW (Loshchilov and Hutter, 2019) under a one-cycle schedule (Smith and Topin, 2018), stepped by batch.

    ``groups`` are what is trained, with their share of the ``learning_rate``, which is the highest; ``warmup`` is the
    share of the ``steps`` in which it rises.
    ``fused`` computes all weights by one call: on a CPU a fifth of a training step less.
    """
    if not 0 <= steps < math.inf:
        raise EmolightError("The learning rate's cycle needs an end.", "Set trainer.max_epochs or trainer.max_steps.")
    rates = [learning_rate * share for _, share in groups]
    parameters = [{"params": weights, "lr": rate} for (weights, _), rate in zip(groups, rates, strict=True)]
    optimizer = AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=fused)
    # A fused step can unscale float16 gradients, and Lightning then refuses to clip them; a CPU scales none.
    optimizer._step_supports_amp_scaling = False
    total = max(int(steps), 1)
    if abs(warmup * total - 1) < 0.01:  # PyTorch divides by the steps of the rise, less one
        warmup = 1.5 / max(total, 2)
    scheduler = OneCycleLR(optimizer, max_lr=rates, total_steps=total, pct_start=warmup)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
