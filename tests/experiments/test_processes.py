"""The runner of processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from emolight.experiments.processes import Task, run_processes


def slow_to_end() -> None:
    """A process that has something to put away when it is ended."""

    def end(*_: Any) -> None:
        time.sleep(1)
        print("put away", flush=True)
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, end)
    print("begun", flush=True)
    time.sleep(60)


def test_a_second_sigterm_does_not_keep_the_processes_from_their_end(tmp_path: Path) -> None:
    task, before = Task("one", tmp_path / "log.txt", slow_to_end), signal.getsignal(signal.SIGTERM)

    def watch() -> None:
        if task.last_line("begun"):
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        run_processes([task], 1, watch=watch)
    assert ended.value.code == 143
    assert task.last_line() == "put away"
    assert signal.getsignal(signal.SIGTERM) == before
