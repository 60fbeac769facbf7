"""A callback that times the training part of each epoch."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl


class EpochClock(pl.Callback):
    """Seconds from the start of an epoch's training to its end, and from one epoch's start to the next one's."""

    training: list[float] = []  # noqa: RUF012 - read by the benchmark after the command has ended
    starts: list[float] = []  # noqa: RUF012

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start."""
        self.starts.append(time.perf_counter())

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stop after the last batch: validation, which runs inside Lightning's training epoch, does not count."""
        if trainer.is_last_batch:
            self.training.append(time.perf_counter() - self.starts[-1])
