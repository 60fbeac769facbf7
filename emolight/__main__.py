"""``python -m emolight``: answers help and typos at once, imports PyTorch only for the commands that need it."""

import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from emolight import __version__
from emolight.errors import EmolightError, nearest, refusals
from emolight.run.words import meant, with_recipes

COMMANDS = {
    "train": {
        "fit": ("run.cli", "train a classifier"),
        "crossval": ("sweep.nested", "every fold and seed of a recipe, with intervals and controls"),
        "crossval leakgap": ("experiments.leakgap", "what a random split flatters: the same recipe under both"),
        "crossval transfer": ("experiments.transfer", "train on one part or corpus, test on another"),
        "sweep": ("sweep.sweep", "search feature mode, learning rate or any other option with Optuna"),
        "sweep worker": ("sweep.sweep", "join a sweep from another machine"),
        "sweep retrain": ("sweep.sweep", "train a sweep's best configuration, or every fold of it"),
        "recipes": ("run.recipes", "list the recipes that --config NAME finds, or copy them to a folder"),
    },
    "evaluate": {
        "validate": ("run.cli", "score a checkpoint on its run's validation clips"),
        "test": ("experiments.enrolment", "score a checkpoint on its run's test clips, or on another corpus"),
        "compare": ("experiments.compare", "runs and cross-validations ranked, with paired tests"),
        "report": ("report.report", "one page on a run or a cross-validation, with clips to hear"),
        "ensemble": ("experiments.ensemble", "the mean of several runs' predictions"),
        "robustness": ("experiments.robustness", "a checkpoint under noise, band limits, reverberation ..."),
    },
    "use": {
        "predict": ("inference.predict", "the emotion of recordings, by a trained model"),
        "export": ("inference.export", "a checkpoint as ONNX, sound in, probabilities out"),
        "demo": ("inference.demo", "try a model with your own voice in the browser"),
    },
    "data": {
        "audit": ("data.audit", "check a folder of recordings against what was published"),
        "download": ("data.download", "fetch the recordings of a published corpus (RAVDESS: 434 MB)"),
        "cache": ("data.cache_command", "show and prune kept waveforms and embeddings"),
    },
}
"""Group to command, some with commands of their own, to the module whose ``main(argv)`` runs it, and what it does."""
MODULES = {name: module for group in COMMANDS.values() for name, (module, _) in group.items()}
NAMES = [name for name in MODULES if " " not in name]
MEANT = {
    **{"train": "fit", "resume": "fit", "evaluate": "test", "eval": "test", "score": "test", "infer": "predict"},
    **{"tune": "sweep", "search": "sweep", "optimize": "sweep", "cv": "crossval", "kfold": "crossval"},
    **{"examples": "report", "plot": "report", "serve": "demo", "app": "demo", "onnx": "export", "prepare": "download"},
    **{"configs": "recipes", "init": "recipes", "noise": "robustness", "explain": "predict", "rank": "compare"},
}
"""What other tools call a command."""
TO_FIT = tuple(name for name in MODULES if name.startswith(("crossval", "sweep")))
"""Commands that hand what they do not know over to ``fit``."""
FREE = re.compile(
    r"(model\.(features|network|augment)|data\.(corpus|filter|label_map)"
    r"|trainer\.(logger|callbacks|strategy|profiler|plugins))\b.*"
)
"""Options with options of their own, which a class or a table knows."""

GROUPS = "\n\n".join(
    "\n".join([group, *(f"  {name:<20}{about}" for name, (_, about) in commands.items())])
    for group, commands in COMMANDS.items()
)
HELP = f"""\
Speech emotion recognition experiments that can be trusted.

usage: python -m emolight COMMAND [options]

{GROUPS}

  python -m emolight COMMAND --help    its options
  python -m emolight --version

start here:
  python -m emolight fit --config demo                           synthetic voices, about 2 minutes
  python -m emolight fit --config mfcc --data.corpus mine.csv    your recordings: path, emotion, speaker
  python -m emolight download data/ravdess                       the RAVDESS recordings
"""


