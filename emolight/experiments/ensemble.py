"""``python -m emolight ensemble``: a weighted mean of several systems' calibrated probabilities, clip by clip."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emolight.errors import CommandParser, EmolightError
from emolight.evaluation.predictions import PREFIX, class_names
from emolight.experiments.results import CROSSVAL, Result, read_result, runs_of
from emolight.experiments.summary import print_result, summary_of, write_crossval
from emolight.files import write_table
from emolight.run.folder import LOGS, read_json

Weights = Mapping[int, Sequence[float]]
"""Fold to the weight of each member."""
KEYS = ["clip_id", "seed", "fold", "speaker", "label"]
STEPS, FLOOR = 2000, 1e-6


def joined(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Predictions tables with the same rows in the same order, or an EmolightError.

    A table of one seed goes with each seed of the others.
    """
    parts = [table if "seed" in table else table.assign(fold=0, seed=0) for table in tables]
    seeds = max((sorted(set(part["seed"])) for part in parts), key=len)
    for place, part in enumerate(parts):
        many = [part] if part["seed"].nunique() > 1 else [part.assign(seed=seed) for seed in seeds]
        parts[place] = pd.concat(many).sort_values(KEYS, ignore_index=True)
        if class_names(part) != class_names(parts[0]) or not parts[place][KEYS].equals(parts[0][KEYS]):
            raise EmolightError(
                f"The predictions are of different classes, clips, folds or seeds, as those of member {place + 1}.",
                "Take results of one task and protocol with the same folds and seeds, or with one seed.",
            )
    return parts


def mean_of(tables: Sequence[pd.DataFrame], weights: Weights | None = None) -> pd.DataFrame:
    """Mean probabilities of predictions tables, with the class that they favour; None weighs all alike."""
    parts, names = joined(tables), class_names(tables[0])
    columns = [PREFIX + name for name in names]
    equal = [1 / len(parts)] * len(parts)
    of_rows = np.array([weights[fold] if weights else equal for fold in parts[0]["fold"]])  # [rows, members]
    members = np.stack([part[columns].to_numpy() for part in parts], axis=1)  # [rows, members, classes]
    mean = (members * of_rows[..., None]).sum(axis=1)
    return parts[0].assign(prediction=np.array(names)[mean.argmax(axis=1)], **dict(zip(columns, mean.T, strict=True)))


def best_weights(tables: Sequence[pd.DataFrame]) -> list[float]:
    """The weights of least log loss of the weighted mean of :func:`joined` tables, each class counting alike.

    They are not negative and sum to 1. The loss is convex in them; each step of expectation maximisation lowers it.
    """
    names = class_names(tables[0])
    label = pd.Categorical(tables[0]["label"], names).codes
    rows, columns = np.arange(len(label)), [PREFIX + name for name in names]
    given = np.stack([table[columns].to_numpy()[rows, label] for table in tables], axis=1) + FLOOR
    weights, times = np.full(len(tables), 1 / len(tables)), 1 / np.bincount(label)[label]
    for _ in range(STEPS):
        shares = weights * given
        weights = np.average(shares / shares.sum(axis=1, keepdims=True), axis=0, weights=times)
    return [float(weight) for weight in weights]


def validation_weights(results: Sequence[Result]) -> Weights:
    """The :func:`best_weights` of each fold, on its validation clips with all seeds."""
    tables = []
    for result in results:
        parts = [run.predictions("val").assign(fold=fold, seed=seed) for (fold, seed), run in runs_of(result).items()]
        if parts and (lost := {*result.table.get("fold", [])} - {fold for fold, _ in runs_of(result)}):
            problem = f"{result.name} lacks the runs of fold {min(lost)}, whose validation clips weigh it."
            raise EmolightError(problem, "Restore them, or leave --weights out.")
        if not parts or result.subset == "val":
            fix = "Take runs or cross-validations that hold test speakers out, or leave --weights out."
            raise EmolightError(f"{result.name} has no validation clips beside those that are scored, or no runs.", fix)
        tables.append(pd.concat(parts, ignore_index=True))
    parts = joined(tables)
    folds = sorted({int(fold) for fold in parts[0]["fold"]})
    return {fold: best_weights([part[part["fold"] == fold] for part in parts]) for fold in folds}


