"""``python -m emolight crossval``: every fold and seed of a recipe, and the figures of all test actors together."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from emolight import cli
from emolight.data.splits import FOLDS, PROTOCOLS
from emolight.errors import EmolightError
from emolight.evaluation.predictions import read_predictions
from emolight.experiments.jobs import Job, run_jobs
from emolight.experiments.summary import control_scores, print_result, splits_hash, summary_of, write_crossval
from emolight.files import write_text
from emolight.option_errors import parse_own
from emolight.results import BEST_EPOCH, CROSSVAL, LAST_EPOCH, read_result, task_of
from emolight.run_options import differences
from emolight.runs import LOGS, read_environment, read_run_config

BASE = "base.yaml"
"""The configuration that all folds share, in the folder of the cross-validation."""
PLACES = ("root", "cache_dir", "splits_dir", "num_workers")
"""Data settings that may change when a cross-validation is continued: they do not change its result."""
SET_HERE = ("--data.protocol", "--data.fold", "--seed_everything", "--ckpt_path", "--data.split_csv", "--name")


def full_config(options: Sequence[str]) -> dict[str, Any]:
    """The complete configuration that ``fit`` would run with these options.

    Raises:
        EmolightError: ``fit`` would refuse them.
    """
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        cli.main(["fit", *options, "--print_config"])
    config: dict[str, Any] = yaml.safe_load(text.getvalue())
    return config


def add_fit_options(parser: argparse.ArgumentParser) -> None:
    """The options that crossval, leakgap and transfer share; every other option goes to ``fit``."""
    parser.add_argument("--config", action="append", required=True, metavar="FILE", help="as for `fit`; repeatable")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="default: 0")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="runs at a time; default: 1")
    parser.add_argument("--name", help="folder under lightning_logs; default: the configuration's name")


def parse(parser: argparse.ArgumentParser, argv: list[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The parsed options, and the complete configuration of their ``fit``.

    Raises:
        EmolightError: an option that ``fit`` does not have, or that this command sets itself.
    """
    options, rest = parse_own(parser, argv)
    if fixed := [word for word in rest if word.partition("=")[0] in SET_HERE]:
        raise EmolightError(
            f"{fixed[0]} cannot be given here: it changes from run to run.",
            "Use --protocol, --folds, --seeds and --name.",
        )
    if options.workers < 1:
        raise EmolightError(f"--workers is {options.workers}; it must be at least 1.", "Leave it out for 1.")
    config = full_config([word for path in options.config for word in ("--config", path)] + rest)
    options.name = options.name or config["name"]
    return options, config


def cross_validate(
    config: dict[str, Any],
    folder: Path,
    protocol: str,
    seeds: Sequence[int],
    folds: Sequence[int] | None = None,
    workers: int = 1,
    splits: dict[int, Path] | None = None,
) -> None:
    """Run what is missing of a cross-validation, and write its folder.

    Args:
        config: of :func:`full_config`.
        folder: ``lightning_logs/NAME/...``; the folds' run folders are made in it.
        protocol: one of :data:`~emolight.data.splits.PROTOCOLS`.
        seeds: of weights, order and augmentation; those that the folder has already stay.
        folds: None takes all.
        workers: runs at a time.
        splits: fold to a split of one's own instead of the protocol's.

    Raises:
        EmolightError: runs failed, or the folder holds another configuration.
    """
    config = {**config, "data": {**config["data"], "protocol": protocol, "fold": None, "split_csv": None}}
    _keep_base(folder, config)
    seeds = sorted({*seeds, *_earlier_seeds(folder)})
    places = list(folds or sorted(FOLDS[protocol])) if protocol in FOLDS else [0]
    subset = "test" if protocol in FOLDS else "val"
    jobs = {
        (fold, seed): _job(folder, protocol, fold, seed, (splits or {}).get(fold))
        for seed in seeds
        for fold in places
    }
    run_jobs(list(jobs.values()), workers)
    runs: list[dict[str, Any]] = []
    tables, data_of_folds = [], []
    for (fold, seed), job in jobs.items():
        assert job.run is not None
        name = job.run.relative_to(folder).as_posix()
        runs.append({"fold": fold, "seed": seed, "folder": name, "seconds": job.seconds})
        tables.append(read_predictions(job.run / f"predictions_{subset}.csv").assign(fold=fold, seed=seed))
        if seed == seeds[0]:
            of_run = yaml.safe_load((job.run / "config.yaml").read_text(encoding="utf-8"))["data"]
            data_of_folds.append({**of_run, "split_csv": str(job.run / "split.csv")})
    data = config["data"]
    environment = read_environment(folder / runs[0]["folder"])
    about = {
        "name": f"{folder.parent.name} {folder.name.removeprefix('crossval_')}",
        "kind": "crossval",
        "subset": subset,
        "protocol": _label(protocol, data, folds),
        "task": task_of(data),
        "emotions": data["emotions"],
        "channels": data["channels"],
        "selection": BEST_EPOCH if subset == "test" else LAST_EPOCH,
        "split": splits_hash([Path(one["split_csv"]) for one in data_of_folds]),
        "folds": places,
        "seeds": list(seeds),
        "runs": runs,
        "facts": {
            "seconds": sum(run["seconds"] for run in runs),
            "commit": environment.get("commit"),
            "precision": environment.get("precision"),
            "mode": config["model"]["features"]["mode"],
            "root": data["root"],
        },
    }
    table = pd.concat(tables, ignore_index=True).sort_values(["clip_id", "seed"], ignore_index=True)
    write_crossval(folder, about, table, control_scores(data_of_folds, subset))


