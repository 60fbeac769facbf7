"""``python -m emolight sweep``: search over a recipe's options, on one machine or many."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse.typing import PositiveFloat, PositiveInt

from emolight.errors import EmolightError
from emolight.sweep.space import read_sweep

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
    parser = argparse.ArgumentParser(
        prog=f"python -m emolight sweep {command}".rstrip(),
        description=f"{ABOUT[command]} Unknown options, and every --config after the first, go to `fit`.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="append", required=True, metavar="FILE", help="such as sweeps/features.yaml")
    parser.add_argument("--name", help="of the study, and folder under lightning_logs; default: the sweep's")
    if command == "retrain":
        parser.add_argument("--protocol", metavar="NAME", help="cross-validate it; the next three go with it")
        parser.add_argument("--folds", nargs="+", metavar="N", help="default: all")
        parser.add_argument("--seeds", nargs="+", metavar="N", help="default: 0")
        parser.add_argument("--workers", nargs=1, metavar="N", help="runs at a time; default: 1")
    else:
        about = f"such as postgresql://USER@HOST/DATABASE; default: the variable {STORAGE}, or SQLite beside the runs"
        parser.add_argument("--storage", metavar="URL", default=os.environ.get(STORAGE), help=about)
    if not command:
        parser.add_argument("--trials", type=PositiveInt, metavar="N", help="the budget; default: the sweep's")
        parser.add_argument("--workers", type=PositiveInt, default=1, metavar="N", help="trials at a time; default: 1")
        parser.add_argument("--timeout", type=PositiveFloat, metavar="S", help="seconds for the whole command")
        parser.add_argument("--ray", metavar="ADDRESS", help="place the workers on this Ray cluster")
    options, rest = parser.parse_known_args(argv[bool(command) :])
    words = [word for path in options.config[1:] for word in ("--config", path)] + rest
    run = {"": _sweep, "worker": _worker, "retrain": _retrain}[command]
    return run(options, words)


def _sweep(options: argparse.Namespace, words: list[str]) -> int:
    changed = {key: getattr(options, key) for key in ("name", "trials", "timeout") if getattr(options, key) is not None}
    sweep = read_sweep(Path(options.config[0]), **changed)

    from emolight.sweep.check import check_sweep
    from emolight.sweep.page import write_sweep
    from emolight.sweep.ray import run_on_ray
    from emolight.sweep.storage import database_errors, open_storage, sqlite_url
    from emolight.sweep.study import create_study
    from emolight.sweep.workers import run_workers

    plan = check_sweep(sweep, words)
    plan.folder.mkdir(parents=True, exist_ok=True)
    url = options.storage or sqlite_url(plan.folder / "study.db")
    with database_errors():
        study = create_study(open_storage(url, True), sweep.name, sweep.objectives, plan.definition, sweep.trials)
        print(f"sweep {sweep.name}: {sweep.trials} trials, {options.workers} at a time, in {plan.folder}", flush=True)
        lines = _lines(study)
        try:
            if options.ray is not None:
                spent = run_on_ray(plan, url, options.ray, options.workers, lines)
            else:
                spent = run_workers(study, plan, url, options.workers, lines)
        except (KeyboardInterrupt, SystemExit):
            print("\nstopped; the finished trials are kept, and the same command goes on.", flush=True)
            raise
        if not spent:
            print(f"The time of {sweep.timeout:g} s is over; the same command goes on.")
        write_sweep(study, plan, url)
    return 0


def _lines(study: optuna.Study) -> Callable[[], None]:
    """Prints a line for every trial that has ended since the last call."""
    from emolight.sweep.study import BUDGET, ERROR, finished

    told = {trial.number for trial in study.trials if trial.state.is_finished()}

    def tell() -> None:
        for trial in study.get_trials(deepcopy=False):
            if trial.state.is_finished() and trial.number not in told:
                told.add(trial.number)
                found = {**dict(zip(study.metric_names or (), trial.values or (), strict=False)), **trial.params}
                shown = [f"{name.rpartition('.')[2]} {_text(value)}" for name, value in found.items()]
                words = trial.user_attrs.get(ERROR) or ", ".join(shown)
                count = f"{finished(study)} of {study.user_attrs[BUDGET]}"
                print(f"trial {trial.number}: {trial.state.name.lower()}  {words}  ({count})", flush=True)

    return tell


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _worker(options: argparse.Namespace, words: list[str]) -> int:
    if not options.storage:
        raise EmolightError("A worker needs the study's storage.", "Give --storage URL, as to `sweep`.")
    sweep = read_sweep(Path(options.config[0]), **({"name": options.name} if options.name else {}))

    from emolight.sweep.storage import database_errors
    from emolight.sweep.trial import make_plan
    from emolight.sweep.workers import run_worker

    with database_errors():
        run_worker(make_plan(sweep, words), options.storage)
    return 0


def _retrain(options: argparse.Namespace, words: list[str]) -> int:
    from emolight.experiments import crossval
    from emolight.run import cli
    from emolight.run.folder import LOGS

    folder = Path(options.config[0]).expanduser()
    if folder.is_file():
        folder = LOGS / (options.name or read_sweep(folder).name)
    best = folder / "best.yaml"
    if not best.is_file():
        raise EmolightError(f"There is no {best}.", "Finish the sweep first: python -m emolight sweep ...")
    words = ["--config", str(best), "--name", f"{folder.name}/retrained", *words]
    for name in ("folds", "seeds", "workers"):
        words += [f"--{name}", *given] if (given := getattr(options, name)) else []
    return crossval.main([*words, "--protocol", options.protocol]) if options.protocol else cli.main(["fit", *words])
