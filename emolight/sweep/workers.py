"""Workers: processes that take a study's slots, on this machine or anywhere."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import optuna

from emolight.errors import EmolightError
from emolight.experiments.jobs import environment
from emolight.sweep.definition import PRUNERS
from emolight.sweep.processes import end_with_parent, exit_on_sigterm, signals_wait
from emolight.sweep.space import Sweep
from emolight.sweep.storage import HEARTBEAT, open_storage
from emolight.sweep.study import (
    DEFINITION,
    FINISHED,
    SlotStudy,
    check_definition,
    check_errors,
    counting,
    is_done,
    release,
    running_on,
    work,
)
from emolight.sweep.trial import Plan, drop_checkpoints, make_plan, run_trial, told_in

RESTARTS = 3
"""So many workers in a row may end without a finished trial between them."""
MISTAKE = 2
"""Exit code of a worker that would only say the same again."""
PATIENCE = 60.0
"""Seconds for a worker to give its slot back and end."""


def run_worker(sweep: Sweep, fit_options: Sequence[str], url: str) -> None:
    """Join a study that exists, and run trials until its budget is spent: one worker, whoever starts it.

    Args:
        sweep: of :func:`~emolight.sweep.space.read_sweep`; must be what the study was begun with.
        fit_options: given to ``fit`` in every trial.
        url: of the storage.

    Raises:
        EmolightError: there is no such study, it searches something else, or its trials fail one after another.
    """
    plan = make_plan(sweep, fit_options)
    with exit_on_sigterm():
        study = join_study(plan, url)
        work(study, lambda trial: run_trial(plan, trial), lambda: drop_checkpoints(plan, study))


def join_study(plan: Plan, url: str) -> SlotStudy:
    """The sweep's study with sampler and pruner.

    Raises:
        EmolightError: it does not exist or searches something else.
    """
    sweep = plan.sweep
    storage = open_storage(url)
    if sweep.name not in optuna.get_all_study_names(storage):
        raise EmolightError(
            f"The storage has no study '{sweep.name}'.", "Begin it with: python -m emolight sweep --config ..."
        )
    study = SlotStudy(
        sweep.name, storage, lambda seed: make_sampler(sweep, seed), sweep.sampler_seed, make_pruner(plan)
    )
    if DEFINITION not in study.user_attrs:
        raise EmolightError(f"The study '{sweep.name}' is not ready, or no sweep of emolight.", "Try again.")
    check_definition(study, plan.definition)
    return study


def make_sampler(sweep: Sweep, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of one trial; the first trials of ``tpe`` are random, a quarter of them and 10 at most."""
    if sweep.sampler == "random":
        return optuna.samplers.RandomSampler(seed)
    # `group`: parameters that exist under some choices only are drawn together where they exist.
    return optuna.samplers.TPESampler(
        seed=seed, multivariate=True, group=True, n_startup_trials=min(10, max(4, sweep.trials // 4))
    )


def make_pruner(plan: Plan) -> optuna.pruners.BasePruner:
    """The pruner; Optuna's cannot prune several objectives."""
    arguments = {name: value for name, value in plan.sweep.pruner.items() if name != "name"}
    name = plan.sweep.pruner["name"]
    if len(plan.sweep.objectives) > 1:
        return optuna.pruners.NopPruner()
    if name == "hyperband":  # by itself it would wait for a complete trial
        arguments.setdefault("max_resource", plan.epochs * len(plan.units))
    pruner: optuna.pruners.BasePruner = getattr(optuna.pruners, PRUNERS[name])(**arguments)
    return pruner


class Process(Protocol):
    """What is asked of a worker's process, here a ``Popen``."""

    returncode: Any
    pid: int

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""

    def send_signal(self, number: int, /) -> None:
        """Send it a signal."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises ``subprocess.TimeoutExpired``."""

    def kill(self) -> None:
        """End it at once."""


@dataclass
class Worker:
    """A worker process on this machine."""

    place: int
    process: Process
    log: Path

    @property
    def name(self) -> str:
        """By which its trials are marked."""
        return f"{socket.gethostname()}:{self.process.pid}"

    @property
    def failed(self) -> bool:
        """Whether its early end speaks against the sweep."""
        return True


def run_workers(
    study: optuna.Study,
    command: Sequence[str],
    workers: int,
    folder: Path,
    devices: int = 1,
    timeout: float | None = None,
    variables: Mapping[str, str] | None = None,
    watch: Callable[[], None] = lambda: None,
    poll: float = 1.0,
    start: Callable[[int], Worker] | None = None,
) -> bool:
    """Run workers until the study's budget is spent; those that die are replaced while they get something done.

    Args:
        study: whose slots they take.
        command: of a worker.
        workers: how many.
        folder: for ``worker_N.log``.
        devices: of each worker.
        timeout: seconds after which the workers are stopped, and their trials' slots given back.
        variables: added to the workers' environment.
        watch: called about once every ``poll`` seconds.
        poll: seconds.
        start: starts a worker by its number, elsewhere than on this machine.

    Returns:
        Whether the budget is spent; not so after a timeout.

    Raises:
        EmolightError: trials failed one after another, or workers that got nothing done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + (timeout or float("inf"))
    lost = finished = 0
    next_check = 0.0

    def start_here(place: int) -> Worker:
        log = folder / f"worker_{place}.log"
        with log.open("ab") as stream:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**environment(place, workers, devices), **(variables or {})},
                preexec_fn=end_with_parent,
            )
        return Worker(place, process, log)

    start = start or start_here
    running: list[Worker] = []
    try:
        with signals_wait():
            running += [start(place) for place in range(workers)]
        while not is_done(study):
            if time.monotonic() > deadline:
                return False
            for worker in [one for one in running if one.process.poll() is not None]:
                if worker.process.returncode == 0 and is_done(study):
                    return True
                running.remove(worker)
                release(study, running_on(study, worker.name))
                check_errors(study)
                if worker.process.returncode == MISTAKE:
                    raise EmolightError(f"A worker ended: {told_in(worker.log)}", f"See {worker.log}.")
                ended = sum(trial.state in FINISHED for trial in counting(study).values())
                lost, finished = (0 if ended > finished else lost) + worker.failed, ended
                if lost > RESTARTS:
                    reason = f"{worker.process.returncode}: {told_in(worker.log)}"
                    raise EmolightError(
                        f"{lost} workers in a row ended without a finished trial, the last with {reason}",
                        f"See {worker.log}; the same command goes on.",
                    )
                running.append(start(worker.place))
            if time.monotonic() > next_check:
                optuna.storages.fail_stale_trials(study)
                next_check = time.monotonic() + HEARTBEAT
            watch()
            time.sleep(poll)
        return True
    finally:
        end_workers(study, running)


def end_workers(study: optuna.Study, workers: Sequence[Worker]) -> None:
    """Stop the workers, and give back the slots of those that could not do it themselves."""
    with signals_wait():
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        for worker in workers:
            try:
                worker.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        release(study, [trial for worker in workers for trial in running_on(study, worker.name)])


def worker_command(config: Path, name: str, fit_options: Sequence[str]) -> list[str]:
    """The command of a worker; the storage comes by the environment variable."""
    return [
        *(sys.executable, "-m", "emolight", "sweep", "worker"),
        *("--config", os.fspath(config), "--name", name, *fit_options),
    ]
