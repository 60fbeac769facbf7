"""``python -m emolight``: answers help and typos at once, imports PyTorch only for the commands that need it."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import NoReturn

from emolight import __version__
from emolight.errors import EmolightError, nearest

COMMANDS = {
    "fit": "train a classifier",
    "validate": "score a checkpoint on its run's validation clips",
    "test": "score a checkpoint on its run's test clips",
    "crossval": "every fold and seed of a recipe, with intervals and controls",
    "compare": "runs and cross-validations ranked, with paired tests",
    "leakgap": "what a random split flatters: the same recipe under both",
    "sweep": "Optuna over feature mode, learning rate and any other option",
    "transfer": "train on speech and test on song, and the reverse",
    "ensemble": "the mean of several runs' predictions",
    "report": "one page on a run or a cross-validation",
    "robustness": "a checkpoint under noise, band limits, reverberation ...",
    "predict": "the emotion of recordings, by a trained model",
    "export": "a checkpoint as ONNX, sound in, probabilities out",
    "examples": "a page of right and wrong predictions of a run, to hear",
    "demo": "try a model with your own voice in the browser",
    "audit": "check a folder of RAVDESS recordings",
    "download": "fetch the RAVDESS recordings from Zenodo (434 MB)",
}

ROOMS = {
    "data": ("audit", "download"),
    "experiments": ("crossval", "compare", "leakgap", "transfer", "ensemble"),
    "sweep": ("sweep",),
}
"""Where a command's module lies; the others are in ``inference``."""

HELP = f"""Speech emotion recognition experiments that can be trusted.

usage: python -m emolight COMMAND [options]

commands:
{chr(10).join(f"  {name:<12}{purpose}" for name, purpose in COMMANDS.items())}

  python -m emolight COMMAND --help    its options
  python -m emolight --version

start here:
  python -m emolight fit --config configs/demo.yaml     synthetic voices, about 2 minutes
  python -m emolight download data/ravdess              the recordings
  python -m emolight fit --config configs/mfcc.yaml
"""


def main(argv: list[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 something is wrong with what was checked, 2 a mistake of the user's."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        with _short_usage():
            sys.exit(run(argv))
    except EmolightError as error:
        print(f"emolight: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"emolight: '{error.filename}': {error.strerror}.", file=sys.stderr)
        print("Mend that (place, permissions, room), or choose another place.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("emolight: interrupted.", file=sys.stderr)
        sys.exit(130)


def run(argv: list[str]) -> int:
    """Hand over to the command named first in ``argv``, and return its exit code."""
    command, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if command in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if command == "--version":
        print(f"emolight {__version__}")
        return 0
    if command.startswith("-"):
        raise EmolightError(
            f"The command comes first, received '{command}'.", "Type: python -m emolight fit " + shlex.join(argv)
        )
    if command not in COMMANDS:
        raise EmolightError(
            f"Unknown command '{command}'.", f"{nearest(command, COMMANDS)}Valid: {', '.join(COMMANDS)}."
        )
    return _handler(command)(rest)


@contextmanager
def _short_usage() -> Iterator[None]:
    """Mistakes in options as :class:`EmolightError`; argparse prints the whole usage above its message."""

    def error(parser: argparse.ArgumentParser, message: str) -> NoReturn:
        found = re.search(r"unrecognized arguments: (-[^\s=]*)", message)
        hint = nearest(found[1], parser._option_string_actions) if found else ""
        raise EmolightError(f"{parser.prog.split()[-1]}: {message}.", f"{hint}All options: {parser.prog} --help")

    before = argparse.ArgumentParser.error
    argparse.ArgumentParser.error = error  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        argparse.ArgumentParser.error = before  # type: ignore[method-assign]


def _handler(command: str) -> Callable[[list[str]], int]:
    if command in ("fit", "validate", "test"):
        from emolight import cli

        return lambda rest: cli.main([command, *rest])
    package = next((room for room, commands in ROOMS.items() if command in commands), "inference")
    handler: Callable[[list[str]], int] = import_module(f"emolight.{package}.{command}").main
    return handler


if __name__ == "__main__":
    main()
