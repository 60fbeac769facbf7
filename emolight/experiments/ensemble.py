"""``python -m emolight ensemble``: a weighted mean of several systems' calibrated probabilities, clip by clip."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emolight.errors import CommandParser, EmolightError
from emolight.evaluation.predictions import PREFIX, class_names
from emolight.experiments.results import CROSSVAL, Result, read_result, runs_of
from emolight.experiments.summary import print_result, summary_of, write_crossval
from emolight.files import write_table
from emolight.run.folder import LOGS, read_json

Weights = Mapping[int, NDArray[np.float64]]
"""Fold to the weights [labels of the gate, members]; one row without a gate."""
KEYS = ["clip_id", "seed", "fold", "speaker", "label"]
STEPS, FLOOR = 2000, 1e-6
PRIOR = 0.2
"""How many clips, as a share of the validation clips, speak for equal weights: four speakers say little."""


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


def mean_of(
    tables: Sequence[pd.DataFrame], weights: Weights | None = None, gate: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Mean probabilities of predictions tables, with the class that they favour; None weighs all alike.

    With a ``gate`` the weights of a clip are those of its labels, mixed by their probabilities.
    """
    parts, names = joined(tables), class_names(tables[0])
    columns = [PREFIX + name for name in names]
    equal = np.full((1, len(parts)), 1 / len(parts))
    of_rows = np.stack([weights[fold] if weights else equal for fold in parts[0]["fold"]])  # [rows, labels, members]
    members = np.stack([part[columns].to_numpy() for part in parts], axis=1)  # [rows, members, classes]
    mean = np.einsum("rl,rlm,rmc->rc", gates(gate, parts[0]), of_rows, members)
    return parts[0].assign(prediction=np.array(names)[mean.argmax(axis=1)], **dict(zip(columns, mean.T, strict=True)))


def gates(gate: pd.DataFrame | None, rows: pd.DataFrame) -> NDArray[np.float64]:
    """What a gate, its seeds' mean, says of the clips of a table, [rows, labels]; without one there is one label."""
    if gate is None:
        return np.ones((len(rows), 1))
    columns = [PREFIX + name for name in class_names(gate)]
    gate = gate.assign(fold=gate.get("fold", 0)).groupby(["clip_id", "fold"], as_index=False)[columns].mean()
    found = rows[["clip_id", "fold"]].merge(gate, how="left", on=["clip_id", "fold"])[columns].to_numpy()
    if np.isnan(found).any():
        problem = "The results of --by are of other clips or folds than those of the members."
        raise EmolightError(problem, "Run it with the same protocol, or with their split as --data.split_csv.")
    return found


