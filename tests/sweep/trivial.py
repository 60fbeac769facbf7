"""A worker of short trials, in a process of its own: ``python -m tests.sweep.trivial URL [SECONDS]``."""

from __future__ import annotations

import sys
import time

import optuna

from emolight.sweep.processes import exit_on_sigterm
from emolight.sweep.storage import open_storage
from emolight.sweep.study import SlotStudy, work

NAME = "trivial"
GRACE = 4


def objective(trial: optuna.Trial) -> float:
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    x = trial.suggest_float("x", 0, 1)
    for step in (1, 2):
        trial.report(x, step)
        time.sleep(seconds / 2)
    if trial.should_prune():
        raise optuna.TrialPruned
    return x


if __name__ == "__main__":
    study = SlotStudy(
        NAME,
        open_storage(sys.argv[1], heartbeat=1, grace=GRACE),
        lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
    )
    with exit_on_sigterm():
        work(study, objective, poll=0.5)
