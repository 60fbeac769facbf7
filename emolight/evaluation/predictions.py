"""The predictions table: a row a clip with its speaker, label, prediction and probabilities; and what it scores.

A table may hold several predictions of a clip, one for each ``seed``. Every score is then the mean over the seeds:
of scores, recalls and counts alike. It is never the score of their mean probabilities, which is an ensemble.
"""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emolight.errors import EmolightError, nearest

OF_MANY = ("fold", "seed")
"""Columns of whole numbers more where a table holds the clips of several folds and seeds."""
NEEDED = ("clip_id", "speaker", "label", "prediction")
PREFIX = "prob_"
METRICS = ("uar", "accuracy", "macro_f1")
SUM_TOLERANCE = 1e-3

Counts = NDArray[np.float64]
"""Confusion counts ``[..., S, C, C]``: seed, true class, predicted class."""


def predictions_table(
    clips: pd.DataFrame, classes: Sequence[str], probabilities: np.ndarray, groups: Sequence[str] = ()
) -> pd.DataFrame:
    """Clips (N rows of a clip table) and their probabilities ``[N, C]``, sorted by clip id.

    The columns are ``clip_id, speaker``, the ``groups`` that the clip table has, as text, ``label, prediction``, and
    ``prob_<emotion>`` for every class in class order. ValueError where the shapes do not fit or an emotion is no class.
    """
    names = list(classes)
    if probabilities.shape != (expected := (len(clips), len(names))):
        raise ValueError(f"probabilities have shape {probabilities.shape}, expected {expected} (clips, classes)")
    if unknown := set(clips["emotion"]) - set(names):
        raise ValueError(f"emotions that are not a class: {', '.join(sorted(unknown))}")
    kept = [name for name in dict.fromkeys(("clip_id", "speaker", *groups)) if name in clips]
    table = clips[kept].reset_index(drop=True)
    table = table.astype(str).mask(table.isna(), "")
    table["label"] = clips["emotion"].to_numpy()
    table["prediction"] = np.array(names)[probabilities.argmax(axis=1)]
    table[[PREFIX + name for name in names]] = probabilities.astype(np.float64)
    return table.sort_values("clip_id", ignore_index=True)


def class_names(table: pd.DataFrame) -> list[str]:
    """The classes of a predictions table, in class order."""
    return [name.removeprefix(PREFIX) for name in table.columns if name.startswith(PREFIX)]


def group_columns(table: pd.DataFrame) -> list[str]:
    """The columns that the corpus knows besides, such as ``sex``, in the table's order."""
    return [name for name in table.columns if name not in (*NEEDED, *OF_MANY) and not name.startswith(PREFIX)]


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Read what a run wrote, or a table of the same columns from another system.

    Rows come back sorted by clip id. Speakers and groups are text: ``01`` stays ``01``. With a ``seed`` a clip may
    stand once for each. EmolightError, with the line number, for a file that is no such table.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise EmolightError(f"There is no predictions file {path}.", "Run fit, validate or test to write one.")
    try:
        texts = pd.read_csv(path, dtype=str, keep_default_na=False, skip_blank_lines=False, encoding="utf-8-sig")
        if not isinstance(texts.index, pd.RangeIndex):  # pandas takes the first of too many fields as an index
            raise ValueError("line 2 has more fields than the header")
    except pd.errors.EmptyDataError:
        texts = pd.DataFrame()
    except ValueError as error:
        raise EmolightError(f"{path} is not a CSV file: {error}", "Give a predictions_<subset>.csv.") from None
    classes = class_names(texts)
    missing = [name for name in NEEDED if name not in texts]
    if missing or len(classes) < 2:
        what = f"no column {', '.join(missing)}" if missing else f"{len(classes)} columns prob_<emotion>"
        fix = f"Needed: {', '.join(NEEDED)}, and prob_<emotion> for each of the classes."
        raise EmolightError(f"{path}, line 1: {what}.", fix)
    texts = texts[(texts != "").any(axis=1)].copy()
    if texts.empty:
        raise EmolightError(f"{path}, line 1: there is no clip below the header.", "Run validate or test anew.")

    table, columns, many = texts.copy(), [PREFIX + one for one in classes], [one for one in OF_MANY if one in texts]
    table[columns] = texts[columns].apply(pd.to_numeric, errors="coerce").astype(float)
    total, known = table[columns].sum(axis=1), f"By the header the classes are {', '.join(classes)}."
    texts[PREFIX] = total.map("{:.6f}".format)
    diverged = "Mend the line; where the model gave it, its training diverged."
    for name, wrong, problem, fix in (
        *((name, texts[name] == "", f"there is no {name}.", "") for name in ("clip_id", "speaker")),
        *((name, ~texts[name].isin(classes), f"unknown {name} '%'.", known) for name in ("label", "prediction")),
        *((name, ~texts[name].str.fullmatch(r"-?\d{1,18}"), f"{name} '%' is no whole number.", "") for name in many),
        *((name, ~table[name].between(0, 1), f"{name} is '%', expected 0 to 1.", diverged) for name in columns),
        (PREFIX, (total - 1).abs() > SUM_TOLERANCE, "the probabilities sum to %, not to 1.", ""),
        ("clip_id", texts.duplicated(["clip_id", *({"seed"} & set(many))]), "clip '%' stands twice.", ""),
    ):
        if wrong.any():  # the first such line, and what stands in it
            place = int(np.flatnonzero(wrong)[0])
            value = str(texts[name].iloc[place])
            hint = nearest(value, classes) if fix == known else ""
            where = f"{path}, line {texts.index[place] + 2}"
            raise EmolightError(f"{where}: {problem.replace('%', value)}", hint + (fix or "Mend the line."))
    table = table.astype(dict.fromkeys(many, "int64"))
    return table.sort_values(["clip_id", *many], ignore_index=True)


