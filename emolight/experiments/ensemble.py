"""``python -m emolight ensemble``: the mean of several systems' calibrated probabilities, clip by clip."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from emolight.errors import EmolightError
from emolight.evaluation.predictions import PREFIX, class_names, group_columns
from emolight.evaluation.statistics import mean_over_seeds
from emolight.experiments.results import Result, read_result
from emolight.experiments.summary import print_result, summary_of, write_crossval
from emolight.run.folder import LOGS


def mean_of(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Mean probabilities of predictions tables of the same clips, with the class that they favour.

    Rows that agree in ``seed`` are put together; tables without one have seed 0. ``fold`` stays.

    Raises:
        EmolightError: the tables differ in clips, seeds, or classes.
    """
    parts = [table if "seed" in table else table.assign(fold=0, seed=0) for table in tables]
    rows = [set(zip(part["clip_id"], part["seed"], strict=True)) for part in parts]
    if any(class_names(part) != class_names(parts[0]) for part in parts):
        raise EmolightError("The predictions are of different classes.", "Take results of one task.")
    if any(other != rows[0] for other in rows):
        raise EmolightError(
            f"The predictions are of different clips or seeds: {', '.join(str(len(one)) for one in rows)} rows.",
            "Take results of one protocol with the same seeds.",
        )
    together = pd.concat(parts, ignore_index=True)
    merged = [mean_over_seeds(group).assign(seed=seed) for seed, group in together.groupby("seed")]
    folds = parts[0][["clip_id", "seed", "fold"]]
    columns = [PREFIX + name for name in class_names(parts[0])]
    table = pd.concat(merged, ignore_index=True).merge(folds, on=["clip_id", "seed"])
    rest = [name for name in table.columns if name not in columns]
    return table[rest + columns].sort_values(["clip_id", "seed"], ignore_index=True)


def about_ensemble(name: str, results: Sequence[Result]) -> dict[str, Any]:
    """What :data:`~emolight.experiments.results.CROSSVAL` says of an ensemble; it names its ``members``.

    Raises:
        EmolightError: the results are not of one protocol.
    """
    first = results[0]
    for other in results[1:]:
        for key, value in first.fingerprint.items():
            if other.fingerprint[key] != value:
                raise EmolightError(
                    f"{other.name} has {key} '{other.fingerprint[key]}', {first.name} has '{value}'.",
                    "An ensemble takes results of one task, protocol and selection rule.",
                )
    table = first.table
    return {
        "name": name,
        "kind": "ensemble",
        **{key: getattr(first, key) for key in ("subset", "corpus", "task", "protocol", "selection", "split")},
        "speaker_independent": all(one.speaker_independent for one in results),
        "emotions": class_names(table),
        "groups": group_columns(table),
        "folds": sorted({int(fold) for fold in table["fold"]}) if "fold" in table else [0],
        "seeds": sorted({int(seed) for seed in table["seed"]}) if "seed" in table else [0],
        "runs": [],
        "members": [{"name": one.name, "folder": str(one.folder)} for one in results],
        "openings": sum(one.openings for one in results),
        "facts": {
            "seconds": sum(one.facts.get("seconds") or 0 for one in results),
            **{key: first.facts.get(key) for key in ("commit", "precision", "root", "speakers", "meaning")},
            **{key: " + ".join(_short(one.facts[key]) for one in results) for key in ("features", "network")},
        },
    }


def _short(spec: Any) -> str:
    """The class that a configuration names."""
    return str(spec["class_path"] if isinstance(spec, dict) else spec).rpartition(".")[2]


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m emolight ensemble",
        description="Average the calibrated probabilities of runs or cross-validations of one protocol.",
        allow_abbrev=False,
    )
    parser.add_argument("results", type=Path, nargs="+", metavar="RUN_OR_CROSSVAL", help="two folders or more")
    parser.add_argument("--name", default="ensemble", help="lightning_logs/NAME/...; default: %(default)s")
    options = parser.parse_args(argv)
    if len(options.results) < 2:
        raise EmolightError("An ensemble needs two results, received one.", "Name more folders.")
    results = [read_result(folder) for folder in options.results]
    about = about_ensemble(options.name, results)
    table = mean_of([one.table for one in results])
    logs = next((folder for folder in results[0].folder.parents if folder.name == LOGS.name), LOGS)
    folder = logs / options.name / f"crossval_{about['protocol'].replace(' ', '_')}"
    write_crossval(folder, about, table, summary_of(results[0].folder)["controls"])
    result = read_result(folder)
    print_result(result, summary_of(folder))
    print(f"of:     {', '.join(one['name'] for one in result.facts['members'])}")
    return 0
