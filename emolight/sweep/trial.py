"""One trial: a ``fit`` like any other for each fold and seed; what is checked before the first; what is kept after."""

import gc
import json
import math
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError

from emolight.data.datamodule import EmotionDataModule
from emolight.errors import EmolightError, check_choice
from emolight.experiments.crossval import PLACES, all_folds, clips_of
from emolight.experiments.jobs import fitted
from emolight.experiments.processes import Task, run_processes
from emolight.run import cli
from emolight.run.folder import Run, logs_of
from emolight.run.recorder import Recorder
from emolight.sweep.space import Sweep, check_free, words_of

FOLDERS, SECONDS = "folders", "seconds"  # user attributes of a trial: its run folders and wall time
MACHINE = ("accelerator", "devices", "num_nodes", "strategy", "default_root_dir", "enable_progress_bar")
"""Trainer settings that say where a trial runs; they do not change what is searched."""
METRICS = ("val/uar", "val/accuracy", "val/f1", "val/loss")  # what every `fit` logs; also `val/recall_CLASS`
SIZE = "parameters"  # an objective that is no metric: the number of weights


@dataclass(frozen=True)
class Plan:
    """What all trials of a sweep share: options of every ``fit``, the configuration that these make, and the clips."""

    sweep: Sweep
    words: list[str]
    base: dict[str, Any]
    clips: str = ""

    @property
    def folder(self) -> Path:
        """Where the runs of the trials lie."""
        return logs_of(self.base) / self.sweep.name

    @property
    def units(self) -> list[tuple[int | None, int]]:
        """Fold and seed of each fit of a trial; the fold is None where the sweep names none."""
        return [(fold, seed) for seed, fold in product(self.sweep.seeds, self.sweep.folds or (None,))]

    @property
    def steps(self) -> int:
        """Of a whole trial: its epochs, or their parts where the interval of validations is a share of an epoch."""
        share = self.base["trainer"]["val_check_interval"]
        parts = math.ceil(1 / share) if isinstance(share, float) else 1
        return int(self.base["trainer"]["max_epochs"]) * parts * len(self.units)

    @property
    def definition(self) -> dict[str, str]:
        """What decides the search, and not where it runs: dotted name to text."""
        keys = ("objectives", "folds", "seeds", "sampler", "sampler_seed", "pruner")
        told: dict[str, Any] = {"clips": self.clips, **{key: getattr(self.sweep, key) for key in keys}}
        told["space"] = {name: asdict(parameter) for name, parameter in self.sweep.space.items()}
        for group, places in (("data", PLACES), ("model", ()), ("trainer", MACHINE)):
            told[group] = {name: value for name, value in self.base[group].items() if name not in places}
        return dict(_leaves(told))


def make_plan(sweep: Sweep, fit_options: Sequence[str]) -> Plan:
    """The plan of a sweep, whose trials get ``fit_options`` as well; EmolightError when ``fit`` refuses them."""
    words = [word for path in sweep.config for word in ("--config", path)] + list(fit_options)
    words += [] if sweep.epochs is None else [f"--trainer.max_epochs={sweep.epochs}"]
    return Plan(sweep, words, cli.full_config(words))


def check_sweep(sweep: Sweep, fit_options: Sequence[str]) -> Plan:
    """Check what only ``fit`` can know, and prepare the data; what fails beyond that is a failed trial."""
    names = {word.partition("=")[0].removeprefix("--") for word in fit_options if word.startswith("--")}
    of_all = ("data.", "trainer.limit_val_batches", "trainer.overfit_batches")
    check_free(name for name in names if name == "data.fold" or not name.startswith(of_all))
    brought = {name for one in sweep.space.values() for options in one.with_.values() for name in options}
    if both := names & {*sweep.space, *brought}:
        raise EmolightError(f"--{both.pop()} cannot be given: the space of '{sweep.name}' sets it.", "Leave it out.")
    plan = make_plan(sweep, fit_options)
    if plan.base["trainer"]["max_epochs"] is None:
        raise EmolightError("trainer.max_epochs is null; a sweep compares trials epoch by epoch.", "Write `epochs`.")
    for settings in ends(sweep):
        cli.full_config([*plan.words, *words_of(settings)])
    data = EmotionDataModule(**{**plan.base["data"], "fold": None})
    data.setup()
    folds = [] if data.split_csv else all_folds(data)
    if bool(folds) != bool(sweep.folds) or not set(sweep.folds) <= set(folds):
        raise EmolightError(f"folds is {sweep.folds}; those of '{data.split.label}' are {folds}.", "Change `folds`.")
    metrics = [*METRICS, *(f"val/recall_{name}" for name in data.classes), *[SIZE] * (len(sweep.objectives) > 1)]
    for name in sweep.objectives:
        check_choice("objective (test clips choose nothing)", name, metrics)
    return replace(plan, clips="{clips} ({hash:.12})".format(**clips_of(data)))


