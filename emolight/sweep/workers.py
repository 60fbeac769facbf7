"""Workers: processes that take a study's slots, on this machine or anywhere."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Callable

import optuna

from emolight.errors import EmolightError
from emolight.experiments.processes import MISTAKE, Task, run_processes
from emolight.sweep.storage import open_storage
from emolight.sweep.study import SlotStudy, check_definition, finished, work
from emolight.sweep.trial import Plan, drop_checkpoints, reason, run_trial

RESTARTS = 3
"""So many workers in a row may be lost without a finished trial between them."""


def run_worker(plan: Plan, url: str) -> None:
    """Join a study that exists, and run trials until its budget is spent: one worker, whoever starts it.

    Raises:
        EmolightError: there is no such study, it searches something else, or its trials fail one after another.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        if multiprocessing.parent_process():  # Ctrl-C reaches both; this one is ended by its parent, once
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    sweep, storage = plan.sweep, open_storage(url)
    try:
        study = SlotStudy(sweep.name, storage, pruner=sweep.make_pruner(plan.steps))
        check_definition(study, plan.definition)
    except KeyError:
        fix = "Begin it with: python -m emolight sweep --config ..."
        raise EmolightError(f"The storage has no study '{sweep.name}', or not yet.", fix) from None
    study.make_sampler, study.seed = sweep.make_sampler, sweep.sampler_seed
    work(study, lambda trial: run_trial(plan, trial), lambda: drop_checkpoints(plan, study))


def run_workers(study: optuna.Study, plan: Plan, url: str, workers: int, watch: Callable[[], object]) -> bool:
    """Run workers until the study's budget is spent; those that are lost are replaced.

    ``watch`` is called about once a second. Returns whether the budget is spent; not so after the sweep's timeout.

    Raises:
        EmolightError: a worker ended by an error, or too many were lost.
    """
    tasks = [Task(f"worker {n}", plan.folder / f"worker_{n}.log", run_worker, (plan, url)) for n in range(workers)]
    deadline = time.monotonic() + (plan.sweep.timeout or float("inf"))
    lost = done = 0

    def ended(task: Task) -> bool:
        nonlocal lost, done
        if task.code == 0:
            return False
        now = finished(study)
        lost, done = (1 if now > done else lost + 1), now
        if task.code == MISTAKE or lost > RESTARTS:
            fix = f"See {task.log}; the same command goes on."
            raise EmolightError(f"{task.label} ended with {task.code}: {reason(task)}", fix)
        return True

    def look() -> None:
        watch()
        if time.monotonic() > deadline:
            raise TimeoutError

    try:
        run_processes(tasks, workers, plan.sweep.devices_per_trial, ended, look)
    except TimeoutError:
        return False
    return True
