"""Progress of training."""

import time

import lightning.pytorch as pl


class EpochLines(pl.Callback):
    """Prints a line an epoch with the metrics, the time spent and the time left."""

    def __init__(self) -> None:
        self._started, self._first_epoch, self._validated = 0.0, 0, -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started, self._first_epoch = time.monotonic(), trainer.current_epoch

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that the metrics are of this epoch: one that is cut short shows none."""
        self._validated = trainer.current_epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the line."""
        metrics = trainer.callback_metrics  # read by every process, since they may have to be summed up first
        if not trainer.is_global_zero:
            return
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs or -1
        spent = time.monotonic() - self._started
        left = spent / (epoch - self._first_epoch) * (epochs - epoch)
        shown = "  ".join(
            f"{name} {float(metrics[name]):.3f}"
            for name in ("train/loss", "val/loss", "val/uar", "val/accuracy")
            if name in metrics and (name == "train/loss" or self._validated == trainer.current_epoch)
        )
        ending = f", {clock(left)} left" if epochs > 0 else ""
        print(f"epoch {epoch}/{epochs if epochs > 0 else '?'}  {shown}  {clock(spent)}{ending}", flush=True)


def clock(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
