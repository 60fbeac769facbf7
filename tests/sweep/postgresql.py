"""A PostgreSQL server of one's own, in a temporary folder and with a password.

By hand, ``python -m tests.sweep.postgresql`` prints the URL of an empty database that lasts until Ctrl-C.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

USER, PASSWORD = "emolight", "p@ss/w:rd %"
"""The password has what a URL must quote."""
LEAKS = (PASSWORD, quote(PASSWORD, safe=""), PASSWORD[2:], "ss%2Fw")
"""None of this is to be read anywhere."""


def programs() -> Path | None:
    """The folder of PostgreSQL's programs, the newest where there are several; None where it is not installed."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    installed = Path("/usr/lib/postgresql").glob("*/bin/initdb")  # Debian leaves them out of PATH
    return max((path.parent for path in installed), key=lambda path: float(path.parent.name), default=None)


@dataclass
class Server:
    """A running server.

    Args:
        port: on 127.0.0.1.
        process: of the server.
    """

    port: int
    process: subprocess.Popen[bytes]

    def __post_init__(self) -> None:
        self._numbers = count(1)

    def url(self, database: str) -> str:
        """Of a database, which need not exist."""
        return f"postgresql://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        name = f"sweep_{next(self._numbers)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def connect(self) -> Any:
        """A connection to the server's own database."""
        import psycopg

        return psycopg.connect(self.url("postgres"), autocommit=True)


@contextmanager
def server() -> Iterator[Server]:
    """Start a server, and stop it at the end of the block.

    Raises:
        RuntimeError: it does not start; shows what it said.
    """
    place = programs()
    assert place is not None
    # Not pytest's folder: the account of the server could not enter it.
    folder = Path(tempfile.mkdtemp(prefix="emolight_postgresql_"))
    secret, log = folder / "password", folder / "log"
    secret.write_text(PASSWORD)
    log.touch()
    account = _account()
    if account:
        for path in (folder, secret, log):
            shutil.chown(path, account["user"], account["group"])
    run: dict[str, Any] = {**account, "cwd": folder, "env": {"LC_ALL": "C", "PATH": os.environ["PATH"]}}
    try:
        words = ["--auth=scram-sha-256", f"--username={USER}", f"--pwfile={secret}", "--no-sync", "--encoding=UTF8"]
        made = subprocess.run(
            [place / "initdb", "-D", folder / "data", *words], capture_output=True, text=True, check=False, **run
        )
        if made.returncode != 0:
            raise RuntimeError(f"initdb: {made.stderr}")
        port = _free_port()
        settings = ("fsync=off", f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}")
        with log.open("ab") as stream:
            process = subprocess.Popen(
                [place / "postgres", "-D", folder / "data", *(word for one in settings for word in ("-c", one))],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                **run,
            )
        try:
            found = Server(port, process)
            _wait(found, log)
            yield found
        finally:
            process.send_signal(signal.SIGINT)  # closes the connections that are left
            process.wait(60)
    finally:
        shutil.rmtree(folder)


def _account() -> dict[str, Any]:
    """For ``subprocess``: the account that the server runs as; it refuses root."""
    if os.geteuid() != 0:
        return {}
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = known.get("postgres") or known["nobody"]
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait(found: Server, log: Path) -> None:
    import psycopg

    for _ in range(600):
        if found.process.poll() is not None:
            break
        try:
            found.connect().close()
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"PostgreSQL does not start: {log.read_text()}")


if __name__ == "__main__":
    with server() as one:
        print(one.new_database(), flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("stopped")
