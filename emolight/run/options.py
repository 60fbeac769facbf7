"""What a run brings to ``validate``, ``test`` and ``fit --resume``, and which options would contradict it."""

import contextlib
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from emolight.data.selection import corpora_of
from emolight.errors import EmolightError
from emolight.files import expand
from emolight.models.checkpoint import check_is_file, read_checkpoint
from emolight.models.loading import classifier_of
from emolight.models.speakers import KINDS
from emolight.run.environment import slurm_job
from emolight.run.folder import LOGS, SPLIT, Run
from emolight.run.precision import BFLOAT16
from emolight.run.words import CONFIG_OPTIONS, take, word_of

FIXED = ("task", "label", "filter", "label_map", "protocol", "fold", "split_seed", "speakers")
"""Data settings that say which clips a checkpoint was trained and is scored on."""
SOUND = ("sample_rate", "duration", "trim_db")
"""Data settings that the model is made for."""
FREE = ("seed", "classes", "pretrained")
"""Settings of a model that a checkpoint does not hold one to."""
TRAINER = (
    *("max_epochs", "max_steps", "precision", "gradient_clip_val", "accumulate_grad_batches", "limit_train_batches"),
    *("limit_val_batches", "val_check_interval", "check_val_every_n_epoch", "log_every_n_steps", "deterministic"),
    *("min_epochs", "min_steps", "sync_batchnorm", "benchmark", "num_sanity_val_steps", "overfit_batches"),
    *("gradient_clip_algorithm", "accelerator", "devices", "strategy"),
)
"""Trainer settings that a resumed run takes over; what could name folders and classes is not among them."""
CALLBACKS = ("EarlyStopping", "LearningRateMonitor", "StochasticWeightAveraging", "EMAWeightAveraging", "Timer")
"""Lightning's callbacks that a resumed run takes over: none of them writes a file or imports anything."""
STATE = ("epoch", "global_step", "loops", "callbacks", "optimizer_states", "lr_schedulers")
"""What a run goes on from, beside the weights."""


def insert_run(argv: list[str]) -> list[str]:
    """With ``--ckpt_path`` or ``--resume``, start from the run's own configuration and split.

    Of the configuration, which may be a stranger's, only what describes data and model is taken; of the trainer's
    part plain values, and only by ``--resume``.
    """
    command, *options = argv
    options, checkpoints = take(options, "--ckpt_path")
    configured = bool(take(options, *CONFIG_OPTIONS)[1])
    if command == "fit":
        if checkpoints:
            raise EmolightError(f"`fit` does not take --ckpt_path {checkpoints[-1]}.", "Go on: fit --resume RUN")
        options, resumed = take(options, "--resume")
        run = Run.open(resumed[-1]) if resumed else _requeued_run(options)
        if run is None:
            return argv
        given = Path(resumed[-1]).expanduser() if resumed else run.last
        path = given if given.is_file() else run.last
        _check_resumable(path)
    elif checkpoints:
        given = Path(checkpoints[-1]).expanduser()
        run = Run.open(given) if given.is_dir() and not configured else Run.around(given)
        path = run.best if run and given.is_dir() else given
        check_is_file(checkpoints[-1] if path is given else path)
        if run is None and configured:
            return [command, "--ckpt_path", str(path), *options]
        if run is None:
            fix = "Keep the checkpoint in its run folder, or pass --config as well."
            raise EmolightError(f"No config.yaml in the folders above {path}.", fix)
    else:
        return argv
    corpora = [yaml.safe_load(one) for one in take(options, "--data.corpus")[1]]
    roots = take(options, "--data.root")[1]
    moved = bool(corpora) and _moved(run, corpora[-1], roots[-1] if roots else None)
    other = bool(corpora) and corpora[-1] != run.config["data"].get("corpus") and not moved
    if other and command == "fit":
        raise EmolightError(f"{run.folder} is not of data.corpus {corpora[-1]}.", "Leave it out; `test` takes another.")
    words = ["--data.protocol=test"] if other else [f"--data.split_csv={run.folder / SPLIT}"]
    if command == "fit":
        trainer = run.config["trainer"]
        plain = (bool, int, float, str, list, type(None))  # null for a default that is a number, a list of devices
        kept = {name: trainer[name] for name in TRAINER if name in trainer and isinstance(trainer[name], plain)}
        if not take(options, "--trainer.callbacks", "--trainer.callbacks+")[1]:
            kept |= _callbacks(run)
        lost = [name for name in ("logger", "max_time", "plugins") if isinstance(trainer.get(name), dict | list | str)]
        again = [f"trainer.{one}" for one in lost if not any(word.startswith(f"--trainer.{one}") for word in options)]
        if again and not configured:
            print(f"note:   not taken over, give it again: {', '.join(again)}")
        words += [word_of(f"trainer.{name}", value) for name, value in kept.items()]
    else:
        words.append(word_of("data.emotions", read_checkpoint(path)["hyper_parameters"]["classes"]))
        if run.config["trainer"].get("precision") == BFLOAT16:  # else the predictions would be a little different
            words.append(f"--trainer.precision={BFLOAT16}")
    # Data and model of the run, as text that the parser takes for a configuration. Of another corpus only what the
    # model needs is taken.
    data = run.data_settings(moved=other or moved or configured or bool(roots))
    if moved:  # the recordings lie where the table says
        data.pop("root", None)
    if other:
        data = {name: value for name, value in data.items() if name in (*SOUND, "label", "batch_size", "cache_dir")}
    model, network = dict(run.config["model"]), run.config["model"].get("network")
    if isinstance(network, dict) and "pretrained" in (network.get("init_args") or {}):  # the checkpoint has the weights
        model["network"] = {**network, "init_args": {**network["init_args"], "pretrained": False}}
    own = {name: run.config[name] for name in ("name", "seed_everything")} | {"data": data, "model": model}
    return [command, "--config", json.dumps(own), *words, "--ckpt_path", str(path), *options]


