"""The YAML of a sweep, and the options of ``fit`` that its space gives a trial."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import optuna
from jsonargparse import ArgumentError, ArgumentParser
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from emolight.errors import EmolightError, check_choice, nearest

Value = None | bool | int | float | str
FIXED = re.compile(
    r"name|seed_everything|trainer\.max_epochs|data\.(fold|corpus|root|task|emotions|label_map|filter|speakers"
    r"|protocol|split_seed|split_csv|on_bad_clip)"
)
"""Options that no space varies: the sweep sets them, or its trials would be scored on different clips."""
CLASSES = ("model.features", "model.features.mode", "model.network")
"""They choose a class, so that they stand before its own options."""
PRUNERS = {"hyperband": "HyperbandPruner", "halving": "SuccessiveHalvingPruner", "median": "MedianPruner"}
"""Names in the YAML, and the classes of ``optuna.pruners`` that take their arguments."""


@dataclass(frozen=True)
class Parameter:
    """One option of ``fit`` that the trials vary; docs/sweeps.md explains the keys. ``brings`` is ``with`` there."""

    choices: list[Value] | None = None
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    when: dict[str, Value | list[Value]] = field(default_factory=dict)
    brings: dict[Value, dict[str, Any]] = field(default_factory=dict)

    @property
    def ends(self) -> Sequence[Value]:
        """All choices, or both ends of the range."""
        return self.choices or [self.low, self.high]

    def exists(self, values: Mapping[str, Any]) -> bool:
        """Whether a trial has this parameter, by the values of those above it."""
        return all(parent in values and values[parent] in _list(chosen) for parent, chosen in self.when.items())

    def suggest(self, name: str, trial: Any) -> Any:
        """The value in a trial; ValueError where low and high are no range."""
        if self.choices:
            return trial.suggest_categorical(name, self.choices)
        if all(isinstance(value, int | None) for value in (self.low, self.high, self.step)):
            step = 1 if self.step is None else self.step
            return trial.suggest_int(name, self.low, self.high, step=step, log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)


@dataclass(frozen=True)
class Sweep:
    """A sweep as its YAML says it; docs/sweeps.md explains the keys."""

    config: list[str]
    space: dict[str, Parameter]
    name: str = ""
    objectives: dict[str, Literal["maximize", "minimize"]] = field(default_factory=lambda: {"val/uar": "maximize"})
    trials: PositiveInt = 16
    epochs: PositiveInt | None = None
    timeout: PositiveFloat | None = None
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: str | dict[str, Any] = "hyperband"
    folds: list[NonNegativeInt] = field(default_factory=lambda: [1])
    seeds: list[NonNegativeInt] = field(default_factory=lambda: [0])
    sampler_seed: NonNegativeInt = 0
    devices_per_trial: PositiveInt = 1
    checkpoints: Literal["best", "all"] = "best"

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """A trial's parameters by dotted name; conditional ones only where ``when`` holds."""
        values: dict[str, Any] = {}
        for name, parameter in self.space.items():
            if parameter.exists(values):
                values[name] = parameter.suggest(name, trial)
        return values

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A trial's parameters and what its choices bring along; what chooses a class comes first."""
        settings = dict(values)
        for name, value in values.items():
            settings.update(self.space[name].brings.get(value, {}))
        return {name: settings[name] for name in sorted(settings, key=lambda name: name not in CLASSES)}

    def make_sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """The sampler of one trial; the first trials of ``tpe`` are random, a quarter of them and 10 at most."""
        if self.sampler == "random":
            return optuna.samplers.RandomSampler(seed)
        # `group`: parameters that exist under some choices only are drawn together where they exist.
        first = min(10, max(4, self.trials // 4))
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=first)

    def make_pruner(self, steps: int) -> optuna.pruners.BasePruner:
        """The pruner of trials with so many reports; Optuna's cannot prune several objectives."""
        arguments: dict[str, Any] = dict(self.pruner) if isinstance(self.pruner, dict) else {"name": self.pruner}
        name = str(arguments.pop("name", None))
        check_choice("pruner", name, [*PRUNERS, "none"])
        if name == "none" or len(self.objectives) > 1:
            return optuna.pruners.NopPruner()
        if name == "hyperband":  # by itself it would wait for a complete trial
            arguments.setdefault("max_resource", steps)
        try:
            return getattr(optuna.pruners, PRUNERS[name])(**arguments)  # type: ignore[no-any-return]
        except (TypeError, ValueError) as error:
            raise EmolightError(f"pruner: {error}", f"See Optuna's {PRUNERS[name]}.") from None


def words_of(settings: Mapping[str, Any]) -> list[str]:
    """The options of ``fit`` for dotted names and values."""
    words = {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}
    return [f"--{name}={word}" for name, word in words.items()]


def read_sweep(path: Path, **changed: Any) -> Sweep:
    """Read the YAML of a sweep; what only ``fit`` can know is left to :func:`~emolight.sweep.check.check_sweep`.

    Args:
        path: of the YAML; the paths of ``config`` in it start at its folder.
        changed: keys that the command line sets.

    Raises:
        EmolightError: a key or value that it may not have; names the nearest.
    """
    path = path.expanduser()
    if not path.is_file():
        raise EmolightError(f"There is no sweep {path}.", nearest(path.name, map(str, path.parent.glob("*.yaml"))))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Sweep, skip={"config", "space"})
    parser.add_argument("--config", type=str | list[str], required=True)
    parser.add_argument("--space", type=dict[str, dict[str, Any]], required=True)
    given = _parsed(parser, str(path), path.read_text(encoding="utf-8", errors="replace"))
    config = [str((path.parent / Path(name).expanduser()).resolve()) for name in _list(given.pop("config"))]
    try:
        sweep = Sweep(config, _space(given.pop("space")), **{**given, **changed})
        if len({*sweep.folds}) < len(sweep.folds) or len({*sweep.seeds}) < max(1, len(sweep.seeds)):
            raise EmolightError(f"folds {sweep.folds}, seeds {sweep.seeds}.", "Write different numbers: [1, 2]")
        sweep.make_pruner(1)
    except EmolightError as error:
        problem, _, fix = str(error).partition("\n")
        raise EmolightError(f"{path}: {problem}", fix) from None
    return replace(sweep, name=sweep.name or path.stem)


