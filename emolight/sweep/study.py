"""The study, and its slots, which make the budget exact.

A slot is one of the trials that the budget pays for. It stands in the study as a waiting trial with the slot's
number; a worker takes it by changing the state to RUNNING, which the database lets only one do. A trial that failed
or was lost leaves its slot open, and another trial is put in for it. Of several trials of a slot the first that did
not fail counts, and no other is ever taken: any process may put trials in at any time.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState

from emolight.errors import EmolightError

SLOT, ERROR = "slot", "error"  # user attributes of a trial
BUDGET, DEFINITION = "trials", "definition"  # user attributes of the study
RETRIES = 3  # how often the same parameters are tried again after their worker was lost
ERRORS = 3  # so many trials in a row that end by an error stop a worker, and the sweep


class NoSlotError(Exception):
    """No slot is free."""


class SlotStudy(optuna.Study):
    """A study whose ``ask`` takes a slot and never makes a trial of its own.

    ``make_sampler`` makes the sampler of a trial from a seed, which ``seed`` and the trial's number give;
    ``taken`` is the id of the latest trial that this process took.
    """

    make_sampler: Callable[[int], optuna.samplers.BaseSampler] = optuna.samplers.RandomSampler
    seed, taken = 0, -1

    def ask(self, fixed_distributions: Any = None) -> Trial:
        """Take the first free slot; NoSlotError when none is free."""
        self._thread_local.cached_all_trials = None
        for trial in slots(self).values():
            if trial.state is TrialState.WAITING and self._take(trial._trial_id):
                # Two workers with one seed would draw the same; a seed of each trial also survives a restart.
                seed = np.random.SeedSequence([self.seed, trial.number]).generate_state(1)[0]
                self.sampler = self.make_sampler(int(seed))
                return Trial(self, trial._trial_id)
        raise NoSlotError

    def _take(self, trial_id: int) -> bool:
        # Before the state: a running trial without any heartbeat would never count as lost.
        self._storage.record_heartbeat(trial_id)  # type: ignore[attr-defined]
        with suppress(UpdateFinishedTrialError):
            if self._storage.set_trial_state_values(trial_id, TrialState.RUNNING):
                self.taken = trial_id
                return True
        return False


def create_study(
    storage: RDBStorage, name: str, objectives: Mapping[str, Any], definition: Mapping[str, str], trials: int
) -> SlotStudy:
    """Make the study or go on with it, and put its slots in; ``trials`` is the budget."""
    optuna.create_study(storage=storage, study_name=name, directions=[*objectives.values()], load_if_exists=True)
    study = SlotStudy(name, storage)
    if DEFINITION in study.user_attrs:
        check_definition(study, definition)
    study.set_user_attr(BUDGET, trials)
    study.set_user_attr(DEFINITION, dict(definition))  # the last: workers may begin
    study.set_metric_names([*objectives])
    fail_stale_trials(study)
    fill(study)
    return study


def check_definition(study: optuna.Study, definition: Mapping[str, str]) -> None:
    """Raise :class:`EmolightError` for a study of another search: dotted names with other texts."""
    earlier = study.user_attrs[DEFINITION]
    names = [name for name in {**earlier, **definition} if earlier.get(name) != definition.get(name)]
    if changed := "; ".join(f"{name}: {earlier.get(name)} -> {definition.get(name)}" for name in names[:3]):
        problem = f"The study '{study.study_name}' was begun with another search: {changed}."
        raise EmolightError(problem, "Give the new one another --name, or change it back.")


def slots(study: optuna.Study) -> dict[int, FrozenTrial]:
    """The trial that counts of each slot of the budget: the first that did not fail, else the last."""
    found: dict[int, FrozenTrial] = {}
    budget = study.user_attrs[BUDGET]
    for trial in study.get_trials(deepcopy=False):
        slot = trial.user_attrs.get(SLOT, budget)
        if slot < budget and (slot not in found or found[slot].state is TrialState.FAIL):
            found[slot] = trial
    return dict(sorted(found.items()))


def finished(study: optuna.Study) -> int:
    """How many trials of the budget are finished."""
    return sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in slots(study).values())


def fill(study: optuna.Study) -> None:
    """Put in the slots that no trial stands for; what was stopped or lost comes with the same parameters."""
    found = slots(study)
    for slot in range(study.user_attrs[BUDGET]):
        trial = found.get(slot)
        if trial is None:
            study.enqueue_trial({}, user_attrs={SLOT: slot})
        elif trial.state is TrialState.FAIL:
            tried = len(RetryHeartbeatStaleTrialCallback.retry_history(trial))
            if trial.params and ERROR not in trial.user_attrs and tried < RETRIES:
                RetryHeartbeatStaleTrialCallback()(study, trial)
            else:
                study.enqueue_trial({}, user_attrs={SLOT: slot})


def work(
    study: SlotStudy,
    objective: Callable[[Trial], float | Sequence[float]],
    tidy: Callable[[], None] = lambda: None,
    poll: float = 2.0,
) -> None:
    """Run trials until the budget is spent; ``tidy`` is called after each.

    A signal (``SystemExit`` 143, ``KeyboardInterrupt``) gives the slot back and is raised again. Any other
    exception of the objective, ``SystemExit`` included, ends its trial and not the worker, unless three in a row do.
    While no slot is free, others may still be lost: the study is looked at every ``poll`` seconds.
    """

    def guarded(trial: Trial) -> float | Sequence[float]:
        try:
            return objective(trial)
        except optuna.TrialPruned:
            raise
        except (Exception, SystemExit) as error:
            if isinstance(error, SystemExit) and error.code in (130, 143):
                raise
            kind = "" if isinstance(error, EmolightError) else f"{type(error).__name__}: "
            message = kind + " ".join(str(error).split())[:500]
            with suppress(UpdateFinishedTrialError):
                trial.set_user_attr(ERROR, message)
            raise EmolightError(message) from error

    failed = 0
    while failed < ERRORS:
        try:
            study.optimize(guarded, n_trials=1, catch=(EmolightError,))
        except NoSlotError:
            if finished(study) == study.user_attrs[BUDGET]:
                return
            fail_stale_trials(study)
            fill(study)
            time.sleep(poll)
            continue
        except BaseException as error:
            # It was taken for lost while it ran, and runs elsewhere: its result is one too many.
            lost = isinstance(error, Exception) and study._storage.get_trial(study.taken).state is TrialState.FAIL
            with suppress(UpdateFinishedTrialError, KeyError):
                study._storage.set_trial_state_values(study.taken, TrialState.FAIL)
            fill(study)
            if not lost:
                raise
        tidy()
        message = study._storage.get_trial(study.taken).user_attrs.get(ERROR)
        failed = failed + 1 if message else 0
        if message:
            fill(study)
    problem = f"{ERRORS} trials in a row failed, the last one with: {message}"
    raise EmolightError(problem, "Mend the cause; the same command goes on.")
