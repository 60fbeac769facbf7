"""What is checked before the first trial: the options, both ends of every range, the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from emolight.data.datamodule import EmotionDataModule
from emolight.errors import EmolightError, check_choice
from emolight.experiments.crossval import all_folds
from emolight.run import cli
from emolight.sweep.space import Sweep, check_free, words_of
from emolight.sweep.trial import SIZE, Plan, make_plan

METRICS = ("val/uar", "val/accuracy", "val/f1", "val/loss")
"""What every ``fit`` logs; also ``val/recall_CLASS``."""


def check_sweep(sweep: Sweep, fit_options: Sequence[str]) -> Plan:
    """Check what only ``fit`` can know, and prepare the data; what fails beyond that is a failed trial.

    Raises:
        EmolightError: a trial could not run, or its value could not be compared with another's.
    """
    names = {word.partition("=")[0].removeprefix("--") for word in fit_options if word.startswith("--")}
    check_free(name for name in names if name == "data.fold" or not name.startswith("data."))
    brought = {name for one in sweep.space.values() for options in one.brings.values() for name in options}
    if both := names & {*sweep.space, *brought}:
        raise EmolightError(f"--{both.pop()} cannot be given: the space of '{sweep.name}' sets it.", "Leave it out.")
    plan = make_plan(sweep, fit_options)
    for settings in ends(sweep):
        cli.full_config([*plan.words, *words_of(settings)])
    data = EmotionDataModule(**{**plan.base["data"], "fold": None})
    data.prepare_data()
    data.setup()
    folds = [] if data.split_csv else all_folds(data)
    if bool(folds) != bool(sweep.folds) or not set(sweep.folds) <= set(folds):
        raise EmolightError(f"folds is {sweep.folds}; those of '{data.split.label}' are {folds}.", "Change `folds`.")
    metrics = [*METRICS, *(f"val/recall_{name}" for name in data.classes)]
    for name in sweep.objectives:
        check_choice("objective (test clips choose nothing)", name, [*metrics, SIZE])
    return plan


def ends(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Settings of few trials in which every choice and both ends of every range occur."""
    parents = {parent for one in sweep.space.values() for parent in one.when}
    width = max((len(one.ends) for one in sweep.space.values() if one.when), default=1)
    most = [len(one.ends) * (width if name in parents else 1) for name, one in sweep.space.items()]
    for number in range(max(most)):
        values: dict[str, Any] = {}
        for name, one in sweep.space.items():
            if one.exists(values):
                values[name] = one.ends[(number // width if name in parents else number) % len(one.ends)]
        yield sweep.settings(values)