def unit_counts(table: pd.DataFrame, unit: str | None = None) -> Counts:
    """Confusion counts ``[U, S, C, C]``: units (a column such as ``speaker``) and seeds sorted, true, predicted class.

    Without a column ``seed`` S is 1; without a unit all is counted: ``[S, C, C]``.
    """
    names = class_names(table)
    label, prediction = (pd.Categorical(table[name], names).codes for name in ("label", "prediction"))
    everything = np.zeros(len(table), dtype=int), np.zeros(1)
    seed, seeds = pd.factorize(table["seed"], sort=True) if "seed" in table else everything
    place, units = pd.factorize(table[unit], sort=True) if unit else everything
    counts = np.zeros((len(units), len(seeds), len(names), len(names)))
    np.add.at(counts, (place, seed, label, prediction), 1)
    return counts if unit else counts[0]


def recalls_of(counts: Counts) -> NDArray[np.float64]:
    """Recall of each class ``[..., S, C]`` of confusion counts ``[..., S, C, C]``; NaN where it does not occur."""
    with np.errstate(invalid="ignore"):
        recalls: NDArray[np.float64] = np.diagonal(counts, axis1=-2, axis2=-1) / counts.sum(axis=-1)
    return recalls


def metrics_of(counts: Counts) -> dict[str, NDArray[np.float64]]:
    """UAR, accuracy and macro-F1 of confusion counts ``[..., S, C, C]``: means over the S seeds, ``[...]``.

    UAR (unweighted average recall) is over the classes that occur as label, macro-F1 over those that occur as label
    or prediction.
    """
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        # NaN, which is left out, for a class that does not occur, and for a seed without clips, as a group may have.
        f1 = 2 * right / (counts.sum(axis=-1) + counts.sum(axis=-2))
        accuracy = right.sum(axis=-1) / counts.sum(axis=(-2, -1))
        of_seeds = (np.nanmean(recalls_of(counts), axis=-1), accuracy, np.nanmean(f1, axis=-1))
        return {name: np.nanmean(values, axis=-1) for name, values in zip(METRICS, of_seeds, strict=True)}


def scores(table: pd.DataFrame) -> dict[str, Any]:
    """The figures that a paper quotes, as fractions; means over the seeds.

    ``uar``, ``accuracy`` and ``macro_f1`` as :func:`metrics_of`; ``recall``: emotion to recall, for the classes that
    occur; ``n``: clips.
    """
    counts = unit_counts(table)
    recall = pd.DataFrame(recalls_of(counts), columns=class_names(table)).mean().dropna()
    metrics = {name: float(value) for name, value in metrics_of(counts).items()}
    return {**metrics, "recall": recall.to_dict(), "n": int(table["clip_id"].nunique())}


def scores_by(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """``n`` (clips), ``uar`` (over the classes that occur) and ``accuracy`` by a column, means over the seeds.

    The index are the column's values, numbers by their value and texts after them.
    """
    rows = {group: scores(part) for group, part in table.groupby(column)}
    names = sorted(rows, key=lambda name: (int(str(name)) if str(name).isdecimal() else math.inf, str(name)))
    return pd.DataFrame([rows[name] for name in names], pd.Index(names, name=column))[["n", "uar", "accuracy"]]


def confusion(table: pd.DataFrame) -> Counts:
    """Clips counted, ``[C, C]``: rows the true class, columns the predicted one; the mean over the seeds."""
    counts: Counts = unit_counts(table).mean(axis=0)
    return counts


def wilson_interval(correct: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a proportion (1927, JASA 22:209), as fractions; 0 to 1 where ``n`` is 0.

    It takes clips as independent. Clips of one speaker are not: to compare systems, resample speakers. ``correct`` is a
    mean where there are several seeds; ``z`` is the quantile of the normal distribution.
    """
    if n == 0:
        return 0.0, 1.0
    share = correct / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)
