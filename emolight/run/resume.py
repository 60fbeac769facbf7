"""Stopping and going on: by a signal, from which checkpoint, after a requeue of the job, with unbroken tables."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
import pandas as pd
import yaml
from lightning.pytorch.loggers import CSVLogger

from emolight.errors import EmolightError
from emolight.models.checkpoint import read_checkpoint
from emolight.models.classifier import load_classifier
from emolight.run.environment import slurm_job
from emolight.run.folder import LOGS, Run
from emolight.run.words import CONFIG_OPTIONS, take

STATE = ("epoch", "global_step", "loops", "callbacks", "optimizer_states", "lr_schedulers")
"""What a run goes on from, beside the weights."""


def check_resumable(path: Path) -> None:
    """Raise :class:`EmolightError` for a checkpoint that is damaged, of another version, or holds weights alone."""
    checkpoint = read_checkpoint(path)
    if missing := [name for name in STATE if name not in checkpoint]:
        raise EmolightError(
            f"{path} holds no training to go on with: no {', '.join(missing)}.",
            "Give the run folder, or its checkpoints/last.ckpt.",
        )
    load_classifier(path)


def requeued_run(options: Sequence[str]) -> Run | None:
    """The run that this ``fit`` of this SLURM job began before the job was put back into the queue, or None.

    A job may hold several; the same ``options`` began the same run.
    """
    if not int(os.environ.get("SLURM_RESTART_COUNT") or 0):
        return None
    rest, files = take(options, *CONFIG_OPTIONS)
    root = "."
    for path in files:
        with contextlib.suppress(OSError, ValueError, AttributeError, yaml.YAMLError):  # the parser says more
            trainer = (yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}).get("trainer") or {}
            root = trainer.get("default_root_dir") or root
    root = [root, *take(rest, "--trainer.default_root_dir")[1]][-1]
    asked = {"slurm_job": slurm_job(), "command": shlex.join(["fit", *options])}
    runs = [Run(path.parent) for path in (Path(root).expanduser() / LOGS).rglob("environment.json")]
    runs = [run for run in runs if asked.items() <= run.environment.items() and run.last.is_file()]
    return max(runs, key=lambda run: int(run.folder.name.removeprefix("version_")), default=None)


class ContinuedCSVLogger(CSVLogger):
    """Keeps the rows of ``metrics.csv`` before the optimiser's ``step``, where Lightning would begin anew."""

    def __init__(self, folder: Path, step: int) -> None:
        path = folder / "metrics.csv"
        earlier = pd.read_csv(path) if path.is_file() and path.stat().st_size else pd.DataFrame()
        super().__init__(str(folder.parent), name="", version=folder.name)
        if len(earlier):
            rows = [row.dropna().to_dict() for _, row in earlier[earlier["step"] < step].iterrows()]
            self.experiment.metrics = [{**row, "step": int(row["step"])} for row in rows]
            self.save()


class StopOnSignal(pl.Callback):
    """Ends a fit on SIGTERM with exit code 143; on SLURM's SIGUSR1 it puts the job back into the queue first.

    The checkpoint of the last whole epoch stands already: a state in mid-epoch could not be continued exactly.
    Lightning's own handlers, which these replace, exit with 0 and may wait for ever for another process.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals, after Lightning has; it puts the handlers before its own back at the end."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python allows handlers there alone

        def stop(number: int, *_: Any) -> NoReturn:
            if number == signal.SIGUSR1 and trainer.is_global_zero:
                subprocess.run(["scontrol", "requeue", str(slurm_job())], check=False)
            if trainer.strategy.launcher is not None:
                trainer.strategy.launcher.kill(signal.SIGTERM)
            raise SystemExit(128 + signal.SIGTERM)

        for number in (signal.SIGTERM, *([signal.SIGUSR1] if slurm_job() else [])):
            signal.signal(number, stop)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Say how to go on."""
        stopped = isinstance(exception, KeyboardInterrupt | SystemExit)
        if stopped and trainer.is_global_zero and self.run.last.is_file():
            go_on = f"python -m emolight fit --resume {shlex.quote(str(self.run.folder))}"
            epoch = trainer.current_epoch + 1
            print(f"\nstopped in epoch {epoch}; what came before it is kept. Go on with:\n  {go_on}", flush=True)
