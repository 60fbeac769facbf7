"""The YAML of a sweep: what it may say, and what it says."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from emolight.errors import EmolightError, check_choice, nearest
from emolight.sweep.parameters import Parameter, check_keys, is_integer, is_number, read_space, shown

DIRECTIONS = ("maximize", "minimize")
SAMPLERS = ("tpe", "random")
KEPT = ("best", "all")
PRUNERS = {
    "hyperband": "HyperbandPruner",
    "halving": "SuccessiveHalvingPruner",
    "median": "MedianPruner",
    "none": "NopPruner",
}
"""Names in the YAML, and the classes of ``optuna.pruners`` that take their arguments."""
LEAST = {"min_resource": 1, "max_resource": 1, "reduction_factor": 2, "interval_steps": 1, "n_min_trials": 1}
"""Smallest values of a pruner's arguments; 0 for the others."""


@dataclass(frozen=True)
class Sweep:
    """A sweep as its YAML says it.

    Args:
        name: folder under ``lightning_logs``, and the study's name.
        config: absolute paths of what ``fit`` gets as ``--config``.
        space: dotted name to parameter, parents first.
        objectives: metric to ``maximize`` or ``minimize``.
        trials: how many are to finish.
        epochs: of each trial; None leaves it to the configuration.
        timeout: seconds for the whole command.
        sampler: ``tpe`` or ``random``.
        pruner: ``name`` and the arguments of its class.
        folds: each trial is trained on; empty where the split has none.
        seeds: each trial is trained with.
        sampler_seed: of the sampler.
        devices_per_trial: more than one trains with DDP.
        checkpoints: whose are kept, those of the ``best`` trials or of ``all``.
    """

    name: str
    config: tuple[Path, ...]
    space: dict[str, Parameter]
    objectives: dict[str, str]
    trials: int
    epochs: int | None
    timeout: float | None
    sampler: str
    pruner: dict[str, Any]
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    sampler_seed: int
    devices_per_trial: int
    checkpoints: str


KEYS = tuple(Sweep.__dataclass_fields__)


def read_sweep(path: Path) -> Sweep:
    """Read the YAML of a sweep and check it; what only ``fit`` can know is left to ``check_sweep``.

    Raises:
        EmolightError: a key or value that it may not have; names the nearest.
    """
    raw = _load(path)
    try:
        return _sweep(path, raw)
    except EmolightError as error:
        raise EmolightError(f"{path}: {error}") from None


def _sweep(path: Path, raw: Mapping[str, Any]) -> Sweep:
    check_keys(raw, KEYS)
    for needed, fix in (("config", "Name what `fit` takes as --config."), ("space", "Name the options to vary.")):
        if not raw.get(needed):
            raise EmolightError(f"`{needed}` is missing or empty.", fix)
    epochs, timeout, name = raw.get("epochs"), raw.get("timeout"), raw.get("name", path.stem)
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.+-]*", name):
        raise EmolightError(f"name is {shown(name)}; it must be the name of a folder.", "Letters, digits, _ . + -")
    if timeout is not None and not (is_number(timeout) and timeout > 0):
        raise EmolightError(f"timeout is {shown(timeout)}; it must be above 0.", "Give seconds, or null.")
    sampler = raw.get("sampler", SAMPLERS[0])
    check_choice("sampler", str(sampler), SAMPLERS)
    checkpoints = raw.get("checkpoints", KEPT[0])
    check_choice("checkpoints", str(checkpoints), KEPT)
    return Sweep(
        name=name,
        config=_configs(path.parent, raw["config"]),
        space=read_space(raw["space"]),
        objectives=_objectives(raw.get("objectives", {"val/uar": "maximize"})),
        trials=_integer("trials", raw.get("trials", 16), 1),
        epochs=None if epochs is None else _integer("epochs", epochs, 1),
        timeout=None if timeout is None else float(timeout),
        sampler=sampler,
        pruner=_pruner(raw.get("pruner", "hyperband")),
        folds=_integers("folds", raw.get("folds", [1]), 0),
        seeds=_integers("seeds", raw.get("seeds", [0]), 1),
        sampler_seed=_integer("sampler_seed", raw.get("sampler_seed", 0), 0),
        devices_per_trial=_integer("devices_per_trial", raw.get("devices_per_trial", 1), 1),
        checkpoints=checkpoints,
    )


