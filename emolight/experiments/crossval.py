"""``python -m emolight crossval``: every fold and seed of a recipe, and the figures of all together."""

import argparse
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import filelock
import pandas as pd
import yaml

from emolight.data.datamodule import EmotionDataModule
from emolight.data.protocols import folds_of
from emolight.data.splits import SCORED
from emolight.errors import CommandParser, EmolightError, counted, trust
from emolight.evaluation.predictions import class_names
from emolight.experiments.enrolment import score_enrolment
from emolight.experiments.jobs import finished_run, fit_and_test, run_all
from emolight.experiments.processes import Task
from emolight.experiments.results import CROSSVAL, Result, Runs, facts_of, read_result, runs_of
from emolight.experiments.robustness import card, card_figure, print_card, score_disturbed
from emolight.experiments.summary import control_scores, print_result, summary_of, write_crossval, write_found
from emolight.files import write_json, write_text
from emolight.inference.recognizer import load
from emolight.run.cli import full_config
from emolight.run.folder import logs_of, read_config, read_json, run_name
from emolight.run.options import add_enrolment, check_enrolment, differences
from emolight.run.parser import typed_modules
from emolight.run.precision import fast_precision

BASE, CLIPS = "base.yaml", "clips.json"
"""In the folder of a cross-validation: the configuration that all folds share, and the clips it was begun with."""
WITHIN = ", options chosen within each fold"
"""What the protocol's name of a nested cross-validation ends with."""
PLACES = ("root", "cache_dir", "splits_dir", "num_workers")
"""Data settings that may change when a cross-validation is continued, as long as the clips stay the same."""
OF_RUNS = ("--data.protocol", "--data.fold", "--seed_everything", "--data.split_csv", "--ckpt_path", "--resume")
"""Options of ``fit`` that change from run to run."""


