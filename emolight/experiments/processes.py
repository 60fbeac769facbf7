"""The one runner of processes: each with its share of threads or its GPUs, and its output in a log of its own.

On Linux the processes are forked from one that has imported the libraries already; elsewhere each is started anew.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from emolight.errors import EmolightError

PRELOAD = ["emolight.experiments.jobs", "emolight.run.controls", "emolight.evaluation.plots", "matplotlib.figure"]
"""What the process imports that the others are forked from."""
MISTAKE = 2
"""Exit code after an :class:`EmolightError`."""
LOST = 255
"""Exit code that multiprocessing makes up when the process that it forks from is gone; this one may still run."""
PATIENCE = 30.0
"""Seconds that a process has for its end after SIGTERM."""


@dataclass
class Task:
    """A function that runs in a process of its own.

    Args:
        label: for people, such as ``fold 1, seed 0``.
        log: file for what it prints.
        target: function of a module; :class:`EmolightError` ends it with exit code 2.
        arguments: plain values and other things that can be pickled.

    Attributes:
        code, seconds: exit code and wall time of its last process; None before its end, and 0.
        starts: how often it was started.
    """

    label: str
    log: Path
    target: Callable[..., object]
    arguments: tuple[Any, ...] = ()
    code: int | None = field(default=None, init=False)
    seconds: float = field(default=0.0, init=False)
    starts: int = field(default=0, init=False)

    def last_line(self, pattern: str = "") -> str:
        """The last line of its log that begins with the pattern, or an empty text."""
        if not self.log.is_file():
            return ""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip() and re.match(pattern, line)), "")


def run_processes(
    tasks: Sequence[Task],
    workers: int,
    devices: int = 1,
    ended: Callable[[Task], bool] = lambda task: False,
    watch: Callable[[], object] = lambda: None,
) -> None:
    """Run every task, ``workers`` at a time; whatever ends this call ends their processes as well.

    Args:
        tasks: in the order of their start. A task that failed does not stop the others.
        workers: processes at a time; each has a place, of which :func:`environment` makes its threads or GPUs.
        devices: GPUs of each.
        ended: called with each task that has ended; True runs it once more, after those that wait.
        watch: called about once a second. It may raise, which ends all.
    """
    waiting, places = deque(tasks), deque(range(workers))
    running: dict[BaseProcess, tuple[Task, int, float]] = {}
    with _exit_on_sigterm():
        try:
            while waiting or running:
                while waiting and places:
                    task, place = waiting.popleft(), places.popleft()
                    process = _start(task, environment(place, workers, devices))
                    running[process] = (task, place, time.monotonic())
                wait([process.sentinel for process in running], timeout=1)
                for process in [one for one in running if one.exitcode is not None]:
                    task, place, started = running.pop(process)
                    task.code, task.seconds = process.exitcode, time.monotonic() - started
                    places.append(place)
                    if task.code == LOST:
                        _end([process])
                    if ended(task):
                        waiting.append(task)
                watch()
        finally:
            _end(list(running))


def environment(place: int, workers: int, devices: int = 1) -> dict[str, str]:
    """The environment of worker ``place``: its GPUs, ``devices`` of them, or its share of the threads."""
    if workers == devices == 1:
        return dict(os.environ)
    if gpus := torch.cuda.device_count():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        numbers = visible.split(",") if visible else [str(number) for number in range(gpus)]
        own = {numbers[(place * devices + number) % len(numbers)]: None for number in range(devices)}
        return {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(own)}
    threads = max(1, (os.cpu_count() or 1) // (workers * devices))
    given = os.environ.get("OMP_NUM_THREADS", "")
    return {**os.environ, "OMP_NUM_THREADS": str(min(threads, int(given)) if given.isdigit() else threads)}


def _start(task: Task, variables: dict[str, str]) -> BaseProcess:
    context: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload(PRELOAD)
    task.log.parent.mkdir(parents=True, exist_ok=True)
    again, task.code, task.starts = task.starts > 0, None, task.starts + 1
    process: BaseProcess = context.Process(
        target=_in_process, args=(task.target, task.arguments, str(task.log), again, variables), name=task.label
    )
    # multiprocessing would run the caller's own script once more in every process.
    main, before = sys.modules["__main__"], dict(os.environ)
    try:
        sys.modules["__main__"] = ModuleType("__main__")
        os.environ.update(variables)
        process.start()
    finally:
        sys.modules["__main__"] = main
        os.environ.clear()
        os.environ.update(before)
    return process


def _in_process(
    target: Callable[..., object], arguments: tuple[Any, ...], log: str, again: bool, variables: dict[str, str]
) -> None:
    """What the new process does."""
    stream = Path(log).open("a" if again else "w", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    for number in (1, 2):
        os.dup2(stream.fileno(), number)
    sys.stdout = sys.stderr = stream
    os.environ.clear()
    os.environ.update(variables)
    if (threads := variables.get("OMP_NUM_THREADS", "")).isdigit():
        # PyTorch, which is loaded already, does not look at the environment again.
        torch.set_num_threads(int(threads))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # By this Lightning finds the command of the other processes of a group.
    sys.modules["__main__"].__spec__ = find_spec("emolight.__main__")
    try:
        target(*arguments)
    except EmolightError as error:
        print(f"emolight: {error}", flush=True)
        sys.exit(MISTAKE)


def _end_with_parent() -> None:
    """A parent that was killed must not leave a process behind that trains for nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE)
        os._exit(128 + signal.SIGTERM)


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """SIGTERM raises ``SystemExit(143)``, so that what stands in ``finally`` is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(processes: Sequence[BaseProcess]) -> None:
    """By number: multiprocessing takes a process for ended when the one that it was forked from is gone."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    for process in processes:
        while _signal(process, 0) and time.monotonic() < deadline:
            process.join(0.1)
            time.sleep(0.05)
        _signal(process, 9)  # SIGKILL, for which Windows has no name
        process.join()


def _signal(process: BaseProcess, number: int) -> bool:
    """Send it a signal; whether it is there."""
    assert process.pid is not None
    if sys.platform == "win32":  # where every signal is the end
        process.terminate()
        return process.exitcode is None
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True
