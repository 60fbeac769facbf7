"""One trial: a ``fit`` like any other for each fold and seed, watched epoch by epoch."""

from __future__ import annotations

import csv
import gc
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError

from emolight import cli
from emolight.errors import EmolightError
from emolight.experiments.crossval import PLACES, full_config, logs_of
from emolight.sweep.processes import end_with_parent
from emolight.sweep.space import Sweep, options_of, plain, suggest
from emolight.sweep.watch import EPOCHS, UAR, Progress, Watch

FOLDERS, SECONDS = "folders", "seconds"
"""User attributes of a trial: its run folders and wall time."""
MACHINE = ("accelerator", "devices", "num_nodes", "strategy", "default_root_dir", "enable_progress_bar")
"""Trainer settings that say where a trial runs; they do not change what is searched."""


@dataclass(frozen=True)
class Plan:
    """What all trials of a sweep share.

    Args:
        sweep: of :func:`~emolight.sweep.space.read_sweep`.
        fit_options: what the command line gives to every ``fit``.
        base: the complete configuration without a trial's parameters.
    """

    sweep: Sweep
    fit_options: tuple[str, ...]
    base: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Where the runs of the trials lie."""
        return logs_of(self.base) / self.sweep.name

    @property
    def epochs(self) -> int:
        """Of each fit of a trial."""
        return int(self.sweep.epochs or self.base["trainer"]["max_epochs"])

    @property
    def words(self) -> list[str]:
        """Options of every ``fit``, before those of a trial."""
        return _words(self.sweep, self.fit_options)

    @property
    def units(self) -> list[tuple[int | None, int]]:
        """Fold and seed of each fit of a trial; the fold is None where the split has none."""
        return [(fold, seed) for seed, fold in product(self.sweep.seeds, self.sweep.folds or (None,))]

    @property
    def definition(self) -> dict[str, Any]:
        """What decides the search, flags of the command line included, and not where it runs."""
        dropped = {"data": PLACES, "trainer": MACHINE, "model": ()}
        config = {
            group: {name: value for name, value in self.base[group].items() if name not in names}
            for group, names in dropped.items()
        }
        told: dict[str, Any] = json.loads(json.dumps({**plain(self.sweep), "config": config}), parse_float=_number)
        return told


def _number(text: str) -> float | int:
    """A number as JSON writes it; where a setting takes both, 2 is at times parsed as 2.0."""
    return int(float(text)) if float(text).is_integer() else float(text)


def make_plan(sweep: Sweep, fit_options: Sequence[str]) -> Plan:
    """The plan without the long check of the space, for a worker that joins.

    Raises:
        EmolightError: ``fit`` would refuse the options.
    """
    return Plan(sweep, tuple(fit_options), full_config(_words(sweep, fit_options)))


def _words(sweep: Sweep, fit_options: Sequence[str]) -> list[str]:
    words = [word for path in sweep.config for word in ("--config", str(path))] + list(fit_options)
    return words if sweep.epochs is None else [*words, f"--trainer.max_epochs={sweep.epochs}"]


def run_trial(plan: Plan, trial: optuna.Trial) -> float | list[float]:
    """Train one trial; the objective of :func:`~emolight.sweep.study.work`.

    Returns:
        The value, or the values of several objectives: of the best epoch by validation UAR, means over folds and
        seeds.

    Raises:
        optuna.TrialPruned: the pruner stopped it.
        EmolightError: a fit failed.
    """
    sweep = plan.sweep
    parameters = suggest(sweep, trial)
    own = f"trial_{trial.number:04d}"
    progress, folders, started = Progress(plan, trial), list[str](), time.monotonic()
    try:
        for fold, seed in plan.units:
            part = f"{own}/fold_{fold}_seed_{seed}" if len(plan.units) > 1 else own
            options = [
                *plan.words,
                *options_of(sweep, parameters),
                f"--name={sweep.name}/{part}",
                f"--seed_everything={seed}",
                *([] if fold is None else [f"--data.fold={fold}"]),
            ]
            fit = _fit_in_processes if sweep.devices_per_trial > 1 else _fit_here
            folder = plan.folder / part
            try:
                fit(options, folder, progress)
            finally:
                folders += [str(run) for run in _runs(folder)[-1:]]
            if progress.pruned:
                raise optuna.TrialPruned(f"pruned after {progress.epochs} epochs")
            progress.end_fit(Path(folders[-1]))
    finally:
        with suppress(UpdateFinishedTrialError):  # it was taken for lost, and runs elsewhere
            trial.set_user_attr(FOLDERS, folders)
            trial.set_user_attr(SECONDS, round(time.monotonic() - started, 1))
            trial.set_user_attr(EPOCHS, progress.epochs)
    values = progress.values
    return values[0] if len(values) == 1 else values


def _fit_here(options: Sequence[str], folder: Path, progress: Progress) -> None:
    """A fit in this process, on one device: a second one would be a process that asks for a trial of its own."""
    try:
        cli.main(["fit", *options, "--trainer.devices=1"], callbacks=[Watch(progress)])
    finally:
        gc.collect()  # model and trainer refer to each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _fit_in_processes(options: Sequence[str], folder: Path, progress: Progress, poll: float = 0.5) -> None:
    """A fit as a command of its own with DDP, watched by what it writes into ``metrics.csv``."""
    devices = progress.plan.sweep.devices_per_trial
    words = [
        sys.executable,
        "-m",
        "emolight",
        "fit",
        *options,
        f"--trainer.devices={devices}",
        "--trainer.strategy=ddp",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    seen = 0

    def look() -> None:
        nonlocal seen
        rows = [row for run in _runs(folder)[-1:] for row in validated(run / "metrics.csv")]
        for metrics in rows[seen:]:
            seen += 1
            if progress.epoch(metrics):
                return

    with log.open("ab") as stream:
        process = subprocess.Popen(
            words, stdout=stream, stderr=subprocess.STDOUT, preexec_fn=end_with_parent, env=dict(os.environ)
        )
        with _ended(process):
            while process.poll() is None:
                look()
                if progress.pruned:
                    return
                time.sleep(poll)
    look()
    if process.returncode != 0 and not progress.pruned:
        raise EmolightError(f"fit exits with {process.returncode}: {told_in(log)}", f"See {log}.")


@contextmanager
def _ended(process: subprocess.Popen[bytes], patience: float = 30.0) -> Iterator[None]:
    """Ends the process with SIGTERM when the block is left before it has ended."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def drop_checkpoints(plan: Plan, study: optuna.Study) -> None:
    """Remove the checkpoints of trials that have ended and are not the best: hundreds of them would fill a disk."""
    if plan.sweep.checkpoints == "all":
        return
    best = {trial.number for trial in study.best_trials}
    for trial in study.get_trials(deepcopy=False):
        if trial.state.is_finished() and trial.number not in best:
            for folder in (plan.folder / f"trial_{trial.number:04d}").glob("**/checkpoints"):
                shutil.rmtree(folder, ignore_errors=True)


def validated(path: Path) -> list[dict[str, float]]:
    """The rows of a ``metrics.csv`` that hold a validation, also of one that is being written."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    rows = csv.DictReader(whole.splitlines())
    return [{name: float(value) for name, value in row.items() if value} for row in rows if row.get(UAR)]


def _runs(folder: Path) -> list[Path]:
    """The run folders in a folder, by number."""
    return sorted(folder.glob("version_*"), key=lambda run: int(run.name.removeprefix("version_")))


def told_in(log: Path) -> str:
    """The error in what a command of this project printed, or its last line."""
    lines = [
        line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
    ]
    told = [line for line in lines if line.startswith("emolight: ")]
    return (told or lines or ["no output"])[-1].removeprefix("emolight: ")[:300]