def _label(protocol: str, data: dict[str, Any], folds: Sequence[int] | None) -> str:
    if protocol not in FOLDS:
        return f"{protocol} seed {data['split_seed']}"
    return protocol if folds is None else f"{protocol} folds {' '.join(str(fold) for fold in folds)}"


def _job(folder: Path, protocol: str, fold: int, seed: int, split: Path | None) -> Job:
    part = f"fold_{fold}_seed_{seed}" if protocol in FOLDS else f"seed_{seed}"
    name = folder.relative_to(_logs(folder)).as_posix()
    options = ["--config", str(folder / BASE), "--name", f"{name}/{part}", "--seed_everything", str(seed)]
    if protocol in FOLDS:
        options += ["--data.fold", str(fold)]
    if split is not None:
        options += ["--data.split_csv", str(split)]
    return Job(part.replace("_", " "), folder / part, options, protocol in FOLDS)


def _logs(folder: Path) -> Path:
    return next(parent for parent in folder.parents if parent.name == LOGS.name)


def _earlier_seeds(folder: Path) -> list[int]:
    path = folder / CROSSVAL
    return list(json.loads(path.read_text(encoding="utf-8"))["seeds"]) if path.is_file() else []


def _keep_base(folder: Path, config: dict[str, Any]) -> None:
    """Write the shared configuration, or refuse a folder that holds another."""
    path = folder / BASE
    if path.is_file():
        earlier = read_run_config(folder, BASE)
        given = {**config, "data": {key: value for key, value in config["data"].items() if key not in PLACES}}
        changed = [
            text for part in ("data", "model", "trainer") for text in differences(earlier[part], given[part], part)
        ]
        if changed:
            raise EmolightError(
                f"{folder} was begun with {changed[0]}.",
                "Give the new recipe another --name, or remove the folder.",
            )
    write_text(path, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def check_folds(protocol: str, folds: Sequence[int] | None) -> None:
    """Raise :class:`EmolightError` for a fold that the protocol does not have."""
    valid = FOLDS.get(protocol, {})
    for fold in folds or ():
        if fold not in valid:
            names = ", ".join(str(one) for one in valid) or "none"
            raise EmolightError(f"Protocol '{protocol}' has no fold {fold}.", f"Its folds: {names}.")


def logs_of(config: dict[str, Any]) -> Path:
    """The ``lightning_logs`` folder of a configuration."""
    return Path(config["trainer"]["default_root_dir"] or ".") / LOGS


def show(folder: Path) -> None:
    """Print what a cross-validation found."""
    result = read_result(folder)
    print_result(result, summary_of(folder))


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m emolight crossval",
        description="Train and test every fold of a protocol. Unknown options go to `fit`. The same command goes on"
        " where it was stopped.",
        allow_abbrev=False,
    )
    add_fit_options(parser)
    parser.add_argument("--protocol", choices=PROTOCOLS, help="default: the configuration's")
    parser.add_argument("--folds", type=int, nargs="+", metavar="N", help="default: all")
    options, config = parse(parser, argv)
    protocol = options.protocol or config["data"]["protocol"]
    check_folds(protocol, options.folds)
    folder = logs_of(config) / options.name / f"crossval_{protocol}"
    cross_validate(config, folder, protocol, options.seeds, options.folds, options.workers)
    show(folder)
    print(f"\nnext:\n  python -m emolight report {folder}\n  python -m emolight compare {folder} OTHER")
    return 0