def main(argv: list[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 something is wrong with what was checked, 2 a mistake of the user's."""
    argv = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # text from outside is printed so that it cannot fail
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with refusals("The working folder is gone", "Change into another one."):
            Path.cwd()
        code = run(argv)
        sys.stdout.flush()
        sys.exit(code)
    except EmolightError as error:
        print(f"emolight: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno is None:
            raise
        if error.filename is None:  # standard output, of which Python would complain once more at its end
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # `| head` has closed it
            sys.exit(141)
        place = "" if error.filename is None else f"'{error.filename}': "
        print(f"emolight: {place}{error.strerror}.", file=sys.stderr)
        print("Mend that (place, permissions, room), or choose another place.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("emolight: interrupted.", file=sys.stderr)
        sys.exit(130)


def run(argv: list[str]) -> int:
    """Hand over to the command named first in ``argv``, and return its exit code."""
    command, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if command in ("-h", "--help", "help"):
        if rest and rest[0] in MODULES:
            return run([*rest, "--help"])
        print(HELP, end="")
        return 0
    if command in ("--version", "-V", "-v", "version"):
        print(f"emolight {__version__}")
        return 0
    if command.startswith("-"):
        problem = f"The command comes first, received '{command}'."
        raise EmolightError(problem, "Type: python -m emolight fit " + shlex.join(argv))
    if f"crossval {command}" in MODULES:  # once commands of their own
        command, rest = "crossval", argv
    if command not in MODULES:
        meant = f"Did you mean '{MEANT[command]}'? " if command in MEANT else nearest(command, NAMES)
        raise EmolightError(f"Unknown command '{command}'.", f"{meant}Valid: {', '.join(NAMES)}.")
    name = " ".join([command, *rest[:1]])
    name = name if name in MODULES else command
    inner = [one for one in MODULES if one.startswith(f"{command} ")]
    if inner and name == command and rest and not rest[0].startswith("-"):
        typed = f"{command} {rest[0]}"
        raise EmolightError(
            f"Unknown command '{typed}'.", f"{nearest(typed, inner)}Valid: {', '.join([command, *inner])}."
        )
    if _answered(name, rest):
        return 0
    return call(name, rest[name.count(" ") :])


def call(name: str, rest: Sequence[str]) -> int:
    """Run the command ``name`` with the words that follow it."""
    command, *inner = name.split()
    module = MODULES[name]
    words = [command] if module == "run.cli" else inner if module == MODULES[command] else []
    handler: Callable[[list[str]], int] = import_module(f"emolight.{module}").main
    return handler([*words, *with_recipes(rest, sweep=command == "sweep")])


def _answered(name: str, rest: Sequence[str]) -> bool:
    """Print a help, or refuse a mistyped option, by ``help.json``, before anything slow is imported."""
    path = Path(__file__).with_name("help.json")
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if name not in known:
        return False
    if {"-h", "--help"} & set(rest):
        print(known[name]["help"], end="")
        return True
    options = known[name]["options"] + (known["fit"]["options"] if name in TO_FIT else [])
    valid = [option.removeprefix("--") for option in options]
    for option in (word.partition("=")[0] for word in rest):
        plain = option.removeprefix("--")
        # A negative number, or one of argparse's prefixes of a plain command, is left to the parser.
        given = plain and (option.startswith("--") or f"-{option}" in options)  # an option of one dash, too
        if given and plain.removesuffix("+") not in valid and not FREE.fullmatch(plain):
            hint = f"Did you mean '--{near}'? " if (near := meant(plain, valid)) else ""
            raise EmolightError(f"Unknown option '{option}'.", f"{hint}All options: python -m emolight {name} --help")
    return False


if __name__ == "__main__":
    main()
