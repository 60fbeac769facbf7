"""``python -m emolight crossval``: every fold and seed of a recipe, and the figures of all together."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import pandas as pd
import yaml

from emolight.data.datamodule import EmotionDataModule
from emolight.data.protocols import folds_of
from emolight.errors import EmolightError
from emolight.experiments.jobs import Job, run_jobs
from emolight.experiments.results import CROSSVAL, facts_of, read_result
from emolight.experiments.summary import control_scores, print_result, summary_of, write_crossval
from emolight.files import write_text
from emolight.run.cli import full_config
from emolight.run.folder import LOGS, Run, read_config
from emolight.run.options import differences, parse_own
from emolight.run.precision import fast_precision

BASE, CLIPS = "base.yaml", "clips.json"
"""In the folder of a cross-validation: the configuration that all folds share, and the clips it was begun with."""
PLACES = ("root", "cache_dir", "splits_dir", "num_workers")
"""Data settings that may change when a cross-validation is continued, as long as the clips stay the same."""
SET_HERE = {
    **{"--data.protocol": "--protocol", "--data.fold": "--folds", "--seed_everything": "--seeds"},
    **dict.fromkeys(("--data.split_csv", "--ckpt_path", "--resume"), ""),
}
"""Options of ``fit`` that change from run to run, and what to give instead."""


def add_fit_options(parser: argparse.ArgumentParser, protocol: str = "the corpus' own") -> None:
    """The options that crossval, leakgap and transfer share; every other option goes to ``fit``."""
    parser.add_argument("--config", action="append", required=True, metavar="FILE", help="as for `fit`; repeatable")
    parser.add_argument("--protocol", metavar="NAME", help=f"who is held out; default: {protocol}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="default: 0")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="runs at a time; default: 1")
    parser.add_argument("--name", help="folder under lightning_logs; default: the configuration's name")


def parse(parser: argparse.ArgumentParser, argv: list[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The parsed options, and the complete configuration of their ``fit``.

    Raises:
        EmolightError: an option that ``fit`` does not have, or that this command sets itself.
    """
    options, rest = parse_own(parser, argv)
    if fixed := [name for word in rest if (name := word.partition("=")[0]) in SET_HERE]:
        own = SET_HERE[fixed[0]]
        fix = f"Use {own}." if own and own in parser.format_help() else "Leave it out."
        raise EmolightError(f"{fixed[0]} cannot be given here: it changes from run to run.", fix)
    if options.workers < 1:
        raise EmolightError(f"--workers is {options.workers}; it must be at least 1.", "Leave it out for 1.")
    config = full_config([word for path in options.config for word in ("--config", path)] + rest)
    config["trainer"]["precision"] = config["trainer"]["precision"] or fast_precision(config["trainer"]["accelerator"])
    options.name = options.name or config["name"]
    options.protocol = options.protocol or config["data"]["protocol"]
    return options, config


def data_of(config: dict[str, Any], protocol: str | None = None) -> EmotionDataModule:
    """The data of a configuration's first fold, set up: what is wrong with it shows before anything is trained.

    Args:
        config: of :func:`~emolight.run.cli.full_config`.
        protocol: None takes the corpus' own.

    Raises:
        EmolightError: as of :class:`~emolight.data.datamodule.EmotionDataModule`.
    """
    data = EmotionDataModule(**{**config["data"], "protocol": protocol, "fold": None, "split_csv": None})
    data.prepare_data()
    data.setup()
    return data


def all_folds(data: EmotionDataModule, asked: Sequence[int] | None = None) -> list[int]:
    """The folds of the data's protocol, sorted; none under one without folds.

    Raises:
        EmolightError: one that is ``asked`` for does not exist.
    """
    selection, protocol = data.selection, data.split.protocol
    folds = folds_of(selection.corpus, protocol, selection.clips, data.split_seed)
    for fold in asked or ():
        if fold not in folds:
            names = ", ".join(str(one) for one in folds) or "none"
            raise EmolightError(f"Protocol '{protocol}' has no fold {fold}.", f"Its folds: {names}.")
    return folds


