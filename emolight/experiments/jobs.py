"""Many ``fit`` commands and the tests of what they trained, each in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from emolight.errors import EmolightError
from emolight.experiments.processes import MISTAKE
from emolight.experiments.processes import Task as Task
from emolight.experiments.processes import run_processes as run_processes
from emolight.run import cli
from emolight.run.folder import Run
from emolight.run.progress import clock

EPOCH = r"epoch \d+/"
"""How :class:`~emolight.run.progress.EpochLines` begins its lines."""


@dataclass
class Job:
    """A ``fit``, and the ``test`` of its best checkpoint, in one process.

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

    @property
    def run(self) -> Run | None:
        """The run of the finished job, or None."""
        runs = fitted(self.folder)
        return next((run for run in runs if not self.test or run.subset == "test"), None)

    @property
    def task(self) -> Task:
        """What the runner runs."""
        return Task(self.label, self.folder / "log.txt", fit_and_test, (self.folder, self.options, self.test))


def fitted(folder: Path) -> list[Run]:
    """The runs in ``folder/version_N`` whose training is finished, the latest first."""
    found = []
    for path in folder.glob("version_*/environment.json"):
        try:
            run = Run.open(path.parent)
            finished = run.finished
        except EmolightError:  # of a run that was killed while it began
            continue
        if finished:
            found.append((path.stat().st_mtime, run))
    return [run for _, run in sorted(found, key=lambda one: -one[0])]


def fit_and_test(folder: Path, options: Sequence[str], test: bool) -> None:
    """Train, unless a finished run stands in ``folder``, and score the test clips; see :class:`Job`."""
    if not fitted(folder):
        cli.main(["fit", *options], pictures=False)
    if test:
        cli.main(["test", "--ckpt_path", str(fitted(folder)[0].best)], pictures=False)


def run_jobs(jobs: Sequence[Job], workers: int, devices: int = 1) -> None:
    """Run the jobs that are not finished; see :func:`run_all`."""
    tasks = [job.task for job in jobs if job.run is None]
    if len(tasks) < len(jobs):
        print(f"{len(jobs) - len(tasks)} of {len(jobs)} are finished already.", flush=True)
    run_all(tasks, workers, devices)


def run_all(tasks: Sequence[Task], workers: int, devices: int = 1) -> None:
    """Run tasks by :func:`run_processes`, show how far they are, and see that they end well.

    Raises:
        EmolightError: tasks failed. Those after them were still run, unless the first to end was a user's mistake,
            which the others would share.
    """
    if not tasks:
        return
    console = Console(highlight=False, markup=False)
    live = Live(console=console, refresh_per_second=1) if console.is_terminal else None

    def ended(task: Task) -> bool:
        if live is None:
            console.print(f"{task.label}: {_state(task)}  {task.last_line(EPOCH)}", soft_wrap=True)
        if task.code == MISTAKE and not any(one.code == 0 for one in tasks):
            raise _failure(tasks)
        return False

    def watch() -> None:
        if live is not None:
            table = Table("run", "state", "progress")
            for task in tasks:
                table.add_row(task.label, _state(task), task.last_line(EPOCH) if task.starts else "")
            live.update(table)

    with live or nullcontext():
        run_processes(tasks, workers, devices, ended, watch)
    if any(task.code != 0 for task in tasks):
        raise _failure(tasks)


def _failure(tasks: Sequence[Task]) -> EmolightError:
    first, *others = [task for task in tasks if task.code not in (0, None)]
    problem = first.last_line("emolight: ").removeprefix("emolight: ") or first.last_line()
    return EmolightError(
        f"{1 + len(others)} of {len(tasks)} failed, the first: {first.label}: {problem}",
        f"See {first.log}; the same command goes on with what is missing.",
    )


def _state(task: Task) -> str:
    if task.code is None:
        return "runs" if task.starts else "waits"
    return f"done in {clock(task.seconds)}" if task.code == 0 else "failed"
