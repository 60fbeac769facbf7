"""Many ``fit`` commands and the tests of what they trained, each in a process of its own."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from emolight.errors import EmolightError
from emolight.experiments.processes import MISTAKE, Task, run_processes
from emolight.run import cli
from emolight.run.folder import Run
from emolight.run.progress import clock

EPOCH = r"epoch \d+/"
"""How :class:`~emolight.run.progress.EpochLines` begins its lines."""


def fitted(folder: Path) -> list[Run]:
    """The runs in ``folder/version_N`` whose training is finished, the latest first."""
    paths = sorted(folder.glob("version_*/environment.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [run for path in paths if (run := Run(path.parent)).finished]


def finished_run(folder: Path, test: bool) -> Run | None:
    """What :func:`fit_and_test` made in ``folder``; None before it is done."""
    return next((run for run in fitted(folder) if not test or run.subset == "test"), None)


def fit_and_test(folder: Path, options: Sequence[str], test: bool) -> None:
    """Train, unless a finished run stands in ``folder``, where the options put it, and score the test clips."""
    if not fitted(folder):
        cli.main(["fit", *options], pictures=False)
    if test:
        cli.main(["test", "--ckpt_path", str(fitted(folder)[0].best)], pictures=False)


def run_all(tasks: Sequence[Task], workers: int, devices: int = 1) -> None:
    """Run tasks, show how far they are, and raise EmolightError when some failed.

    Those after them are still run, unless the first to end was a user's mistake, which the others would share.
    """
    console = Console(highlight=False, markup=False)

    def check() -> None:
        if failed := [task for task in tasks if task.code not in (0, None)]:
            first = failed[0]
            problem = f"{len(failed)} of {len(tasks)} failed, the first: {first.label}: {first.reason}"
            raise EmolightError(problem, f"See {first.log}; the same command goes on with what is missing.")

    def ended(task: Task) -> bool:
        state = f"done in {clock(task.seconds)}" if task.code == 0 else "failed"
        console.print(f"{task.label}: {state}  {task.last_line(EPOCH)}", soft_wrap=True)
        if task.code == MISTAKE and not any(one.code == 0 for one in tasks):
            check()
        return False

    with console.status("waits") as status:  # shown on a terminal alone

        def watch() -> None:
            running = [task for task in tasks if task.starts and task.code is None]
            status.update("\n".join(f"{task.label}: {task.last_line(EPOCH)}" for task in running))

        run_processes(tasks, workers, devices, ended, watch)
    check()