def cross_validate(
    config: dict[str, Any],
    data: EmotionDataModule,
    folder: Path,
    seeds: Sequence[int],
    asked: Sequence[int] | None = None,
    workers: int = 1,
    splits: dict[int, Path] | None = None,
) -> None:
    """Run what is missing of a cross-validation, and write its folder.

    What the folder has already stays: its folds and seeds and those that are asked for now make one result.

    Args:
        config: of :func:`~emolight.run.cli.full_config`.
        data: of :func:`data_of`; its protocol is the one that is run.
        folder: ``lightning_logs/NAME/...``; the folds' run folders are made in it.
        seeds: of weights, order and augmentation.
        asked: folds; None takes all.
        workers: runs at a time.
        splits: fold to a split of one's own instead of the protocol's.

    Raises:
        EmolightError: runs failed; the folder holds another recipe or other clips; another process works on it.
    """
    every, protocol = all_folds(data, asked), data.split.protocol
    subset = "test" if data.split.clips("test") else "val"
    config = {**config, "data": {**config["data"], "protocol": protocol, "fold": None, "split_csv": None}}
    with _locked(folder):
        _keep_base(folder, config, data)
        earlier = _earlier(folder)
        folds = sorted({*(asked or every or [0]), *earlier["folds"]})
        seeds = sorted({*seeds, *earlier["seeds"]})
        jobs = {
            (fold, seed): _job(folder, fold if every else None, seed, subset == "test", (splits or {}).get(fold))
            for seed in seeds
            for fold in folds
        }
        devices = config["trainer"]["devices"]
        print(
            f"{data.corpus_name}, task {data.task_name}: {len(data.clips)} clips,"
            f" {data.clips['speaker'].nunique()} speakers; {len(jobs)} runs in {folder}",
            flush=True,
        )
        run_jobs(list(jobs.values()), workers, devices if isinstance(devices, int) and devices > 1 else 1)
        runs = {key: job.run for key, job in jobs.items() if job.run is not None}
        parts = [run.predictions(subset).assign(fold=fold, seed=seed) for (fold, seed), run in runs.items()]
        table = pd.concat(parts, ignore_index=True).sort_values(["clip_id", "seed"], ignore_index=True)
        own = [run for (_, seed), run in runs.items() if seed == seeds[0]]
        root = {} if config["data"]["root"] is None else {"root": config["data"]["root"]}
        about = _about(folder, data, runs, subset) | {"folds": folds, "seeds": seeds}
        about["protocol"] = _label(own[0], every, folds)
        write_crossval(folder, about, table, control_scores((run.data(**root) for run in own), subset))


def _about(folder: Path, data: EmotionDataModule, runs: dict[tuple[int, int], Run], subset: str) -> dict[str, Any]:
    """What :data:`~emolight.experiments.results.CROSSVAL` says."""
    first, *_ = runs.values()
    facts = facts_of(first)
    hashes = list(dict.fromkeys(run.split.hash for run in runs.values()))
    return {
        "name": f"{folder.parent.name} {folder.name.removeprefix('crossval_')}",
        "kind": "crossval",
        "subset": subset,
        "corpus": data.corpus_name,
        "task": data.task_name,
        "selection": first.split.selection,
        "split": hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest(),
        "speaker_independent": all(run.split.speaker_independent(subset) for run in runs.values()),
        "emotions": list(data.classes),
        "groups": list(data.groups),
        "runs": [
            {
                "fold": fold,
                "seed": seed,
                "folder": run.folder.relative_to(folder).as_posix(),
                "seconds": run.environment["seconds"],
                "openings": run.openings,
            }
            for (fold, seed), run in runs.items()
        ],
        "facts": {
            **facts,
            "seconds": sum(run.environment["seconds"] for run in runs.values()),
            "speakers": int(data.selection.clips["speaker"].nunique()),
        },
    }