def about_ensemble(
    folder: Path, name: str, results: Sequence[Result], weights: Weights | None = None
) -> dict[str, Any]:
    """What :data:`~emolight.experiments.results.CROSSVAL` says of an ensemble in ``folder``."""
    first = results[0]
    members = []
    for place, one in enumerate(results):
        own = {fold: of_fold[place] for fold, of_fold in (weights or {}).items()}
        mean = sum(own.values()) / len(own) if own else 1 / len(results)
        relative = Path(os.path.relpath(one.folder.resolve(), folder.resolve())).as_posix()  # they may move together
        members.append({"name": one.name, "folder": relative, "weight": mean, "folds": own})
    return {
        "name": name,
        "kind": "ensemble",
        **{key: getattr(first, key) for key in ("subset", "corpus", "task", "protocol", "split")},
        "selection": " / ".join(dict.fromkeys(one.selection for one in results)),
        "speaker_independent": all(one.speaker_independent for one in results),
        "runs": [],
        "weights": "chosen on each fold's validation clips" if weights else "equal",
        "members": members,
        "openings": sum(one.openings for one in results),
        "facts": {
            **{key: first.facts.get(key) for key in ("commit", "precision", "root", "speakers", "meaning")},
            "seconds": sum(one.facts.get("seconds") or 0 for one in results),
        },
    }


def member_text(member: Mapping[str, Any]) -> str:
    """``mfcc emobox6, weight 0.42 (fold 1 0.40, fold 2 0.44)``."""
    folds = ", ".join(f"fold {fold} {weight:.2f}" for fold, weight in member["folds"].items())
    return f"{member['name']}, weight {member['weight']:.2f}" + f" ({folds})" * bool(folds)


def main(argv: list[str]) -> int:
    """Run the command."""
    what = "The mean of the calibrated probabilities of runs or cross-validations of one protocol."
    parser = CommandParser("ensemble", what)
    parser.add_argument("results", type=Path, nargs="+", metavar="RUN_OR_CROSSVAL", help="two folders or more")
    parser.add_argument("--name", default="ensemble", help="lightning_logs/NAME/...; default: %(default)s")
    how = "validation: those of least log loss on each fold's validation clips, never on test clips; default: equal"
    parser.add_argument("--weights", choices=("equal", "validation"), default="equal", help=how)
    options = parser.parse_args(argv)
    if len(options.results) < 2:
        raise EmolightError("An ensemble needs two results, received one.", "Name more folders.")
    places = [folder.expanduser().resolve() for folder in options.results]
    if twice := [str(one) for one, place in zip(options.results, places, strict=True) if places.count(place) > 1]:
        raise EmolightError(f"'{twice[0]}' is named twice.", "An ensemble takes each result once; see --weights.")
    first, *others = results = [read_result(folder) for folder in options.results]
    for other in others:
        for key in ("corpus", "task", "protocol", "clips scored", "split"):
            if other.fingerprint[key] != (value := first.fingerprint[key]):
                problem = f"{other.name} has {key} '{other.fingerprint[key]}', {first.name} has '{value}'."
                fix = "An ensemble takes results of one corpus, task and protocol, with the same folds and clips."
                raise EmolightError(problem, fix)
    weights = validation_weights(results) if options.weights == "validation" else None
    logs = next((folder for folder in first.folder.parents if folder.name == LOGS.name), LOGS)
    way = re.search(r"_(nested|enrol_.+)$", first.folder.name)
    folder = logs / options.name / re.sub(r"\W+", "_", first.folder.name if way else f"crossval_{first.protocol}")
    there = folder / CROSSVAL
    if folder.resolve() in places or (there.is_file() and read_json(there).get("kind") != "ensemble"):
        raise EmolightError(f"{folder} is a result already, which the ensemble would replace.", "Pass another --name.")
    about = about_ensemble(folder, options.name, results, weights)
    write_crossval(folder, about, mean_of([one.table for one in results], weights), summary_of(first)["controls"])
    members = [{"member": one["name"], "weight": one["weight"], **one["folds"]} for one in about["members"]]
    write_table(folder / "tables" / "members.csv", pd.DataFrame(members))
    result = read_result(folder)
    print_result(result, summary_of(result))
    print(f"of:     {'; '.join(map(member_text, about['members']))}\nweights: {about['weights']}")
    return 0