class _Loader(yaml.SafeLoader):
    """Reads 3e-4 as a number, as ``fit`` does, and refuses a key that stands there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"'{key}' stands there twice, in line {node.start_mark.line + 1} and below")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise EmolightError(f"There is no sweep {path}.", _others(path))
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EmolightError(f"{path} is not valid YAML: {reason}", "Mend it; only plain YAML is read.") from None
    if not isinstance(raw, dict):
        raise EmolightError(f"{path} is not the YAML of a sweep.", f"Its keys: {', '.join(KEYS)}.")
    return raw


def _others(path: Path) -> str:
    """A hint at the files beside one that is not there."""
    names = sorted(other.name for other in path.parent.glob("*.yaml"))
    return nearest(path.name, names) or (f"There: {', '.join(names)}." if names else "Check the path.")


def _configs(folder: Path, given: Any) -> tuple[Path, ...]:
    files = []
    for name in given if isinstance(given, list) else [given]:
        if not isinstance(name, str):
            raise EmolightError(f"config is {shown(given)}.", "Give the path of a file, or a list of them.")
        files.append((folder / name).resolve())
        if not files[-1].is_file():
            raise EmolightError(
                f"There is no configuration file {name}.",
                f"{_others(files[-1]).rstrip()} Paths start at the folder of the sweep.",
            )
    return tuple(files)


def _objectives(given: Any) -> dict[str, str]:
    if not isinstance(given, dict) or not given:
        raise EmolightError(f"objectives is {shown(given)}.", "Write {val/uar: maximize}.")
    for metric, direction in given.items():
        check_choice(f"direction of {metric}", shown(direction), DIRECTIONS)
    return {str(metric): str(direction) for metric, direction in given.items()}


def _pruner(given: Any) -> dict[str, Any]:
    pruner = dict(given) if isinstance(given, dict) else {"name": "none" if given is None else given}
    if "name" not in pruner:
        raise EmolightError(f"The pruner {shown(given)} has no `name`.", f"Valid: {', '.join(PRUNERS)}.")
    check_choice("pruner", shown(pruner["name"]), PRUNERS)
    _check_arguments(pruner)
    return pruner


def _check_arguments(pruner: Mapping[str, Any]) -> None:
    import optuna

    kind, about = getattr(optuna.pruners, PRUNERS[pruner["name"]]), f"pruner {pruner['name']}"
    arguments = {key: value for key, value in pruner.items() if key != "name"}
    check_keys(pruner, ["name", *inspect.signature(kind).parameters], about)
    for key, value in arguments.items():
        # Hyperband looks at them in the middle of a trial only.
        if value != "auto":
            _integer(f"{key} of {about}", value, LEAST.get(key, 0))
    try:
        kind(**arguments)
    except (ValueError, TypeError) as error:
        raise EmolightError(f"{about}: {' '.join(str(error).split())[:200]}", "Change its arguments.") from None


def _integer(key: str, value: Any, least: int) -> int:
    if not is_integer(value) or value < least:
        raise EmolightError(
            f"{key} is {shown(value)}; it must be a whole number, at least {least}.", f"Change {key}."
        )
    return int(value)


def _integers(key: str, given: Any, least_count: int) -> tuple[int, ...]:
    values: Sequence[Any] = given if isinstance(given, list) else [given]
    whole = all(is_integer(value) and value >= 0 for value in values)
    if not whole or len(values) < least_count or len(set(values)) < len(values):
        raise EmolightError(
            f"{key} is {shown(given)}; it must be different whole numbers.", "Write a list: [1, 2]."
        )
    return tuple(values)
