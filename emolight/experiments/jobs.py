"""Many ``fit`` commands on few devices: each a process of its own, with its share of threads or its GPU."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.live import Live
from rich.table import Table

from emolight.errors import EmolightError
from emolight.files import write_text
from emolight.progress import clock

DONE = "job.json"
"""Stands in the run folder of a finished job: the seconds that it took."""

EPOCH = r"epoch \d+/"
"""How :class:`~emolight.progress.EpochLines` begins its lines."""


@dataclass
class Job:
    """A ``fit``, and the ``test`` of its best checkpoint.

    Args:
        label: for the progress display, such as ``fold 1, seed 0``.
        folder: in which ``fit`` makes its run folder ``version_N``.
        options: what follows ``fit`` on the command line; makes the run folder in ``folder``.
        test: whether the test clips are scored; a split without test clips has none.
    """

    label: str
    folder: Path
    options: list[str]
    test: bool
    state: str = field(default="waits", init=False)
    started: float = field(default=0.0, init=False)

    @property
    def run(self) -> Path | None:
        """The run folder of the finished job, or None."""
        finished = [path.parent for path in self.folder.glob(f"version_*/{DONE}")]
        return max(finished, key=lambda run: run.stat().st_mtime, default=None)

    @property
    def seconds(self) -> float:
        """Wall time of the finished job."""
        assert self.run is not None
        return float(json.loads((self.run / DONE).read_text(encoding="utf-8"))["seconds"])

    @property
    def log(self) -> Path:
        """What its commands print."""
        return self.folder / "log.txt"


def run_jobs(jobs: Sequence[Job], workers: int) -> None:
    """Run the jobs that are not finished, ``workers`` at a time.

    With GPUs, worker k sees GPU k modulo their number alone; without, each takes its share of the CPU's threads.

    Raises:
        EmolightError: jobs failed; those after them were still run.
    """
    open_jobs = [job for job in jobs if job.run is None]
    for job in jobs:
        job.state = "waits" if job in open_jobs else "done before"
    console = Console(highlight=False)
    if done := len(jobs) - len(open_jobs):
        console.print(f"{done} of {len(jobs)} are finished already.")
    places: queue.SimpleQueue[int] = queue.SimpleQueue()
    for place in range(workers):
        places.put(place)
    processes: list[subprocess.Popen[bytes]] = []

    def work(job: Job) -> None:
        place = places.get()
        try:
            _run(job, environment(place, workers), processes)
        finally:
            places.put(place)

    live = Live(_table(jobs), console=console, refresh_per_second=1) if console.is_terminal else nullcontext()
    with _terminated(processes), live, ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(work, job): job for job in open_jobs}
        waiting = set(futures)
        try:
            while waiting:
                finished, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
                if isinstance(live, Live):
                    live.update(_table(jobs))
                    continue
                for future in finished:
                    job = futures[future]
                    console.print(f"{job.label}: {job.state}  {_last_line(job, EPOCH)}", soft_wrap=True)
        except BaseException:
            for future in waiting:
                future.cancel()
            _stop(processes)
            raise
    failed = [job for job in open_jobs if job.run is None]
    if failed:
        raise EmolightError(
            f"{len(failed)} of {len(jobs)} failed, the first: {failed[0].label}: {_last_line(failed[0])}",
            f"See {failed[0].log}; the same command goes on with what is missing.",
        )


def environment(place: int, workers: int, devices: int = 1) -> dict[str, str]:
    """The environment of worker ``place``: its GPUs, ``devices`` of them, or its share of the threads."""
    if workers == devices == 1:
        return dict(os.environ)
    if gpus := torch.cuda.device_count():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        numbers = visible.split(",") if visible else [str(number) for number in range(gpus)]
        own = {numbers[(place * devices + number) % len(numbers)]: None for number in range(devices)}
        return {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(own)}
    return {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // (workers * devices)))}


def _run(job: Job, variables: dict[str, str], processes: list[subprocess.Popen[bytes]]) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    job.state, job.started = "trains", time.monotonic()
    before = set(job.folder.glob("version_*"))
    with job.log.open("w", encoding="utf-8") as log:

        def command(*words: str) -> bool:
            process = subprocess.Popen(
                [sys.executable, "-m", "emolight", *words], stdout=log, stderr=subprocess.STDOUT, env=variables
            )
            processes.append(process)
            return process.wait() == 0

        good = command("fit", *job.options)
        made = set(job.folder.glob("version_*")) - before
        if good and job.test:
            (run,) = made
            job.state = "is tested"
            good = command("test", "--ckpt_path", str(run / "checkpoints" / "best.ckpt"))
    seconds = time.monotonic() - job.started
    if good:
        (run,) = made
        write_text(run / DONE, json.dumps({"seconds": round(seconds, 1)}) + "\n")
    job.state = f"done in {clock(seconds)}" if good else "failed"


@contextmanager
def _terminated(processes: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """SIGTERM stops the processes as well, and exits with 143."""

    def stop(*_: Any) -> None:
        _stop(processes)
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()


def _table(jobs: Sequence[Job]) -> Table:
    table = Table("run", "state", "progress")
    for job in jobs:
        table.add_row(job.label, job.state, "" if job.state == "waits" else _last_line(job, EPOCH))
    return table


def _last_line(job: Job, pattern: str = "") -> str:
    """The last line of the job's log that begins with the pattern."""
    if not job.log.is_file():
        return ""
    lines = job.log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip() and re.match(pattern, line)), "")
