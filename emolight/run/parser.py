"""The parser of ``fit``, ``validate`` and ``test``: short help, only trusted code, mistakes in plain words."""

import argparse
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import set_parsing_settings
from jsonargparse.typing import register_type
from lightning.pytorch import callbacks, loggers
from lightning.pytorch.cli import LightningArgumentParser

from emolight.data.corpora import module_of
from emolight.errors import IMPORTS, EmolightError, nearest, trust, trusted, untrusted
from emolight.models import classical, encoder, features, stems  # noqa: F401  whose networks are known by name
from emolight.models.augment import Augmentation
from emolight.models.networks import Network
from emolight.models.parts import GIVEN, parameters, subclasses
from emolight.run.words import CONFIG_OPTIONS, meant, names, replaced, take

GROUPS = ("data", "model", "trainer")
SHORT = {
    f"model.{name}": [kind for kind, part in subclasses(base).items() if part.__module__.startswith("emolight.")]
    for name, base in (("features", features.Features), ("network", Network), ("augment", Augmentation))
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
TRUSTED = ["emolight", "lightning", "torch.nn"]
_ALLOWED: set[str] = set()
register_type(torch.device)  # an argument of callbacks, for config.yaml
yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, one: dumper.represent_data(one.value))  # in config.yaml
TYPED = re.compile(r"--(?:model\.(?:features|network|augment\+?)|data\.corpus|trainer\.(?:logger|callbacks)\+?)")
"""Options that name a class: on the command line it is the user's own word."""
_KINDS = subclasses(features.Features)
MODES = {vars(_KINDS[name])["mode"]: name for name in SHORT["model.features"]}
"""The article's words for the front-ends, which ``--model.features.mode`` takes."""

HELP = {
    "help": "show this text",
    "config": "a configuration in YAML, or the name of one in configs/; may be given several times",
    "print_config": "print the configuration that all of this adds up to, and exit",
    "name": "run folder: lightning_logs/NAME/version_N",
    "ckpt_path": "a run or a checkpoint of it: its data, split and model are taken from there",
    "model.features": "what the network sees",
    "model.network": "what classifies it",
    "model.augment": "changes of the training clips; null is time shift, noise, gain and SpecAugment, [] nothing",
    "trainer.max_epochs": "passes over the training clips",
    "trainer.accelerator": "cpu, gpu, mps or auto",
    "trainer.devices": "how many, or a list of their numbers",
    "trainer.strategy": "ddp for several devices",
    "trainer.precision": "32-true, bf16-mixed or 16-mixed; null is what the device is fast at",
    "trainer.limit_train_batches": "train on a part of the batches, to try something",
    "trainer.logger": "a logger of yours beside TensorBoard and metrics.csv",
    "trainer.fast_dev_run": "one batch of everything, nothing written",
}
"""Texts of options; of the Trainer's these are shown, and ``--help_all`` shows all."""
ALL = "show every option of Lightning's Trainer as well"
LATER = "A later --config wins over an earlier one, and options win over both. In YAML the dots are levels."
RARE = ("splits_dir", "split_seed", "num_workers", "on_bad_clip", "weight_decay", "warmup")
"""Options that ``--help_all`` alone shows."""


def typed_modules(argv: Sequence[str]) -> list[str]:
    """The modules of classes that are typed on the command line, which trusts them."""
    pairs = pairwise(word for words in argv for word in words.split("=", 1))
    return _foreign(module_of(value) for option, value in pairs if TYPED.fullmatch(option))


def _foreign(modules: Iterable[str]) -> list[str]:
    """Those of some modules that :data:`TRUSTED` does not cover."""
    return [name for name in modules if name and not f"{name}.".startswith(tuple(f"{one}." for one in TRUSTED))]


def limit_imports(argv: Sequence[str]) -> None:
    """Let configurations name classes of :data:`TRUSTED`, of ``EMOLIGHT_IMPORTS`` and of the command line alone.

    A name is imported before its type is checked, which executes the module; and the configuration may be a
    stranger's. The variable holds all of them afterwards, for models and corpora.
    """
    trust(typed_modules(argv))
    asked = _foreign(trusted())
    if asked and str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    os.environ[IMPORTS] = ",".join(asked)
    try:
        set_parsing_settings(
            import_path_denylist=["*", *_ALLOWED],  # what an earlier call allowed would stay so
            import_path_allowlist=TRUSTED + asked,
            instantiate_subclass_spec_in_any=False,
            config_read_mode_fsspec_enabled=False,  # Lightning's CLI reads addresses
        )
        _ALLOWED.update(asked)
    except ValueError:
        problem = f"{IMPORTS} is '{os.environ[IMPORTS]}'; it names modules."
        raise EmolightError(problem, f"For example: {IMPORTS}=my_code") from None


