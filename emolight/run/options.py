"""What a run brings to ``validate``, ``test`` and ``fit --resume``, and which options would contradict it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from emolight.errors import EmolightError
from emolight.models.checkpoint import check_is_file, read_checkpoint
from emolight.run.folder import SPLIT, Run
from emolight.run.precision import BFLOAT16
from emolight.run.resume import check_resumable, requeued_run
from emolight.run.words import CONFIG_OPTIONS, take

FIXED = ("task", "filter", "label_map", "protocol", "fold", "split_seed", "speakers")
"""Data settings that say which clips a checkpoint was trained and is scored on."""
SOUND = ("sample_rate", "duration", "trim_db")
"""Data settings that the model is made for."""
FREE = ("seed", "classes", "pretrained")
"""Settings of a model that a checkpoint does not hold one to."""
TRAINER = (
    *("max_epochs", "max_steps", "precision", "gradient_clip_val", "accumulate_grad_batches", "limit_train_batches"),
    *("limit_val_batches", "val_check_interval", "check_val_every_n_epoch", "log_every_n_steps", "deterministic"),
    *("num_sanity_val_steps", "overfit_batches", "gradient_clip_algorithm", "accelerator", "devices", "strategy"),
)
"""Trainer settings that a resumed run takes over; what could name folders and classes is not among them."""
CALLBACKS = ("EarlyStopping", "LearningRateMonitor", "StochasticWeightAveraging", "EMAWeightAveraging", "Timer")
"""Lightning's callbacks that a resumed run takes over: none of them writes a file or imports anything."""


def insert_run(argv: list[str]) -> list[str]:
    """With ``--ckpt_path`` or ``--resume``, start from the run's own configuration and split.

    Of the configuration, which may be a stranger's, only what describes data and model is taken; of the trainer's
    part plain values, and only by ``--resume``.

    Raises:
        EmolightError: there is no such run or checkpoint, or what it says is not taken unasked.
    """
    command, *options = argv
    options, checkpoints = take(options, "--ckpt_path")
    if command == "fit":
        if checkpoints:
            raise EmolightError(f"`fit` does not take --ckpt_path {checkpoints[-1]}.", "Go on: fit --resume RUN")
        options, resumed = take(options, "--resume")
        run = Run.open(resumed[-1]) if resumed else requeued_run(options)
        if run is None:
            return argv
        given = Path(resumed[-1]).expanduser() if resumed else run.last
        path = given if given.is_file() else run.last
        check_resumable(path)
    elif checkpoints:
        given = Path(checkpoints[-1]).expanduser()
        run = Run.around(given)
        path = run.best if run and given.is_dir() else given
        check_is_file(checkpoints[-1] if path is given else path)
        if run is None and not take(options, *CONFIG_OPTIONS)[1]:
            raise EmolightError(
                f"No config.yaml in the folders above {path}.",
                "Keep the checkpoint in its run folder, or pass --config as well.",
            )
        if run is None:
            return [command, "--ckpt_path", str(path), *options]
    else:
        return argv
    corpora = [yaml.safe_load(one) for one in take(options, "--data.corpus")[1]]
    other = bool(corpora) and corpora[-1] != run.config["data"].get("corpus")
    words = ["--data.protocol=test"] if other else [f"--data.split_csv={run.folder / SPLIT}"]
    if command == "fit":
        again = take(options, "--trainer.callbacks", "--trainer.callbacks+")[1]
        trainer = run.config["trainer"]
        plain = {name: trainer[name] for name in TRAINER if isinstance(trainer.get(name), bool | int | float | str)}
        found = plain if again else plain | _callbacks(run)
        words += [
            f"--trainer.{name}={value if isinstance(value, str) else json.dumps(value)}"
            for name, value in found.items()
        ]
    else:
        words.append(f"--data.emotions={json.dumps(read_checkpoint(path)['hyper_parameters']['classes'])}")
        if run.config["trainer"].get("precision") == BFLOAT16:  # else the predictions would be a little different
            words.append(f"--trainer.precision={BFLOAT16}")
    moved = bool(take(options, "--data.root", *CONFIG_OPTIONS)[1])
    return [command, "--config", _plain_config(run, other, moved), *words, "--ckpt_path", str(path), *options]


