"""What a run or a cross-validation says, read from its folder, and what it may be compared with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from emolight.errors import EmolightError
from emolight.evaluation.predictions import read_predictions
from emolight.run.folder import Run

CROSSVAL = "crossval.json"
"""Stands in the folder of a cross-validation or an ensemble: what was run, and where the folds' run folders are."""


class Result(NamedTuple):
    """Predictions of a run (one fold), of a cross-validation (every fold and seed), or of an ensemble.

    Attributes:
        folder: where it stands.
        name: for tables, unique among the folders under one ``lightning_logs``.
        kind: ``run``, ``crossval`` or ``ensemble``.
        subset: which clips were scored, ``test`` or ``val``.
        table: predictions table, in a ``crossval`` with the columns ``fold`` and ``seed``.
        corpus: name of the corpus.
        task: ``article``, ``full``, or its emotions.
        protocol: ``emobox6``, ``emobox6 fold 1``, ``random seed 0`` ...
        selection: the rule by which the epoch was chosen.
        split: SHA-256 over the splits.
        speaker_independent: whether no speaker of the scored clips was in training; computed from the splits.
        openings: how often test clips of its runs were scored.
        finished: whether the training came to its end; a run that was killed or pruned is not to be ranked.
        facts: ``seconds`` of training, ``commit``, ``precision``, ``features`` and ``network`` as configured,
            ``root``, ``speakers`` of the corpus (a number), ``meaning`` of the split in a sentence, ``members`` of
            an ensemble (each a ``name`` and a ``folder``), and what else the folder tells.
    """

    folder: Path
    name: str
    kind: str
    subset: str
    table: pd.DataFrame
    corpus: str
    task: str
    protocol: str
    selection: str
    split: str
    speaker_independent: bool
    openings: int
    finished: bool
    facts: dict[str, Any]

    @property
    def fingerprint(self) -> dict[str, str]:
        """What must agree before two results are ranked in one table."""
        return {
            "corpus": self.corpus,
            "task": self.task,
            "protocol": self.protocol,
            "clips scored": self.subset,
            "split": self.split[:12],
            "selection": self.selection,
        }


def read_result(path: str | Path) -> Result:
    """Read a run (its folder or a checkpoint in it), or the folder of a cross-validation or an ensemble.

    Of a run, the test predictions are taken where they are, else the validation predictions.

    Raises:
        EmolightError: it is neither, or a file in it is missing or damaged.

    Example:
        >>> read_result("lightning_logs/mfcc/crossval_emobox6").speaker_independent  # doctest: +SKIP
        True
    """
    path = Path(path).expanduser()
    try:
        return _read_crossval(path) if (path / CROSSVAL).is_file() else result_of(Run.open(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EmolightError(
            f"The results in {path} cannot be read ({type(error).__name__}: {error}).",
            "Take the files as they were written, or run it again.",
        ) from None


def result_of(run: Run) -> Result:
    """As :func:`read_result`, of a run that is open."""
    split, subset, marks = run.split, run.subset, run.fingerprint
    return Result(
        run.folder,
        run.name,
        "run",
        subset,
        run.predictions(subset),
        marks["corpus"],
        marks["task"],
        marks["protocol"],
        marks["selection"],
        marks["split"],
        split.speaker_independent(subset),
        run.openings,
        run.finished,
        {**run.environment, **facts_of(run)},
    )


def facts_of(run: Run) -> dict[str, Any]:
    """What a result tells of a run's configuration beside its scores; see :class:`Result`."""
    model, environment = run.config["model"], run.environment
    return {
        "seconds": environment.get("seconds"),
        "commit": environment.get("commit"),
        "precision": environment.get("precision"),
        "features": model["features"],
        "network": model["network"],
        "root": run.config["data"].get("root"),
        "speakers": int(run.split.table["speaker"].nunique()),
        "meaning": run.split.meaning,
    }


def _read_crossval(folder: Path) -> Result:
    about = json.loads((folder / CROSSVAL).read_text(encoding="utf-8"))
    runs = {folder / run["folder"]: run["openings"] for run in about["runs"]}
    return Result(
        folder,
        about["name"],
        about["kind"],
        about["subset"],
        read_predictions(folder / "predictions.csv"),
        about["corpus"],
        about["task"],
        about["protocol"],
        about["selection"],
        about["split"],
        about["speaker_independent"],
        # An ensemble has no runs; it notes those of its members. Of a run that was removed the last count is known.
        about.get("openings", 0) + sum(Run.open(run).openings if run.is_dir() else n for run, n in runs.items()),
        True,
        {**about["facts"], "members": about.get("members", [])},
    )
