"""Downloads from servers that fail in every way: nothing partial is accepted, and the next run repairs it."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from emolight.__main__ import main
from emolight.data import download as module
from tests.data.test_download import (
    CLIPS,
    FOLDER,
    GOOD,
    NAME,
    UNPACKED,
    Server,
    body,
    contents,
    describe,
    moved,
    status,
)
from tests.data.test_download import server as server

Answer = Callable[[BaseHTTPRequestHandler], None]
PATIENCE = 0.6
"""Seconds without a byte until a server counts as dead."""


def head(request: BaseHTTPRequestHandler, length: int | None = len(GOOD)) -> None:
    request.send_response(200)
    if length is not None:
        request.send_header("Content-Length", str(length))
    request.end_headers()


def silent(request: BaseHTTPRequestHandler) -> None:
    """Accepts the connection and never answers."""
    time.sleep(5)


def stalls(request: BaseHTTPRequestHandler) -> None:
    head(request)
    request.wfile.write(GOOD[:70_000])
    time.sleep(5)


def drips(request: BaseHTTPRequestHandler) -> None:
    """A byte now and then, for ever."""
    head(request)
    for place in range(len(GOOD)):
        request.wfile.write(GOOD[place : place + 1])
        time.sleep(0.05)


def endless(request: BaseHTTPRequestHandler) -> None:
    """Never says how long it is and never ends."""
    head(request, None)
    while True:
        request.wfile.write(bytes(1 << 16))


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


def dies(request: BaseHTTPRequestHandler) -> None:
    """The whole server is gone in the middle of the body."""
    head(request)
    request.wfile.write(GOOD[:50_000])
    request.wfile.flush()
    request.server.shutdown()
    request.server.server_close()


def no_http(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"\x00\xff" * 50)


def wrong_bits(request: BaseHTTPRequestHandler) -> None:
    changed = bytearray(GOOD)
    changed[len(GOOD) // 2] ^= 1
    body(bytes(changed))(request)


def too_much(request: BaseHTTPRequestHandler) -> None:
    body(GOOD + b"more")(request)


ANSWERS: dict[str, tuple[Answer, str]] = {
    "truncates": (body(GOOD[:-1], promised=len(GOOD)), "broke"),
    "nothing": (body(b"", promised=len(GOOD)), "broke"),
    "promises more": (body(GOOD, promised=len(GOOD) + 1000), "broke|more than"),
    "promises less": (body(GOOD, promised=len(GOOD) - 1000), "bytes instead of"),
    "sends more": (too_much, "more than"),
    "endless": (endless, "more than"),
    "never answers": (silent, f"came for {PATIENCE:g} s"),
    "stalls": (stalls, f"came for {PATIENCE:g} s"),
    "drips": (drips, f"came for {PATIENCE:g} s"),
    "one wrong bit": (wrong_bits, "other bytes"),
    "a page": (body(b"<html>log in</html>" * 9000), "other bytes|more than"),
    "broken chunks": (broken_chunks, "broke"),
    "no http": (no_http, "broke"),
    "reset": (resets, "broke"),
    "dies": (dies, "broke"),
    "redirect": (moved("http://127.0.0.1:9/x.zip"), "not https"),
    "404": (status(404), "404"),
    "429": (status(429), "429"),
    "500": (status(500), "500"),
}


@pytest.fixture
def bounded() -> Iterator[None]:
    """A hang ends the test instead of the test run."""

    def hangs(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def fetch_from(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """The command fetches a small archive from here, with one more attempt."""
    how = {"base_url": address, "allow_http": True, "retries": 1, "timeout": (2.0, PATIENCE)}
    monkeypatch.setattr(module, "download", partial(download, **how))  # type: ignore[arg-type]
    monkeypatch.setattr(module, "ARCHIVES", (describe(GOOD),))


download = module.download


@pytest.mark.parametrize("fault", ANSWERS)
def test_a_failing_server_leaves_nothing_and_the_next_run_repairs_it(
    fault: str,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bounded: None,
) -> None:
    answer, reason = ANSWERS[fault]
    server.answers = [answer]
    monkeypatch.setattr(module, "PAUSE", 0.0)
    fetch_from(monkeypatch, server.address)
    with pytest.raises(SystemExit) as ended:
        main(["download", str(tmp_path)])
    said = capsys.readouterr().err.splitlines()
    said = said[next(n for n, line in enumerate(said) if line.startswith("emolight: ")) :]
    assert ended.value.code == 2
    assert len(said) <= 3
    assert any(part in said[0] for part in reason.split("|")), said
    assert f"place it at {tmp_path / NAME}" in said[1]
    assert contents(tmp_path) == {}

    if fault == "dies":
        return  # its port is gone; that nothing is there is what the next run starts from
    server.answers = [body(GOOD)]
    with pytest.raises(SystemExit) as ended:
        main(["download", str(tmp_path)])
    assert ended.value.code == 0
    assert contents(tmp_path) == UNPACKED


KILLED = """
import sys
from functools import partial
from emolight.data import download as module
from tests.data.test_download import GOOD, describe
module.download(sys.argv[2], [describe(GOOD)], sys.argv[1], allow_http=True)
"""


def test_a_killed_download_leaves_nothing_after_the_next(server: Server, tmp_path: Path) -> None:
    server.answers = [stalls, body(GOOD)]
    words = [sys.executable, "-c", KILLED, server.address, str(tmp_path)]
    project = Path(__file__).parents[2]
    process = subprocess.Popen(words, cwd=project, stderr=subprocess.DEVNULL)
    while process.poll() is None and not any(path.stat().st_size for path in tmp_path.iterdir()):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.name for path in tmp_path.iterdir()] == [f".{NAME}.{process.pid}.part"]
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / f".{next(iter(CLIPS))[9:]}.{process.pid}.part").write_bytes(b"cut")
    mine = tmp_path / f".{NAME}.{os.getppid()}.part"  # that of a living process
    mine.write_bytes(b"cut")
    module.download(tmp_path, [describe(GOOD)], server.address, allow_http=True)
    assert contents(tmp_path) == {**UNPACKED, mine.name: b"cut"}
