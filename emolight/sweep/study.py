"""The study, and its slots, which make the budget exact.

A slot is one of the trials that the budget pays for. It is put into the study as a waiting trial that carries its
number; a worker takes it by changing the state to RUNNING, which the database lets only one do. A trial that failed
or was lost leaves its slot open, and the slot is put in again. Of several trials of one slot, the first that did
not fail counts and no other is taken, so that any process may put slots in at any time.
"""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from emolight.errors import EmolightError
from emolight.sweep.processes import STOPPED, signals_wait

SLOT, WORKER, ERROR = "slot", "worker", "error"
"""User attributes of a trial."""
BUDGET, DEFINITION, FORGIVEN = "trials", "definition", "forgiven"
"""User attributes of the study."""
RETRIES = 3
"""How often the same parameters are tried again after their worker was lost."""
ERRORS = 3
"""So many trials in a row that end by an error stop the sweep."""
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

Objective = Callable[[Trial], float | Sequence[float]]

warnings.filterwarnings("ignore", category=ExperimentalWarning)
optuna.logging.set_verbosity(optuna.logging.WARNING)


class NoSlotError(Exception):
    """No slot is free."""


class SlotStudy(optuna.Study):
    """A study whose ``ask`` takes a slot and never makes a trial of its own.

    Args:
        name: of the study, which the storage has.
        storage: of :func:`open_storage`.
        sampler: makes the sampler of a trial from a seed; None for a study that is only looked at.
        seed: of the sampler; together with a trial's number it decides what is drawn.
        pruner: of Optuna.
    """

    def __init__(
        self,
        name: str,
        storage: RDBStorage,
        sampler: Callable[[int], optuna.samplers.BaseSampler] | None = None,
        seed: int = 0,
        pruner: optuna.pruners.BasePruner | None = None,
    ) -> None:
        super().__init__(name, storage, pruner=pruner or optuna.pruners.NopPruner())
        self.taken: int | None = None
        self.worker = f"{socket.gethostname()}:{os.getpid()}"
        self._make_sampler, self._seed = sampler or (lambda seed: optuna.samplers.RandomSampler(seed)), seed

    def ask(self, fixed_distributions: Any = None) -> Trial:
        """Take the first free slot.

        Raises:
            NoSlotError: none is free.
        """
        self._thread_local.cached_all_trials = None
        with signals_wait():
            self.taken = None
            for trial in counting(self).values():
                if trial.state is TrialState.WAITING and self._take(trial._trial_id):
                    # Two workers with one seed would draw the same; one seed a trial also survives a restart.
                    seed = np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0]
                    self.sampler = self._make_sampler(int(seed))
                    return Trial(self, trial._trial_id)
        raise NoSlotError

    def _take(self, trial_id: int) -> bool:
        # Before the state: a running trial without any heartbeat would never count as lost.
        self._storage.record_heartbeat(trial_id)  # type: ignore[attr-defined]
        try:
            if not self._storage.set_trial_state_values(trial_id, TrialState.RUNNING):
                return False
        except UpdateFinishedTrialError:
            return False
        self.taken = trial_id
        self._storage.set_trial_user_attr(trial_id, WORKER, self.worker)
        return True


def create_study(
    storage: RDBStorage, name: str, directions: Sequence[str], definition: Mapping[str, Any], trials: int
) -> SlotStudy:
    """Make the study or go on with it, and put its slots in; errors of the past are forgiven.

    Args:
        storage: of :func:`open_storage`.
        name: of the study.
        directions: ``maximize`` or ``minimize``, one an objective.
        definition: of the search, as JSON holds it.
        trials: the budget.

    Raises:
        EmolightError: the study that is there searches something else.
    """
    ways = [StudyDirection[direction.upper()] for direction in directions]
    optuna.create_study(storage=storage, study_name=name, directions=ways, load_if_exists=True)
    study = SlotStudy(name, storage)
    if DEFINITION in study.user_attrs:
        check_definition(study, definition)
    else:
        study.set_user_attr(DEFINITION, dict(definition))
    study.set_user_attr(BUDGET, trials)
    failed = [trial.number for trial in study.get_trials(deepcopy=False, states=(TrialState.FAIL,))]
    study.set_user_attr(FORGIVEN, failed)
    optuna.storages.fail_stale_trials(study)
    fill(study)
    return study


def check_definition(study: optuna.Study, definition: Mapping[str, Any]) -> None:
    """Refuse to go on with a study of another search.

    Raises:
        EmolightError: shows what has changed.
    """
    from emolight.sweep.space import changes, fingerprint

    earlier = study.user_attrs[DEFINITION]
    if fingerprint(earlier) != fingerprint(definition):
        changed = changes(earlier, definition)
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise EmolightError(
            f"The study '{study.study_name}' was begun with another search: {'; '.join(changed[:3])}{more}.",
            "Give the new one another --name, or change it back.",
        )