def _moved(run: Run, corpus: Any, root: str | None) -> bool:
    """Whether CSVs are the run's own, which are gone from their places: the same names, and all clips of its split."""
    own, given = (one if isinstance(one, list) else [one] for one in (run.config["data"].get("corpus"), corpus))
    pairs = [(str(one), str(other)) for one, other in zip(own, given, strict=False) if one != other]
    named = all(Path(one).name == Path(other).name and not expand(one).is_file() for one, other in pairs)
    if not pairs or not named or len(own) != len(given):
        return False
    tables = [(f"{one.name}/" * (len(own) > 1), one.table(folder)) for one, folder in corpora_of(corpus, root)]
    return {*run.split.table["clip_id"]} <= {before + clip for before, table in tables for clip in table["clip_id"]}


def _check_resumable(path: Path) -> None:
    """Raise :class:`EmolightError` for a checkpoint that is damaged, of another version, or holds weights alone."""
    checkpoint = read_checkpoint(path)
    if missing := [name for name in STATE if name not in checkpoint]:
        problem = f"{path} holds no training to go on with: no {', '.join(missing)}."
        raise EmolightError(problem, "Give the run folder, or its checkpoints/last.ckpt.")
    epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
    if epochs["ready"] != epochs["processed"]:  # of a callback: the epoch's other batches would not come again
        problem = f"{path} is of the middle of an epoch."
        raise EmolightError(problem, "Give the run folder, or its checkpoints/last.ckpt.")
    classifier_of(checkpoint, path)


def _requeued_run(options: Sequence[str]) -> Run | None:
    """The run that this ``fit`` of this SLURM job began before the job was put back into the queue, or None.

    A job may hold several; the same ``options`` began the same run.
    """
    if not int(os.environ.get("SLURM_RESTART_COUNT") or 0):
        return None
    rest, files = take(options, *CONFIG_OPTIONS)
    root = "."
    for path in files:
        with contextlib.suppress(OSError, ValueError, AttributeError, yaml.YAMLError):  # the parser says more
            trainer = (yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}).get("trainer") or {}
            root = trainer.get("default_root_dir") or root
    root = [root, *take(rest, "--trainer.default_root_dir")[1]][-1]
    asked = {"slurm_job": slurm_job(), "command": shlex.join(["fit", *options])}
    runs = [Run(path.parent) for path in (expand(root) / LOGS).rglob("environment.json")]
    runs = [run for run in runs if asked.items() <= run.environment.items() and run.last.is_file()]
    return max(runs, key=lambda run: int(run.folder.name.removeprefix("version_")), default=None)


