"""Progress of training: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar


class PlainProgress(ProgressBar):
    """One line an epoch with the metrics and the time left, for logs and batch jobs."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._started = 0.0
        self._first_epoch = 0

    def disable(self) -> None:
        """Print nothing, as Lightning asks of every process but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Print again."""
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started, self._first_epoch = time.monotonic(), trainer.current_epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the line."""
        if not self._enabled:
            return
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs or -1
        spent = time.monotonic() - self._started
        left = spent / (epoch - self._first_epoch) * (epochs - epoch)
        metrics: dict[str, Any] = trainer.callback_metrics
        shown = "  ".join(
            f"{name} {float(metrics[name]):.3f}"
            for name in ("train/loss", "val/loss", "val/uar", "val/accuracy")
            if name in metrics
        )
        print(f"epoch {epoch}/{epochs}  {shown}  {clock(spent)}, {clock(left)} left", flush=True)


def progress_bar() -> ProgressBar:
    """The bar for a terminal, the plain lines otherwise."""
    return RichProgressBar() if sys.stdout.isatty() else PlainProgress()


def clock(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
