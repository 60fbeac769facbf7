"""The parser of ``fit``, ``validate`` and ``test``: a help that fits a screen, and no code but what is trusted."""

from __future__ import annotations

import argparse
import os
import re
import textwrap
from typing import Any

from jsonargparse import set_parsing_settings
from lightning.pytorch.cli import LightningArgumentParser

from emolight.errors import EmolightError

IMPORTS = "EMOLIGHT_IMPORTS"
"""Environment variable: modules, apart by commas, whose classes a configuration may name."""
TRUSTED = ["emolight", "lightning", "torch.nn"]

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


def limit_imports() -> None:
    """Let configurations name classes of :data:`TRUSTED` and :data:`IMPORTS` alone.

    A name is imported before its type is checked, which executes the module; and the configuration may be a
    stranger's, read from beside a checkpoint.

    Raises:
        EmolightError: the environment variable holds no names of modules.
    """
    asked = [name.strip() for name in os.environ.get(IMPORTS, "").split(",") if name.strip()]
    try:
        set_parsing_settings(
            import_path_denylist=["*"],
            import_path_allowlist=TRUSTED + asked,
            instantiate_subclass_spec_in_any=False,
            config_read_mode_fsspec_enabled=False,  # Lightning's CLI reads addresses
        )
    except ValueError:
        raise EmolightError(
            f"{IMPORTS} is '{os.environ[IMPORTS]}'; it names modules.", f"For example: {IMPORTS}=my_callbacks"
        ) from None


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
