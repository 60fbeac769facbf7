"""The YAML of a sweep, and the options of ``fit`` that its space gives a trial."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import optuna
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from emolight.data.corpora import module_of
from emolight.errors import EmolightError, check_choice, nearest, trusted_module
from emolight.files import expand
from emolight.run.words import with_recipes, word_of

Value = None | bool | int | float | str
FIXED = re.compile(
    r"name|seed_everything|trainer\.(max_epochs|limit_val_batches|overfit_batches)"
    r"|data\.(fold|corpus|root|task|label|emotions|label_map|filter|speakers|protocol|split_seed|split_csv|on_bad_clip)"
)
"""Options that no space varies: the sweep sets them, or its trials would be scored on different clips."""
CLASSES = ("model.features", "model.features.mode", "model.network")
"""They choose a class, so that they stand before its own options."""
PRUNERS = {"hyperband": "HyperbandPruner", "halving": "SuccessiveHalvingPruner", "median": "MedianPruner"}
"""Names in the YAML, and the classes of ``optuna.pruners`` that take their arguments."""


@dataclass(frozen=True)
class Parameter:
    """One option of ``fit`` that the trials vary; docs/sweeps.md explains the keys. ``with_`` is ``with`` there."""

    choices: list[Value] | None = None
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    when: dict[str, Value | list[Value]] = field(default_factory=dict)
    with_: dict[Value, dict[str, Any]] = field(default_factory=dict)

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
            settings.update(self.space[name].with_.get(value, {}))
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
        for key, least in (("min_resource", 1), ("reduction_factor", 2)):  # else Optuna divides by zero in a trial
            if isinstance(value := arguments.get(key), int) and value < least:
                raise EmolightError(f"pruner: {key} is {value}.", f"Write {least} or more.")
        if name == "hyperband":  # by itself it would wait for a complete trial
            arguments.setdefault("max_resource", steps)
        try:
            return getattr(optuna.pruners, PRUNERS[name])(**arguments)  # type: ignore[no-any-return]
        except (TypeError, ValueError) as error:
            raise EmolightError(f"pruner: {error}", f"See Optuna's {PRUNERS[name]}.") from None


def words_of(settings: Mapping[str, Any]) -> list[str]:
    """The options of ``fit`` for dotted names and values of a file, whose classes nobody has typed."""
    for name, value in settings.items():
        if isinstance(value, str) and module_of(value):
            trusted_module(name, value)
    return [word_of(name, value) for name, value in settings.items()]


def read_sweep(path: Path, **changed: Any) -> Sweep:
    """Read the YAML of a sweep, whose paths start at its folder; the command line has ``changed`` keys.

    EmolightError for a key or value that it may not have; what only ``fit`` can know is left to ``check_sweep``.
    """
    path = path.expanduser()
    if not path.is_file():
        raise EmolightError(f"There is no sweep {path}.", nearest(path.name, map(str, path.parent.glob("*.yaml"))))
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8", errors="replace"))
        if isinstance(given, dict):
            if {"data", "model", "trainer"} & given.keys():
                fix = "A sweep names it: `config: FILE`, and what to vary: `space: ...`; sweeps/features.yaml is one."
                raise EmolightError("this is a recipe of `fit`, and not a sweep.", fix)
            given["config"] = _list(given.get("config"))
        told = _typed(Sweep, "the sweep", given)
        told["config"] = [_recipe(path.parent / expand(name), name) for name in told["config"]]
        sweep = Sweep(**{**told, "space": _space(given.get("space")), **changed})
        if not sweep.objectives:
            raise EmolightError("objectives is empty.", "Write {val/uar: maximize}, or leave it out.")
        if len({*sweep.folds}) < len(sweep.folds) or len({*sweep.seeds}) < max(1, len(sweep.seeds)):
            raise EmolightError(f"folds {sweep.folds}, seeds {sweep.seeds}.", "Write different numbers: [1, 2]")
        sweep.make_pruner(1)
    except (EmolightError, yaml.YAMLError) as error:
        problem, _, fix = str(error).partition("\n")
        raise EmolightError(f"{path}: {problem}", fix) from None
    return replace(sweep, name=sweep.name or path.stem)


def _recipe(path: Path, name: str) -> str:
    """A file of the sweep's folder, or what ``fit --config NAME`` finds."""
    for one in (path, path.with_name(f"{path.name}.yaml")):
        if path.suffix or one.is_file():
            return str(one.resolve())
    return str(Path(with_recipes(["--config", name])[1]).resolve())


