"""Makes ``help.json``: the help and the options of every command, so that ``__main__`` answers without imports.

Run ``python -m emolight.help_text`` after an option has changed; a test holds the file fresh.
"""

import argparse
import contextlib
import io
import json
from pathlib import Path
from typing import Any
from unittest import mock

from emolight.__main__ import MODULES, call
from emolight.files import write_text

PATH = Path(__file__).with_name("help.json")


def generate() -> dict[str, dict[str, Any]]:
    """Command to its ``help``, as printed, and its ``options``."""
    made: dict[str, dict[str, Any]] = {}
    parsers: list[argparse.ArgumentParser] = []
    show = argparse.ArgumentParser.print_help

    def note(parser: argparse.ArgumentParser) -> None:
        parsers.append(parser)
        show(parser)

    for name in MODULES:
        text = io.StringIO()
        with (
            mock.patch.object(argparse.ArgumentParser, "print_help", note),
            mock.patch.dict("os.environ", {"COLUMNS": "100"}),
            contextlib.redirect_stdout(text),
            contextlib.suppress(SystemExit),
        ):
            call(name, ["--help"])
        words = {word for action in parsers[-1]._actions for word in action.option_strings if word[:2] == "--"}
        options = sorted(word for word in words if not word.endswith("+") and " --> " not in word)
        made[name] = {"help": text.getvalue(), "options": options}
    return made


if __name__ == "__main__":
    write_text(PATH, json.dumps(generate(), indent=1, ensure_ascii=False) + "\n")
    print(PATH)