def counting(study: optuna.Study) -> dict[int, FrozenTrial]:
    """The trial that counts of each slot of the budget: the first that did not fail, else the last."""
    found: dict[int, FrozenTrial] = {}
    budget = study.user_attrs[BUDGET]
    for trial in study.get_trials(deepcopy=False):
        slot = trial.user_attrs.get(SLOT)
        if slot is not None and slot < budget:
            before = found.get(slot)
            if before is None or before.state is TrialState.FAIL:
                found[slot] = trial
    return dict(sorted(found.items()))


def is_done(study: optuna.Study) -> bool:
    """Whether the whole budget is spent."""
    slots = counting(study)
    return len(slots) == study.user_attrs[BUDGET] and all(trial.state in FINISHED for trial in slots.values())


def fill(study: optuna.Study) -> None:
    """Put in the slots that no trial stands for; what was stopped or lost comes with the same parameters."""
    slots = counting(study)
    for slot in range(study.user_attrs[BUDGET]):
        trial = slots.get(slot)
        if trial is None:
            study.enqueue_trial({}, user_attrs={SLOT: slot})
        elif trial.state is TrialState.FAIL:
            again = len(RetryHeartbeatStaleTrialCallback.retry_history(trial)) < RETRIES
            if again and trial.params and ERROR not in trial.user_attrs:
                RetryHeartbeatStaleTrialCallback()(study, trial)
            else:
                study.enqueue_trial({}, user_attrs={SLOT: slot})


def release(study: optuna.Study, trials: Iterable[int]) -> None:
    """Give back the slots of trials (by their ids) that will not be finished."""
    with signals_wait():
        for trial_id in trials:
            with suppress(UpdateFinishedTrialError):
                study._storage.set_trial_state_values(trial_id, TrialState.FAIL)
        fill(study)


def running_on(study: optuna.Study, worker: str) -> list[int]:
    """Ids of the trials that run on a worker."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [trial._trial_id for trial in trials if trial.user_attrs.get(WORKER) == worker]


def check_errors(study: optuna.Study) -> None:
    """Stop a sweep whose trials fail one after another.

    Raises:
        EmolightError: the last three ended by an error; shows the last one's.
    """
    forgiven = set(study.user_attrs[FORGIVEN])
    ended = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(*FINISHED, TrialState.FAIL))
        if trial.state in FINISHED or (ERROR in trial.user_attrs and trial.number not in forgiven)
    ]
    last = sorted(ended, key=lambda trial: str(trial.datetime_complete))[-ERRORS:]
    if len(last) == ERRORS and all(trial.state is TrialState.FAIL for trial in last):
        raise EmolightError(
            f"{ERRORS} trials in a row failed, the last one, {last[-1].number}, with: {last[-1].user_attrs[ERROR]}",
            "Mend the cause; the same command goes on.",
        )


def work(
    study: SlotStudy, objective: Objective, tidy: Callable[[], None] = lambda: None, poll: float = 2.0
) -> None:
    """Run trials until the budget is spent.

    A signal (``SystemExit`` 143, ``KeyboardInterrupt``) gives the slot back and is raised again. Any other
    exception of the objective, ``SystemExit`` included, ends its trial and not the worker.

    Args:
        study: with sampler and pruner.
        objective: returns the value, or the values, of a trial.
        tidy: called after each trial.
        poll: seconds between looks at the study while no slot is free but others may still be lost.

    Raises:
        EmolightError: three trials in a row ended by an error.
    """

    def guarded(trial: Trial) -> float | Sequence[float]:
        try:
            return objective(trial)
        except optuna.TrialPruned:
            raise
        except SystemExit as error:
            if error.code in STOPPED:
                raise
            trial.set_user_attr(ERROR, f"exit with {error.code}")
            raise EmolightError(f"The trial ended with exit code {error.code}.") from None
        except Exception as error:
            trial.set_user_attr(ERROR, _message(error))
            raise

    while True:
        tidy()
        check_errors(study)
        try:
            study.optimize(guarded, n_trials=1)
        except NoSlotError:
            if is_done(study):
                return
            optuna.storages.fail_stale_trials(study)
            if not any(trial.state is TrialState.RUNNING for trial in counting(study).values()):
                fill(study)
            if not any(trial.state is TrialState.WAITING for trial in counting(study).values()):
                time.sleep(poll)
        except Exception:
            # Whoever fails a trial that was lost puts its slot back.
            if study.taken is None or not study._storage.get_trial(study.taken).state.is_finished():
                release(study, [] if study.taken is None else [study.taken])
                raise
            fill(study)
        except BaseException:
            release(study, [] if study.taken is None else [study.taken])
            raise


def _message(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:500] if isinstance(error, EmolightError) else f"{type(error).__name__}: {text[:500]}"
