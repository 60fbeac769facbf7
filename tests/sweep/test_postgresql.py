"""A sweep on a real PostgreSQL server: the exact budget, lost workers, no password anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from emolight.__main__ import run
from emolight.errors import EmolightError
from emolight.sweep.storage import open_storage
from tests.sweep.postgresql import LEAKS, Server, programs, server
from tests.sweep.trivial import spend

pytest.importorskip("psycopg")


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    if programs() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with server() as one:
        yield one


def test_four_processes_spend_the_budget_exactly_in_spite_of_kill_and_sigterm(running: Server) -> None:
    spend(running.new_database(), 40)


def test_what_a_sweep_prints_and_writes_shows_no_password(
    running: Server, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["sweep", *words, "--trials", "1", "--storage", running.new_database()]) == 0
    written = [path for path in Path("lightning_logs").rglob("*") if path.is_file()]
    assert len(written) > 10
    texts = [path.read_bytes().decode(errors="replace") for path in written]
    assert not [leak for leak in LEAKS for text in (*texts, *capfd.readouterr()) if leak in text]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("emolight:", "emolight:geheim", "password authentication failed"), ("/sweep_", "/nowhere_", "does not exist")],
)
def test_mistakes_that_the_server_finds(running: Server, old: str, new: str, message: str) -> None:
    with pytest.raises(EmolightError, match=message) as caught:
        open_storage(running.new_database().replace(old, new, 1))
    assert not [leak for leak in (*LEAKS, "geheim") if leak in str(caught.value)]