def said_of_truth(tables: Sequence[pd.DataFrame]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probabilities [rows, members] of the true label in :func:`joined` tables, and each row's share: classes alike."""
    names = class_names(tables[0])
    label = pd.Categorical(tables[0]["label"], names).codes
    rows, columns = np.arange(len(label)), [PREFIX + name for name in names]
    given = np.stack([table[columns].to_numpy()[rows, label] for table in tables], axis=1) + FLOOR
    return given, 1 / np.bincount(label)[label]


def best_member(tables: Sequence[pd.DataFrame]) -> NDArray[np.float64]:
    """Weights [1, members] of which all is on the member of least log loss; each class counts alike."""
    given, times = said_of_truth(tables)
    return np.eye(len(tables))[[(times @ np.log(given)).argmax()]]


def best_weights(
    tables: Sequence[pd.DataFrame], gate: pd.DataFrame | None = None, prior: float = PRIOR
) -> NDArray[np.float64]:
    """The weights [labels of the gate, members] of least log loss of the mean of :func:`joined` tables.

    Each class counts alike, and ``prior`` speaks for equal weights. None is negative, and those of a label sum to 1.
    The loss is convex in them; each step of expectation maximisation lowers it.

    Source:
        Jacobs et al., *Adaptive Mixtures of Local Experts*, 1991; here the gate is trained before.
    """
    (given, times), said = said_of_truth(tables), gates(gate, tables[0])  # said: [rows, labels]
    weights = np.full((said.shape[1], len(tables)), 1 / len(tables))
    for _ in range(STEPS):
        shares = said[..., None] * weights * given[:, None]  # [rows, labels, members]
        counts = np.einsum("rlm,r->lm", shares / shares.sum(axis=(1, 2), keepdims=True), times)
        counts += prior / len(tables) * (said * times[:, None]).sum(axis=0)[:, None]
        weights = counts / counts.sum(axis=1, keepdims=True)
    return weights


def validation_table(result: Result) -> pd.DataFrame:
    """What the models of a result say of their validation clips, with fold and seed; of an ensemble its mean."""
    if members := result.facts.get("members"):
        gates = [one for one in [result.facts.get("gate")] if one]
        parts = [validation_table(read_result(result.folder / one["folder"])) for one in [*members, *gates]]
        folds = {int(fold): np.column_stack([one["folds"][fold] for one in members]) for fold in members[0]["folds"]}
        return mean_of(parts[: len(members)], folds or None, parts[-1] if gates else None)
    runs = runs_of(result)
    parts = [run.predictions("val").assign(fold=fold, seed=seed) for (fold, seed), run in runs.items()]
    if parts and (lost := {*result.table.get("fold", [])} - {fold for fold, _ in runs}):
        problem = f"{result.name} lacks the runs of fold {min(lost)}, whose validation clips weigh it."
        raise EmolightError(problem, "Restore them, or leave --weights and --by out.")
    if not parts or result.subset == "val":
        fix = "Take runs or cross-validations that hold test speakers out, or leave --weights and --by out."
        raise EmolightError(f"{result.name} has no validation clips beside those that are scored, or no runs.", fix)
    return pd.concat(parts, ignore_index=True)


def validation_weights(results: Sequence[Result], gate: Result | None = None, one: bool = False) -> Weights:
    """The :func:`best_weights` of each fold, or its ``one`` :func:`best_member`, on validation clips of all seeds."""
    parts = joined([validation_table(result) for result in results])
    said = gate and validation_table(gate)
    folds = sorted({int(fold) for fold in parts[0]["fold"]})
    of_fold = {fold: [part[part["fold"] == fold] for part in parts] for fold in folds}
    return {fold: best_member(tables) if one else best_weights(tables, said) for fold, tables in of_fold.items()}


def about_ensemble(
    folder: Path, name: str, results: Sequence[Result], weights: Weights | None = None, gate: Result | None = None
) -> dict[str, Any]:
    """What :data:`~emolight.experiments.results.CROSSVAL` says of an ensemble in ``folder``."""
    first, known = results[0], [*results, *([gate] if gate else [])]

    def place_of(one: Result) -> str:  # relative: they may move together
        return Path(os.path.relpath(one.folder.resolve(), folder.resolve())).as_posix()

    scored = {one.folder.resolve(): one for one in known}
    made_of = {part for place in scored for part in parts_of(place)}  # two members may share one
    members = []
    for place, one in enumerate(results):
        folds = {fold: of_fold[:, place] for fold, of_fold in (weights or {}).items()}
        means = np.mean(list(folds.values()), axis=0) if folds else np.array([1 / len(results)])
        own = {fold: list(map(float, of_fold)) for fold, of_fold in folds.items()}
        by = dict(zip(class_names(gate.table), map(float, means), strict=True)) if gate else {}
        members += [{"name": one.name, "folder": place_of(one), "weight": float(means.mean()), "by": by, "folds": own}]
    return {
        "name": name,
        "kind": "ensemble",
        "runs": [],
        **{key: getattr(first, key) for key in ("subset", "corpus", "task", "protocol", "split")},
        "selection": " / ".join(dict.fromkeys(one.selection for one in results)),
        "speaker_independent": all(one.speaker_independent for one in known),
        "weights": ("chosen on each fold's validation clips" if weights else "equal")
        + (f", by what {gate.name} hears ({', '.join(class_names(gate.table))})" if gate else ""),
        "members": members,
        "gate": {"name": gate.name, "folder": place_of(gate)} if gate else None,
        "openings": sum((scored.get(one) or read_result(one)).openings for one in made_of if len(parts_of(one)) == 1),
        "facts": {
            **{key: first.facts.get(key) for key in ("commit", "precision", "root", "label", "speakers", "meaning")},
            "seconds": sum(one.facts.get("seconds") or 0 for one in known),
            "draws": max(one.facts.get("draws", 1) for one in results),
        },
    }


def parts_of(folder: Path) -> list[Path]:
    """The folder of a result, and those of all that it is made of."""
    about = read_json(folder / CROSSVAL) if (folder / CROSSVAL).is_file() else {}
    inner = [one for one in (*about.get("members", ()), about.get("gate")) if one]
    return [folder, *(part for one in inner for part in parts_of((folder / one["folder"]).resolve()))]


def member_text(member: Mapping[str, Any]) -> str:
    """``mfcc emobox6, weight 0.42 (fold 1 0.40, fold 2 0.44)``; with a gate the weights by its labels."""
    if by := member.get("by"):
        return f"{member['name']}, weight " + ", ".join(f"{weight:.2f} for {label}" for label, weight in by.items())
    folds = ", ".join(f"fold {fold} {np.ravel(weights)[0]:.2f}" for fold, weights in member["folds"].items())
    return f"{member['name']}, weight {member['weight']:.2f}" + f" ({folds})" * bool(folds)


def main(argv: list[str]) -> int:
    """Run the command."""
    what = "The mean of the calibrated probabilities of runs or cross-validations of one protocol."
    parser = CommandParser("ensemble", what)
    parser.add_argument("results", type=Path, nargs="+", metavar="RUN_OR_CROSSVAL", help="two folders or more")
    parser.add_argument("--name", default="ensemble", help="lightning_logs/NAME/...; default: %(default)s")
    how = (
        "validation: those of least log loss on each fold's validation clips, never on test clips; best: the one member"
    )
    parser.add_argument("--weights", choices=("equal", "validation", "best"), help=f"{how} of least; default: equal")
    heard = "validation weights for each label of another result of the same clips, as of one with --data.label"
    parser.add_argument("--by", type=Path, metavar="RUN_OR_CROSSVAL", help=heard)
    options = parser.parse_args(argv)
    if options.by and options.weights in ("equal", "best"):
        problem = f"--by goes with weights of validation clips; received --weights {options.weights}."
        raise EmolightError(problem, "Leave one of them out.")
    if len(options.results) < 2:
        raise EmolightError("An ensemble needs two results, received one.", "Name more folders.")
    places = [folder.expanduser().resolve() for folder in options.results]
    if twice := [str(one) for one, place in zip(options.results, places, strict=True) if places.count(place) > 1]:
        raise EmolightError(f"'{twice[0]}' is named twice.", "An ensemble takes each result once; see --weights.")
    places += [options.by.expanduser().resolve()] if options.by else []
    first, *others = results = [read_result(folder) for folder in options.results]
    for other in others:
        for key in ("corpus", "task", "protocol", "clips scored", "split"):
            if other.fingerprint[key] != (value := first.fingerprint[key]):
                problem = f"{other.name} has {key} '{other.fingerprint[key]}', {first.name} has '{value}'."
                fix = "An ensemble takes results of one corpus, task and protocol, with the same folds and clips."
                raise EmolightError(problem, fix)
    gate = read_result(options.by) if options.by else None
    logs = next((folder for folder in first.folder.parents if folder.name == LOGS.name), LOGS)
    way = re.search(r"_(nested|enrol_.+)$", first.folder.name)
    folder = logs / options.name / re.sub(r"\W+", "_", first.folder.name if way else f"crossval_{first.protocol}")
    there = folder / CROSSVAL
    made_of = {part for place in places for part in parts_of(place)}
    if folder.resolve() in made_of or (there.is_file() and read_json(there).get("kind") != "ensemble"):
        raise EmolightError(f"{folder} is a result already, which the ensemble would replace.", "Pass another --name.")
    chosen = gate or options.weights in ("validation", "best")
    weights = validation_weights(results, gate, options.weights == "best") if chosen else None
    about = about_ensemble(folder, options.name, results, weights, gate)
    table = mean_of([one.table for one in results], weights, gate.table if gate else None)
    write_crossval(folder, about, table, summary_of(first)["controls"])
    members = [
        {"member": one["name"], "weight": one["weight"]}
        | (one["by"] or {fold: own for fold, (own,) in one["folds"].items()})
        for one in about["members"]
    ]
    write_table(folder / "tables" / "members.csv", pd.DataFrame(members))
    result = read_result(folder)
    print_result(result, summary_of(result))
    print(f"of:     {'; '.join(map(member_text, about['members']))}\nweights: {about['weights']}")
    return 0
