from __future__ import annotations

import contextlib
import hashlib
import io
import stat
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from emolight.data.download import ARCHIVES, BASE_URL, Archive, download, extract, main
from emolight.errors import EmolightError

CLIPS = {f"Actor_0{actor}/03-01-03-01-01-01-0{actor}.wav": bytes([actor]) * 50_000 for actor in (1, 2, 3)}
NAME = "Audio_Speech_Actors_01-24.zip"
FOLDER = "Audio_Speech_Actors_01-24"


def make_zip(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as bundle:
        for name, content in members.items():
            bundle.writestr(name, content)
    return stream.getvalue()


def describe(body: bytes, clips: int = len(CLIPS)) -> Archive:
    return Archive("speech", NAME, hashlib.md5(body).hexdigest(), len(body), clips)


GOOD = make_zip(CLIPS)


class Server(ThreadingHTTPServer):
    """Answers the n-th request by the n-th of ``answers``, and the last one from then on."""

    daemon_threads = True
    answers: list[Callable[[BaseHTTPRequestHandler], None]]
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


def body(content: bytes, promised: int | None = None) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(promised or len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


def moved(where: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", where)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def status(code: int) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda request: request.send_error(code)


def stall(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(GOOD)))
    request.end_headers()
    request.wfile.write(GOOD[:100])
    request.wfile.flush()
    time.sleep(3)


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


def fetch(root: Path, server: Server, archive: Archive | None = None, **how: object) -> None:
    options = {"retries": 0, "timeout": (2.0, 0.5), "allow_http": True, **how}
    download(root, [archive or describe(GOOD)], server.address, **options)  # type: ignore[arg-type]


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


UNPACKED = {f"{FOLDER}/{name}": content for name, content in CLIPS.items()}


def test_the_archives_are_those_of_the_zenodo_record() -> None:
    assert [(one.name, one.md5, one.size, one.clips) for one in ARCHIVES] == [
        ("Audio_Speech_Actors_01-24.zip", "bc696df654c87fed845eb13823edef8a", 208468073, 1440),
        ("Audio_Song_Actors_01-24.zip", "5411230427d67a21e18aa4d466e6d1b9", 225505317, 1012),
    ]
    assert BASE_URL == "https://zenodo.org/records/1188976/files/"


def test_an_archive_is_fetched_and_laid_out_as_published(tmp_path: Path, server: Server) -> None:
    root = tmp_path / "new" / "data"
    fetch(root, server)
    assert contents(root) == UNPACKED
    assert server.requests == [f"/{NAME}?download=1"]


def test_an_archive_with_its_own_folder_inside_is_not_nested_twice(tmp_path: Path, server: Server) -> None:
    whole = make_zip(UNPACKED)
    server.answers = [body(whole)]
    fetch(tmp_path, server, describe(whole))
    assert contents(tmp_path) == UNPACKED


def test_what_is_complete_is_not_fetched_again(tmp_path: Path, server: Server) -> None:
    fetch(tmp_path, server)
    fetch(tmp_path, server)
    assert len(server.requests) == 1


def test_archives_stay_when_asked(tmp_path: Path, server: Server) -> None:
    fetch(tmp_path, server, keep_archives=True)
    assert contents(tmp_path) == {**UNPACKED, NAME: GOOD}


def test_an_archive_placed_by_hand_is_used_and_left(tmp_path: Path, server: Server) -> None:
    (tmp_path / NAME).write_bytes(GOOD)
    fetch(tmp_path, server)
    assert contents(tmp_path) == {**UNPACKED, NAME: GOOD}
    assert server.requests == []


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: bytes([data[0] ^ 1]) + data[1:]])
def test_a_damaged_archive_is_replaced(tmp_path: Path, server: Server, damage: Callable[[bytes], bytes]) -> None:
    (tmp_path / NAME).write_bytes(damage(GOOD))
    fetch(tmp_path, server)
    assert contents(tmp_path) == {**UNPACKED, NAME: GOOD}
    assert len(server.requests) == 1


def test_clips_of_the_right_size_are_kept_and_others_mended(tmp_path: Path, server: Server) -> None:
    (tmp_path / NAME).write_bytes(GOOD)
    fetch(tmp_path, server)
    first, second, third = (tmp_path / name for name in UNPACKED)
    before = first.stat().st_mtime_ns
    second.write_bytes(b"cut")
    third.unlink()
    fetch(tmp_path, server)
    assert first.stat().st_mtime_ns == before
    assert contents(tmp_path) == {**UNPACKED, NAME: GOOD}


