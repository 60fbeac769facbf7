"""What is wrong with an option, in this project's words: the parser's message, its cause, and the nearest name."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import callbacks, loggers

from emolight.errors import IMPORTS, EmolightError, nearest
from emolight.models.augment import Augmentation
from emolight.models.features import Features
from emolight.models.networks import Network
from emolight.models.parts import GIVEN, parameters, subclasses
from emolight.run.words import CONFIG_OPTIONS, meant, names, take

GROUPS = ("data", "model", "trainer")
SHORT = {
    f"model.{name}": [kind for kind, part in subclasses(base).items() if part.__module__ == base.__module__]
    for name, base in (("features", Features), ("network", Network), ("augment", Augmentation))
}
"""Options that name a class of this project, and the short names that they know."""
LIGHTNINGS = {"trainer.callbacks": callbacks.__all__, "trainer.logger": loggers.__all__}
EXPECTED = {
    **{"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "NoneType": "null"},
    **{"list": "a list, written [one, another]", "dict": "names with values, written {name: value}"},
    **{"PositiveInt": "a whole number above 0", "NonNegativeInt": "a whole number, 0 or more"},
}
"""The parser's words for what a value must be, in words that people use."""
PRECISION = {"fp16": "16-mixed", "float16": "16-mixed", "half": "16-mixed", "fp32": "32-true", "float32": "32-true"}


def option_error(message: str, parser: Any, argv: Sequence[str]) -> EmolightError:
    """The message of a command's parser, with what it is about and the nearest name."""
    text = " ".join(message.split())
    see = f"All options: python -m emolight {parser.prog.split()[-1]} --help"
    key = re.search(r'Parser key "([^"]+)"', text)
    option = key[1] if key else "an option"

    def said(pattern: str) -> str:
        found = re.search(pattern, text)
        return next((group for group in found.groups() if group), "") if found else ""

    if name := said(r"does not accept option '([^']+)'|unrecognized arguments: -*([^\s=]+)"):
        if Path(name).suffix in (".yaml", ".yml"):
            return EmolightError(f"'{name}' stands alone.", f"A configuration is given as: --config {name}")
        hint = meant(name, (action.dest for action in parser._actions if action.option_strings))
        return EmolightError(f"Unknown option '{name}'.", (f"Did you mean '{hint}'? " if hint else "") + see)
    if path := said(r"File does not exist: '?([^']+)"):
        others = sorted({*names("configs"), *(other.stem for other in Path(path).parent.glob("*.yaml"))})
        hint = nearest(Path(path).stem, others) + (f"There are: {', '.join(others)}." if others else "Check the path.")
        return EmolightError(f"There is no configuration file {path}.", hint)
    if name := said(r"Importing '([\w.]+)' is not allowed"):
        return EmolightError(
            f"{option} names code outside of emolight and Lightning: '{name}'. Nothing of it was executed.",
            f"If it is yours and you trust it, set the environment variable {IMPORTS}={name.partition('.')[0]}",
        )
    if name := said(r"No module named '([\w.]+)'"):
        return EmolightError(f"{option} needs the module '{name}', which is not here.", "Is it in this folder?")
    if name := said(r"argument \S+ --> (\S+):"):
        return EmolightError(f"{name} cannot be set: it follows from {said(r'argument (.+?) -->')}.", "Set that.")
    if broken := next((path for path in take(argv, *CONFIG_OPTIONS)[1] if _load(path) is None), None):
        return EmolightError(f"{broken} is not valid YAML: {text[-160:]}", "Mend it; only plain YAML is read.")
    if name := said(r"Option '([^']+)' is not accepted"):
        return _wrong_argument(option, name, said(r"class_path(?:=| )'([\w.]+)'"))
    if name := said(r"Expected a dot import path string: (\S+)"):
        known = SHORT.get(option, LIGHTNINGS.get(option, []))
        valid = ", ".join(SHORT.get(option, ())) or "a class of Lightning"
        return EmolightError(f"{option} is '{name}'.", f"{nearest(name, known)}Valid: {valid}, my_module.MyClass.")
    value = said(r"(?:Got value|Given value): (.*)$|with base 10: '(.*)'|: (\S+) does not conform")[:100]
    kinds = re.findall(
        r"(?:Expected an? |Not of type )(?:<class '(?:\w+\.)*(\w+)'>|typing\.Literal\[([^\]]+)\]|(\w+):)", text
    )
    if not key or not kinds:
        return EmolightError(text[:300], see)
    choices = list(dict.fromkeys(one.strip(" '") for _, literal, _ in kinds for one in literal.split(",") if one))
    wanted = [f"one of {', '.join(choices)}"] if choices else []
    wanted += [
        EXPECTED.get(kind or restricted, kind or restricted) for kind, _, restricted in kinds if kind or restricted
    ]
    hint = f"Did you mean '{PRECISION[value]}'? " if value in PRECISION else nearest(value, choices)
    return EmolightError(f"{option} is '{value}'.", f"{hint}Expected: {' or '.join(dict.fromkeys(wanted))}.")


def _wrong_argument(option: str, name: str, path: str) -> EmolightError:
    """An argument that the class of an option does not have; the parser has imported the class already."""
    module, _, kind = path.rpartition(".")
    part = getattr(sys.modules.get(module), kind, None)
    own = [one for one in parameters(part) if one not in GIVEN] if isinstance(part, type) else []
    fix = f"{nearest(name, own)}Valid: {', '.join(own)}." if own else f"Its options: --{option}.help NAME"
    return EmolightError(f"{option}: {kind or 'the class'} has no argument '{name}'.", fix)


def check_groups(argv: Sequence[str]) -> None:
    """Refuse configuration files in which a group of options, such as ``data``, has a value of its own.

    The parser takes ``data: 3``, and an empty ``model:`` for the default model, without a word.

    Raises:
        EmolightError: which group, of which file.
    """
    for path in take(argv, *CONFIG_OPTIONS)[1]:
        content = _load(path)
        if content is not None and not isinstance(content, dict):
            shown = " ".join(f"'{content}'".split())[:200]
            raise EmolightError(f"{path} holds no options: {shown}.", "They stand as NAME: VALUE, a line each.")
        for group in GROUPS:
            value = (content or {}).get(group, {})
            if not isinstance(value, dict | str):
                raise EmolightError(
                    f"{path}: {group} is {'empty' if value is None else value}; options stand below it.",
                    "Take the line out, or indent the options below it.",
                )
        if {"space", "trials"} <= set(content or ()):
            raise EmolightError(f"{path} describes a sweep.", f"Type: python -m emolight sweep --config {path}")


def _load(path: str) -> Any:
    """Content of a YAML file, ``{}`` where it is missing; None when it is no YAML, of which the parser says more."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (FileNotFoundError, IsADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {} if path.startswith("{") else None
