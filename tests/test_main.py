"""The front door: help, version and typos without PyTorch, from a file that is kept fresh."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import emolight
from emolight.__main__ import COMMANDS, MODULES, main
from emolight.help_text import PATH, generate

SLOW = ("torch", "lightning", "pandas", "numpy", "matplotlib", "sklearn", "yaml")
WORDS = [
    *([], ["--help"], ["--version"], ["fti"], ["train"]),
    *([*name.split(), "--help"] for name in MODULES),
    *([*name.split(), "--confg=x"] for name in MODULES),
]


def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "emolight", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


def test_help_and_typos_of_every_command_import_nothing_slow() -> None:
    code = f"""
import contextlib, io, json, sys, emolight.__main__ as front
found = []
for words in {WORDS!r}:
    out, code = io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try: front.main(words)
        except SystemExit as end: code = end.code
    found.append([words, code, out.getvalue(), [name for name in {SLOW!r} if name in sys.modules]])
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for words, exit_code, said, imported in json.loads(done.stdout):
        assert imported == [], words
        mistake = bool(words) and words[-1] in ("fti", "train", "--confg=x")
        assert exit_code == (2 if mistake else 0), (words, said)
        assert ("Did you mean" in said or "All options" in said) == mistake, (words, said)
        assert said.endswith("\n")


def test_help_names_every_command_in_groups() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert len([name for name in MODULES if " " not in name]) <= 16
    assert len(done.stdout.splitlines()) <= 60
    assert all(f"  {command} " in done.stdout for group in COMMANDS.values() for command in group)
    assert run("--version").stdout == f"emolight {emolight.__version__}\n"


def test_the_help_file_is_fresh() -> None:
    known = json.loads(PATH.read_text(encoding="utf-8"))
    made = generate()
    assert known.keys() == made.keys()
    stale = [name for name in made if known[name] != made[name]]
    assert stale == [], "run: python -m emolight.help_text"


def test_every_help_is_short_and_costs_little() -> None:
    for name, about in json.loads(PATH.read_text(encoding="utf-8")).items():
        assert len(about["help"].splitlines()) <= 60, name
    before = os.times()
    run("fit", "--help")
    after = os.times()
    assert sum(after[2:4]) - sum(before[2:4]) < 0.5


def test_a_command_that_moved_is_still_known() -> None:
    assert run("leakgap", "--help").stdout == run("crossval", "leakgap", "--help").stdout
    assert run("sweep", "retrain", "--help").stdout != run("sweep", "--help").stdout


@pytest.mark.parametrize("command", ["fit", "test"])
def test_help_shows_the_projects_options_first_and_briefly(command: str) -> None:
    text = run(command, "--help").stdout
    assert max(map(len, text.splitlines())) <= 120
    assert text.index("--data.root") < text.index("--model.features") < text.index("--trainer.max_epochs")
    assert "MFCC" in text
    assert "ResNet18" in text
    assert ("--ckpt_path" in text) == (command == "test")
    assert ("--resume" in text) == (command == "fit")
    assert not [word for word in ("--trainer.barebones", "(type:", ":class:", "``", "ForeignNetwork") if word in text]


def test_a_closed_pipe_and_text_that_cannot_be_printed_end_quietly(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m emolight --help | true", shell=True, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    done = run(b"fti\xff".decode(errors="surrogateescape"), env={**os.environ, "PYTHONIOENCODING": "ascii:strict"})
    assert (done.returncode, done.stderr.count("\n")) == (2, 2)
    assert r"\udcff" in done.stderr


def test_without_the_help_file_the_command_itself_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("emolight.__main__.Path.is_file", lambda _: False)
    with pytest.raises(SystemExit):
        main(["cache", "--help"])
    assert "--prune" in capsys.readouterr().out


def test_what_the_system_refuses_without_a_name_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: list[str]) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("emolight.__main__.run", full)
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("emolight: No space left on device.\n")
