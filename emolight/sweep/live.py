"""What a running sweep shows: a table on a terminal, a line for every trial that ends elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.live import Live
from rich.table import Table

from emolight.progress import clock
from emolight.sweep.space import Sweep
from emolight.sweep.study import BUDGET, ERROR, FINISHED, SLOT, counting
from emolight.sweep.watch import EPOCHS

ROWS = 20
"""Of the table: those that run, and of the others the latest."""


class Display:
    """Shows the trials of a study while they run; a context manager.

    Args:
        study: that workers work on.
        sweep: that it belongs to.
        timeout: seconds, or None.
    """

    def __init__(self, study: optuna.Study, sweep: Sweep, timeout: float | None) -> None:
        self.study, self.sweep, self.timeout = study, sweep, timeout
        self.console = Console(highlight=False)
        self.started = time.monotonic()
        self.told = {trial.number for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()}
        self.before = self._finished()
        self.live = Live(console=self.console, refresh_per_second=1) if self.console.is_terminal else None

    def __enter__(self) -> Display:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.update()
        if self.live is not None:
            self.live.stop()

    def update(self) -> None:
        """Look at the study and show what is new."""
        if self.live is not None:
            self.live.update(self.table(), refresh=True)
            return
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state.is_finished() and trial.number not in self.told and SLOT in trial.user_attrs:
                self.told.add(trial.number)
                words = [f"trial {trial.number}: {state_of(trial)}", self._value(trial), self._parameters(trial)]
                text = "  ".join(word for word in words if word)
                self.console.print(f"{text}  ({self.summary()})", soft_wrap=True, markup=False)

    def table(self) -> Table:
        """The trials as a table."""
        trials = [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if SLOT in trial.user_attrs and trial.state is not TrialState.WAITING
        ]
        running = [trial for trial in trials if trial.state is TrialState.RUNNING]
        ended = [trial for trial in trials if trial.state is not TrialState.RUNNING]
        shown = sorted(ended[-max(1, ROWS - len(running)) :] + running, key=lambda trial: trial.number)
        table = Table(
            "trial", "state", "parameters", "epoch", "value", caption=self.summary(), caption_justify="left"
        )
        for trial in shown:
            row = [str(trial.number), state_of(trial), self._parameters(trial), epoch_of(trial), self._value(trial)]
            table.add_row(*row, style="bold" if trial.number == self._best() else None)
        return table

    def summary(self) -> str:
        """How many trials are finished, the best of them, and the time left."""
        budget, done = int(self.study.user_attrs[BUDGET]), self._finished()
        spent = time.monotonic() - self.started
        words = [f"{done} of {budget}"]
        best = self._best()
        if best is not None:
            words.append(f"best so far: trial {best}, {self._value(self.study.trials[best])}")
        left = spent / (done - self.before) * (budget - done) if done > self.before else None
        if self.timeout is not None:
            rest = max(0.0, self.timeout - spent)
            left = rest if left is None else min(left, rest)
        words.append(clock(spent) + ("" if left is None else f", about {clock(left)} left"))
        return "; ".join(words)

    def _finished(self) -> int:
        return sum(trial.state in FINISHED for trial in counting(self.study).values())

    def _best(self) -> int | None:
        if len(self.sweep.objectives) > 1:
            return None
        complete = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        sign = -1 if "maximize" in self.sweep.objectives.values() else 1
        return min(complete, key=lambda trial: sign * trial.values[0]).number if complete else None

    def _parameters(self, trial: FrozenTrial) -> str:
        if ERROR in trial.user_attrs:
            return str(trial.user_attrs[ERROR])[:200]
        return ", ".join(f"{name.rpartition('.')[2]} {_short(value)}" for name, value in trial.params.items())

    def _value(self, trial: FrozenTrial) -> str:
        if trial.state is TrialState.COMPLETE:
            return ", ".join(_short(value) for value in trial.values)
        return _short(trial.intermediate_values[trial.last_step]) if trial.last_step is not None else ""


def state_of(trial: FrozenTrial) -> str:
    """The state in words; a trial that failed without an error was stopped or lost its worker."""
    if trial.state is TrialState.FAIL:
        return "failed" if ERROR in trial.user_attrs else "stopped, runs again"
    return trial.state.name.lower()


def epoch_of(trial: FrozenTrial) -> str:
    """Epochs trained so far."""
    return str(trial.user_attrs.get(EPOCHS, "")) if trial.last_step is None else str(trial.last_step + 1)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
