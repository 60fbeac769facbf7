"""A callback that times the training part of each epoch beside bare optimiser steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl


class EpochClock(pl.Callback):
    """Seconds of each epoch's training, and of ``bare``, run just before it so that both see the same machine."""

    def __init__(self, bare: Callable[[], None]) -> None:
        self.bare = bare
        self.seconds: list[tuple[float, float]] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        """Run and time the bare steps, then start the epoch's clock."""
        start = time.perf_counter()
        self.bare()
        self.start = time.perf_counter()
        self.bare_seconds = self.start - start

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stop after the last batch: validation, which runs inside Lightning's training epoch, does not count."""
        if trainer.is_last_batch:
            self.seconds.append((time.perf_counter() - self.start, self.bare_seconds))