def _plain_config(run: Run, other: bool, moved: bool) -> str:
    """The run's data and model settings, as text that the parser takes for a configuration.

    Args:
        run: maybe a stranger's.
        other: another corpus is scored: only what the model needs is taken.
        moved: the recordings are elsewhere by now.
    """
    data = run.data_settings(other or moved)
    if other:
        data = {name: value for name, value in data.items() if name in (*SOUND, "batch_size", "cache_dir")}
    model = run.config["model"]
    network = model.get("network")
    if isinstance(network, dict) and "pretrained" in (network.get("init_args") or {}):  # the checkpoint has the weights
        model = {**model, "network": {**network, "init_args": {**network["init_args"], "pretrained": False}}}
    return json.dumps(
        {**{name: run.config[name] for name in ("name", "seed_everything")}, "data": data, "model": model}
    )


def _callbacks(run: Run) -> dict[str, Any]:
    """The callbacks of a resumed run, as an option of the trainer.

    Raises:
        EmolightError: one that could write or import something.
    """
    given = run.config["trainer"].get("callbacks")
    found = given if isinstance(given, list) else [given] if given else []
    for one in found:
        name = str(one.get("class_path", "") if isinstance(one, dict) else one)
        module, _, kind = name.rpartition(".")
        if not module.startswith("lightning.pytorch.callbacks") or kind not in CALLBACKS:
            raise EmolightError(
                f"{run.folder}/config.yaml names the callback '{name}', which is not taken over unasked.",
                "Give all of them again by --trainer.callbacks, or take it out of the file.",
            )
    return {"callbacks": found} if found else {}


def contradictions(checkpoint: str, run: Run | None, given: dict[str, Any], command: str) -> list[str]:
    """Settings of the ``given`` complete configuration that differ from what a checkpoint, maybe of a run, has."""
    trained = read_checkpoint(checkpoint)["hyper_parameters"]
    changed = differences({name: trained[name] for name in SOUND if name in trained}, given["data"], "data")
    changed += differences(trained, given["model"], "model")
    if run is not None:
        recorded = run.config
        same = given["data"]["corpus"] == recorded["data"].get("corpus")
        fixed = {name: recorded["data"][name] for name in FIXED if name in recorded["data"]} if same else {}
        changed += differences(fixed, given["data"], "data")
        if given["data"]["emotions"] not in (None, recorded["data"].get("emotions"), trained["classes"]):
            changed.append(f"data.emotions {trained['classes']}, received {given['data']['emotions']}")
        if command == "fit":
            # The one-cycle schedule is laid out over the epochs.
            laid_out = {"trainer": {"max_epochs": recorded["trainer"].get("max_epochs")}}
            changed += differences({**laid_out, "seed_everything": recorded["seed_everything"]}, given, "")
    return changed


def differences(saved: dict[str, Any], given: dict[str, Any], prefix: str) -> list[str]:
    """Texts such as ``model.learning_rate 0.001, received 0.5`` for settings that differ."""
    texts: list[str] = []
    for name, value in saved.items():
        # Nothing given for the augmentation means the usual one.
        if name not in given or name in FREE or (name == "augment" and given[name] is None):
            continue
        if isinstance(value, dict) and isinstance(given[name], dict):
            texts += differences(value, given[name], f"{prefix}.{name}".replace(".init_args", "").lstrip("."))
        elif value != given[name]:
            texts.append(f"{prefix}.{name}".lstrip(".") + f" {value}, received {given[name]}")
    return texts


def parse_own(parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The own options of a command, and the words that it hands over to ``fit``, which refuses unknown ones."""
    return parser.parse_known_args(argv)
