"""The space of a sweep: which options of ``fit`` the trials vary, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from emolight.errors import EmolightError, nearest

FIXED = {
    "data.fold": "Give `folds: [1, 2]` in the sweep: a trial's value is then the mean over them.",
    "seed_everything": "Give `seeds: [0, 1]` in the sweep: a trial's value is then the mean over them.",
    "trainer.max_epochs": "Give `epochs: N` in the sweep: pruning compares the trials epoch by epoch.",
    "name": "Give `name: NAME` in the sweep, or --name.",
    "ckpt_path": "Every trial trains from the beginning.",
    "resume": "Every trial trains from the beginning; the same `sweep` command goes on with a study.",
    "print_config": "Ask `fit` for it.",
    "help": "See: python -m emolight sweep --help",
}
"""Options of ``fit`` that the sweep sets itself, and what to do instead."""
DECIDE_CLIPS = tuple(
    f"data.{name}"
    for name in ("root", "emotions", "channels", "protocol", "split_seed", "split_csv", "synthetic", "on_bad_clip")
)
"""Options that decide which clips are trained on and scored: trials with different ones cannot be compared."""
KEYS = ("choices", "low", "high", "log", "step", "when", "with")


@dataclass(frozen=True)
class Parameter:
    """One option that the trials vary: a set of choices, or a range.

    Args:
        choices: texts, numbers, true, false or null; empty for a range.
        low: lower end of a range.
        high: upper end, inclusive; the values are whole numbers when both ends are.
        log: whether it is drawn on a logarithmic scale.
        step: distance of the values; None is 1 for whole numbers, and any distance for others.
        when: parameters above this one, and those of their choices under which this one exists.
        brings: each choice and the options that come with it; ``with`` in the YAML.
    """

    choices: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    brings: tuple[tuple[Any, Mapping[str, Any]], ...] = ()

    @property
    def integer(self) -> bool:
        """Whether it is a range of whole numbers."""
        return is_integer(self.low) and is_integer(self.high)

    @property
    def ends(self) -> tuple[Any, ...]:
        """All choices, or both ends of the range."""
        return self.choices or (self.low, self.high)

    def brought_by(self, value: Any) -> Mapping[str, Any]:
        """The options that come with a choice."""
        return next((options for choice, options in self.brings if same(choice, value)), {})

    def exists(self, found: Mapping[str, Any]) -> bool:
        """Whether a trial has this parameter, by the values ``found`` of those above it."""
        return all(
            parent in found and any(same(found[parent], value) for value in values)
            for parent, values in self.when.items()
        )

    def plain(self) -> dict[str, Any]:
        """What was set, under the names of the YAML."""
        told: dict[str, Any] = {"choices": list(self.choices)}
        if not self.choices:
            told = {"low": self.low, "high": self.high, "log": self.log, "step": self.step}
        if self.when:
            told["when"] = {parent: list(values) for parent, values in self.when.items()}
        if self.brings:
            told["with"] = {shown(choice): dict(options) for choice, options in self.brings}
        return told


def read_space(given: Any) -> dict[str, Parameter]:
    """The parameters of ``space`` in the YAML, by dotted name.

    Raises:
        EmolightError: a key or value that it may not have.
    """
    if not isinstance(given, dict):
        raise EmolightError(
            f"space is {shown(given)}.", "Name options of `fit`, with choices or with low and high."
        )
    space: dict[str, Parameter] = {}
    for name, values in given.items():
        _check_free(str(name), "space")
        later = [str(one) for one in given if one not in space]
        space[str(name)] = _parameter(f"space.{name}", values, space, later)
    for name, parameter in space.items():
        for choice, options in parameter.brings:
            if both := [option for option in options if option in space]:
                raise EmolightError(
                    f"space.{name}.with.{shown(choice)} sets {both[0]}, which is a parameter itself.",
                    "Take one of them out; `when` says under which choices a parameter exists.",
                )
    return space


def check_keys(given: Mapping[Any, Any], valid: Sequence[str], where: str = "") -> None:
    """Raise :class:`EmolightError` for a key that is not one of ``valid``, with the nearest."""
    for key in given:
        if key not in valid:
            raise EmolightError(
                f"Unknown key '{key}'{where and f' in {where}'}.",
                f"{nearest(str(key), valid)}Valid: {', '.join(valid)}.",
            )


def same(one: Any, other: Any) -> bool:
    """Equal and of one type: ``true`` is not 1."""
    return type(one) is type(other) and bool(one == other)


def is_integer(value: Any) -> bool:
    """Whether it is a whole number, and not true or false."""
    return type(value) is int


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and not true or false."""
    return type(value) in (int, float) and abs(value) < float("inf")


