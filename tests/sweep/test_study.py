"""The budget is exact whatever happens to workers: errors, signals, kill -9, many of them at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from emolight.errors import EmolightError
from emolight.sweep.storage import open_storage
from emolight.sweep.study import (
    ERROR,
    SLOT,
    NoSlotError,
    SlotStudy,
    check_definition,
    counting,
    create_study,
    fill,
    is_done,
    work,
)
from tests.sweep.trivial import GRACE, NAME

DEFINITION = {"space": {"x": {"low": 0, "high": 1}}, "epochs": 2}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/deep/study.db"


@pytest.fixture
def make(url: str) -> Callable[[int], SlotStudy]:
    def create(trials: int) -> SlotStudy:
        return create_study(open_storage(url, 1, GRACE), NAME, ["maximize"], DEFINITION, trials)

    return create


def good(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", 0, 1)


def states(study: optuna.Study) -> dict[str, int]:
    names = [trial.state.name for trial in study.trials]
    return {name: names.count(name) for name in sorted(set(names))}


def start(url: str, seconds: float = 0.0) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.sweep.trivial", url, str(seconds)])


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it never came true")


def test_four_processes_spend_the_budget_exactly(make: Callable[[int], SlotStudy], url: str) -> None:
    study = make(24)
    workers = [start(url) for _ in range(4)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0, 0, 0]
    found = states(study)
    assert found["COMPLETE"] + found["PRUNED"] == 24
    assert found["PRUNED"] > 0
    assert "RUNNING" not in found
    assert len({trial.params["x"] for trial in study.trials if trial.params}) == 24  # no two drew the same


def test_killed_worker_is_replaced_with_the_same_parameters(make: Callable[[int], SlotStudy], url: str) -> None:
    study = make(2)
    victim = start(url, 600)
    wait_for(lambda: any("x" in trial.params for trial in study.trials))
    victim.kill()
    victim.wait()
    lost = next(trial for trial in study.trials if trial.state is TrialState.RUNNING)
    assert start(url).wait(timeout=120) == 0
    again = [
        trial for trial in study.trials if trial.params.get("x") == lost.params["x"] and trial.number != lost.number
    ]
    assert [trial.state for trial in again] == [TrialState.COMPLETE]
    assert states(study) == {"COMPLETE": 2, "FAIL": 1}


def test_terminated_worker_gives_its_slot_back(make: Callable[[int], SlotStudy], url: str) -> None:
    study = make(1)
    victim = start(url, 600)
    wait_for(lambda: any("x" in trial.params for trial in study.trials))
    victim.send_signal(signal.SIGTERM)
    assert victim.wait(timeout=60) == 143
    assert states(study) == {"FAIL": 1, "WAITING": 1}
    first, second = study.trials
    assert second.params == first.params
    work(study, good)
    assert study.trials[1].values == [first.params["x"]]


def test_ctrl_c_gives_the_slot_back(make: Callable[[int], SlotStudy]) -> None:
    study = make(1)

    def stopped(trial: optuna.Trial) -> float:
        good(trial)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(study, stopped)
    assert states(study) == {"FAIL": 1, "WAITING": 1}
    assert ERROR not in study.trials[0].user_attrs
    work(study, good)
    assert study.trials[1].params == study.trials[0].params


def test_a_signal_while_a_slot_is_taken_leaves_nothing_running(
    make: Callable[[int], SlotStudy], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make(1)
    take = SlotStudy._take

    def taken(self: SlotStudy, trial_id: int) -> bool:
        result = take(self, trial_id)
        os.kill(os.getpid(), signal.SIGINT)
        return result

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(SlotStudy, "_take", taken)
            with pytest.raises(KeyboardInterrupt):
                work(study, good)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "RUNNING" not in states(study)
    work(study, good)
    assert is_done(study)


@pytest.mark.parametrize("error", [SystemExit(2), ValueError("odd"), EmolightError("Wrong.", "Mend it.")])
def test_an_error_ends_its_trial_only(error: BaseException, make: Callable[[int], SlotStudy]) -> None:
    study = make(4)

    def objective(trial: optuna.Trial) -> float:
        if trial.number == 1:
            raise error
        return good(trial)

    work(study, objective)
    assert states(study) == {"COMPLETE": 4, "FAIL": 1}
    assert study.trials[1].user_attrs[ERROR] in ("exit with 2", "ValueError: odd", "Wrong. Mend it.")
    assert study.trials[4].user_attrs[SLOT] == 1


def test_three_errors_in_a_row_stop_and_the_same_command_goes_on(make: Callable[[int], SlotStudy]) -> None:
    study = make(8)

    def objective(trial: optuna.Trial) -> float:
        good(trial)
        if trial.number > 1:
            raise ValueError("broken")
        return 0.0

    with pytest.raises(EmolightError, match=r"3 trials in a row failed, the last one, 9, with: ValueError: broken"):
        work(study, objective)
    assert states(study) == {"COMPLETE": 2, "FAIL": 3, "WAITING": 6}
    work(make(8), good)
    assert states(study) == {"COMPLETE": 8, "FAIL": 3}


def test_the_budget_may_change(make: Callable[[int], SlotStudy]) -> None:
    work(make(2), good)
    larger = make(5)
    work(larger, good)
    assert states(larger) == {"COMPLETE": 5}
    make(9)
    smaller = make(6)
    work(smaller, good)
    assert states(smaller)["COMPLETE"] == 6


def test_slots_put_in_twice_are_run_once(make: Callable[[int], SlotStudy]) -> None:
    study = make(2)
    for slot in (0, 1, 1):
        study.enqueue_trial({}, user_attrs={SLOT: slot})
    work(study, good)
    assert states(study) == {"COMPLETE": 2, "WAITING": 3}


def test_two_workers_never_get_one_slot(make: Callable[[int], SlotStudy], url: str) -> None:
    """Guards Optuna's storage: a state changes to RUNNING once."""
    study = make(1)
    other = SlotStudy(NAME, open_storage(url))
    waiting = counting(other)[0]
    assert study._take(waiting._trial_id)
    assert not other._take(waiting._trial_id)
    with pytest.raises(NoSlotError):
        other.ask()


def test_what_kills_its_worker_every_time_gets_new_parameters(make: Callable[[int], SlotStudy]) -> None:
    study = make(1)
    drawn = []
    for _ in range(5):
        trial = study.ask()
        drawn.append(good(trial))
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)  # as fail_stale_trials does
        fill(study)
    assert len(set(drawn[:4])) == 1
    assert drawn[4] != drawn[0]


def test_a_trial_that_was_taken_for_lost_does_not_count_twice(make: Callable[[int], SlotStudy]) -> None:
    study = make(1)

    def suspended(trial: optuna.Trial) -> float:
        value = good(trial)
        if trial.number == 0:
            study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            fill(study)
        return value

    work(study, suspended)
    assert states(study) == {"COMPLETE": 1, "FAIL": 1}


def test_another_search_is_refused(make: Callable[[int], SlotStudy]) -> None:
    study = make(1)
    with pytest.raises(EmolightError, match=r"begun with another search: space\.x\.high: 1 -> 2"):
        check_definition(study, {"space": {"x": {"low": 0, "high": 2}}, "epochs": 2})


@pytest.mark.parametrize("wrong", ["nonsense", "sqlite:////proc/nowhere/study.db", "oracle://host/x"])
def test_storage_that_does_not_open(wrong: str) -> None:
    with pytest.raises(EmolightError):
        open_storage(wrong)