def add_fit_options(parser: argparse.ArgumentParser) -> None:
    """The options that crossval, leakgap and transfer share; every other option goes to ``fit``."""
    parser.add_argument("--config", action="append", required=True, metavar="FILE", help="as for `fit`; repeatable")
    parser.add_argument("--protocol", metavar="NAME", help="who is held out; default: the corpus' own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="default: 0")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="runs at a time; default: 1")
    parser.add_argument("--name", help="folder under lightning_logs; default: the configuration's name")


def parse(parser: argparse.ArgumentParser, argv: list[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The parsed options, and the complete configuration of their ``fit``; EmolightError where ``fit`` refuses one."""
    options, rest = parser.parse_known_args(argv)
    if fixed := [name for word in rest if (name := word.partition("=")[0]) in OF_RUNS]:
        fix = "Use --protocol, --folds and --seeds where the command has them."
        raise EmolightError(f"{fixed[0]} cannot be given here: it changes from run to run.", fix)
    if options.workers < 1:
        raise EmolightError(f"--workers is {options.workers}; it must be at least 1.", "Leave it out for 1.")
    trust(typed_modules(rest))
    config = full_config([word for path in options.config for word in ("--config", path)] + rest)
    if (own := config["data"]["split_csv"]) and not options.protocol:
        fix = "Say whose splits it makes instead, such as --protocol speakers5."
        raise EmolightError(f"data.split_csv is {own}, which this command does not take.", fix)
    config["trainer"]["precision"] = config["trainer"]["precision"] or fast_precision(config["trainer"]["accelerator"])
    options.name = options.name or config["name"]
    if Path(options.name).is_absolute() or ".." in Path(options.name).parts:
        raise EmolightError(f"The name '{options.name}' leads out of {logs_of(config)}.", "Pass another --name.")
    if config["trainer"]["fast_dev_run"]:
        raise EmolightError("trainer.fast_dev_run leaves no runs.", "Take --trainer.limit_train_batches 2.")
    options.protocol = options.protocol or config["data"]["protocol"]
    return options, config


def data_of(config: dict[str, Any], protocol: str | None = None) -> EmotionDataModule:
    """The data of the first fold of a protocol, or of the corpus' own, set up: what is wrong with it shows early."""
    data = EmotionDataModule(**{**config["data"], "protocol": protocol, "fold": None, "split_csv": None})
    data.setup()
    return data


def all_folds(data: EmotionDataModule, asked: Sequence[int] | None = None) -> list[int]:
    """The folds of the data's protocol, sorted; EmolightError where one that is ``asked`` for does not exist."""
    selection, protocol = data.selection, data.split.protocol
    folds = folds_of(selection.corpus, protocol, selection.clips, data.split_seed)
    for fold in set(asked or ()) - set(folds):
        names = ", ".join(map(str, folds)) or "none"
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
    chosen: Callable[[int], list[str]] | None = None,
) -> Result:
    """Run what is missing of a cross-validation by the protocol of ``data``, and write its folder.

    What the folder has already stays: its folds and seeds and those that are asked for now (all folds by default) make
    one result. ``splits`` maps a fold to a split of one's own instead of the protocol's;
    ``chosen`` gives a fold's own options of ``fit``.
    """
    every, tested = all_folds(data, asked), bool(data.split.clips("test"))
    own = {"protocol": data.split.protocol, "fold": None, "split_csv": None}
    config = {**config, "data": {**config["data"], **own}}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = filelock.FileLock(folder / ".lock").acquire(timeout=0)
    except filelock.Timeout:
        fix = "Wait for its end, or pass another --name."
        raise EmolightError(f"Another process is at work in {folder}.", fix) from None
    with lock:
        _keep_base(folder, config, data)
        path, again = folder / CROSSVAL, "Remove it: this command writes it again."
        earlier = read_json(path, again) if path.is_file() else {"kind": "crossval", "folds": [], "seeds": []}
        if earlier.get("kind") != "crossval":
            raise EmolightError(f"{folder} holds an ensemble.", "Pass another --name.")
        folds = sorted({*(asked or every or [0]), *earlier["folds"]})
        seeds = sorted({*seeds, *earlier["seeds"]})
        published = data.selection.corpus.protocols.get(data.split.protocol, {})
        tested_by = Counter(who for fold in folds if fold in published for who in published[fold].test)
        if twice := [who for who, times in tested_by.items() if times > 1]:
            problem = f"Speaker {twice[0]} is a test speaker of more than one fold; its clips would count twice."
            raise EmolightError(problem, "Give each speaker one fold, or run some of the --folds under another --name.")
        own_words = {fold: chosen(fold) if chosen else [] for fold in folds}
        tasks = {}
        for seed, fold in product(seeds, folds):
            place = folder / (f"fold_{fold}_seed_{seed}" if every else f"seed_{seed}")
            words = ["--config", str(folder / BASE), "--name", run_name(place), "--seed_everything", str(seed)]
            if splits and fold in splits:
                words += ["--data.split_csv", str(splits[fold])]
            elif every:
                words += ["--data.fold", str(fold), *own_words[fold]]
            label = place.name.replace("_", " ")
            tasks[fold, seed] = Task(label, place / "log.txt", fit_and_test, (place, words, tested))
        speakers = data.clips["speaker"].nunique()
        missing = [task for task in tasks.values() if finished_run(task.log.parent, tested) is None]
        about = f"{data.corpus_name}, task {data.task_name}: {len(data.clips)} clips, {speakers} speakers"
        runs_there = f"{counted(len(tasks), 'run')} in {folder}, {len(tasks) - len(missing)} of them finished"
        print(f"{about}; {runs_there}", flush=True)
        devices = str(config["trainer"]["devices"])  # typed, they are a text
        run_all(missing, workers, int(devices) if devices.isdecimal() else 1)
        runs = {key: run for key, task in tasks.items() if (run := finished_run(task.log.parent, tested))}
        _write(folder, data, runs, every, config["data"]["root"], WITHIN if chosen else "")
    return read_result(folder)


def _write(
    folder: Path, data: EmotionDataModule, runs: Runs, every: Sequence[int], root: str | list[str] | None, note: str
) -> None:
    """Put the runs, by fold and seed, together; of ``every`` fold some may be missing."""
    first, total = next(iter(runs.values())), sum(run.environment["seconds"] for run in runs.values())
    subset = "test" if data.split.clips("test") else "val"
    folds, seeds = (sorted(set(numbers)) for numbers in zip(*runs, strict=True))
    hashes = list(dict.fromkeys(run.split.hash for run in runs.values()))
    label = re.sub(r" fold \d+", "", first.split.label)
    about = {
        **first.fingerprint,
        "name": f"{folder.parent.name} {folder.name.removeprefix('crossval_')}",
        "kind": "crossval",
        "subset": subset,
        "folds": folds,
        "seeds": seeds,
        "protocol": (label if set(every) <= set(folds) else f"{label} folds {' '.join(map(str, folds))}") + note,
        "split": hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest(),
        "speaker_independent": all(run.split.speaker_independent(subset) for run in runs.values()),
        "runs": [
            {"fold": fold, "seed": seed, "folder": run.folder.relative_to(folder).as_posix(), "openings": run.openings}
            for (fold, seed), run in runs.items()
        ],
        "facts": {**facts_of(*runs.values()), "seconds": total, "speakers": data.selection.clips["speaker"].nunique()},
    }
    tables = [run.predictions(subset).assign(fold=fold, seed=seed) for (fold, seed), run in runs.items()]
    table = pd.concat(tables, ignore_index=True).sort_values(["clip_id", "seed"], ignore_index=True)
    of_folds = (run.data(root=root) for (_, seed), run in runs.items() if seed == seeds[0])
    write_crossval(folder, about, table, control_scores(of_folds, subset))


def score_robustness(result: Result, root: str | list[str] | None) -> None:
    """Write the robustness card of each fold's held-out clips by its own model, which counts as a scoring of them."""
    parts: dict[str, list[pd.DataFrame]] = {}
    for (fold, seed), run in runs_of(result).items():
        data = run.data(root=root)
        data.setup()
        clips = data.clips.iloc[data.subset(result.subset)]
        print(f"fold {fold} seed {seed}: {len(clips)} clips, disturbed", flush=True)
        for name, table in score_disturbed(load(run.best), clips, data.groups).items():
            parts.setdefault(name, []).append(table.assign(fold=fold, seed=seed))
        if result.subset == "test":
            run.count_test(run.best, len(clips))
    rows = card({name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()})
    title = f"{result.name}: {rows['clips'].iloc[0]} {SCORED[result.subset]} clips, disturbed"
    print_card(rows, title)
    figure = card_figure(rows, len(class_names(result.table)), title)
    plain = rows.astype(object).where(rows.notna(), None).to_dict("records")
    write_found(result.folder / f"robustness_{result.subset}", plain, figure)


def clips_of(data: EmotionDataModule) -> dict[str, Any]:
    """How many ``clips`` the data has, and the ``hash`` of them, their labels, speakers, recordings and own subsets."""
    own = ["subset"] if data.split_csv or data.split.protocol == "subset" else []
    table = data.clips[["clip_id", "emotion", "speaker", *own]].sort_values("clip_id")
    table["content"] = table["clip_id"].map(data.cache.hashes)  # what the recordings sound like
    return {"clips": len(table), "hash": hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()}


def _keep_base(folder: Path, config: dict[str, Any], data: EmotionDataModule) -> None:
    """Write the shared configuration and the clips, or refuse a folder that was begun with others."""
    path, root = folder / BASE, ", ".join(str(place) for _, place in data.places)
    clips = clips_of(data)
    if path.is_file():
        fix = "Give the new recipe another --name, or remove the folder."
        earlier = read_config(path)
        for part in ("data", "model", "trainer"):
            kept = {name: value for name, value in earlier[part].items() if part != "data" or name not in PLACES}
            if changed := differences(kept, config[part], part):
                raise EmolightError(f"{folder} was begun with {changed[0]}.", fix)
        before = read_json(folder / CLIPS, fix)
        if before["hash"] != clips["hash"]:
            raise EmolightError(f"{folder} was begun with {before['clips']} clips, those in '{root}' are others.", fix)
    write_json(folder / CLIPS, clips)
    write_text(path, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def main(argv: list[str], choose: Callable[[Path, Path, int, int], list[str]] | None = None) -> int:
    """Run the command; with ``choose``, :func:`emolight.sweep.nested.choose`, it has ``--nested``."""
    about = (
        "Train and test every fold of a protocol. Unknown options go to `fit`. The same command goes on where it was"
        " stopped; folds and seeds that the folder has already stay in its result."
    )
    parser = CommandParser("crossval", about)
    add_fit_options(parser)
    parser.add_argument("--folds", type=int, nargs="+", metavar="N", help="default: all")
    about = "choose options within each fold: by this sweep, on the fold's own validation speakers"
    if choose:
        parser.add_argument("--nested", type=Path, metavar="SWEEP", help=about)
    about = "also score each fold's held-out clips under noise, band limits, level, rooms ..."
    parser.add_argument("--robustness", action="store_true", help=about)
    add_enrolment(parser)
    options, config = parse(parser, argv)
    check_enrolment(options.enrol, config["model"]["speaker_norm"])
    if choose and options.nested and not options.nested.is_file():  # before the recordings are read
        problem = f"There is no sweep {options.nested}."
        raise EmolightError(problem, "Name the YAML of a sweep, such as sweeps/mfcc.yaml.")
    data = data_of(config, options.protocol)
    folder = logs_of(config) / options.name / f"crossval_{data.split.protocol}"
    chosen = None
    if choose and options.nested:
        if not (all_folds(data) and data.split.clips("test")):
            problem = f"--nested needs folds with test speakers; protocol '{data.split.protocol}' has none."
            raise EmolightError(problem, "Give a protocol that holds speakers out: --protocol speakers5.")
        folder = folder.with_name(f"{folder.name}_nested")
        chosen = partial(choose, options.nested, folder, options.workers)
    result = cross_validate(config, data, folder, options.seeds, options.folds, options.workers, chosen=chosen)
    if options.robustness:
        score_robustness(result, config["data"]["root"])
        result = read_result(folder)
    if options.enrol:
        score_enrolment(result, options.enrol, options.enrol_as, config["data"]["root"])
        result = read_result(folder)
    print_result(result, summary_of(result))
    print(f"\nnext:\n  python -m emolight report {folder}\n  python -m emolight compare {folder} OTHER")
    return 0
