from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import emolight
from emolight.__main__ import COMMANDS

PACKAGE = Path(emolight.__file__).parent


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "emolight", *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("fti",), ()])
def test_help_version_and_typos_do_not_import_torch(words: tuple[str, ...]) -> None:
    code = (
        "import sys, json, emolight.__main__ as m\n"
        f"try: m.main({list(words)!r})\n"
        "except SystemExit: pass\n"
        "print(json.dumps(sorted({'torch', 'pandas', 'numpy', 'matplotlib'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_help_names_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)
    assert run("--version").stdout == f"emolight {emolight.__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fti",), "Did you mean 'fit'?"),
        (("--config", "configs/demo.yaml"), "The command comes first"),
        (("tets", "--ckpt_path", "x"), "Did you mean 'test'?"),
    ],
)
def test_wrong_commands_end_with_a_hint_and_code_2(words: tuple[str, ...], message: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


ALLOWED = {
    "errors": set(),
    "files": set(),
    "data": {"errors", "files", "data"},
    "evaluation": {"errors", "files", "evaluation"},
    "models": {"errors", "files", "evaluation", "models"},
}
"""Which rooms a room may import; what is not listed may import all."""


def imports_of(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        rooms |= {name.split(".")[1] for name in names if name.startswith("emolight.")}
    return rooms


@pytest.mark.parametrize("room", ALLOWED)
def test_arrows_point_one_way(room: str) -> None:
    files = list((PACKAGE / room).glob("*.py")) or [PACKAGE / f"{room}.py"]
    for file in files:
        assert imports_of(file) <= ALLOWED[room], file
