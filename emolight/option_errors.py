"""Mistakes in options and configuration files, told with cause, value received and fix."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from emolight.errors import EmolightError, nearest

FIT_WORDS = ("config", "name", "seed_everything", "resume", "ckpt_path", "print_config", "data", "model", "trainer")
"""What ``fit`` takes without a dot; all its other options have one."""
GROUPS = ("data", "model", "model.augment", "model.features", "trainer")
DENIED = re.compile(r"Importing '([\w.]+)' is not allowed, denied by")
CLASS = re.compile(r'Parser key "([^"]+)":.*?(?:class_path \'|Import path )([\w.]+)\'?:?\s*([^\n]*)', re.DOTALL)
SINGLE = re.compile(r'Parser key "([^"]+)":\s*(.*?)[.:]? Got value: (.*)', re.DOTALL)
UNION = re.compile(
    r'Parser key "([^"]+)":\s*Does not validate against any of the Union subtypes\s*Subtypes: \[(.*?)\]\s*Errors:'
    r".*Given value: (.*)",
    re.DOTALL,
)
"""The parser's messages on a value of the wrong type: option, what it may be, and the value."""


def option_names(parser: Any) -> list[str]:
    """The dotted names of all options of a parser, such as ``data.batch_size``."""
    return [action.dest for action in parser._actions if action.option_strings]


def parse_own(parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse a command whose unknown options go to ``fit``; returns its own options, and the words for ``fit``.

    Raises:
        EmolightError: an option that neither of them has, as far as that shows without PyTorch.
    """
    options, rest = parser.parse_known_args(argv)
    for word in rest:
        name = word.partition("=")[0]
        if name.startswith("--") and "." not in name and name[2:] not in FIT_WORDS:
            hint = nearest(name, parser._option_string_actions)
            raise EmolightError(f"Unknown option '{name}'.", f"{hint}All options: {parser.prog} --help")
    return options, rest


def option_error(message: str, parser: Any, argv: list[str]) -> EmolightError:
    """Turn the parser's message into cause, value received and fix.

    Args:
        message: text of the ``ArgumentError``.
        parser: parser of the command, whose options are the valid ones.
        argv: the arguments, to say which file is meant.
    """
    names = option_names(parser)
    if found := re.search(r"does not accept option '([^']+)'|unrecognized arguments: -*([^\s=]+)", message):
        name = found[1] or found[2]
        if Path(name).suffix in (".yaml", ".yml"):
            return EmolightError(f"'{name}' stands alone.", f"A configuration is given as: --config {name}")
        hint = nearest(name, names) or nearest(name.rpartition(".")[2], {n.rpartition(".")[2] for n in names})
        return EmolightError(f"Unknown option '{name}'.", f"{hint}All options: python -m emolight fit --help")
    if found := re.search(r'Parser key "([^"]+)":\s*File does not exist: \'?([^\']+)', message):
        path = Path(found[2])
        others = [other.name for other in path.parent.glob("*.yaml")]
        hint = nearest(path.name, others) or (
            f"There: {', '.join(sorted(others))}." if others else "Check the path."
        )
        return EmolightError(f"There is no configuration file {path}.", hint)
    if found := DENIED.search(message):
        key = re.search(r'Parser key "([^"]+)"', message)
        return EmolightError(
            f"{key[1] if key else 'A value'} names code outside of emolight and Lightning: '{found[1]}'.",
            "Nothing of it was executed. If it is yours and you trust it, set the environment variable "
            f"EMOLIGHT_IMPORTS={found[1].partition('.')[0]}",
        )
    if found := CLASS.search(message):
        name, code, reason = found.groups()
        return EmolightError(f"{name} names the class '{code}': {reason[:200]}", "Give the full name of a class.")
    if found := UNION.search(message) or SINGLE.search(message):
        name, expected, value = found[1], found[2], " ".join(found[3].split())[:200]
        choices = re.findall(r"'([^']+)'", expected) if "Literal" in expected else []
        return EmolightError(f"{name} is '{value}'.", f"{nearest(value, choices)}Expected: {_expected(expected)}.")
    if "Problems parsing config" in message:
        reason = " ".join(message.partition(":")[2].split())
        return EmolightError(
            f"{_broken_file(argv)} is not valid YAML: {reason[:200]}", "Mend it; only plain YAML is read."
        )
    if found := re.search(r"argument (\S+) --> (\S+):", message):
        return EmolightError(f"{found[2]} cannot be set: it follows from {found[1]}.", f"Set {found[1]}.")
    return EmolightError(" ".join(message.split())[:300], "See: python -m emolight fit --help")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:120]


def _expected(text: str) -> str:
    """A type's name as people write it."""
    text = _one_line(text.removeprefix("Expected a ")) if "Literal" not in text else text
    if "Literal" in text:
        return "one of " + ", ".join(re.findall(r"'([^']+)'", text.replace("NoneType", "null")))
    return re.sub(r"<class '([^']+)'>", r"\1", text.replace("typing.", "").replace("NoneType", "null"))[:120]


def check_groups(argv: list[str]) -> None:
    """Refuse configuration files in which a group of options, such as ``data``, has a value of its own.

    The parser takes ``data: 3``, and an empty ``model:`` for the default model, without a word.

    Raises:
        EmolightError: which group, of which file.
    """
    for path in config_files(argv):
        content = _load(path)
        if not isinstance(content, dict | None):
            raise EmolightError(
                f"{path} holds no options: {_shown(content)}.", "They stand as NAME: VALUE, a line each."
            )
        for group in GROUPS if content else ():
            value: Any = content
            for name in group.split("."):
                value = value.get(name, {}) if isinstance(value, dict) else {}
            # A text is the name of a file with the group's options.
            if not isinstance(value, dict | str):
                shown = "empty" if value is None else _shown(value)
                raise EmolightError(
                    f"{path}: {group} is {shown}; options stand below it.",
                    "Take the line out, or indent the options below it.",
                )


def _shown(value: Any) -> str:
    return " ".join(f"'{value}'".split())[:200]


def _load(path: str) -> Any:
    """Content of a YAML file; None when it cannot be read, of which the parser says more."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None


def config_files(argv: list[str]) -> list[str]:
    """The values of ``--config``."""
    apart = [value for option, value in pairwise(argv) if option in ("--config", "-c")]
    return apart + [word.partition("=")[2] for word in argv if word.startswith("--config=")]


def _broken_file(argv: list[str]) -> str:
    """Which of the ``--config`` files does not load."""
    for path in config_files(argv):
        try:
            yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            return path
    return "An option's value"
