"""Going on with a run: which checkpoint, and what a killed process left behind."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from emolight.errors import EmolightError
from emolight.files import remove_left_overs as remove_left_overs
from emolight.models.checkpoint import read_checkpoint
from emolight.models.classifier import load_classifier
from emolight.runs import LOGS, read_environment, read_run_config, slurm_job

STATE = ("epoch", "global_step", "loops", "callbacks", "optimizer_states", "lr_schedulers")
"""What a run goes on from, beside the weights."""


def newest_checkpoint(run: Path) -> tuple[Path, dict[str, Any]]:
    """The checkpoint of the latest epoch that is whole and of this run, and its content; others are named.

    Raises:
        EmolightError: ``run`` is no run folder, or none of its checkpoints can be used.
    """
    if not (run / "config.yaml").is_file():
        raise EmolightError(f"{run} is not a run folder: no config.yaml.", "Give lightning_logs/NAME/version_N.")
    config = read_run_config(run)
    found: list[tuple[int, Path, dict[str, Any]]] = []
    problems = []
    for path in sorted((run / "checkpoints").glob("*.ckpt"), key=lambda path: path.name != "last.ckpt"):
        try:
            checkpoint = read_checkpoint(path)
            _check_state(path, checkpoint, config)
            load_classifier(path)
            found.append((int(checkpoint["global_step"]), path, checkpoint))
        except EmolightError as error:
            problems.append(str(error).splitlines()[0].removesuffix(".") + ".")
    if not found:
        reason = f" {problems[0]}" if problems else ""
        raise EmolightError(f"{run} has no checkpoint to go on from.{reason}", "Train anew: fit --config ...")
    _, path, checkpoint = max(found, key=lambda one: (one[0], one[1].name == "last.ckpt"))
    for problem in problems:
        print(f"{problem} Going on from {path.name}.", flush=True)
    return path, checkpoint


def _check_state(path: Path, checkpoint: dict[str, Any], config: dict[str, Any]) -> None:
    """Refuse a checkpoint without the state of a training, or of a run with other settings."""
    if missing := [name for name in STATE if name not in checkpoint]:
        raise EmolightError(f"{path} holds no training to go on with: no {', '.join(missing)}.")
    data, trained = config["data"], checkpoint["hyper_parameters"]
    asked = {**config["model"], "classes": data.get("emotions"), "seed": config.get("seed_everything")}
    asked |= {name: data[name] for name in ("sample_rate", "duration", "trim_db") if name in data}
    for name, value in _flat(asked):
        other = dict(_flat(trained)).get(name, value)
        if other != value:
            raise EmolightError(f"{path} is another model's: {name} {other}, the run has {value}.")


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names such as ``features.mode`` with their values."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def requeued_run(options: Sequence[str]) -> Path | None:
    """The run that this ``fit`` of this SLURM job began before the job was put back into the queue, or None.

    Args:
        options: of the ``fit``. A job may hold several; the same options began the same run.
    """
    if not int(os.environ.get("SLURM_RESTART_COUNT") or 0):
        return None
    _, root = without_option(options, "--trainer.default_root_dir")
    found = {
        run.parent: read_environment(run.parent) for run in (Path(root or ".") / LOGS).rglob("environment.json")
    }
    asked = (slurm_job(), shlex.join(["fit", *options]))
    runs = [run for run, about in found.items() if (about.get("slurm_job"), about.get("command")) == asked]
    return max(runs, key=lambda run: int(run.name.removeprefix("version_")), default=None)


class BestAndLast(ModelCheckpoint):
    """``best.ckpt`` by validation UAR and ``last.ckpt``, at the end of each epoch, and ``last.ckpt`` at the start.

    A checkpoint thus always stands between two epochs, from where an interrupted run goes on exactly.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder,
            "best",
            monitor="val/uar",
            mode="max",
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make sure that a run can be resumed which is stopped in its first epoch."""
        super().on_train_start(trainer, pl_module)
        if trainer.global_step == 0:
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the best where this is one, and the last in any case; Lightning's ``save_last`` waits for a best."""
        super().on_train_epoch_end(trainer, pl_module)
        self._save_last(trainer)

    def _save_last(self, trainer: pl.Trainer) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(Path(str(self.dirpath)) / "last.ckpt")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best score, also where the run folder was moved."""
        best = str(Path(str(self.dirpath)) / "best.ckpt")
        moved = dict.fromkeys([best] * len(state_dict["best_k_models"]), state_dict["best_model_score"])
        paths = {"best_model_path": best, "kth_best_model_path": best, "best_k_models": moved}
        super().load_state_dict({**state_dict, "dirpath": self.dirpath, **paths})


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


def without_option(argv: Sequence[str], name: str) -> tuple[list[str], str | None]:
    """``argv`` without ``name VALUE`` or ``name=VALUE``, and the value."""
    rest, value = [], None
    words = iter(argv)
    for word in words:
        if word == name:
            value = next(words, None)
        elif word.startswith(f"{name}="):
            value = word.partition("=")[2]
        else:
            rest.append(word)
    return rest, value