def shown(value: Any) -> str:
    """A value as the YAML has it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_free(option: str, where: str) -> None:
    if option in FIXED:
        raise EmolightError(f"{where} cannot set {option}.", FIXED[option])
    if option in DECIDE_CLIPS:
        raise EmolightError(
            f"{where} cannot set {option}: trials that see different clips cannot be compared.",
            "Set it in the configuration, or on the command line.",
        )


def _parameter(where: str, given: Any, above: Mapping[str, Parameter], later: Sequence[str]) -> Parameter:
    if not isinstance(given, dict) or not given:
        raise EmolightError(
            f"{where} is {shown(given)}; it needs choices, or low and high.",
            "Write {choices: [mel, mfcc]}, or {low: 13, high: 40}.",
        )
    for key, value in given.items():
        if isinstance(value, dict) and not any(known in given for known in KEYS):
            raise EmolightError(
                f"{where} has levels of its own: {key}.",
                f"Write the option in one word: {where.removeprefix('space.')}.{key}",
            )
    check_keys(given, KEYS, where)
    when = _when(f"{where}.when", given.get("when", {}), above, later)
    if "choices" not in given:
        if "with" in given:
            raise EmolightError(f"{where} is a range and has `with`.", "Only choices bring options along.")
        return _range(where, given, when)
    if other := [key for key in ("low", "high", "log", "step") if key in given]:
        raise EmolightError(f"{where} has choices and {other[0]}.", "Take one of them out.")
    choices = _choices(f"{where}.choices", given["choices"])
    return Parameter(choices=choices, when=when, brings=_brings(f"{where}.with", given.get("with", {}), choices))


def _choices(where: str, given: Any) -> tuple[Any, ...]:
    if not isinstance(given, list) or not given:
        raise EmolightError(f"{where} is {shown(given)}.", "Give a list with at least one value.")
    for value in given:
        if not (value is None or isinstance(value, str | bool) or is_number(value)):
            raise EmolightError(
                f"{where} has the value {shown(value)}, which is a {type(value).__name__}.",
                "Choices are texts, numbers, true, false or null; `with` can bring a list along.",
            )
    for one, other in combinations(given, 2):
        # Optuna takes true and 1 for the same choice.
        if one == other:
            raise EmolightError(f"{where} has {shown(one)} and {shown(other)}, which are equal.", "Take one out.")
    return tuple(given)


def _range(where: str, given: Mapping[str, Any], when: Mapping[str, tuple[Any, ...]]) -> Parameter:
    for key in ("low", "high"):
        if key not in given:
            raise EmolightError(f"{where} has no `{key}`.", "Give low and high, or choices.")
    low, high, log, step = given["low"], given["high"], given.get("log", False), given.get("step")
    for key, value in (("low", low), ("high", high), ("step", 1 if step is None else step)):
        if not is_number(value):
            raise EmolightError(f"{where}.{key} is {shown(value)}; it must be a number.", f"Change {key}.")
    whole = is_integer(low) and is_integer(high)
    steps = (high - low) / step if step else 0.0
    rules = [
        (isinstance(log, bool), f"log is {shown(log)}; it must be true or false.", "Change log."),
        (low <= high, f"low {low} is above high {high}.", "Swap them."),
        (not log or low > 0, f"low is {low}; a log scale starts above 0.", "Raise low, or take log out."),
        (not log or step is None, f"log and step {step} do not go together.", "Take one of them out."),
        (step is None or step > 0, f"step is {step}; it must be above 0.", "Change step."),
        (
            not whole or step is None or is_integer(step),
            f"step is {step} between whole numbers.",
            f"Write the ends with a point, such as low: {float(low)}.",
        ),
        (
            abs(steps - round(steps)) < 1e-6,
            f"steps of {step} from {low} do not meet high {high}.",
            f"The last that they meet is {low + int(steps) * (step or 0):g}.",
        ),
    ]
    for holds, problem, fix in rules:
        if not holds:
            raise EmolightError(f"{where}: {problem}", fix)
    return Parameter(low=low, high=high, log=log, step=step, when=when)


def _when(
    where: str, given: Any, above: Mapping[str, Parameter], later: Sequence[str]
) -> dict[str, tuple[Any, ...]]:
    if not isinstance(given, dict):
        raise EmolightError(f"{where} is {shown(given)}.", "Write {model.features.mode: [mel, mfcc]}.")
    when: dict[str, tuple[Any, ...]] = {}
    for parent, values in given.items():
        if parent not in above:
            hint = (
                "Move it above." if parent in later else f"{nearest(str(parent), above)}Name a parameter above it."
            )
            raise EmolightError(f"{where} names '{parent}', which is not in the space above it.", hint)
        if not above[parent].choices:
            raise EmolightError(f"{where} names {parent}, which is a range.", "Name a parameter with choices.")
        when[parent] = tuple(values) if isinstance(values, list) else (values,)
        for value in when[parent]:
            _check_chosen(f"{where}.{parent}", value, above[parent].choices)
        if not when[parent]:
            raise EmolightError(f"{where}.{parent} is empty.", "Name at least one of its choices.")
    return when


def _brings(where: str, given: Any, choices: Sequence[Any]) -> tuple[tuple[Any, Mapping[str, Any]], ...]:
    if not isinstance(given, dict):
        raise EmolightError(
            f"{where} is {shown(given)}.", "Write a choice and its options: {mel: {data.batch_size: 16}}."
        )
    for choice, options in given.items():
        _check_chosen(where, choice, choices)
        if not isinstance(options, dict):
            raise EmolightError(
                f"{where}.{shown(choice)} is {shown(options)}.", "Write options: {data.batch_size: 16}."
            )
        for option, value in options.items():
            _check_free(str(option), where)
            if isinstance(value, dict):
                raise EmolightError(
                    f"{where}.{shown(choice)}.{option} has levels of its own.",
                    f"Write the option in one word, such as {option}.{next(iter(value), 'NAME')}",
                )
    return tuple(given.items())


def _check_chosen(where: str, value: Any, choices: Sequence[Any]) -> None:
    if not any(same(value, choice) for choice in choices):
        names = [shown(choice) for choice in choices]
        raise EmolightError(
            f"{where} names '{shown(value)}', which is not one of the choices.",
            f"{nearest(shown(value), names)}Choices: {', '.join(names)}.",
        )
