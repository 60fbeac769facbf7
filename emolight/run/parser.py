"""The parser of ``fit``, ``validate`` and ``test``: a help that fits a screen, and no code but what is trusted."""

from __future__ import annotations

import argparse
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from jsonargparse import set_parsing_settings
from lightning.pytorch.cli import LightningArgumentParser

from emolight.errors import IMPORTS, EmolightError, nearest
from emolight.models import features
from emolight.run.mistakes import SHORT
from emolight.run.words import replaced

TRUSTED = ["emolight", "lightning", "torch.nn"]
_ALLOWED: set[str] = set()
TYPED = re.compile(r"--(?:model\.(?:features|network|augment\+?)|data\.corpus|trainer\.(?:logger|callbacks)\+?)")
"""Options that name a class: on the command line it is the user's own word."""
MODES = {getattr(features, name).mode: name for name in SHORT["model.features"]}
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
    "trainer.precision": "32-true, bf16-mixed or 16-mixed",
    "trainer.limit_train_batches": "train on a part of the batches, to try something",
    "trainer.logger": "a logger of yours beside TensorBoard and metrics.csv",
    "trainer.fast_dev_run": "one batch of everything, nothing written",
}
"""Texts of options; of the Trainer's these are shown, and ``--help_all`` shows all."""
RARE = ("splits_dir", "split_seed", "num_workers", "on_bad_clip", "weight_decay", "warmup")
"""Options that ``--help_all`` alone shows."""


def limit_imports(argv: Sequence[str]) -> None:
    """Let configurations name classes of :data:`TRUSTED`, of ``EMOLIGHT_IMPORTS`` and of the command line alone.

    A name is imported before its type is checked, which executes the module; and the configuration may be a
    stranger's. The variable holds all of them afterwards, for models and corpora.

    Args:
        argv: the command line.

    Raises:
        EmolightError: the environment variable holds no names of modules.
    """
    given = os.environ.get(IMPORTS, "")
    asked = [name.strip() for name in given.split(",") if name.strip()]
    for option, value in pairwise(word for words in argv for word in words.split("=", 1)):
        if TYPED.fullmatch(option) and re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", value):
            asked.append(value.rpartition(".")[0])
    asked = [name for name in asked if not f"{name}.".startswith(tuple(f"{one}." for one in TRUSTED))]
    if asked and str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    os.environ[IMPORTS] = ",".join(dict.fromkeys(asked))
    try:
        set_parsing_settings(
            import_path_denylist=["*", *_ALLOWED],  # what an earlier call allowed would stay so
            import_path_allowlist=TRUSTED + asked,
            instantiate_subclass_spec_in_any=False,
            config_read_mode_fsspec_enabled=False,  # Lightning's CLI reads addresses
        )
        _ALLOWED.update(asked)
    except ValueError:
        raise EmolightError(f"{IMPORTS} is '{given}'; it names modules.", f"For example: {IMPORTS}=my_code") from None


def named_modes(argv: Sequence[str]) -> list[str]:
    """``argv`` with ``--model.features.mode mel`` as ``--model.features MelSpectrogram``.

    Raises:
        EmolightError: no front-end has this mode.
    """

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
            section, dot, _ = action.dest.partition(".")
            if not dot and action.help != argparse.SUPPRESS and section not in sections:
                if (command, section) != ("fit", "ckpt_path"):
                    sections["run"].append(action)
            elif _is_own_option(action) and (section != "trainer" or action.dest in HELP):
                sections[section].append(action)
        for section, actions in sections.items():
            lines += ["", section if section == "run" else f"{section} (--help_all lists all)"]
            for action in actions:
                lines += _option_lines(action)
        return "\n".join(lines) + "\n"


def _is_own_option(action: argparse.Action) -> bool:
    """Whether people may set it: not a whole group, not linked from another option, not the help of a class."""
    linked = " --> " in (action.option_strings[0] if action.option_strings else "")
    shown = not action.dest.endswith((".help", *RARE))
    return action.metavar != "CONFIG" and "." in action.dest and not linked and shown


def _option_lines(action: argparse.Action) -> list[str]:
    default = action.default
    shown = "" if default is None or default == argparse.SUPPRESS else f" [{_plain(default)}]"
    option = max((word for word in action.option_strings if not word.endswith("+")), key=len, default=action.dest)
    text = re.sub(r"\s+", " ", (HELP.get(action.dest) or action.help or "").replace("``", ""))
    text = re.sub(r"\s*\(type: .*", "", text)
    if action.dest in SHORT:
        text = f"{text.rstrip('.')}: {', '.join(SHORT[action.dest])}; {option}.help NAME lists its options"
    body = textwrap.wrap(text.rstrip(".") + shown, 88)
    if len(option) < 30:
        return [f"  {option:<30}{line}" if number == 0 else f"{'':32}{line}" for number, line in enumerate(body)]
    return [f"  {option}", *(f"{'':32}{line}" for line in body)]


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    name = getattr(value, "class_path", None) or (value.get("class_path") if isinstance(value, dict) else None)
    if name or isinstance(value, type):
        return str(name or value.__name__).rpartition(".")[2]
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


class _HelpAll(argparse.Action):
    def __init__(self, option_strings: Any, dest: str, **kwargs: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=kwargs["help"])

    def __call__(self, parser: Any, *_: Any) -> None:
        print(LightningArgumentParser.format_help(parser), end="")
        raise SystemExit(0)