def ends(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Settings of few trials in which every choice and both ends of every range occur."""
    parents = {parent for one in sweep.space.values() for parent in one.when}
    width = max((len(one.ends) for one in sweep.space.values() if one.when), default=1)
    for number in range(max(len(one.ends) * (width if name in parents else 1) for name, one in sweep.space.items())):
        values: dict[str, Any] = {}
        for name, one in sweep.space.items():
            if one.exists(values):
                values[name] = one.ends[(number // width if name in parents else number) % len(one.ends)]
        yield sweep.settings(values)


def _leaves(value: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _leaves(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(inner, default=str)


class Report(pl.Callback):
    """Tells Optuna after every validation what the trial would be worth now, and ends a fit that is pruned.

    The value is the recorder's, of the validation that counts so far; over several folds and seeds the mean with
    those that are finished. The step is the part of its ``steps`` that the fit has done, however often it validates. A
    pruned fit ends as by early stopping: its run folder is whole.
    """

    def __init__(self, trial: optuna.Trial, metric: str, steps: int) -> None:
        self.trial, self.metric, self.steps = trial, metric, steps
        self.finished: list[float] = []
        self.start, self.step, self.pruned = 0, -1, False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report; the recorder comes before the callbacks that are added."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or len(self.trial.study.directions) > 1:
            return
        recorder = next(one for one in trainer.callbacks if isinstance(one, Recorder))  # type: ignore[attr-defined]
        values = [*self.finished, value_of(recorder.best.metrics, self.metric)]
        batches = trainer.num_training_batches * (trainer.max_epochs or 1)
        done = (trainer.fit_loop.epoch_loop.total_batch_idx + 1) / batches
        if (step := self.start + int(done * self.steps + 1e-6) - 1) <= self.step:
            return
        self.step = step
        self.trial.report(statistics.fmean(values), self.step)
        if self.trial.should_prune():
            self.pruned = trainer.should_stop = True


def run_trial(plan: Plan, trial: optuna.Trial) -> list[float]:
    """Train one trial; returns its objectives, of the epoch of each ``best.ckpt``, means over folds and seeds."""
    sweep, own = plan.sweep, f"trial_{trial.number:04d}"
    words = [*plan.words, *words_of(sweep.settings(sweep.suggest(trial)))]
    metric = next((name for name in sweep.objectives if name != SIZE), "val/uar")
    report = Report(trial, metric, plan.steps // len(plan.units))
    found, folders, started = list[list[float]](), list[str](), time.monotonic()
    try:
        for place, (fold, seed) in enumerate(plan.units):
            # Also after a fit that ended early: others are compared with it at the same step.
            report.start = place * report.steps
            part = own if len(plan.units) == 1 else f"{own}/fold_{fold}_seed_{seed}"
            unit = {"name": f"{sweep.name}/{part}", "seed_everything": seed}
            unit |= {} if fold is None else {"data.fold": fold}
            run = fit([*words, *words_of(unit)], plan.folder / part, sweep.devices_per_trial, report)
            folders.append(str(run.folder))
            if report.pruned:
                raise optuna.TrialPruned
            metrics = {**run.environment["best_metrics"], SIZE: float(run.environment["parameters"])}
            found.append([value_of(metrics, name) for name in sweep.objectives])
            report.finished.append(value_of(metrics, metric))
    finally:
        with suppress(UpdateFinishedTrialError):  # it was taken for lost, and runs elsewhere
            trial.set_user_attr(FOLDERS, folders)
            trial.set_user_attr(SECONDS, round(time.monotonic() - started, 1))
    return [statistics.fmean(values) for values in zip(*found, strict=True)]


def fit(words: Sequence[str], folder: Path, devices: int, report: Report) -> Run:
    """One fit: on one device in this process, on several in a process of its own, which is not pruned."""
    command = ["fit", *words, f"--trainer.devices={devices}"]
    if devices > 1:  # here, a second process of its group would ask for a trial of its own
        task = Task(folder.name, folder / "log.txt", cli.main, ([*command, "--trainer.strategy=ddp"],))
        run_processes([task], 1, devices)
        if task.code != 0:
            raise EmolightError(f"fit exits with {task.code}: {task.reason}", f"See {task.log}.")
    else:
        try:
            cli.main(command, callbacks=[report], pictures=False)
        finally:
            gc.collect()  # model and trainer refer to each other
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    return fitted(folder)[0]


def value_of(metrics: Mapping[str, float], name: str) -> float:
    """A metric of a run; raises :class:`EmolightError` when it is missing, or not a number."""
    value = metrics.get(name, math.nan)
    if not math.isfinite(value):
        raise EmolightError(f"The objective {name} is {value}.", f"Narrow the space; there are: {', '.join(metrics)}.")
    return value


def drop_checkpoints(plan: Plan, study: optuna.Study) -> None:
    """Remove the checkpoints of trials that have ended and are not the best: hundreds of them would fill a disk.

    The best are asked for last: a trial that another process ends meanwhile is not in the list, and is left alone.
    """
    if plan.sweep.checkpoints == "all":
        return
    ended = [trial.number for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    best = {trial.number for trial in study.best_trials}
    for number in ended:
        for folder in (plan.folder / f"trial_{number:04d}").glob("**/checkpoints") if number not in best else ():
            shutil.rmtree(folder, ignore_errors=True)