def _space(given: Mapping[str, Any]) -> dict[str, Parameter]:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Parameter, skip={"brings"})
    parser.add_argument("--with", type=dict[Value, dict[str, Any]], default={})
    space: dict[str, Parameter] = {}
    for name, values in given.items():
        where = f"space.{name}"
        told = _parsed(parser, where, values)
        parameter = Parameter(brings=told.pop("with"), **told)
        for parent, chosen in parameter.when.items():
            check_choice(f"parameter above {where}", parent, [one for one in space if space[one].choices])
            for value in _list(chosen):
                check_choice(f"choice in {where}.when", str(value), map(str, space[parent].choices or ()))
        for choice, options in parameter.brings.items():
            check_choice(f"choice in {where}.with", str(choice), map(str, parameter.choices or ()))
            check_free(options)
            if both := set(options) & set(given):
                raise EmolightError(f"{where}.with sets {both.pop()}, which is a parameter itself.", "Take one out.")
        check_free([name])
        if parameter.choices is None and None in parameter.ends:
            raise EmolightError(f"{where} needs choices, or low and high.", "Write {low: 13, high: 40}.")
        try:
            with warnings.catch_warnings(action="error"):  # such as an end that no step meets
                parameter.suggest(name, optuna.trial.FixedTrial({name: parameter.ends[0]}))
        except (ValueError, Warning) as error:
            raise EmolightError(f"{where}: {error}", "Change the range.") from None
        space[name] = parameter
    if not space:
        raise EmolightError("space is empty.", "Name options of `fit`, each with choices or with low and high.")
    return space


def check_free(options: Iterable[str]) -> None:
    """Raise :class:`EmolightError` for an option that no space varies."""
    for option in filter(FIXED.fullmatch, options):
        fix = "Set it in the configuration, or by `folds`, `seeds`, `epochs` and `name` of the sweep."
        raise EmolightError(f"{option} is the same in all trials, so that they can be compared.", fix)


def _parsed(parser: ArgumentParser, where: str, given: Any) -> dict[str, Any]:
    """What a text or mapping says; a mistake in one line, with the nearest key."""
    try:
        told = parser.parse_string(given) if isinstance(given, str) else parser.parse_object(given)
        return dict(vars(told))
    except ArgumentError as error:
        message = str(error)
    valid = [action.dest for action in parser._actions if action.dest != "help"]
    keys = f"Keys: {', '.join(valid)}; see docs/sweeps.md."
    found = re.search(r"Option '([^'.]+)[^']*' is not accepted", message)
    if found and found[1] in ("data", "model", "trainer", "seed_everything"):
        raise EmolightError(
            f"{where} is a recipe of `fit`, and not a sweep.",
            "A sweep names it: `config: FILE`, and the options to vary: `space: ...`; sweeps/features.yaml is one.",
        )
    if found:
        raise EmolightError(f"{where}: unknown key '{found[1]}'.", nearest(found[1], valid) + keys)
    text = " ".join(re.sub(r'Parser key "([^"]+)":', r"\1:", message).split())
    text = re.sub(r"Does not validate .* Subtypes: \[(.*)\] Errors:.* value:", r"Expected \1. Got value:", text)
    text = re.sub(r"<class '(\w+)'>", r"\1", text.replace("NoneType", "null").replace("typing.", ""))
    raise EmolightError(f"{where}: {text[:200]}", keys)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
