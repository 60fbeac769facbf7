"""From a sweep's space to the options of a trial; and the check of all of it before trial 0."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from emolight.errors import EmolightError, nearest
from emolight.sweep.definition import Sweep, read_sweep
from emolight.sweep.parameters import FIXED, Parameter

if TYPE_CHECKING:
    import optuna

__all__ = [
    "METRICS",
    "Parameter",
    "Sweep",
    "changes",
    "check_sweep",
    "fingerprint",
    "options_of",
    "plain",
    "read_sweep",
    "settings_of",
    "suggest",
]

METRICS = ("val/uar", "val/accuracy", "val/f1", "val/loss")
"""What every ``fit`` logs; also ``val/recall_CLASS``."""
COSTS = ("parameters", "latency_ms")
"""Objectives that are no metric of an epoch: number of weights, milliseconds for one clip."""
CORNERS = 500
"""Most combinations of a space's ends that the model is built at; of more, so many are drawn."""


def suggest(sweep: Sweep, trial: optuna.Trial) -> dict[str, Any]:
    """This trial's parameters by dotted name; conditional ones only where ``when`` holds."""
    found: dict[str, Any] = {}
    for name, parameter in sweep.space.items():
        if not parameter.exists(found):
            continue
        if parameter.choices:
            found[name] = trial.suggest_categorical(name, parameter.choices)
            continue
        low, high, log, step = parameter.low, parameter.high, parameter.log, parameter.step
        assert low is not None
        assert high is not None
        if parameter.integer:
            found[name] = trial.suggest_int(name, int(low), int(high), step=int(step or 1), log=log)
        else:
            found[name] = trial.suggest_float(name, low, high, step=step, log=log)
    return found


def options_of(sweep: Sweep, parameters: Mapping[str, Any]) -> list[str]:
    """The options of ``fit`` for a trial's parameters, with what its choices bring along."""
    return [f"--{name}={_word(value)}" for name, value in settings_of(sweep, parameters).items()]


