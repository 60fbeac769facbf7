"""What a trial's fits tell Optuna, epoch by epoch."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import lightning.pytorch as pl
import optuna
import torch

from emolight.errors import EmolightError
from emolight.models.classifier import load_classifier
from emolight.sweep.space import METRICS

if TYPE_CHECKING:
    from emolight.sweep.trial import Plan

UAR = METRICS[0]
EPOCHS = "epochs"
"""User attribute of a trial: epochs trained."""


class Progress:
    """Tells Optuna of every epoch of a trial, over all its folds and seeds.

    The step counts epochs from 0, as Optuna's pruners do, and goes on across folds and seeds. The value reported is
    the mean of the best of this fit so far and of the finished fits' own: single epochs dip while the rate is high.

    Args:
        plan: of the sweep.
        trial: that runs.
    """

    def __init__(self, plan: Plan, trial: optuna.Trial) -> None:
        self.plan, self.trial = plan, trial
        self.metric = next(name for name in plan.sweep.objectives if name.startswith("val/"))
        self.best = max if plan.sweep.objectives[self.metric] == "maximize" else min
        self.history: list[Mapping[str, float]] = []
        self.finished: list[dict[str, float]] = []
        self.epochs = 0
        self.pruned = False

    def epoch(self, metrics: Mapping[str, float]) -> bool:
        """Take the metrics of an epoch; returns whether the trial is to be stopped.

        Raises:
            EmolightError: an objective is missing or not a number.
        """
        for name in self.plan.sweep.objectives:
            if name.startswith("val/") and not math.isfinite(metrics.get(name, math.nan)):
                logged = ", ".join(sorted(key for key in metrics if key.startswith("val/")))
                what = f"is {metrics[name]}" if name in metrics else f"is missing among {logged or 'no metrics'}"
                raise EmolightError(
                    f"The objective {name} {what}.", "Choose another objective or narrow the space."
                )
        self.history.append(metrics)
        self.epochs += 1
        step = len(self.finished) * self.plan.epochs + len(self.history) - 1
        if len(self.plan.sweep.objectives) > 1:  # Optuna cannot prune these, and takes no reports
            self.trial.set_user_attr(EPOCHS, self.epochs)
            return False
        best = self.best(one[self.metric] for one in self.history)
        known = [one[self.metric] for one in self.finished] + [best]
        self.trial.report(statistics.fmean(known), step)
        self.pruned = self.pruned or self.trial.should_prune()
        return self.pruned

    def end_fit(self, run: Path) -> None:
        """Keep the metrics of the epoch that the run's checkpoint is of."""
        if not self.history:
            raise EmolightError(f"No epoch of {run} was validated.", "Let a trial train at least one epoch.")
        # As Recorder does: `random` has no validation actors of its own to choose an epoch by.
        last = str(self.plan.base["data"]["protocol"]).startswith("random")
        best = self.history[-1] if last else max(self.history, key=lambda metrics: metrics[UAR])
        self.finished.append({**best, **costs(run, self.plan.sweep.objectives)})
        self.history = []

    @property
    def values(self) -> list[float]:
        """The objectives, means over folds and seeds."""
        return [statistics.fmean(one[name] for one in self.finished) for name in self.plan.sweep.objectives]


class Watch(pl.Callback):
    """Reports every validation epoch of a fit, and ends the fit when the trial is pruned.

    A pruned fit ends as by early stopping: its run folder is whole, and the hyper-parameters tab has it.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            if self.progress.epoch(metrics):
                trainer.should_stop = True


def costs(run: Path, names: Sequence[str] | Mapping[str, str]) -> dict[str, float]:
    """What a run's model costs: ``parameters``, and ``latency_ms`` for one clip on this machine (median of 20).

    Args:
        run: the run folder.
        names: only those that are named are found out.
    """
    found: dict[str, float] = {}
    if "parameters" not in names and "latency_ms" not in names:
        return found
    checkpoints = [path for name in ("best", "last") if (path := run / "checkpoints" / f"{name}.ckpt").is_file()]
    if not checkpoints:
        raise EmolightError(f"{run} has no checkpoint to measure.", "Leave trainer.enable_checkpointing at true.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_classifier(checkpoints[0]).to(device).eval()
    if "parameters" in names:
        found["parameters"] = float(sum(weights.numel() for weights in model.parameters()))
    if "latency_ms" in names:
        samples = round(model.hparams["duration"] * model.hparams["sample_rate"])
        clip = torch.zeros(1, samples, device=device)
        times: list[float] = []
        with torch.inference_mode():
            for _ in range(25):
                began = time.perf_counter()
                model(clip).cpu()  # waits for the device
                times.append(1000 * (time.perf_counter() - began))
        found["latency_ms"] = statistics.median(times[5:])
    return found
