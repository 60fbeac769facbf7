"""``python -m emolight crossval``, and with ``--nested`` the options of each fold chosen by a sweep inside the fold."""

import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from emolight.errors import EmolightError
from emolight.experiments import crossval
from emolight.files import write_json, write_text
from emolight.run.folder import read_json, run_name

CHOSEN = "chosen.json"
"""In the folder of a fold's search: the sweep, the winning trial, its value and its settings."""


def main(argv: list[str]) -> int:
    """Run the command."""
    return crossval.main(argv, choose)


def choose(path: Path, folder: Path, workers: int, fold: int) -> list[str]:
    """Options of ``fit``: those of the best trial of a sweep on the validation speakers of one fold.

    ``path`` is that of the sweep, whose ``config`` and ``folds`` do not count, and ``folder`` the cross-validation's. A
    fold is searched once, and then read from the folder of its search; ``tables/chosen.csv`` holds what all folds
    chose. EmolightError for several objectives, for another sweep than the fold was searched by, or for no result.
    """
    from emolight.sweep.space import read_sweep, words_of
    from emolight.sweep.sweep import search

    place = folder / f"search_fold_{fold}"
    sweep = read_sweep(path, name=run_name(place), config=[str(folder / crossval.BASE)], folds=[fold])
    if len(sweep.objectives) > 1:
        problem = f"The sweep {path} has the objectives {', '.join(sweep.objectives)}."
        raise EmolightError(problem, "Within a fold one of them chooses: name one.")
    definition = json.loads(json.dumps({**asdict(sweep), "config": None, "timeout": None}))
    if (place / CHOSEN).is_file():
        made = read_json(place / CHOSEN, "Remove it: the search is read again.")
        if made["sweep"] != definition:
            raise EmolightError(f"{place} was searched by another sweep.", "Give this one another --name.")
    else:
        study = search(sweep, [], workers)
        if study is None:
            raise EmolightError(f"The sweep's time of {sweep.timeout:g} s is over.", "The same command goes on.")
        if not study.best_trials:  # three that fail have stopped it, but one that fails late may prune all others
            raise EmolightError(f"No trial of {place} came to its end.", f"Give more `trials` in {path}.")
        best, (metric,) = study.best_trial, sweep.objectives
        made = {"sweep": definition, "fold": fold, "trial": best.number, metric: best.value}
        made["settings"] = sweep.settings(best.params)
        write_json(place / CHOSEN, made)
    rows = [read_json(path) for path in folder.glob(f"search_fold_*/{CHOSEN}")]
    table = pd.DataFrame([{**row, **row["settings"]} for row in rows]).drop(columns=["sweep", "settings"])
    write_text(folder / "tables" / "chosen.csv", table.sort_values("fold").to_csv(index=False, lineterminator="\n"))
    return words_of(made["settings"])
