"""The one exception that users see, the nearest-name help that its texts use, and the parser that raises it."""

import argparse
import difflib
import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn

IMPORTS = "EMOLIGHT_IMPORTS"
"""Environment variable: modules, apart by commas, whose classes a configuration or a checkpoint may name."""


class EmolightError(Exception):
    """A mistake or a broken input that the user can mend.

    The command line prints the text without a traceback and exits with code 2.

    Args:
        problem: what is wrong, in one line, with the value received.
        fix: what to do about it, in one line.
    """

    def __init__(self, problem: str, fix: str = "") -> None:
        # What a library says in several lines is quoted as one.
        lines = (re.sub(r"\s*[\r\n]\s*", " ", text.strip()) for text in (problem, fix))
        super().__init__("\n".join(filter(None, lines)))


@contextmanager
def refusals(problem: str, fix: str) -> Iterator[None]:
    """What the system refuses, as :class:`EmolightError`: the ``problem`` and the system's reason."""
    try:
        yield
    except OSError as error:
        raise EmolightError(f"{problem}: {error.strerror or error}.", fix) from None


@contextmanager
def needing(extra: str, problem: str) -> Iterator[None]:
    """A missing package, as :class:`EmolightError`: the ``problem``, and the extra of emolight to install."""
    try:
        yield
    except ImportError:
        raise EmolightError(problem, f'Type: pip install "emolight[{extra}]"') from None


def end_once(number: int, _: object) -> NoReturn:
    """For ``signal.signal``: end with 128 and the signal's number. Another one must not cut off what this one ends."""
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint such as ``Did you mean 'angry'? `` for a mistyped name, or an empty string."""
    match = difflib.get_close_matches(name, list(valid), n=1)
    return f"Did you mean '{match[0]}'? " if match else ""


def counted(number: int, word: str) -> str:
    """``1 speaker``, ``2 speakers``."""
    return f"{number} {word}{'' if number == 1 else 's'}"


class CommandParser(argparse.ArgumentParser):
    """The parser of a command of its own: options are written out, and a mistake is an :class:`EmolightError`."""

    def __init__(self, command: str, about: str) -> None:
        super().__init__(prog=f"python -m emolight {command}", description=about, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise it without the whole usage, which argparse would print above its message."""
        found = re.search(r"unrecognized arguments: (-[^\s=]*)", message)
        hint = nearest(found[1], self._option_string_actions) if found else ""
        raise EmolightError(f"{self.prog.split()[-1]}: {message}.", f"{hint}All options: {self.prog} --help")


def check_choice(what: str, name: str, valid: Iterable[str]) -> None:
    """Raise :class:`EmolightError` unless ``name`` is one of ``valid``."""
    names = list(valid)
    if name not in names:
        raise EmolightError(f"Unknown {what}: '{name}'.", f"{nearest(name, names)}Valid: {', '.join(names)}.")


def untrusted(what: str, name: str) -> EmolightError:
    """The error for a class from a module that nobody has vouched for; ``what`` is the option that names it."""
    fix = f"If it is yours and you trust it, set the environment variable {IMPORTS}={name.partition('.')[0]}"
    return EmolightError(f"{what} names code outside of emolight: '{name}'. Nothing of it was executed.", fix)


def trusted() -> list[str]:
    """The modules that :data:`IMPORTS` names."""
    return [name for one in os.environ.get(IMPORTS, "").split(",") if (name := one.strip())]


def trust(modules: Iterable[str]) -> None:
    """Trust modules whose classes were typed on the command line, here and in the processes that this one starts."""
    os.environ[IMPORTS] = ",".join(dict.fromkeys(filter(None, [*trusted(), *modules])))


def trusted_module(what: str, name: str) -> None:
    """Refuse such a class before its module is imported, which executes it.

    Trusted is this package, what was imported already, and what :data:`IMPORTS` names.
    """
    packages = [one.partition(".")[0] for one in ("emolight", *trusted())]
    if name.partition(".")[0] not in packages and name.rpartition(".")[0] not in sys.modules:
        raise untrusted(what, name)
