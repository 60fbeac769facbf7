"""The callback that keeps what a run found: predictions, split, environment, plots."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch

from emolight.data.splits import write_split
from emolight.evaluation.calibration import calibrate, fit_temperature
from emolight.evaluation.plots import (
    actor_figure,
    confusion_figure,
    curves_figure,
    recall_figure,
    save_figure,
)
from emolight.evaluation.predictions import predictions_table, read_predictions, write_predictions
from emolight.files import write_text
from emolight.models.classifier import EmotionClassifier
from emolight.runs import read_environment, record_opening, write_environment


class Recorder(pl.Callback):
    """Gathers every clip's probabilities over all processes and writes the run folder's tables.

    Args:
        run: the run folder.
        suffix: added to the names of the tables and plots of ``validate`` and ``test``.
    """

    def __init__(self, run: Path, suffix: str = "") -> None:
        self.run, self.suffix = run, suffix
        self.latest: pd.DataFrame | None = None
        self.selected: pd.DataFrame | None = None
        self.selected_epoch = 0
        self._best, self._started = -1.0, 0.0
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write ``split.csv`` and ``environment.json``."""
        self._started = time.monotonic()
        if trainer.is_global_zero:
            write_split(self.run / "split.csv", trainer.datamodule.split)  # type: ignore[attr-defined]
            seed = int(pl_module.hparams["seed"])
            write_environment(
                self.run / "environment.json",
                str(pl_module.device),
                str(trainer.precision),
                seed,
                trainer.world_size,
            )

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the wall time of the fit to ``environment.json``."""
        if trainer.is_global_zero:
            environment = {**read_environment(self.run), "seconds": round(time.monotonic() - self._started, 1)}
            write_text(self.run / "environment.json", json.dumps(environment, indent=2) + "\n")

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Keep the batch's probabilities."""
        self._parts.append((outputs["index"].cpu().numpy(), outputs["probabilities"].cpu().numpy()))

    def on_test_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        """Keep the batch's probabilities."""
        self.on_validation_batch_end(trainer, pl_module, outputs)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write ``predictions_val.csv`` whenever the epoch that counts has changed."""
        self.latest = self._gather(trainer, pl_module)
        uar = float(trainer.callback_metrics["val/uar"])
        # Choosing the best of many epochs on the clips that are then quoted flatters: `random` takes the last.
        if trainer.state.fn != "fit" or speaker_dependent(trainer) or uar > self._best:
            self._best, self.selected, self.selected_epoch = uar, self.latest, trainer.current_epoch
            self._write(trainer, "val")

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Break the seal of the test clips, on the record."""
        if trainer.is_global_zero:
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            record_opening(self.run, Path(str(trainer.ckpt_path)).name, len(data.subset("test")))

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write ``predictions_test.csv``."""
        self.latest = self.selected = self._gather(trainer, pl_module)
        self._write(trainer, "test")

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know of the epochs before."""
        return {"best": self._best, "selected_epoch": self.selected_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it over; the predictions of the selected epoch stand in the run folder."""
        self._best, self.selected_epoch = state_dict["best"], state_dict["selected_epoch"]
        path = self.run / "predictions_val.csv"
        self.selected = read_predictions(path) if path.is_file() and self._best >= 0 else None

    def _gather(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> pd.DataFrame | None:
        """The predictions of all processes, calibrated; in a fit the temperature is fitted to them first."""
        assert isinstance(pl_module, EmotionClassifier)
        parts, self._parts = self._parts, []
        if trainer.world_size > 1:
            everyone: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(everyone, parts)
            parts = [part for share in everyone for part in share]
        if not trainer.is_global_zero:
            return None
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        rows = np.concatenate([index for index, _ in parts])
        probabilities = np.concatenate([table for _, table in parts])
        clips = data.clips.iloc[rows]
        if trainer.state.fn == "fit":
            labels = clips["emotion"].map(data.emotions.index).to_numpy()
            pl_module.temperature.fill_(fit_temperature(probabilities, labels))
        return predictions_table(clips, data.emotions, calibrate(probabilities, float(pl_module.temperature)))

    def _write(self, trainer: pl.Trainer, subset: str) -> None:
        if self.selected is None:
            return
        write_predictions(self.run / f"predictions_{subset}{self.suffix}.csv", self.selected)
        if trainer.state.fn != "fit":
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            write_text(self.run / f"metrics_{subset}{self.suffix}.json", json.dumps(metrics, indent=2) + "\n")

    def draw(self, subset: str, note: str) -> None:
        """Draw the plots of the selected predictions, and of the learning curves after a fit."""
        if self.selected is None:
            return
        plots = self.run / "plots"
        title = f"{'validation' if subset == 'val' else subset} clips, {note}"
        for name, figure in (
            ("confusion", confusion_figure(self.selected, title)),
            ("recall", recall_figure(self.selected, title)),
            ("actors", actor_figure(self.selected, title)),
        ):
            save_figure(figure, plots / f"{subset}_{name}{self.suffix}.png")
        if subset == "val" and not self.suffix and (self.run / "metrics.csv").exists():
            save_figure(curves_figure(pd.read_csv(self.run / "metrics.csv")), plots / "curves.png")


def speaker_dependent(trainer: pl.Trainer) -> bool:
    """Whether training and evaluation share actors, by the split's protocol."""
    return str(trainer.datamodule.split["protocol"].iloc[0]).startswith("random")  # type: ignore[attr-defined]