def settings_of(sweep: Sweep, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's parameters and what its choices bring along: dotted name to value."""
    settings = dict(parameters)
    for name, value in parameters.items():
        settings.update(sweep.space[name].brought_by(value))
    return settings


def _word(value: Any) -> str:
    """A value as ``fit`` reads it on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def plain(sweep: Sweep) -> dict[str, Any]:
    """What decides the search, as JSON holds it: trials of another one cannot stand beside these."""
    config: dict[str, Any] = {}
    for path in sweep.config:
        _merge(config, yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    told = {
        "config": config,
        "space": {name: parameter.plain() for name, parameter in sweep.space.items()},
        "objectives": sweep.objectives,
        "epochs": sweep.epochs,
        "folds": list(sweep.folds),
        "seeds": list(sweep.seeds),
    }
    result: dict[str, Any] = json.loads(json.dumps(told, default=str))
    return result


def _merge(config: dict[str, Any], later: Mapping[str, Any]) -> None:
    """Put ``later`` over ``config``: what ``fit`` does with a second ``--config``."""
    for key, value in later.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            _merge(config[key], value)
        elif str(key).endswith("+") and isinstance(value, list):
            config[key] = [*config.get(key, []), *value]
        else:
            config[key] = value


def fingerprint(plain: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of :func:`plain`."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def changes(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Texts such as ``space.model.learning_rate.high: 0.005 -> 0.01``, from two results of :func:`plain`."""
    before, after = dict(_leaves(earlier)), dict(_leaves(now))
    return [
        f"{name}: {before.get(name, 'not there')} -> {after.get(name, 'not there')}"
        for name in [*before, *(name for name in after if name not in before)]
        if before.get(name) != after.get(name)
    ]


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _leaves(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _word(inner)


def check_sweep(sweep: Sweep, fit_options: Sequence[str]) -> dict[str, Any]:
    """Check what only ``fit`` can know, before the first trial.

    Every choice and both ends of every range are parsed by the real command line, and the model is built at the
    corners of the space, where ranges can contradict each other.

    Args:
        sweep: of :func:`read_sweep`.
        fit_options: that follow ``fit`` in every trial, such as ``--data.root DIR``.

    Returns:
        The complete configuration that trials start from, with the epochs of a trial.

    Raises:
        EmolightError: a trial could not run, or its value could not be compared with another's.
    """
    from emolight.experiments.crossval import full_config

    _check_options(sweep, fit_options)
    given = [word for path in sweep.config for word in ("--config", str(path))] + list(fit_options)
    if sweep.epochs is not None:
        given.append(f"--trainer.max_epochs={sweep.epochs}")
    base = full_config(given)
    _check_folds(sweep, base["data"])
    _check_objectives(sweep, base["data"]["emotions"])
    for settings in _ends(sweep):
        for name in settings:
            if isinstance(_value(base, name), dict):
                raise EmolightError(
                    f"space: {name} is a group of options.", f"Name one of its options: {name}.NAME"
                )
        full_config(given + [f"--{name}={_word(value)}" for name, value in settings.items()])
    _check_corners(sweep, base)
    return base


def _check_options(sweep: Sweep, fit_options: Sequence[str]) -> None:
    brought = {option for one in sweep.space.values() for _, options in one.brings for option in options}
    for word in fit_options:
        name = word.partition("=")[0].removeprefix("--")
        if not word.startswith("--"):
            continue
        if name in FIXED:
            raise EmolightError(f"--{name} cannot be given to a sweep: it sets it in every trial.", FIXED[name])
        if name in sweep.space or name in brought:
            raise EmolightError(
                f"--{name} cannot be given: the space of the sweep '{sweep.name}' sets it.",
                "Leave it out, or take it out of the space.",
            )


def _check_folds(sweep: Sweep, data: Mapping[str, Any]) -> None:
    from emolight.experiments.crossval import check_folds

    if data["split_csv"] or data["protocol"] == "random":
        if sweep.folds:
            what = "A split of one's own" if data["split_csv"] else "Protocol 'random'"
            raise EmolightError(
                f"{what} has no folds: folds is {list(sweep.folds)}.", "Set `folds: []` in the sweep."
            )
        return
    if not sweep.folds:
        raise EmolightError("folds is empty.", "Name at least one fold, such as [1].")
    check_folds(data["protocol"], sweep.folds)


def _check_objectives(sweep: Sweep, classes: Sequence[str]) -> None:
    metrics = [*METRICS, *(f"val/recall_{name}" for name in classes)]
    for name in sweep.objectives:
        if name.startswith("test/"):
            raise EmolightError(
                f"The objective '{name}' is of the test clips.",
                f"Selection sees validation clips only: {name.replace('test/', 'val/')}.",
            )
        if name not in (*metrics, *COSTS):
            raise EmolightError(
                f"Unknown objective '{name}'.",
                f"{nearest(name, [*metrics, *COSTS])}Valid: {', '.join([*metrics, *COSTS])}.",
            )
    if not any(name in metrics for name in sweep.objectives):
        raise EmolightError(
            f"No objective is a validation metric: {', '.join(sweep.objectives)}.", "Add val/uar: maximize."
        )


def _ends(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Settings in which every choice and both ends of every range occur, in few rounds."""
    for number in range(max(len(parameter.ends) for parameter in sweep.space.values())):
        values = {name: one.ends[min(number, len(one.ends) - 1)] for name, one in sweep.space.items()}
        yield settings_of(sweep, values)


def _value(config: Any, name: str) -> Any:
    """The value of a dotted name, or None."""
    for part in name.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def _check_corners(sweep: Sweep, base: dict[str, Any]) -> None:
    """Build data module and model, without weights, where the ranges meet."""
    import torch

    from emolight.data.datamodule import EmotionDataModule
    from emolight.models.classifier import EmotionClassifier

    corners = list(_corners(sweep))
    for parameters in random.Random(0).sample(corners, min(len(corners), CORNERS)):
        config = copy.deepcopy(base)
        for name, value in settings_of(sweep, parameters).items():
            *groups, last = name.split(".")
            group = config
            for part in groups:
                group = group[part]
            group[last] = value
        data, model = config["data"], config["model"]
        model["pretrained"] = model["pretrained"] and model["features"]["mode"] == "waveform"
        linked = {name: data[name] for name in ("sample_rate", "duration", "trim_db")}
        try:
            EmotionDataModule(**data)
            with torch.device("meta"):
                EmotionClassifier(**model, **linked, classes=data["emotions"], seed=config["seed_everything"])
        except EmolightError as error:
            problem, _, fix = str(error).partition("\n")
            where = ", ".join(f"{name} {_word(value)}" for name, value in parameters.items())
            raise EmolightError(f"The space reaches what cannot work: {problem}", f"{fix} At: {where}.") from None


def _corners(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Every combination of the ends of what decides the features; the other parameters take their ends in turn."""
    parents = {parent for one in sweep.space.values() for parent in one.when}
    crossed = {
        name
        for name, one in sweep.space.items()
        if name in parents or one.brings or name.startswith("model.features.") or name == "data.sample_rate"
    }
    rounds = max((len(one.ends) for name, one in sweep.space.items() if name not in crossed), default=1)
    for number in range(rounds):
        found: list[dict[str, Any]] = [{}]
        for name, one in sweep.space.items():
            ends = one.ends if name in crossed else (one.ends[min(number, len(one.ends) - 1)],)
            found = [
                {**corner, **extra}
                for corner in found
                for extra in ([{name: end} for end in ends] if one.exists(corner) else [{}])
            ]
        yield from found
