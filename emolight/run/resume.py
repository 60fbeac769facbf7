"""Going on with a run: from which checkpoint, after a requeue of its job, and with unbroken tables."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml
from lightning.pytorch.loggers import CSVLogger

from emolight.errors import EmolightError
from emolight.models.checkpoint import read_checkpoint
from emolight.models.loading import load_classifier
from emolight.run.environment import slurm_job
from emolight.run.folder import LOGS, Run
from emolight.run.words import CONFIG_OPTIONS, take

STATE = ("epoch", "global_step", "loops", "callbacks", "optimizer_states", "lr_schedulers")
"""What a run goes on from, beside the weights."""


def check_resumable(path: Path) -> None:
    """Refuse a checkpoint that no training can go on from.

    Raises:
        EmolightError: it is missing, damaged, of another version, or holds weights alone.
    """
    checkpoint = read_checkpoint(path)
    if missing := [name for name in STATE if name not in checkpoint]:
        raise EmolightError(
            f"{path} holds no training to go on with: no {', '.join(missing)}.",
            "Give the run folder, or its checkpoints/last.ckpt.",
        )
    load_classifier(path)


def requeued_run(options: Sequence[str]) -> Run | None:
    """The run that this ``fit`` of this SLURM job began before the job was put back into the queue, or None.

    Args:
        options: of the ``fit``. A job may hold several; the same options began the same run.
    """
    if not int(os.environ.get("SLURM_RESTART_COUNT") or 0):
        return None
    asked = (slurm_job(), shlex.join(["fit", *options]))
    runs = []
    for path in (_root_dir(options) / LOGS).rglob("environment.json"):
        run = Run(path.parent)
        if (run.environment.get("slurm_job"), run.environment.get("command")) == asked and run.last.is_file():
            runs.append(run)
    return max(runs, key=lambda run: int(run.folder.name.removeprefix("version_")), default=None)


def _root_dir(options: Sequence[str]) -> Path:
    """``trainer.default_root_dir`` of the command line, or of its configuration files."""
    rest, files = take(options, *CONFIG_OPTIONS)
    found = "."
    for path in files:
        try:
            trainer = (yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}).get("trainer") or {}
            found = trainer.get("default_root_dir") or found
        except (OSError, ValueError, AttributeError, yaml.YAMLError):
            continue  # the parser says more
    return Path([found, *take(rest, "--trainer.default_root_dir")[1]][-1]).expanduser()


class ContinuedCSVLogger(CSVLogger):
    """Keeps the rows of ``metrics.csv`` before ``step``, where Lightning would begin anew.

    Args:
        folder: the run folder.
        step: optimiser steps behind the checkpoint.
    """

    def __init__(self, folder: Path, step: int) -> None:
        path = folder / "metrics.csv"
        earlier = pd.read_csv(path) if path.is_file() and path.stat().st_size else pd.DataFrame()
        super().__init__(str(folder.parent), name="", version=folder.name)
        if len(earlier):
            kept = earlier[earlier["step"] < step]
            rows = [{str(name): value for name, value in row.dropna().items()} for _, row in kept.iterrows()]
            self.experiment.metrics = [{**row, "step": int(row["step"])} for row in rows]
            self.save()