def _label(run: Run, every: Sequence[int], folds: Sequence[int]) -> str:
    label = re.sub(r" fold \d+", "", run.split.label)
    return label if set(every) <= set(folds) else f"{label} folds {' '.join(str(fold) for fold in folds)}"


def _job(folder: Path, fold: int | None, seed: int, test: bool, split: Path | None) -> Job:
    part = f"seed_{seed}" if fold is None else f"fold_{fold}_seed_{seed}"
    logs = next(parent for parent in folder.parents if parent.name == LOGS.name)
    name = f"{folder.relative_to(logs).as_posix()}/{part}"
    options = ["--config", str(folder / BASE), "--name", name, "--seed_everything", str(seed)]
    if split is not None:
        options += ["--data.split_csv", str(split)]
    elif fold is not None:
        options += ["--data.fold", str(fold)]
    return Job(part.replace("_", " "), folder / part, options, test)


def _earlier(folder: Path) -> dict[str, list[int]]:
    path = folder / CROSSVAL
    about = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {name: list(about.get(name, ())) for name in ("folds", "seeds")}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Two cross-validations of one folder at once would both train every fold."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / ".lock", timeout=0):
            yield
    except filelock.Timeout:
        raise EmolightError(
            f"Another process is at work in {folder}.", "Wait for its end, or pass another --name."
        ) from None


def _keep_base(folder: Path, config: dict[str, Any], data: EmotionDataModule) -> None:
    """Write the shared configuration and the clips, or refuse a folder that was begun with others."""
    path, root = folder / BASE, ", ".join(str(place) for _, place in data.places)
    clips = {"clips": len(data.clips), "root": root, "hash": _clips_hash(data)}
    fix = "Give the new recipe another --name, or remove the folder."
    if path.is_file():
        earlier = read_config(path)
        for part in ("data", "model", "trainer"):
            kept = {name: value for name, value in earlier[part].items() if part != "data" or name not in PLACES}
            if changed := differences(kept, config[part], part):
                raise EmolightError(f"{folder} was begun with {changed[0]}.", fix)
        before = json.loads((folder / CLIPS).read_text(encoding="utf-8"))
        if before["hash"] != clips["hash"]:
            raise EmolightError(
                f"{folder} was begun with {before['clips']} clips in '{before['root']}'; received {clips['clips']}"
                f" in '{root}', which are others.",
                fix,
            )
    write_text(folder / CLIPS, json.dumps(clips, indent=2) + "\n")
    write_text(path, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def _clips_hash(data: EmotionDataModule) -> str:
    """SHA-256 over the clips: their labels, their speakers, and what the recordings sound like."""
    table = data.clips[["clip_id", "emotion", "speaker"]].sort_values("clip_id")
    table["content"] = table["clip_id"].map(data.cache.hashes)
    return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()


def logs_of(config: dict[str, Any]) -> Path:
    """The ``lightning_logs`` folder of a configuration."""
    return Path(config["trainer"]["default_root_dir"] or ".").expanduser() / LOGS


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m emolight crossval",
        description="Train and test every fold of a protocol. Unknown options go to `fit`. The same command goes on"
        " where it was stopped; folds and seeds that the folder has already stay in its result.",
        allow_abbrev=False,
    )
    add_fit_options(parser)
    parser.add_argument("--folds", type=int, nargs="+", metavar="N", help="default: all")
    options, config = parse(parser, argv)
    data = data_of(config, options.protocol)
    folder = logs_of(config) / options.name / f"crossval_{data.split.protocol}"
    cross_validate(config, data, folder, options.seeds, options.folds, options.workers)
    print_result(read_result(folder), summary_of(folder))
    print(f"\nnext:\n  python -m emolight report {folder}\n  python -m emolight compare {folder} OTHER")
    return 0
