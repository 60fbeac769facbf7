"""What a run or a cross-validation says, read from its folder, and what it may be compared with."""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from emolight.errors import EmolightError
from emolight.evaluation.predictions import read_predictions
from emolight.run.folder import Run, read_json

CROSSVAL = "crossval.json"
"""Stands in the folder of a cross-validation or an ensemble: :data:`MARKS`, ``runs``, ``facts``, ``members``."""
Runs = dict[tuple[int, int], Run]
"""Fold and seed to a run."""
MODEL = ("features", "network", "parameters")
MARKS = ("name", "kind", "subset", "corpus", "task", "protocol", "selection", "split", "speaker_independent")


class Result(NamedTuple):
    """Predictions of a ``run`` (one fold), of a ``crossval`` (every fold and seed), or of an ``ensemble``.

    ``openings`` counts how often test clips of its runs were scored; ``facts`` are of :func:`facts_of`.
    """

    folder: Path
    table: pd.DataFrame
    name: str
    kind: str
    subset: str
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
        names = ("corpus", "task", "protocol", "selection")
        return {**{name: getattr(self, name) for name in names}, "clips scored": self.subset, "split": self.split[:12]}


def read_result(path: str | Path) -> Result:
    """Read a run (of its test clips where they were scored), a cross-validation or an ensemble, by its folder.

    EmolightError where it is none of these, or a file in it is missing or damaged.
    """
    path = Path(path).expanduser()
    try:
        return _of_many(path) if (path / CROSSVAL).is_file() else _of_run(Run.open(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"The results in {path} cannot be read ({type(error).__name__}: {error})."
        raise EmolightError(problem, "Take the files as they were written, or run it again.") from None


def _of_run(run: Run) -> Result:
    known: dict[str, Any] = {**run.fingerprint, "name": run.name, "kind": "run", "subset": run.subset}
    known["speaker_independent"] = run.split.speaker_independent(run.subset)
    marks, table, facts = {name: known[name] for name in MARKS}, run.predictions(run.subset), facts_of(run)
    return Result(run.folder, table, **marks, openings=run.openings, finished=run.finished, facts=facts)


def _of_many(folder: Path) -> Result:
    about = read_json(folder / CROSSVAL)
    runs = [(folder / run["folder"], run["openings"]) for run in about["runs"]]
    # An ensemble has no runs; it notes those of its members. Of a run that was removed the last count is known.
    openings = about.get("openings", 0) + sum(Run.open(run).openings if run.is_dir() else n for run, n in runs)
    facts = {**about["facts"], **{name: about[name] for name in ("members", "weights", "gate") if name in about}}
    marks, table = {name: about[name] for name in MARKS}, read_predictions(folder / "predictions.csv")
    return Result(folder, table, **marks, openings=openings, finished=True, facts=facts)


def runs_of(result: Result) -> Runs:
    """Fold and seed to each run that is still there; (0, 0) to a run itself; none of an ensemble."""
    if result.kind == "run":
        return {(0, 0): Run.open(result.folder)}
    about = read_json(result.folder / CROSSVAL)
    folders = {(run["fold"], run["seed"]): result.folder / run["folder"] for run in about["runs"]}
    return {key: Run.open(folder) for key, folder in folders.items() if folder.is_dir()}


def facts_of(run: Run, *others: Run) -> dict[str, Any]:
    """What a result tells beside its scores, of its first run; of the model what all share: folds may choose it."""
    own, *told = [{**one.environment, **one.config["model"]} for one in (run, *others)]
    return {
        **{name: run.environment.get(name) for name in ("seconds", "commit", "precision")},
        **{name: own.get(name) for name in MODEL if all(one.get(name) == own.get(name) for one in told)},
        **{name: run.config["data"].get(name) for name in ("root", "label")},
        "speakers": int(run.split.table["speaker"].nunique()),
        "meaning": run.split.meaning,
    }
