"""``python -m emolight sweep``: search over a recipe's options, on one machine or many."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emolight.errors import EmolightError
from emolight.option_errors import parse_own
from emolight.sweep.processes import exit_on_sigterm, stand_alone

if TYPE_CHECKING:
    import optuna

    from emolight.sweep.definition import Sweep
    from emolight.sweep.trial import Plan

STORAGE = "EMOLIGHT_STORAGE"
"""Environment variable with the storage's URL: a password does not belong into a list of processes."""


def main(argv: list[str]) -> int:
    """Run the command."""
    commands = {"worker": _worker, "retrain": _retrain}
    if argv and argv[0] in commands:
        return commands[argv[0]](argv[1:])
    return _sweep(argv)


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m emolight sweep{command}",
        description=f"{description} Unknown options, and every --config after the first, go to `fit`.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", action="append", required=True, metavar="FILE", help="the sweep, such as sweeps/features.yaml"
    )
    parser.add_argument("--name", help="of the study, and folder under lightning_logs; default: the sweep's")
    return parser


def _read(options: argparse.Namespace, rest: Sequence[str]) -> tuple[Sweep, list[str]]:
    """The sweep with what the command line changes, and the options of ``fit``."""
    from emolight.sweep.definition import read_sweep

    sweep = read_sweep(Path(options.config[0]))
    changed: dict[str, Any] = {}
    for key in ("name", "trials", "timeout"):
        if (value := getattr(options, key, None)) is not None:
            changed[key] = value
    overlays = [word for path in options.config[1:] for word in ("--config", path)]
    return replace(sweep, **changed), [*overlays, *rest]


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds above 0")
    return value


def _sweep(argv: list[str]) -> int:
    parser = _parser(
        "",
        "Search over options of `fit` with Optuna. The same command goes on where it was stopped."
        " `sweep worker` joins a study from another machine; `sweep retrain` trains the best configuration.",
    )
    parser.add_argument("--trials", type=_positive, metavar="N", help="the budget; default: the sweep's")
    parser.add_argument("--workers", type=_positive, default=1, metavar="N", help="trials at a time; default: 1")
    parser.add_argument(
        "--storage",
        metavar="URL",
        default=os.environ.get(STORAGE),
        help="such as postgresql://USER@HOST/DATABASE; default: SQLite beside the runs, or the environment variable"
        f" {STORAGE}",
    )
    parser.add_argument("--timeout", type=_seconds, metavar="S", help="seconds for the whole command")
    parser.add_argument("--ray", metavar="ADDRESS", help="place the workers on this Ray cluster")
    options, rest = parse_own(parser, argv)
    stand_alone()
    sweep, fit_options = _read(options, rest)

    from emolight.sweep.space import check_sweep
    from emolight.sweep.storage import open_storage, storage_answers
    from emolight.sweep.study import create_study
    from emolight.sweep.trial import Plan

    plan = Plan(sweep, tuple(fit_options), check_sweep(sweep, fit_options))
    url = options.storage or f"sqlite:///{plan.folder.resolve()}/study.db"
    if options.ray is not None:
        from emolight.sweep.ray_workers import connect

        connect(options.ray, url)  # what is wrong with it shows before anything is written
    with storage_answers():
        study = create_study(
            open_storage(url), sweep.name, list(sweep.objectives.values()), plan.definition, sweep.trials
        )
        print(
            f"sweep {sweep.name}: {sweep.trials} trials, {options.workers} at a time, in {plan.folder}", flush=True
        )
        try:
            with exit_on_sigterm():
                spent = _run(study, plan, url, options)
        except (KeyboardInterrupt, SystemExit):
            _say_how_to_go_on(study, sweep.trials, _command(argv, url))
            raise
        if not spent:
            print(f"The time of {sweep.timeout:g} s is over; the same command goes on.")
        _finish(study, plan, url)
    return 0


