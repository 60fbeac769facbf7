"""The parser of ``fit``, ``validate`` and ``test``: a help that fits a screen, and errors that name the fix."""

from __future__ import annotations

import argparse
import re
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from emolight.errors import EmolightError, nearest

TRAINER_HELP = {
    "max_epochs": "passes over the training clips",
    "accelerator": "cpu, gpu, mps or auto",
    "devices": "how many, or a list of their numbers",
    "strategy": "ddp for several devices",
    "precision": "32-true, bf16-mixed or 16-mixed",
    "gradient_clip_val": "largest norm of the gradient",
    "limit_train_batches": "train on a part of the batches, to try something",
    "fast_dev_run": "one batch of everything, nothing written",
    "default_root_dir": "folder in which lightning_logs/ is made",
}
"""The Trainer options that this project's users need most; ``--help_all`` lists all."""


RUN_HELP = {
    "help": "show this text",
    "config": "a configuration in YAML; may be given several times",
    "print_config": "print the configuration that all of this adds up to, and exit",
    "name": "run folder: lightning_logs/NAME/version_N",
    "ckpt_path": "a checkpoint of a run: its data, split and model are taken from there",
}


class EmolightParser(LightningArgumentParser):
    """Shows the project's own options and the Trainer's most used; ``--help_all`` shows every one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # An abbreviation would work here but not in YAML, and hides typos.
        super().__init__(*args, allow_abbrev=False, **kwargs)
        self.add_argument("--help_all", action=_HelpAll, help="show every option of Lightning's Trainer as well")

    def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
        """The short help, a line or two an option."""
        command = self.prog.split()[-1]
        lines = [
            f"usage: python -m emolight {command} [--config FILE ...] [--OPTION VALUE ...]",
            "",
            "A later --config wins over an earlier one, and options win over both. In YAML the dots are levels.",
        ]
        sections: dict[str, list[argparse.Action]] = {"run": [], "data": [], "model": [], "trainer": []}
        for action in self._actions:
            section, dot, name = action.dest.partition(".")
            if not dot and action.help != argparse.SUPPRESS and section not in sections:
                sections["run"].append(action)
            elif name in TRAINER_HELP if section == "trainer" else _is_own_option(action):
                sections[section].append(action)
        for section, actions in sections.items():
            lines += ["", section if section != "trainer" else "trainer (--help_all lists all)"]
            for action in actions:
                lines += _option_lines(action)
        return "\n".join(lines) + "\n"


def _is_own_option(action: argparse.Action) -> bool:
    """Whether people may set it: not a whole group, not linked from another option."""
    return action.metavar != "CONFIG" and "." in action.dest and " --> " not in action.option_strings[0]


def _option_lines(action: argparse.Action) -> list[str]:
    name = action.dest.removeprefix("trainer.")
    text = (TRAINER_HELP if action.dest.startswith("trainer.") else RUN_HELP).get(name, action.help)
    default = action.default
    shown = "" if default is None or default == argparse.SUPPRESS else f" [{_plain(default)}]"
    option = max((word for word in action.option_strings if not word.endswith("+")), key=len, default=action.dest)
    text = re.sub(r"\s*\(type: .*", "", re.sub(r"\s+", " ", (text or "").replace("``", "")), flags=re.DOTALL)
    body = textwrap.wrap(text.rstrip(".") + shown, 74)
    if len(option) < 28:
        return [f"  {option:<28}{line}" if number == 0 else f"{'':30}{line}" for number, line in enumerate(body)]
    return [f"  {option}", *(f"{'':30}{line}" for line in body)]


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


class _HelpAll(argparse.Action):
    def __init__(self, option_strings: Any, dest: str, **kwargs: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=kwargs["help"])

    def __call__(self, parser: Any, *_: Any) -> None:
        print(LightningArgumentParser.format_help(parser), end="")
        raise SystemExit(0)


def option_names(parser: Any) -> list[str]:
    """The dotted names of all options of a parser, such as ``data.batch_size``."""
    return [action.dest for action in parser._actions if action.option_strings]


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
        hint = nearest(name, names) or nearest(name.rpartition(".")[2], {n.rpartition(".")[2] for n in names})
        return EmolightError(f"Unknown option '{name}'.", f"{hint}All options: python -m emolight fit --help")
    if found := re.search(r'Parser key "([^"]+)":\s*File does not exist: \'?([^\']+)', message):
        path = Path(found[2])
        others = [other.name for other in path.parent.glob("*.yaml")]
        hint = nearest(path.name, others) or (
            f"There: {', '.join(sorted(others))}." if others else "Check the path."
        )
        return EmolightError(f"There is no configuration file {path}.", hint)
    if found := re.search(r'Parser key "([^"]+)":\s*(.*?)[.:]? Got value: (.*)', message, flags=re.DOTALL):
        name, expected, value = found[1], _expected(found[2]), _one_line(found[3])
        choices = re.findall(r"'([^']+)'", found[2]) if "Literal" in found[2] else []
        return EmolightError(f"{name} is '{value}'.", f"{nearest(value, choices)}Expected: {expected}.")
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
    text = text.removeprefix("Expected a ").strip()
    text = text if "Literal" in text else _one_line(text)
    if "Literal" in text:
        return "one of " + ", ".join(re.findall(r"'([^']+)'", text))
    return re.sub(r"<class '([^']+)'>", r"\1", text.replace("typing.", "").replace("NoneType", "null"))[:120]


def _broken_file(argv: list[str]) -> str:
    """Which of the ``--config`` files does not load."""
    for option, value in pairwise(argv):
        if option in ("--config", "-c"):
            try:
                yaml.safe_load(Path(value).read_text(encoding="utf-8"))
            except (OSError, ValueError, yaml.YAMLError):
                return value
    return "An option's value"
