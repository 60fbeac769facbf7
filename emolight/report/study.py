"""What a report is on: a result, its runs, and what their folders tell."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from emolight.errors import EmolightError
from emolight.evaluation.statistics import summarise
from emolight.experiments.results import CROSSVAL, Result, read_result
from emolight.experiments.summary import control_scores, summary_of
from emolight.run.folder import Run

if TYPE_CHECKING:
    from emolight.data.corpus import Corpus
from emolight.data.selection import corpora_of

SUBSETS = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class Study:
    """A result with its ``runs``, as far as their folders are at hand; of an ensemble the first member's.

    Args:
        result: of a run, a cross-validation or an ensemble.
        runs: the first one says what the corpus is and where the recordings are.
        root: where the recordings are now; None takes the runs' own.
    """

    result: Result
    runs: list[Run]
    root: Path | None = None

    @property
    def metrics(self) -> list[pd.DataFrame]:
        """What the runs logged, each as a table with ``epoch``; of an ensemble nothing."""
        tables = []
        for run in self.runs if self.result.kind != "ensemble" else []:
            with contextlib.suppress(OSError, ValueError):  # copied without it, or stopped before it logged
                tables.append(pd.read_csv(run.folder / "metrics.csv"))
        return [table for table in tables if "epoch" in table and table["epoch"].notna().any()]

    @cached_property
    def corpora(self) -> list[Corpus]:
        """What the recordings are; empty where no run is at hand, or the corpus is code that is not trusted."""
        with contextlib.suppress(EmolightError, IndexError):
            data = self.runs[0].config["data"]
            return [corpus for corpus, _ in corpora_of(data.get("corpus", "RAVDESS"), data.get("root"))]
        return []

    @property
    def trim_db(self) -> float | None:
        """How the networks' silence was cut; see :class:`~emolight.data.datamodule.EmotionDataModule`."""
        return self.runs[0].config["data"].get("trim_db") if self.runs else None

    def find_clips(self) -> pd.DataFrame:
        """The clip table with ``file``; nothing is decoded.

        Raises:
            EmolightError: the recordings are not there.
        """
        if not self.runs:
            raise EmolightError("The run folders are not at hand.", "Keep them where they were.")
        return self.runs[0].data(root=self.root and str(self.root)).selection.clips

    def summary(self) -> dict[str, Any]:
        """Scores with intervals, and the controls; see :func:`~emolight.experiments.summary.summary_of`."""
        if self.result.kind != "run":
            return summary_of(self.result.folder)
        controls = []
        with contextlib.suppress(EmolightError):  # without the recordings there are none
            data = self.runs[0].data(root=self.root and str(self.root))
            controls = control_scores([data], self.result.subset)
        return {**summarise(self.result.table), "controls": controls}


def read_study(folder: Path, subset: str | None = None, root: Path | None = None) -> Study:
    """Read a run, a cross-validation or an ensemble.

    Args:
        folder: as of :func:`~emolight.experiments.results.read_result`.
        subset: ``val`` or ``test``; None takes the test clips where they were scored. Only a run has both.
        root: where the recordings are now.

    Raises:
        EmolightError: it is none of these, is damaged, or has no predictions of the subset.
    """
    result = read_result(folder)
    runs = _runs_of(result)
    if subset in (None, result.subset):
        return Study(result, runs, root)
    if result.kind != "run":
        problem = f"{result.name} holds predictions of {SUBSETS[result.subset]} clips only."
        raise EmolightError(problem, "Leave --subset out, or give one of its run folders.")
    independent = runs[0].split.speaker_independent(subset)
    table = runs[0].predictions(str(subset))
    return Study(result._replace(subset=str(subset), table=table, speaker_independent=independent), runs, root)


def _runs_of(result: Result) -> list[Run]:
    if result.kind == "run":
        return [Run.open(result.folder)]
    if result.kind == "ensemble":
        with contextlib.suppress(EmolightError):  # a member may have been moved away since
            return _runs_of(read_result(result.facts["members"][0]["folder"]))
        return []
    about = json.loads((result.folder / CROSSVAL).read_text(encoding="utf-8"))
    folders = [result.folder / run["folder"] for run in about["runs"]]
    return [Run.open(folder) for folder in folders if folder.is_dir()]