def _callbacks(run: Run) -> dict[str, Any]:
    """The callbacks of a resumed run, as an option of the trainer; EmolightError for one that could write something."""
    given = run.config["trainer"].get("callbacks")
    found = given if isinstance(given, list) else [given] if given else []
    for one in found:
        name = str(one.get("class_path", "") if isinstance(one, dict) else one)
        module, _, kind = name.rpartition(".")
        if not module.startswith("lightning.pytorch.callbacks") or kind not in CALLBACKS:
            problem = f"{run.folder}/config.yaml names the callback '{name}', which is not taken over unasked."
            raise EmolightError(problem, "Give all of them again by --trainer.callbacks, or take it out of the file.")
    return {"callbacks": found} if found else {}


def contradictions(checkpoint: str, run: Run | None, given: dict[str, Any], command: str) -> list[str]:
    """Settings of the ``given`` complete configuration that differ from what a checkpoint, maybe of a run, has."""
    trained = read_checkpoint(checkpoint)["hyper_parameters"]
    changed = differences({name: trained[name] for name in SOUND if name in trained}, given["data"], "data")
    changed += differences(trained, given["model"], "model")
    if run is None:
        return changed
    data, emotions = run.config["data"], given["data"]["emotions"]
    if given["data"]["corpus"] == data.get("corpus") or given["data"]["split_csv"] == str(run.folder / SPLIT):
        changed += differences({name: data[name] for name in FIXED if name in data}, given["data"], "data")
    if emotions not in (None, data.get("emotions"), trained["classes"]):
        changed.append(f"data.emotions {trained['classes']}, received {emotions}")
    if command == "fit":  # the schedule is laid out over the epochs, and the best one is of the same clips
        epochs = {name: run.config["trainer"].get(name) for name in ("max_epochs", "limit_val_batches")}
        changed += differences({"batch_size": data.get("batch_size")}, given["data"], "data")
        changed += differences({"trainer": epochs, "seed_everything": run.config["seed_everything"]}, given, "")
    return changed


def differences(saved: dict[str, Any], given: dict[str, Any], prefix: str) -> list[str]:
    """Texts such as ``model.learning_rate 0.001, received 0.5`` for settings that differ."""
    texts: list[str] = []
    for name, value in saved.items():
        option = f"{prefix}.{name}".replace(".init_args", "").lstrip(".")
        # Nothing given for the augmentation, or the parts of Stacked, means the usual ones.
        if name not in given or name in FREE or (name in ("augment", "parts") and given[name] is None):
            continue
        if isinstance(value, dict) and isinstance(given[name], dict):
            texts += differences(value, given[name], option)
        elif value != given[name]:
            texts.append(f"{option} {value}, received {given[name]}")
    return texts


def add_enrolment(parser: Any) -> None:
    """The options of ``crossval`` and ``test`` that :func:`check_enrolment` checks."""
    about = "also score with so many other clips of each speaker enrolled, such as 0 5 10 20 all"
    parser.add_argument("--enrol", nargs="+", default=[], metavar="N", help=about)
    about, usual = f"what the enrolled clips are, of {', '.join(KINDS)}; default: mixed ordinary", ["mixed", "ordinary"]
    parser.add_argument("--enrol-as", nargs="+", choices=list(KINDS), default=usual, help=about)


def check_enrolment(counts: Sequence[str], speaker_norm: bool) -> None:
    """Refuse numbers of clips that are none, and models that do not adapt."""
    if wrong := [count for count in counts if count != "all" and not count.isdecimal()]:
        raise EmolightError(f"--enrol is {wrong[0]}; it must be numbers of clips, or all.", "Type: --enrol 0 5 10 all")
    if counts and not speaker_norm:
        problem = "--enrol needs models that adapt to speakers."
        raise EmolightError(problem, "They are trained with --model.speaker_norm true.")
