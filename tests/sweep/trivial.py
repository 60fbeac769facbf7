"""A worker of short trials, in a process of its own: ``python -m tests.sweep.trivial URL [SECONDS]``; and its study."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from emolight.sweep.storage import open_storage
from emolight.sweep.study import SlotStudy, create_study, work

NAME = "trivial"
GRACE = 4


def make(url: str, trials: int, **changed: str) -> SlotStudy:
    """The study of the trivial trials."""
    definition = {"space.x.high": "1", "epochs": "2", **changed}
    return create_study(open_storage(url, True, 1, GRACE), NAME, {"val/uar": "maximize"}, definition, trials)


def run(url: str, seconds: float = 0.0) -> None:
    """Work until the budget is spent."""

    def objective(trial: optuna.Trial) -> float:
        trial.set_user_attr("process", os.getpid())
        x = trial.suggest_float("x", 0, 1)
        for step in (1, 2):
            trial.report(x, step)
            end = time.monotonic() + seconds / 2
            while time.monotonic() < end:
                time.sleep(0.1)
        if trial.should_prune():
            raise optuna.TrialPruned
        return x

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    study = SlotStudy(NAME, open_storage(url, False, 1, GRACE), pruner=optuna.pruners.MedianPruner(n_startup_trials=4))
    study.make_sampler = lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)
    work(study, objective, poll=0.5)


def good(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", 0, 1)


def states(study: optuna.Study) -> dict[str, int]:
    names = [trial.state.name for trial in study.trials]
    return {name: names.count(name) for name in sorted(set(names))}


def begun(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that run, and have their parameters."""
    return [trial for trial in study.get_trials(states=(TrialState.RUNNING,)) if trial.params]


def start(url: str, seconds: float = 0.0) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.sweep.trivial", url, str(seconds)])


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it never came true")


def spend(url: str, trials: int = 40, workers: int = 4) -> optuna.Study:
    """Let processes spend a budget; one of them is killed in mid-trial, one ended by SIGTERM."""
    study = make(url, trials)
    victims = [start(url, 600) for _ in range(2)]
    wait_for(lambda: sum("x" in trial.params for trial in study.trials) == 2)
    lost = [trial.params for trial in study.trials if trial.params]
    victims[0].kill()
    victims[1].terminate()
    assert victims[1].wait(180) == 143
    processes = [start(url) for _ in range(workers)]
    assert [process.wait(timeout=180) for process in processes] == [0] * workers
    found = states(study)
    assert found["COMPLETE"] + found["PRUNED"] == trials
    assert found["PRUNED"] > 0
    assert found["FAIL"] == 2
    assert "RUNNING" not in found
    tried = [trial.params for trial in study.trials if trial.state.is_finished()]
    assert [tried.count(params) for params in lost] == [2, 2]  # with the same parameters
    assert len({params["x"] for params in tried}) == trials  # no two workers drew the same
    return study


def run_worker(plan: Any, url: str) -> None:
    """In the place of a sweep's: trials of ``plan.seconds``."""
    run(url, plan.seconds)


def plan(folder: Path, seconds: float = 0.0, timeout: float | None = None) -> Any:
    """In the place of a sweep's."""
    return SimpleNamespace(folder=folder, seconds=seconds, sweep=SimpleNamespace(timeout=timeout, devices_per_trial=1))


if __name__ == "__main__":
    run(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)