def test_a_cut_connection_is_tried_again(tmp_path: Path, server: Server) -> None:
    server.answers = [body(GOOD[:500], promised=len(GOOD)), body(GOOD)]
    fetch(tmp_path, server, retries=1)
    assert contents(tmp_path) == UNPACKED
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (body(GOOD[:500], promised=len(GOOD)), "Cannot fetch"),
        (body(GOOD[:-1] + b"x"), "other bytes"),
        (body(b"<html>log in</html>"), f"19 bytes instead of {len(GOOD)}"),
        (status(404), "404"),
        (status(503), "the server answers 503"),
        (stall, "next to nothing, came for 0.5 s"),
    ],
)
def test_a_failure_leaves_nothing_and_says_how_to_go_on(
    tmp_path: Path, server: Server, answer: Callable[[BaseHTTPRequestHandler], None], text: str
) -> None:
    server.answers = [answer]
    with pytest.raises(EmolightError, match=text) as caught:
        fetch(tmp_path, server)
    message = str(caught.value)
    assert f"{server.address}{NAME}?download=1" in message
    assert f"place it at {tmp_path / NAME}" in message
    assert len(message.splitlines()) <= 3
    assert contents(tmp_path) == {}


def test_what_is_not_there_is_not_asked_for_again(tmp_path: Path, server: Server) -> None:
    server.answers = [status(404)]
    with pytest.raises(EmolightError):
        fetch(tmp_path, server, retries=2)
    assert len(server.requests) == 1


def test_no_server_is_an_error_with_the_way_by_hand(tmp_path: Path) -> None:
    with pytest.raises(EmolightError, match="place it at"):
        download(tmp_path, [describe(GOOD)], "http://127.0.0.1:9/", allow_http=True, retries=0)


@pytest.mark.parametrize("where", ["http://127.0.0.1:9/other.zip", "/other.zip", "//127.0.0.1:9/x", "ftp://x/y"])
def test_a_redirect_away_from_https_is_not_followed(tmp_path: Path, server: Server, where: str) -> None:
    server.answers = [moved(where), body(GOOD)]
    with pytest.raises(EmolightError, match="not https"):
        fetch(tmp_path, server)
    assert len(server.requests) == 1
    assert contents(tmp_path) == {}


def test_plain_http_is_refused_from_the_start(tmp_path: Path, server: Server) -> None:
    with pytest.raises(EmolightError, match="not an https address"):
        fetch(tmp_path, server, allow_http=False)
    assert server.requests == []


def link_zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as bundle:
        bundle.writestr("Actor_01/a.wav", b"x")
        link = zipfile.ZipInfo("Actor_01/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        bundle.writestr(link, "/etc")
    return stream.getvalue()


@pytest.mark.parametrize(
    "bad",
    [
        make_zip({"Actor_01/a.wav": b"x", "../evil.wav": b"x"}),
        make_zip({"Actor_01/a.wav": b"x", "Actor_01/../../../evil.wav": b"x"}),
        make_zip({"Actor_01/a.wav": b"x", "/tmp/emolight-evil.wav": b"x"}),
        make_zip({"Actor_01/a.wav": b"x", "..\\evil.wav": b"x"}),
        make_zip({"Actor_01/a.wav": b"x", "C:/evil.wav": b"x"}),
        link_zip(),
    ],
)
def test_a_member_that_escapes_is_refused_before_anything_is_written(
    tmp_path: Path, server: Server, bad: bytes
) -> None:
    root = tmp_path / "a" / "b" / "root"
    server.answers = [body(bad)]
    with pytest.raises(EmolightError, match="nothing was unpacked"):
        fetch(root, server, describe(bad))
    assert contents(tmp_path) == {f"a/b/root/{NAME}": bad}


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"not a zip")
    with pytest.raises(EmolightError, match="no whole zip archive"):
        extract(tmp_path / "x.zip", tmp_path / "x")


@pytest.mark.parametrize("place", [40, len(GOOD) // 2, len(GOOD) - 200])
def test_a_damaged_zip_is_refused_and_no_clip_is_damaged(tmp_path: Path, place: int) -> None:
    damaged = bytearray(GOOD)
    damaged[place] ^= 255
    (tmp_path / "x.zip").write_bytes(damaged)
    with pytest.raises(EmolightError, match="no whole zip archive"):
        extract(tmp_path / "x.zip", tmp_path / "x")
    found = contents(tmp_path / "x") if (tmp_path / "x").exists() else {}
    assert found.items() <= CLIPS.items()


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EmolightError, match="is a file"):
        main([str(tmp_path / "file")])


def test_the_command_counts_and_says_what_comes_next(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "my data"
    fetch(root, server)
    # Only the list of what to fetch is replaced: the speech archive counts as complete with these clips.
    monkeypatch.setattr("emolight.data.download.ARCHIVES", (describe(GOOD),))
    assert main([str(root), "--channels", "speech"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{root}: 3 speech clips, 0 song clips",
        f"Next: python -m emolight audit '{root}' --channels speech",
    ]
