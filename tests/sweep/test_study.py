"""The budget is exact whatever happens to workers: errors, signals, kill -9, many of them at once."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from emolight.errors import EmolightError
from emolight.sweep.storage import open_storage, shown_url, sqlite_url
from emolight.sweep.study import ERROR, SLOT, NoSlotError, SlotStudy, fill, finished, slots, work
from tests.sweep.trivial import NAME, good, make, spend, states


@pytest.fixture
def url(tmp_path: Path) -> str:
    (tmp_path / "50 % deep?").mkdir()
    return sqlite_url(tmp_path / "50 % deep?" / "study.db")


def test_four_processes_spend_the_budget_exactly_in_spite_of_kill_and_sigterm(url: str) -> None:
    spend(url)


def test_ctrl_c_gives_the_slot_back(url: str) -> None:
    study = make(url, 1)

    def stopped(trial: optuna.Trial) -> float:
        good(trial)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(study, stopped)
    assert states(study) == {"FAIL": 1, "WAITING": 1}
    assert ERROR not in study.trials[0].user_attrs
    work(study, good)
    assert study.trials[1].params == study.trials[0].params


@pytest.mark.parametrize("error", [SystemExit(2), ValueError("odd"), EmolightError("Wrong.", "Mend it.")])
def test_an_error_ends_its_trial_only(error: BaseException, url: str) -> None:
    study = make(url, 3)

    def objective(trial: optuna.Trial) -> float:
        value = good(trial)
        if trial.number == 1:
            raise error
        return value

    work(study, objective)
    assert states(study) == {"COMPLETE": 3, "FAIL": 1}
    assert study.trials[1].user_attrs[ERROR] in ("SystemExit: 2", "ValueError: odd", "Wrong. Mend it.")
    assert study.trials[3].params != study.trials[1].params


def test_three_errors_in_a_row_stop_and_the_same_command_goes_on(url: str) -> None:
    def objective(trial: optuna.Trial) -> float:
        good(trial)
        if trial.number > 1:
            raise ValueError("broken")
        return 0.0

    study = make(url, 6)
    with pytest.raises(EmolightError, match=r"3 trials in a row failed, the last one with: ValueError: broken"):
        work(study, objective)
    assert states(study) == {"COMPLETE": 2, "FAIL": 3, "WAITING": 4}
    work(make(url, 6), good)
    assert states(study) == {"COMPLETE": 6, "FAIL": 3}


def test_the_budget_may_change(url: str) -> None:
    work(make(url, 2), good)
    larger = make(url, 5)
    work(larger, good)
    assert states(larger) == {"COMPLETE": 5}
    make(url, 9)
    smaller = make(url, 6)
    work(smaller, good)
    assert states(smaller) == {"COMPLETE": 6, "WAITING": 3}


def test_slots_put_in_twice_are_run_once(url: str) -> None:
    study = make(url, 2)
    for slot in (0, 1, 1):
        study.enqueue_trial({}, user_attrs={SLOT: slot})
    work(study, good)
    assert states(study) == {"COMPLETE": 2, "WAITING": 3}


def test_two_workers_never_get_one_slot(url: str) -> None:
    """Guards Optuna's storage: a state changes to RUNNING once."""
    study = make(url, 1)
    other = SlotStudy(NAME, open_storage(url))
    waiting = slots(other)[0]
    assert study._take(waiting._trial_id)
    assert not other._take(waiting._trial_id)
    with pytest.raises(NoSlotError):
        other.ask()


def test_what_kills_its_worker_every_time_gets_new_parameters(url: str) -> None:
    study = make(url, 1)
    drawn = []
    for _ in range(5):
        trial = study.ask()
        drawn.append(good(trial))
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)  # as fail_stale_trials does
        fill(study)
    assert len(set(drawn[:4])) == 1
    assert drawn[4] != drawn[0]


@pytest.mark.parametrize("ends", ["well", "by an error"])
def test_a_trial_that_was_taken_for_lost_does_not_count_twice(url: str, ends: str) -> None:
    study = make(url, 1)

    def suspended(trial: optuna.Trial) -> float:
        value = good(trial)
        if trial.number == 0:
            study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            fill(study)
            if ends == "by an error":
                trial.report(value, 1)
        return value

    work(study, suspended)
    assert states(study) == {"COMPLETE": 1, "FAIL": 1}
    assert finished(study) == 1


def test_another_search_is_refused(url: str) -> None:
    make(url, 1)
    with pytest.raises(EmolightError, match=r"begun with another search: space\.x\.high: 1 -> 2"):
        make(url, 1, **{"space.x.high": "2"})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("nonsense", "does not open: Could not parse"),
        ("sqlite:////proc/nowhere/study.db", "does not open: unable"),
        ("sqlite:////tmp/no_such_study.db", "where `sweep` has made the study"),
        ("oracle://host/x", "No module named"),
        ("postgresql://me:geheim@127.0.0.1:1/sweep?passfile=geheim", "Connection refused"),
        ("postgresql://me:geheim@127.0.0.1:54x/sweep", "it is no URL"),
        ("postgresql://me:a@geheim@127.0.0.1/sweep", "%40 for one"),
        ("postgressql://me:geheim@127.0.0.1/sweep", "Can't load plugin"),
    ],
)
def test_storage_that_does_not_open(wrong: str, message: str) -> None:
    with pytest.raises(EmolightError, match=message) as caught:
        open_storage(wrong)
    assert "geheim" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_a_password_is_not_shown() -> None:
    assert shown_url("postgresql://me:geheim@host/db?password=geheim") == "postgresql://me@host/db"
    assert shown_url("sqlite:///a.db") == "sqlite:///a.db"
