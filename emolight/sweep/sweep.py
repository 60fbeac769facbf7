"""``python -m emolight sweep``: search over a recipe's options, on one machine or many."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse.typing import PositiveFloat, PositiveInt

from emolight.errors import CommandParser, EmolightError
from emolight.sweep.space import Sweep, read_sweep

if TYPE_CHECKING:
    import optuna

STORAGE = "EMOLIGHT_STORAGE"
"""Environment variable with the storage's URL: a password does not belong into a list of processes."""
RANKS = ("RANK", "LOCAL_RANK", "GLOBAL_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")
"""By these Lightning takes a process for one of a group that trains together, and workers are none."""
ABOUT = {
    "": "Search over options of `fit` with Optuna. The same command goes on where it was stopped."
    " `sweep worker` joins a study from another machine; `sweep retrain` trains the best configuration.",
    "worker": "Join a study that `sweep` has begun, from any machine with the same data.",
    "retrain": "Train the best configuration of a sweep: one run, or with --protocol every fold, as `crossval` does.",
}


def main(argv: list[str]) -> int:
    """Run the command."""
    for name in RANKS:  # before Lightning is imported
        os.environ.pop(name, None)
    command = argv[0] if argv and argv[0] in ABOUT else ""
    about = f"{ABOUT[command]} Unknown options, and every --config after the first, go to `fit`."
    parser = CommandParser(f"sweep {command}".rstrip(), about)
    add = parser.add_argument
    add("--config", action="append", required=True, metavar="FILE", help="such as sweeps/features.yaml")
    add("--name", help="of the study, and folder under lightning_logs; default: the sweep's")
    if command == "retrain":
        add("--protocol", metavar="NAME", help="cross-validate it; the next three go with it")
        add("--folds", nargs="+", metavar="N", help="default: all")
        add("--seeds", nargs="+", metavar="N", help="default: 0")
        add("--workers", nargs=1, metavar="N", help="runs at a time; default: 1")
    else:
        about = f"such as postgresql://USER@HOST/DATABASE; default: the variable {STORAGE}, or SQLite beside the runs"
        add("--storage", metavar="URL", default=os.environ.get(STORAGE), help=about)
    if not command:
        add("--trials", type=PositiveInt, metavar="N", help="the budget; default: the sweep's")
        add("--workers", type=PositiveInt, default=1, metavar="N", help="trials at a time; default: 1")
        add("--timeout", type=PositiveFloat, metavar="S", help="seconds for the whole command")
        add("--ray", metavar="ADDRESS", help="place the workers on this Ray cluster")
    options, rest = parser.parse_known_args(argv[bool(command) :])
    words = [word for path in options.config[1:] for word in ("--config", path)] + rest
    {"": _sweep, "worker": _worker, "retrain": _retrain}[command](options, words)
    return 0


def _sweep(options: argparse.Namespace, words: list[str]) -> None:
    changed = {key: value for key in ("name", "trials", "timeout") if (value := getattr(options, key)) is not None}
    search(read_sweep(Path(options.config[0]), **changed), words, options.workers, options.storage, options.ray)


def search(
    sweep: Sweep, words: list[str], workers: int, storage: str | None = None, ray: str | None = None
) -> optuna.Study | None:
    """Run what is missing of a sweep and write its page; returns the study, or None when its time was over before.

    ``words`` are options of ``fit`` for every trial, ``storage`` is the URL of the database, by default SQLite beside
    the runs, and ``ray`` the address of the cluster for the workers, by default this machine.
    """
    from emolight.sweep.page import write_sweep
    from emolight.sweep.storage import database_errors, open_storage, sqlite_url
    from emolight.sweep.study import create_study
    from emolight.sweep.trial import check_sweep
    from emolight.sweep.workers import run_on_ray, run_workers

    plan = check_sweep(sweep, words)
    plan.folder.mkdir(parents=True, exist_ok=True)
    url = storage or sqlite_url(plan.folder / "study.db")
    with database_errors():
        study = create_study(open_storage(url, True), sweep.name, sweep.objectives, plan.definition, sweep.trials)
        there = {path.name for path in plan.folder.glob("trial_*")}  # before the study: others may work on it
        begun = {f"trial_{one.number:04d}" for one in study.trials if one.state.name != "WAITING"}
        if there - begun:
            problem = f"{plan.folder}/{min(there - begun)} is of another study than that in {url.rpartition('@')[2]}."
            raise EmolightError(problem, "Give that one's --storage, or another --name; or remove the folder.")
        print(f"sweep {sweep.name}: {sweep.trials} trials, {workers} at a time, in {plan.folder}", flush=True)
        try:
            if ray is not None:
                spent = run_on_ray(plan, url, ray, workers, _lines(study))
            else:
                spent = run_workers(study, plan, url, workers, _lines(study))
        except (KeyboardInterrupt, SystemExit):
            print("\nstopped; the finished trials are kept, and the same command goes on.", flush=True)
            raise
        if not spent:
            print(f"The time of {sweep.timeout:g} s is over; the same command goes on.")
        write_sweep(study, plan, url)
    return study if spent else None


def _lines(study: optuna.Study) -> Callable[[], None]:
    """Prints a line for every trial that has ended since the last call."""
    from emolight.sweep.study import BUDGET, ERROR, finished

    told = {trial.number for trial in study.trials if trial.state.is_finished()}

    def tell() -> None:
        for trial in study.get_trials(deepcopy=False):
            if trial.state.is_finished() and trial.number not in told:
                told.add(trial.number)
                found = {**dict(zip(study.metric_names or (), trial.values or (), strict=False)), **trial.params}
                texts = {name: f"{one:.4g}" if isinstance(one, float) else one for name, one in found.items()}
                shown = ", ".join(f"{name.rpartition('.')[2]} {text}" for name, text in texts.items())
                words = f"{trial.state.name.lower()}  {trial.user_attrs.get(ERROR) or shown}"
                print(f"trial {trial.number}: {words}  ({finished(study)} of {study.user_attrs[BUDGET]})", flush=True)

    return tell


def _worker(options: argparse.Namespace, words: list[str]) -> None:
    if not options.storage:
        raise EmolightError("A worker needs the study's storage.", "Give --storage URL, as to `sweep`.")
    sweep = read_sweep(Path(options.config[0]), **({"name": options.name} if options.name else {}))

    from emolight.sweep.storage import database_errors
    from emolight.sweep.trial import check_sweep
    from emolight.sweep.workers import run_worker

    with database_errors():
        run_worker(check_sweep(sweep, words), options.storage)


def _retrain(options: argparse.Namespace, words: list[str]) -> None:
    from emolight.experiments import crossval
    from emolight.run import cli
    from emolight.run.folder import LOGS, run_name

    folder, called = Path(options.config[0]).expanduser(), options.name
    if folder.is_file():
        folder, called = LOGS / (called or read_sweep(folder).name), None
    best = folder / "best.yaml"
    if not best.is_file():
        raise EmolightError(f"There is no {best}.", "Finish the sweep first, or give its folder as --config.")
    place = folder.resolve()  # also of --config .
    inside = run_name(place) if LOGS.name in place.parent.parts else place.name
    words = ["--config", str(best), "--name", called or f"{inside}/retrained", *words]
    for name in ("folds", "seeds", "workers"):
        given = getattr(options, name)
        if given and not options.protocol:
            raise EmolightError(f"--{name} is of a cross-validation.", "Give --protocol, such as --protocol emobox6.")
        words += [f"--{name}", *given] if given else []
    if options.protocol:
        crossval.main([*words, "--protocol", options.protocol])
    else:
        cli.main(["fit", *words])
