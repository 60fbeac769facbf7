"""The tables of a sweep: every trial, the best of each choice, the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from emolight.pages import Cell, Sheet, wall_time
from emolight.sweep.found import Found, axis_name, is_share, number, short
from emolight.sweep.study import ERROR
from emolight.sweep.trial import FOLDERS, SECONDS
from emolight.sweep.watch import EPOCHS

ABSENT = -1e99
"""Where a field without a value stands when its column is sorted."""
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "not ended",
}


def values_of(found: Found, trial: FrozenTrial) -> dict[str, float]:
    """Objective to a trial's value; empty for a trial without."""
    return dict(zip(found.objectives, trial.values or (), strict=False))


def trials_table(found: Found) -> pd.DataFrame:
    """A row a trial that was begun, by number; a pruned trial has the value that it reported last."""
    retries = _retries(found)
    rows = []
    for trial in found.trials:
        row: dict[str, Any] = {"number": trial.number, "state": trial.state.name}
        row |= {metric: values_of(found, trial).get(metric) for metric in found.objectives}
        row |= {name: trial.params.get(name) for name in found.names}
        row |= {"epochs": _epochs(trial), "seconds": seconds_of(trial), "run": " ".join(_runs(trial))}
        rows.append({**row, "error": _error(trial, retries)})
    columns = ["number", "state", *found.objectives, *found.names, "epochs", "seconds", "run", "error"]
    # Text columns keep whole numbers whole where a conditional parameter is missing.
    return pd.DataFrame(rows, columns=columns, dtype=object)


def _runs(trial: FrozenTrial) -> list[str]:
    return [str(one) for one in trial.user_attrs.get(FOLDERS, [])]


def _epochs(trial: FrozenTrial) -> int:
    return int(trial.user_attrs.get(EPOCHS, len(trial.intermediate_values)))


def seconds_of(trial: FrozenTrial) -> float | None:
    """Wall time of a trial; None when nothing is known of its end."""
    told = trial.user_attrs.get(SECONDS, trial.duration.total_seconds() if trial.duration else None)
    return None if told is None else round(float(told), 1)


def _retries(found: Found) -> dict[int, int]:
    """Number of a lost trial to the number of the one that took its place."""
    return {
        trial.system_attrs["retry_history"][-1]: trial.number
        for trial in found.trials
        if trial.system_attrs.get("retry_history")
    }


def _error(trial: FrozenTrial, retries: Mapping[int, int]) -> str:
    if trial.state != TrialState.FAIL:
        return ""
    if error := trial.user_attrs.get(ERROR):
        return " ".join(str(error).split())
    again = f": trial {retries[trial.number]} has its parameters" if trial.number in retries else ""
    return f"its process was lost or stopped{again}"


def group_sheet(found: Found) -> Sheet | None:
    """The best complete trial of each choice of the first categorical parameter, best choice first."""
    if found.group is None or found.best is None:
        return None
    rows = []
    for choice in found.choices:
        of_choice = found._replace(trials=[one for one in found.trials if one.params.get(found.group) == choice])
        if (best := of_choice.best) is None:
            continue
        others = [name for name in found.names if name != found.group]
        finished = len(of_choice.complete) + len(of_choice.pruned)
        counts = Cell(str(finished), finished)
        row = [
            Cell(str(choice), str(choice)),
            *_value_cells(found, best),
            Cell(str(best.number), best.number),
            counts,
        ]
        rows.append((_rank(found, best), [*row, *(_parameter_cell(best, name) for name in others)]))
    rows.sort(key=lambda one: one[0])
    columns = [short(found.group, found.names), *(axis_name(name, False) for name in found.objectives)]
    columns += [
        "trial",
        "trials",
        *(short(name, found.names) for name in found.names if name != found.group),
    ]
    return Sheet("Best configuration of each choice", columns, [row for _, row in rows], strong=1)


def front_sheet(found: Found) -> Sheet | None:
    """The trials of the Pareto front, best of the first objective first; None with one objective."""
    if len(found.objectives) < 2 or found.best is None:
        return None
    columns = ["trial", *(axis_name(name, False) for name in found.objectives), *_short_names(found)]
    rows = [
        [Cell(str(one.number), one.number), *_value_cells(found, one), *_parameter_cells(found, one)]
        for one in found.front
    ]
    return Sheet("Pareto front", columns, rows, strong=1)


def trials_sheet(found: Found) -> Sheet:
    """Every trial: complete ones from best to worst, then pruned, then failed ones."""
    states, retries, rows = list(STATES), _retries(found), []
    for trial in sorted(found.trials, key=lambda one: (states.index(one.state), _rank(found, one))):
        state = STATES[trial.state]
        seconds = seconds_of(trial)
        row = [Cell(str(trial.number), trial.number), Cell(state, state, note=_error(trial, retries))]
        row += [
            *(cell._replace(strip=None) for cell in _value_cells(found, trial)),
            *_parameter_cells(found, trial),
            Cell(f"{_epochs(trial)}", _epochs(trial)),
        ]
        row.append(Cell("–", ABSENT) if seconds is None else Cell(wall_time(seconds), seconds))
        rows.append([*row, Cell(" ".join(_runs(trial)), " ".join(_runs(trial)))])
    columns = ["trial", "state", *(axis_name(name, False) for name in found.objectives), *_short_names(found)]
    return Sheet("All trials", [*columns, "epochs", "time", "run folder"], rows, strong=int(found.best is not None))


def _rank(found: Found, trial: FrozenTrial) -> float:
    """Lower is better, by the first objective; a trial without a value is last."""
    sign = -1 if next(iter(found.objectives.values())) == "maximize" else 1
    return sign * trial.values[0] if trial.values else float("inf")


def _value_cells(found: Found, trial: FrozenTrial) -> list[Cell]:
    cells = []
    for metric in found.objectives:
        value = values_of(found, trial).get(metric)
        strip = (value, None, None) if value is not None and is_share(metric) else None
        cells.append(Cell("–", ABSENT) if value is None else Cell(shown(metric, value), value, strip))
    return cells


def _parameter_cells(found: Found, trial: FrozenTrial) -> list[Cell]:
    return [_parameter_cell(trial, name) for name in found.names]


def _parameter_cell(trial: FrozenTrial, name: str) -> Cell:
    if name not in trial.params:
        return Cell("–", ABSENT)
    value = trial.params[name]
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(shown_option(value), value if numeric else str(value))


def _short_names(found: Found) -> list[str]:
    return [short(name, found.names) for name in found.names]


def shown_option(value: Any) -> str:
    """A parameter's value, with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def told_of(found: Found, trial: FrozenTrial) -> str:
    """A trial's values in words: ``validation UAR 61.2 %``."""
    return ", ".join(
        f"{axis_name(name, False)} {shown(name, one)}" for name, one in values_of(found, trial).items()
    )


def shown(metric: str, value: float) -> str:
    """A metric's value with its unit."""
    return f"{100 * value:.1f}\u00a0%" if is_share(metric) else number(value)
