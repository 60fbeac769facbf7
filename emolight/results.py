"""What a run or a cross-validation found, read from its folder, and what it may be compared with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from emolight.data.ravdess import task_name
from emolight.errors import EmolightError
from emolight.evaluation.predictions import read_predictions
from emolight.runs import count_openings, file_hash, read_environment

CROSSVAL = "crossval.json"
"""Stands in the folder of a cross-validation: what was run, and where the folds' run folders are."""
BEST_EPOCH, LAST_EPOCH = "best epoch by validation UAR", "last epoch, nothing selected"


class Result(NamedTuple):
    """Predictions of a run (one fold) or of a cross-validation (every fold and seed).

    Attributes:
        folder: where it stands.
        name: for tables, unique among the folders under one ``lightning_logs``.
        kind: ``run``, ``crossval`` or ``ensemble``.
        subset: which clips were scored, ``test`` or ``val``.
        table: predictions table, in a ``crossval`` with the columns ``fold`` and ``seed``.
        protocol: ``emobox6``, ``emobox6 fold 1``, ``random seed 0`` ...
        task: ``article``, ``full``, or its emotions and channels.
        selection: the rule by which the epoch was chosen.
        split: SHA-256 over the bytes of the splits.
        openings: how often test clips of its runs were scored.
        facts: ``seconds`` of training, ``commit``, ``precision``, ``mode`` and what else the folder tells.
    """

    folder: Path
    name: str
    kind: str
    subset: str
    table: pd.DataFrame
    protocol: str
    task: str
    selection: str
    split: str
    openings: int
    facts: dict[str, Any]

    @property
    def fingerprint(self) -> dict[str, str]:
        """What must agree before two results are ranked in one table."""
        return {
            "task": self.task,
            "protocol": self.protocol,
            "clips scored": self.subset,
            "split": self.split[:12],
            "selection": self.selection,
        }


def read_result(folder: Path) -> Result:
    """Read a run folder, or the folder of a cross-validation or an ensemble.

    Of a run, the test predictions are taken where they are, else the validation predictions.

    Raises:
        EmolightError: the folder is neither, or a file in it is missing or damaged.
    """
    folder = Path(folder)
    try:
        if (folder / CROSSVAL).is_file():
            return _read_crossval(folder)
        if (folder / "config.yaml").is_file():
            return _read_run(folder)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise EmolightError(
            f"The results in {folder} cannot be read ({type(error).__name__}: {error}).",
            "Take the files as they were written, or run it again.",
        ) from None
    raise EmolightError(
        f"{folder} is neither a run folder nor a cross-validation: no config.yaml, no {CROSSVAL}.",
        "Give lightning_logs/NAME/version_N, or the folder that `crossval` named.",
    )


def task_of(data: dict[str, Any]) -> str:
    """The task of a run's data settings; synthetic voices are a task of their own."""
    voices = ", synthetic voices" if data.get("synthetic") else ""
    return task_name(data["emotions"], data["channels"]) + voices


def _read_run(folder: Path) -> Result:
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    subset = "test" if (folder / "predictions_test.csv").is_file() else "val"
    table = read_predictions(folder / f"predictions_{subset}.csv")
    protocol = str(pd.read_csv(folder / "split.csv", nrows=1)["protocol"][0])
    return Result(
        folder,
        f"{config['name']} {folder.resolve().name}",
        "run",
        subset,
        table,
        protocol,
        task_of(config["data"]),
        LAST_EPOCH if protocol.startswith("random") else BEST_EPOCH,
        file_hash(folder / "split.csv"),
        count_openings(folder),
        {**read_environment(folder), "mode": config["model"]["features"]["mode"], "root": config["data"]["root"]},
    )


def _read_crossval(folder: Path) -> Result:
    about = json.loads((folder / CROSSVAL).read_text(encoding="utf-8"))
    table = read_predictions(folder / "predictions.csv")
    runs = [folder / run["folder"] for run in about["runs"]]
    return Result(
        folder,
        about["name"],
        about["kind"],
        about["subset"],
        table,
        about["protocol"],
        about["task"],
        about["selection"],
        about["split"],
        # An ensemble has no runs; it notes those of its members.
        about.get("openings", 0) + sum(count_openings(run) for run in runs),
        about["facts"],
    )
