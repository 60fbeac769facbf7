"""The bars of a sweep's workers, run by hand: ``python -m tests.faults.sweep_workers [--storage URL]``.

Cold starts of 4 workers on 200 short trials: exactly 200 finished, none lost, none left running. And kill -9
of a worker in mid-trial: its parameters are tried again within twice the grace period, and the budget is spent.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import optuna
from optuna.trial import TrialState

from emolight.sweep.storage import open_storage
from emolight.sweep.study import FINISHED, SlotStudy, create_study
from emolight.sweep.workers import run_workers
from tests.sweep.trivial import GRACE, NAME

TRIALS, WORKERS = 200, 4


def command(url: str, seconds: float = 0.0) -> list[str]:
    return [sys.executable, "-m", "tests.sweep.trivial", url, str(seconds)]


def fresh(url: str, trials: int) -> SlotStudy:
    storage = open_storage(url, 1, GRACE)
    if NAME in optuna.get_all_study_names(storage):
        optuna.delete_study(study_name=NAME, storage=storage)
    return create_study(storage, NAME, ["maximize"], {"epochs": 2}, trials)


def cold_start(url: str, folder: Path) -> bool:
    study = fresh(url, TRIALS)
    began = time.monotonic()
    run_workers(study, command(url), WORKERS, folder)
    seconds = time.monotonic() - began
    states = Counter(trial.state.name for trial in study.trials)
    values = {trial.params["x"] for trial in study.trials if trial.state in FINISHED}
    finished = sum(trial.state in FINISHED for trial in study.trials)
    good = finished == len(values) == TRIALS and not states["RUNNING"] and not states["WAITING"]
    print(
        f"{'good' if good else 'BAD'}: {dict(states)} in {seconds:.0f} s, {TRIALS / seconds:.1f} a second",
        flush=True,
    )
    return good


def killed(url: str) -> bool:
    study = fresh(url, 8)
    workers = [subprocess.Popen(command(url, 3 * GRACE)) for _ in range(2)]
    victim, lost = workers[0], None
    while lost is None:
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        lost = next(
            (one for one in running if one.params and str(one.user_attrs["worker"]).endswith(f":{victim.pid}")),
            None,
        )
        time.sleep(0.1)
    victim.kill()
    began, workers[0] = time.monotonic(), subprocess.Popen(command(url))
    while not any(
        trial.params == lost.params and trial.number != lost.number and trial.state is not TrialState.WAITING
        for trial in study.trials
    ):
        time.sleep(0.1)
    seconds = time.monotonic() - began
    codes = [worker.wait() for worker in workers]
    states = Counter(trial.state.name for trial in study.trials)
    good = codes == [0, 0] and seconds <= 2 * GRACE and states["COMPLETE"] + states["PRUNED"] == 8
    good = good and not states["RUNNING"]
    print(
        f"{'good' if good else 'BAD'}: kill -9, tried again after {seconds:.1f} s (grace {GRACE} s), {dict(states)}"
    )
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", help="default: a new SQLite file for every start")
    parser.add_argument("--starts", type=int, default=5)
    options = parser.parse_args()
    good = True
    for number in range(options.starts + 1):
        with tempfile.TemporaryDirectory() as folder:
            url = options.storage or f"sqlite:///{folder}/study.db"
            good &= cold_start(url, Path(folder)) if number < options.starts else killed(url)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
