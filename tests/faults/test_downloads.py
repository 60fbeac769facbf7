"""Downloads from servers that fail in every way: nothing partial is accepted, and the next run repairs it."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from emolight.data import download as module
from emolight.data.download import download
from emolight.errors import EmolightError
from tests.data.test_download import (
    CLIPS,
    FOLDER,
    GOOD,
    NAME,
    UNPACKED,
    Answer,
    Server,
    Small,
    body,
    contents,
    fetch,
    status,
)
from tests.data.test_download import server as server


def head(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(GOOD)))
    request.end_headers()


def stalls(request: BaseHTTPRequestHandler) -> None:
    head(request)
    request.wfile.write(GOOD[:70_000])
    request.wfile.flush()
    time.sleep(5)


def broken_chunks(request: BaseHTTPRequestHandler) -> None:
    request.protocol_version = "HTTP/1.1"
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    request.wfile.write(b"1000\r\n" + GOOD[:4096] + b"\r\nno number\r\n")


def resets(request: BaseHTTPRequestHandler) -> None:
    """The connection is reset in the middle of the body."""
    head(request)
    request.wfile.write(GOOD[:50_000])
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.connection.close()


def no_http(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"\x00\xff" * 50)


ANSWERS: dict[str, tuple[Answer, str]] = {
    "truncates": (body(GOOD[:-1], promised=len(GOOD)), "broke"),
    "promises less": (body(GOOD, promised=len(GOOD) - 1000), "other bytes"),
    "one wrong bit": (body(GOOD[:-1] + bytes([GOOD[-1] ^ 1])), "other bytes"),
    "a page": (body(b"<html>log in</html>" * 9000), "other bytes"),
    "never answers": (lambda _: time.sleep(5), "nothing came for 0.5 s"),
    "stalls": (stalls, "broke|nothing came"),
    "broken chunks": (broken_chunks, "broke"),
    "no http": (no_http, "broke"),
    "reset": (resets, "broke"),
    "404": (status(404), "answers 404"),
    "503": (status(503), "answers 503"),
}


@pytest.fixture
def _bounded() -> Iterator[None]:
    """A hang ends the test instead of the test run."""

    def hangs(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("_bounded")
@pytest.mark.parametrize("fault", ANSWERS)
def test_a_failing_server_leaves_nothing_and_the_next_run_repairs_it(
    fault: str, server: Server, tmp_path: Path
) -> None:
    answer, reason = ANSWERS[fault]
    server.answers = [answer]
    with pytest.raises(EmolightError, match=reason) as caught:
        fetch(tmp_path, server)
    _, fix = str(caught.value).splitlines()
    assert f"from {server.address}{NAME}?download=1, place it at {tmp_path / NAME}" in fix
    assert list(tmp_path.iterdir()) == []
    server.answers = [body(GOOD)]
    fetch(tmp_path, server)
    assert contents(tmp_path) == UNPACKED


def test_what_is_not_there_is_not_asked_for_again(tmp_path: Path, server: Server) -> None:
    server.answers = [status(404)]
    with pytest.raises(EmolightError, match="404"):
        fetch(tmp_path, server, retries=2)
    assert len(server.requests) == 1


def test_no_server_is_an_error_with_the_way_by_hand(tmp_path: Path) -> None:
    with pytest.raises(EmolightError, match=r"refused or broke.*\n.*place it at"):
        download(tmp_path, Small("http://127.0.0.1:9/"), allow_http=True, retries=0)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_with_what_to_do(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(EmolightError, match=r"No space left.*\n.*goes on from there"):
        fetch(tmp_path, server)
    monkeypatch.undo()
    monkeypatch.setattr("pooch.core.hash_matches", full)
    (tmp_path / NAME).unlink()
    with pytest.raises(EmolightError, match=r"No space left.*\n.*disk"):
        fetch(tmp_path, server)
    assert contents(tmp_path) == {}


KILLED = """
import sys
from tests.data.test_download import Small
from emolight.data.download import download
download(sys.argv[2], Small(sys.argv[1]), allow_http=True)
"""


def test_a_killed_download_leaves_nothing_after_the_next(server: Server, tmp_path: Path) -> None:
    server.answers = [stalls, body(GOOD)]
    words = [sys.executable, "-c", KILLED, server.address, str(tmp_path)]
    process = subprocess.Popen(words, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)
    while process.poll() is None and not any(contents(tmp_path).values()):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.name for path in tmp_path.iterdir()] == [module.WORK]
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / f".{next(iter(CLIPS))[9:]}.{process.pid}.part").write_bytes(b"cut")
    fetch(tmp_path, server)
    assert contents(tmp_path) == UNPACKED
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]
