from __future__ import annotations

import contextlib
import hashlib
import io
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from emolight.data import download as module
from emolight.data.corpora import NEMO, RAVDESS
from emolight.data.corpus import Archive
from emolight.data.download import download, extract, main
from emolight.errors import EmolightError

CLIPS = {f"Actor_0{actor}/03-01-03-01-01-01-0{actor}.wav": bytes([actor]) * 50_000 for actor in (1, 2, 3)}
NAME = "Audio_Speech_Actors_01-24.zip"
FOLDER = "Audio_Speech_Actors_01-24"
UNPACKED = {f"{FOLDER}/{name}": content for name, content in CLIPS.items()}
Answer = Callable[[BaseHTTPRequestHandler], None]


def make_zip(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as bundle:
        for name, content in members.items():
            bundle.writestr(zipfile.ZipInfo(name), content)  # of no time: tests have the same names in every process
    return stream.getvalue()


GOOD = make_zip(CLIPS)


class Small(RAVDESS):
    """A corpus of three clips, at the address of a server."""

    def __init__(self, address: str, content: bytes = GOOD) -> None:
        checksum = f"md5:{hashlib.md5(content).hexdigest()}"
        archive = Archive(NAME, f"{address}{NAME}?download=1", checksum, len(content), FOLDER, len(CLIPS))
        self.archives = (archive,)


class Server(ThreadingHTTPServer):
    """Answers the n-th request by the n-th of ``answers``, and the last one from then on."""

    daemon_threads = True
    answers: list[Answer]
    requests: list[str]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        number = len(self.server.requests)
        self.server.requests.append(self.path)
        with contextlib.suppress(ConnectionError):  # of a client that has given up
            self.server.answers[min(number, len(self.server.answers) - 1)](self)

    def log_message(self, *_: object) -> None:
        pass


def body(content: bytes, promised: int | None = None) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(promised or len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


def moved(where: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", where)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def status(code: int) -> Answer:
    return lambda request: request.send_error(code)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.answers, server.requests = [body(GOOD)], []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(root: Path, server: Server, content: bytes = GOOD, **how: Any) -> None:
    options = {"retries": 0, "timeout": (2.0, 0.5), "allow_http": True, **how}
    download(root, Small(server.address, content), **options)


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_an_archive_is_fetched_once_and_laid_out_as_published(tmp_path: Path, server: Server) -> None:
    root = tmp_path / "new" / "data"
    for _ in range(2):  # what is complete is left alone
        fetch(root, server)
        assert contents(root) == UNPACKED
        assert [path.name for path in root.iterdir()] == [FOLDER]
        assert server.requests == [f"/{NAME}?download=1"]


def test_an_archive_with_its_own_folder_inside_is_not_nested_twice(tmp_path: Path, server: Server) -> None:
    whole = make_zip(UNPACKED)
    server.answers = [body(whole)]
    fetch(tmp_path, server, whole)
    assert contents(tmp_path) == UNPACKED


def test_an_archive_placed_by_hand_is_used_and_mends_what_is_not_whole(tmp_path: Path, server: Server) -> None:
    (tmp_path / NAME).write_bytes(GOOD)
    fetch(tmp_path, server)
    first, second, third = (tmp_path / name for name in UNPACKED)
    before = first.stat().st_mtime_ns
    second.write_bytes(b"cut")
    third.unlink()
    fetch(tmp_path, server)
    assert first.stat().st_mtime_ns == before
    assert contents(tmp_path) == {**UNPACKED, NAME: GOOD}
    assert server.requests == []


@pytest.mark.parametrize("damaged", [GOOD[:-9], bytes([GOOD[0] ^ 1]) + GOOD[1:]], ids=["cut", "changed"])
def test_a_damaged_archive_is_replaced(tmp_path: Path, server: Server, damaged: bytes) -> None:
    (tmp_path / NAME).write_bytes(damaged)
    fetch(tmp_path, server)
    assert contents(tmp_path) == {**UNPACKED, NAME: GOOD}
    assert len(server.requests) == 1


def test_a_cut_connection_is_tried_again(tmp_path: Path, server: Server) -> None:
    server.answers = [body(GOOD[:500], promised=len(GOOD)), body(GOOD)]
    fetch(tmp_path, server, retries=1)
    assert contents(tmp_path) == UNPACKED
    assert len(server.requests) == 2


@pytest.mark.parametrize("where", ["http://127.0.0.1:9/other.zip", "/other.zip", "//127.0.0.1:9/x", "ftp://x/y"])
def test_a_redirect_away_from_https_is_not_followed(tmp_path: Path, server: Server, where: str) -> None:
    server.answers = [moved(where), body(GOOD)]
    with pytest.raises(EmolightError, match="not https"):
        fetch(tmp_path, server)
    assert len(server.requests) == 1
    assert contents(tmp_path) == {}


def test_what_cannot_be_fetched_says_so_without_asking_a_server(tmp_path: Path, server: Server) -> None:
    with pytest.raises(EmolightError, match="not https"):
        fetch(tmp_path, server, allow_http=False)
    with pytest.raises(EmolightError, match=r"amu-cai/nEMO.*unpack"):
        download(tmp_path, NEMO())
    with pytest.raises(EmolightError, match="There are Audio_Speech"):
        download(tmp_path, RAVDESS(), only="video")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EmolightError, match="is a file"):
        main([str(tmp_path / "file")])
    assert server.requests == []


def link_zip() -> bytes:
    stream = io.BytesIO(make_zip({"Actor_01/a.wav": b"x"}))
    with zipfile.ZipFile(stream, "a") as bundle:
        link = zipfile.ZipInfo("Actor_01/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        bundle.writestr(link, "/etc")
    return stream.getvalue()


@pytest.mark.parametrize(
    "bad",
    [
        *(
            make_zip({"Actor_01/a.wav": b"x", name: b"x"})
            for name in (
                "../evil.wav",
                "a/../../../evil.wav",
                "/tmp/emolight-evil.wav",
                "..\\evil.wav",
                "C:/evil.wav",
            )
        ),
        link_zip(),
    ],
    ids=["above", "above after all", "absolute", "backslashes", "drive", "link"],
)
def test_a_member_that_escapes_is_refused_before_anything_is_written(tmp_path: Path, bad: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(bad)
    with pytest.raises(EmolightError, match="leads out"):
        extract(tmp_path / "x.zip", tmp_path / "x")
    assert contents(tmp_path) == {"x.zip": bad}


@pytest.mark.parametrize("place", [None, 40, len(GOOD) // 2, len(GOOD) - 200])
def test_a_damaged_zip_is_refused_and_no_clip_is_damaged(tmp_path: Path, place: int | None) -> None:
    damaged = bytearray(GOOD if place else b"not a zip")
    damaged[place or 0] ^= 255
    (tmp_path / "x.zip").write_bytes(damaged)
    with pytest.raises(EmolightError, match="no whole zip archive"):
        extract(tmp_path / "x.zip", tmp_path / "x")
    found = contents(tmp_path / "x") if (tmp_path / "x").exists() else {}
    assert found.items() <= CLIPS.items()


def test_the_command_counts_and_says_what_comes_next(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "my data"
    fetch(root, server)
    monkeypatch.setattr(module, "corpus_of", lambda _: Small("https://127.0.0.1:9/"))  # all its clips are there
    assert main([str(root), "--only", "SPEECH"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{root}: 3 clips; licence: CC BY-NC-SA 4.0")
    assert said[1] == f"Next: python -m emolight audit '{root}' --corpus RAVDESS"
