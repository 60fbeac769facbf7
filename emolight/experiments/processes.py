"""The one runner of processes: each with its share of threads or its GPUs, and its output in a log of its own.

On Linux the processes are forked from one that has imported the libraries already; elsewhere each is started anew.
"""

import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch

from emolight.errors import EmolightError, end_once

PRELOAD = [
    f"emolight.{name}" for name in ("experiments.forked", "experiments.jobs", "run.controls", "evaluation.plots")
]
"""What the process imports that the others are forked from."""
MISTAKE = 2  # exit code after an EmolightError
PATIENCE = 30.0  # seconds that a process has for its end after SIGTERM


@dataclass
class Task:
    """A function of a module that runs in a process of its own, and how often and with which end it did so."""

    label: str
    log: Path
    target: Callable[..., object]
    arguments: tuple[Any, ...] = ()
    code: int | None = field(default=None, init=False)
    seconds: float = field(default=0.0, init=False)
    starts: int = field(default=0, init=False)

    @property
    def reason(self) -> str:
        """The error in its log, or the last line."""
        return (self.last_line("emolight: ") or self.last_line()).removeprefix("emolight: ")

    def last_line(self, pattern: str = "") -> str:
        """The last line of its log that begins with the pattern, or an empty text."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""
        lines = (line.strip() for line in reversed(text.splitlines()))
        return next((line for line in lines if line and re.match(pattern, line)), "")


def run_processes(
    tasks: Sequence[Task],
    workers: int,
    devices: int = 1,
    ended: Callable[[Task], bool] = lambda task: False,
    watch: Callable[[], object] = lambda: None,
) -> None:
    """Run every task, ``workers`` at a time, on ``devices`` GPUs each; whatever ends this call ends their processes.

    A task that failed does not stop the others. ``ended`` is called with each one that has ended; True runs it once
    more, after those that wait. ``watch`` is called about once a second. Either may raise, which ends all.
    """
    waiting, places = deque(tasks), deque(range(workers))
    running: dict[BaseProcess, tuple[Task, int, float]] = {}
    of_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, end_once) if of_main else None
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
                if ended(task):
                    waiting.append(task)
            watch()
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.join(PATIENCE)
            process.kill()
            process.join()
        if of_main:
            signal.signal(signal.SIGTERM, before)


def environment(place: int, workers: int, devices: int = 1) -> dict[str, str]:
    """The environment of worker ``place``: its GPUs, ``devices`` of them, or its share of the threads."""
    if workers == devices == 1:
        return dict(os.environ)
    if gpus := torch.cuda.device_count():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        numbers = visible.split(",") if visible else [str(number) for number in range(gpus)]
        own = dict.fromkeys(numbers[(place * devices + number) % len(numbers)] for number in range(devices))
        return {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(own)}
    threads = max(1, (os.cpu_count() or 1) // (workers * devices))
    given = os.environ.get("OMP_NUM_THREADS", "")
    return {**os.environ, "OMP_NUM_THREADS": str(min(threads, int(given)) if given.isdigit() else threads)}


def _start(task: Task, variables: dict[str, str]) -> BaseProcess:
    context: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload(PRELOAD)
    task.log.parent.mkdir(parents=True, exist_ok=True)
    task.code, task.starts = None, task.starts + 1
    process: BaseProcess = context.Process(target=_in_process, args=(task, variables), name=task.label)
    # multiprocessing would run the caller's own script once more in every process.
    main = sys.modules["__main__"]
    try:
        sys.modules["__main__"] = ModuleType("__main__")
        with mock.patch.dict(os.environ, variables):
            process.start()
    finally:
        sys.modules["__main__"] = main
    return process


def _in_process(task: Task, variables: dict[str, str]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    stream = task.log.open("a" if task.starts > 1 else "w", encoding="utf-8", errors="backslashreplace", buffering=1)
    for number in (1, 2):
        os.dup2(stream.fileno(), number)
    sys.stdout = sys.stderr = stream
    os.environ.clear()
    os.environ.update(variables)
    if (threads := variables.get("OMP_NUM_THREADS", "")).isdigit():
        torch.set_num_threads(int(threads))  # PyTorch, which is loaded already, does not look there again
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        task.target(*task.arguments)
    except EmolightError as error:
        print(f"emolight: {error}", flush=True)
        sys.exit(MISTAKE)


def _end_with_parent() -> None:
    """A parent that was killed must not leave a process behind that trains for nobody."""
    if parent := multiprocessing.parent_process():
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE)
        os._exit(128 + signal.SIGTERM)