def _space(given: Any) -> dict[str, Parameter]:
    if not isinstance(given, dict) or not given:
        raise EmolightError("space is empty.", "Name options of `fit`, each with choices or with low and high.")
    space: dict[str, Parameter] = {}
    for name, values in given.items():
        where = f"space.{name}"
        parameter = Parameter(**_typed(Parameter, where, values))
        for parent, chosen in parameter.when.items():
            check_choice(f"parameter above {where}", parent, [one for one in space if space[one].choices])
            for value in _list(chosen):
                check_choice(f"choice in {where}.when", str(value), map(str, space[parent].choices or ()))
        for choice, options in parameter.with_.items():
            check_choice(f"choice in {where}.with", str(choice), map(str, parameter.choices or ()))
            check_free(options)
            if both := set(options) & set(given):
                raise EmolightError(f"{where}.with sets {both.pop()}, which is a parameter itself.", "Take one out.")
        check_free([name])
        if not parameter.choices and None in parameter.ends:
            raise EmolightError(f"{where} needs choices, or low and high.", "Write {low: 13, high: 40}.")
        try:
            with warnings.catch_warnings(action="error"):  # such as an end that no step meets
                parameter.suggest(name, optuna.trial.FixedTrial({name: parameter.ends[0]}))
        except (ValueError, Warning) as error:
            raise EmolightError(f"{where}: {error}", "Change the range.") from None
        space[name] = parameter
    return space


def check_free(options: Iterable[str]) -> None:
    """Raise :class:`EmolightError` for an option that no space varies."""
    for option in filter(FIXED.fullmatch, map(str, options)):
        fix = "Set it in the configuration, or by `folds`, `seeds`, `epochs` and `name` of the sweep."
        raise EmolightError(f"{option} is the same in all trials, so that they can be compared.", fix)


def _typed(kind: type[Sweep | Parameter], where: str, given: Any) -> dict[str, Any]:
    """The fields of a dataclass by a mapping of the YAML; a mistake names the key and what it takes."""
    types = {one.name.rstrip("_"): str(one.type) for one in fields(kind)}
    if not isinstance(given, dict):
        raise EmolightError(f"{where} is {given!r:.80}.", f"Expected keys, of {', '.join(types)}; see docs/sweeps.md.")
    for key in given:
        check_choice(f"key in {where}", str(key), types)
    parser, renamed = ArgumentParser(exit_on_error=False), {"with": "with_"}
    parser.add_class_arguments(kind, skip={"space"})
    try:
        told = parser.parse_object({renamed.get(key, key): deepcopy(given[key]) for key in given if key != "space"})
    except ArgumentError as error:
        found = re.search(r'Parser key "(\w+?)_?"', str(error))
        key = found[1] if found else str(error)
        problem = f"{where}: {key} cannot be {given.get(key)!r}."
        raise EmolightError(problem, f"It takes {types.get(key)}; see docs/sweeps.md.") from None
    # jsonargparse keeps one parser for equal unions: after `float | int` was read anywhere, it reads 40 as 40.0.
    return {key: _as_given(given.get(key.removesuffix("_")), value) for key, value in told.items()}


def _as_given(given: Any, read: Any) -> Any:
    if isinstance(given, list) and isinstance(read, list):
        return [_as_given(*pair) for pair in zip(given, read, strict=True)]
    return given if type(given) is int and isinstance(read, float) else read


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
