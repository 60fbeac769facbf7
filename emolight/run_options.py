"""What a run brings to ``validate``, ``test`` and ``fit --resume``, and which options would contradict it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emolight.errors import EmolightError
from emolight.models.checkpoint import check_is_file, read_checkpoint
from emolight.resume import newest_checkpoint, requeued_run, without_option
from emolight.runs import read_run_config, run_folder_of

FIXED_BY_RUN = ("emotions", "channels", "protocol", "fold", "split_seed", "sample_rate", "duration", "trim_db")
"""Data settings that say what a checkpoint was trained and is scored on."""


def insert_run_config(argv: list[str]) -> list[str]:
    """With ``--ckpt_path`` or ``--resume``, start from the run's own ``config.yaml`` and ``split.csv``."""
    command, *options = argv
    _, checkpoint = without_option(options, "--ckpt_path")
    if command == "fit":
        if checkpoint is not None:
            raise EmolightError(
                f"`fit` does not take --ckpt_path {checkpoint}.", "Go on with a run: fit --resume RUN"
            )
        options, resumed = without_option(options, "--resume")
        run = requeued_run(options) if resumed is None else Path(resumed)
        if run is None:
            return argv
        path, _ = newest_checkpoint(run)
        checkpoint = str(path)
    if checkpoint is None:
        return argv
    check_is_file(checkpoint)
    run = run_folder_of(Path(checkpoint))
    if run is None:
        if "--config" in options or "-c" in options:
            return argv
        raise EmolightError(
            f"No config.yaml in the folders above {checkpoint}.",
            "Keep it in its run folder, or pass --config as well.",
        )
    read_run_config(run)
    inserted = ["--config", str(run / "config.yaml"), "--ckpt_path", checkpoint]
    if (run / "split.csv").is_file():
        inserted += ["--data.split_csv", str(run / "split.csv")]
    return [command, *inserted, *options]


def contradictions(checkpoint: str, run: Path, given: dict[str, Any], command: str) -> list[str]:
    """Settings that differ from what a checkpoint was trained with, as :func:`differences` tells them.

    Args:
        checkpoint: path.
        run: its run folder.
        given: the complete configuration of the command.
        command: ``fit``, ``validate`` or ``test``.
    """
    changed = differences(read_checkpoint(checkpoint)["hyper_parameters"], given["model"], "model")
    if (run / "config.yaml").is_file():
        recorded = read_run_config(run)
        fixed = {name: recorded["data"][name] for name in FIXED_BY_RUN if name in recorded["data"]}
        changed += differences(fixed, given["data"], "data")
        if command == "fit":
            # The one-cycle schedule is laid out over the epochs.
            laid_out = {"max_epochs": recorded["trainer"].get("max_epochs")}
            changed += differences(laid_out, given["trainer"], "trainer")
    return changed


def differences(saved: dict[str, Any], given: dict[str, Any], prefix: str) -> list[str]:
    """Texts such as ``model.learning_rate 0.001, received 0.5`` for settings that differ."""
    texts: list[str] = []
    for name, value in saved.items():
        if name not in given or name == "seed":
            continue
        if isinstance(value, dict) and isinstance(given[name], dict):
            texts += differences(value, given[name], f"{prefix}.{name}")
        elif value != given[name]:
            texts.append(f"{prefix}.{name} {value}, received {given[name]}")
    return texts