def _say_how_to_go_on(study: optuna.Study, trials: int, command: str) -> None:
    from emolight.sweep.study import FINISHED, counting

    done = sum(trial.state in FINISHED for trial in counting(study).values())
    print(f"\nstopped; {done} of {trials} trials are finished and kept. Go on with:\n  {command}", flush=True)


def _command(argv: list[str], url: str) -> str:
    """The command that was typed, without the storage's password."""
    from emolight.resume import without_option
    from emolight.sweep.page import shown_url

    shown, secret = shown_url(url)
    words = without_option(argv, "--storage")[0] if secret else argv
    told = shlex.join([Path(sys.executable).name, "-m", "emolight", "sweep", *words])
    return f"{STORAGE}={shlex.quote(shown)} PGPASSWORD=… {told}" if secret else told


def _run(study: optuna.Study, plan: Plan, url: str, options: argparse.Namespace) -> bool:
    """Let workers spend the budget; False after a timeout."""
    from emolight.sweep.live import Display
    from emolight.sweep.workers import run_workers, worker_command

    sweep = plan.sweep
    command = worker_command(Path(options.config[0]), sweep.name, plan.fit_options)
    with Display(study, sweep, sweep.timeout) as display:
        if options.ray is not None:
            from emolight.sweep.ray_workers import run_on_ray

            variables = {STORAGE: url}
            return run_on_ray(study, plan, command, url, options.ray, options.workers, variables, display.update)
        return run_workers(
            study,
            command,
            options.workers,
            plan.folder,
            sweep.devices_per_trial,
            sweep.timeout,
            {STORAGE: url},
            display.update,
        )


def _finish(study: optuna.Study, plan: Plan, url: str) -> None:
    from emolight.sweep.page import print_sweep, write_sweep

    write_sweep(study, plan.sweep, plan.folder, plan.base, url)
    print_sweep(study, plan.sweep, plan.folder, url)


def _worker(argv: list[str]) -> int:
    parser = _parser(
        " worker",
        "Join a study that `sweep` has begun, from any machine with the same data: a job of SLURM, Kubernetes ...",
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        default=os.environ.get(STORAGE),
        help=f"of the study; default: the environment variable {STORAGE}",
    )
    options, rest = parse_own(parser, argv)
    if not options.storage:
        raise EmolightError("A worker needs the study's storage.", "Give --storage URL, as to `sweep`.")
    stand_alone()
    sweep, fit_options = _read(options, rest)
    from emolight.sweep.storage import storage_answers
    from emolight.sweep.workers import run_worker

    with storage_answers():
        run_worker(sweep, fit_options, options.storage)
    return 0


def _retrain(argv: list[str]) -> int:
    parser = _parser(" retrain", "Train the best configuration of a sweep: one run, or with --protocol every fold.")
    parser.add_argument("--protocol", help="cross-validate it, as `crossval` does, with its options")
    options, rest = parse_own(parser, argv)
    from emolight import cli
    from emolight.experiments import crossval

    best, name = _best(Path(options.config[0]), options)
    words = ["--config", str(best)] + [word for path in options.config[1:] for word in ("--config", path)]
    words += ["--name", f"{name}/retrained", *rest]
    if options.protocol:
        return crossval.main([*words, "--protocol", options.protocol])
    return cli.main(["fit", *words])


def _best(given: Path, options: argparse.Namespace) -> tuple[Path, str]:
    """The ``best.yaml`` of a sweep's YAML or folder, and the sweep's name."""
    if given.is_dir():
        folder, name = given, options.name or given.name
    elif given.name == "best.yaml":
        folder, name = given.parent, options.name or given.resolve().parent.name
    else:
        from emolight.sweep.trial import make_plan

        sweep, _ = _read(argparse.Namespace(config=options.config[:1], name=options.name), [])
        folder, name = make_plan(sweep, []).folder, sweep.name
    if not (folder / "best.yaml").is_file():
        raise EmolightError(f"{folder} has no best.yaml.", "Finish the sweep first: python -m emolight sweep ...")
    return folder / "best.yaml", name