def named_modes(argv: Sequence[str]) -> list[str]:
    """``argv`` with ``--model.features.mode mel`` as ``--model.features MelSpectrogram``."""

    def name(_: str, mode: str) -> list[str]:
        if mode not in MODES:
            hint = f"{nearest(mode, MODES)}Valid: {', '.join(MODES)}."
            raise EmolightError(f"model.features.mode is '{mode}'.", hint)
        return ["--model.features", MODES[mode]]

    return replaced(argv, ["--model.features.mode"], name)


class EmolightParser(LightningArgumentParser):
    """Shows the project's own options and the Trainer's most used; ``--help_all`` shows every one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # An abbreviation would work here but not in YAML, and hides typos.
        super().__init__(*args, allow_abbrev=False, **kwargs)
        self.add_argument("--help_all", action=_HelpAll, nargs=0, default=argparse.SUPPRESS, help=ALL)

    def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
        """The short help, a line or two an option."""
        command = self.prog.split()[-1]
        lines = [f"usage: python -m emolight {command} [--config FILE ...] [--OPTION VALUE ...]", "", LATER]
        sections: dict[str, list[str]] = {"run": [], "data": [], "model": [], "trainer": []}
        for action in self._actions:
            section, dot, _ = action.dest.partition(".")
            if not dot and action.help != argparse.SUPPRESS and section not in sections:
                if (command, section) != ("fit", "ckpt_path"):
                    sections["run"].append(_described(action))
            elif dot and _may_be_set(action) and (section != "trainer" or action.dest in HELP):
                sections[section].append(_described(action))
        for section, options in sections.items():
            lines += ["", section if section == "run" else f"{section} (--help_all lists all)", *options]
        return "\n".join(lines) + "\n"


def _may_be_set(action: argparse.Action) -> bool:
    """Not a whole group, not linked from another option, not the help of a class, not rare."""
    linked = " --> " in "".join(action.option_strings)
    return action.metavar != "CONFIG" and not linked and not action.dest.endswith((".help", *RARE))


def _described(action: argparse.Action) -> str:
    default = "" if action.default in (None, [], argparse.SUPPRESS) else f" [{_plain(action.default)}]"
    option = max((word for word in action.option_strings if not word.endswith("+")), key=len, default=action.dest)
    text = " ".join((HELP.get(action.dest) or action.help or "").replace("``", "").split()).partition(" (type: ")[0]
    if action.dest in SHORT:
        text = f"{text.rstrip('.')}: {', '.join(SHORT[action.dest])}; {option}.help NAME lists its options"
    gap = f"\n{'':32}"
    head = f"  {option:<30}" if len(option) < 30 else f"  {option}{gap}"
    return head + gap.join(textwrap.wrap(text.rstrip(".") + default, 88))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    name = getattr(value, "class_path", None) or (value.get("class_path") if isinstance(value, dict) else None)
    if name or isinstance(value, type):
        return str(name or value.__name__).rpartition(".")[2]
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


class _HelpAll(argparse.Action):
    def __call__(self, parser: Any, *_: Any) -> None:
        print(LightningArgumentParser.format_help(parser), end="")
        raise SystemExit(0)


def option_error(message: str, parser: Any, argv: Sequence[str]) -> EmolightError:
    """The message of a command's parser, with what it is about and the nearest name."""
    text = " ".join(message.split())
    see = f"All options: python -m emolight {parser.prog.split()[-1]} --help"

    def said(pattern: str) -> str:
        found = re.search(pattern, text)
        return next(filter(None, found.groups()), "") if found else ""

    option = said(r'Parser key "([^"]+)"|--([\w.]+)\.help:') or "an option"
    if name := said(r"does not accept option '([^']+)'|unrecognized arguments: -*([^\s=]+)"):
        if Path(name).suffix in (".yaml", ".yml") or name in names("configs"):
            return EmolightError(f"'{name}' stands alone.", f"A configuration is given as: --config {name}")
        options = [action.dest for action in parser._actions if action.option_strings]
        if name in options:
            return EmolightError(f"'{name}' stands without dashes.", f"Options begin with dashes: --{name}")
        if not parser.prog.endswith("fit") and Path(name).exists():
            return EmolightError(f"'{name}' stands alone.", f"A run is given as: --ckpt_path {name}")
        hint = meant(name, options)
        return EmolightError(f"Unknown option '{name}'.", (f"Did you mean '{hint}'? " if hint else "") + see)
    if option in GROUPS and (value := said(r"Unable to load config '([^']*)'")):
        one = {"model": "model.network", "data": "data.root", "trainer": "trainer.max_epochs"}[option]
        problem = f"--{option} is a group of options, received '{value}'."
        return EmolightError(problem, f"Set one of them: --{one} VALUE")
    if path := said(r"File does not exist: '?([^']+)"):
        others = sorted({*names("configs"), *(other.stem for other in Path(path).parent.glob("*.yaml"))})
        hint = f"There are: {', '.join(others)}." if others else "Check the path."
        return EmolightError(f"There is no configuration file {path}.", nearest(Path(path).stem, others) + hint)
    if name := said(r"Importing '([\w.]+)' is not allowed"):
        return untrusted(option, name)
    if name := said(r"No module named '([\w.]+)'"):
        return EmolightError(f"{option} needs the module '{name}', which is not here.", "Is it in this folder?")
    if found := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", text):
        hint = nearest(found[2], vars(sys.modules[found[1]])) if found[1] in sys.modules else ""
        problem = f"{option}: the module '{found[1]}' has no '{found[2]}'."
        return EmolightError(problem, hint or "Is it still called so?")
    if name := said(r"argument \S+ --> (\S+):"):
        return EmolightError(f"{name} cannot be set: it follows from {said(r'argument (.+?) -->')}.", "Set that.")
    if broken := next((path for path in take(argv, *CONFIG_OPTIONS)[1] if _load(path) is None), None):
        fix = "Save it as UTF-8." if "codec can't decode" in text else "Mend it; only plain YAML is read."
        return EmolightError(f"{broken} is not valid YAML: {text[-160:]}", fix)
    if needed := said(r"the following arguments are required: (\w+(?:, \w+)*)"):
        kind, first = said(r"Problem with given class_path '[\w.]*?(\w+)'"), needed.partition(",")[0]
        return EmolightError(f"{option}: {kind or 'the class'} needs {needed}.", f"Give it: --{option}.{first} VALUE")
    inner = re.search(r"""(?:class_path '[\w.]+'|callable class): Parser key "([\w.]+)": (.+? value: \S+)""", text)
    if inner:
        option, text = f"{option}.{inner[1]}", inner[2].rstrip(".")
    if name := said(r"Option '([^']+)' is not accepted"):  # the parser has imported the class already
        module, _, kind = said(r"class_path(?:=| )'([\w.]+)'").rpartition(".")
        part = getattr(sys.modules.get(module), kind, None)
        own = [one for one in parameters(part) if one not in GIVEN] if isinstance(part, type) else []
        fix = f"{nearest(name, own)}Valid: {', '.join(own)}." if own else f"Its options: --{option}.help NAME"
        fix = f"In a file it is class_path: {', '.join(MODES.values())}." if name == "mode" else fix
        return EmolightError(f"{option}: {kind or 'the class'} has no argument '{name}'.", fix)
    if name := said(r"Expected a dot import path string: (\S+)"):
        known = SHORT.get(group := option.removesuffix(".parts"), LIGHTNINGS.get(option, []))
        valid = ", ".join(SHORT.get(group, ())) or "a class of Lightning"
        inside = next((one for one in known if name.lower() in one.lower()), name)
        return EmolightError(f"{option} is '{name}'.", f"{nearest(inside, known)}Valid: {valid}, my_module.MyClass.")
    if base := said(r"to be a subclass of <class '(?:\w+\.)*(\w+)'>"):
        name = said(r"Expected '([\w.]+)' to be a subclass")
        fix = f"Derive it from emolight's class {base}: see docs/extend.md."
        return EmolightError(f"{option} is '{name}', which is no {base}.", fix)
    value = said(r"Given value: (.*)$")
    value = value or said(r"Got value: (.*)$|with base 10: '(.*)'|: (\S+) does not conform")[:100]
    kinds = re.findall(
        r"(?:Expected an? |Not of type )(?:<class '(?:\w+\.)*(\w+)'>|typing\.Literal\[([^\]]+)\]|(\w+):)", text
    )
    if option == "an option" or not kinds:
        return EmolightError(text[:300], see)
    choices = list(dict.fromkeys(one.strip(" '") for _, literal, _ in kinds for one in literal.split(",") if one))
    wanted = [f"one of {', '.join(choices)}"] if choices else []
    wanted += [EXPECTED.get(name, name) for kind, _, restricted in kinds if (name := kind or restricted)]
    hint = f"Did you mean '{PRECISION[value]}'? " if value in PRECISION else nearest(value, choices)
    return EmolightError(f"{option} is '{value}'.", f"{hint}Expected: {' or '.join(dict.fromkeys(wanted))}.")


def check_groups(argv: Sequence[str]) -> None:
    """Refuse a configuration file in which a group of options, such as ``data``, has a value of its own.

    The parser takes ``data: 3``, and an empty ``model:`` for the default model, without a word.
    """
    for path in take(argv, *CONFIG_OPTIONS)[1]:
        content = _load(path)
        if content is not None and not isinstance(content, dict):
            shown = " ".join(f"'{content}'".split())[:200]
            raise EmolightError(f"{path} holds no options: {shown}.", "They stand as NAME: VALUE, a line each.")
        for group in GROUPS:
            value = (content or {}).get(group, {})
            if not isinstance(value, dict | str):
                problem = f"{path}: {group} is {'empty' if value is None else value}; options stand below it."
                raise EmolightError(problem, "Take the line out, or indent the options below it.")
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
