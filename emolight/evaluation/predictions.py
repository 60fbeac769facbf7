"""The predictions table: a row a clip with its label, its prediction and every probability; and what it scores."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from emolight.errors import EmolightError, nearest
from emolight.files import write_text

CLIP_COLUMNS = ("clip_id", "actor", "sex", "channel", "intensity", "statement", "repetition")
INTEGERS = ("actor", "statement", "repetition")
OF_MANY = ("fold", "seed")
"""Columns more where a table holds the clips of several folds and seeds."""
PREFIX = "prob_"
SUM_TOLERANCE = 1e-3


def predictions_table(clips: pd.DataFrame, classes: Sequence[str], probabilities: np.ndarray) -> pd.DataFrame:
    """Put clips and probabilities together.

    Args:
        clips: N rows of the clip table, in the order of ``probabilities``.
        classes: the C emotions, in the order of the model's outputs.
        probabilities: ``[N, C]``, each row summing to 1.

    Returns:
        Sorted by clip id: ``clip_id, actor, sex, channel, intensity, statement, repetition, label, prediction``,
        then ``prob_<emotion>`` for every class in class order.

    Raises:
        ValueError: the shapes do not fit, or a clip's emotion is not a class.
    """
    names = list(classes)
    if probabilities.shape != (len(clips), len(names)):
        shape = tuple(probabilities.shape)
        raise ValueError(f"probabilities have shape {shape}, expected {(len(clips), len(names))} (clips, classes)")
    if unknown := set(clips["emotion"]) - set(names):
        raise ValueError(f"emotions that are not a class: {', '.join(sorted(unknown))}")
    table = clips[list(CLIP_COLUMNS)].reset_index(drop=True)
    table["label"] = clips["emotion"].to_numpy()
    table["prediction"] = np.array(names)[probabilities.argmax(axis=1)]
    table[[PREFIX + name for name in names]] = probabilities.astype(np.float64)
    return table.sort_values("clip_id", ignore_index=True)


def class_names(table: pd.DataFrame) -> list[str]:
    """The classes of a predictions table, in class order."""
    return [name.removeprefix(PREFIX) for name in table.columns if name.startswith(PREFIX)]


def write_predictions(path: str | Path, table: pd.DataFrame) -> None:
    """Write the table as CSV, atomically: UTF-8, ``\\n`` line ends, probabilities with 6 decimals."""
    text = io.StringIO()
    table.to_csv(text, index=False, float_format="%.6f", lineterminator="\n")
    write_text(path, text.getvalue())


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Read what :func:`write_predictions` wrote, or a table of the same columns from another system.

    Columns that the table does not need are left out, ``fold`` and ``seed`` stay; rows come back sorted by clip id.
    With a ``seed`` a clip may stand once for each.

    Raises:
        EmolightError: no such file or not such a table; with the line number: a missing column, an unknown label or
            prediction, a clip that stands twice, a number that is none, probabilities that do not sum to 1.
    """
    path = Path(path)
    if not path.is_file():
        raise EmolightError(f"There is no predictions file {path}.", "Run fit, validate or test to write one.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            header, *lines = [(reader.line_num, row) for row in reader if row] or [(1, [])]
    except (UnicodeDecodeError, csv.Error) as error:
        raise EmolightError(f"{path} is not a CSV file: {error}.", "Give a predictions_<subset>.csv.") from None
    columns = header[1]
    classes = [name.removeprefix(PREFIX) for name in columns if name.startswith(PREFIX)]
    needed = [*CLIP_COLUMNS, "label", "prediction"]
    missing = [name for name in needed if name not in columns]
    if missing or len(classes) < 2:
        what = f"no column {', '.join(missing)}" if missing else f"{len(classes)} columns prob_<emotion>"
        raise EmolightError(
            f"{path}, line 1: {what}.", f"Needed: {', '.join(needed)}, and prob_<emotion> for each of the classes."
        )
    if not lines:
        raise EmolightError(f"{path}, line 1: there is no clip below the header.", "Run validate or test anew.")
    many = [name for name in OF_MANY if name in columns]
    rows: list[dict[str, Any]] = []
    first_line: dict[tuple[str, int], int] = {}
    for number, fields in lines:
        where = f"{path}, line {number}"
        if len(fields) != len(columns):
            raise EmolightError(f"{where}: {len(fields)} fields, the header has {len(columns)}.", "Mend the line.")
        row = _check_row(where, dict(zip(columns, fields, strict=True)), classes, many)
        earlier = first_line.setdefault((row["clip_id"], row.get("seed", 0)), number)
        if earlier != number:
            raise EmolightError(
                f"{where}: clip '{row['clip_id']}' stands already in line {earlier}.", "Take one line out."
            )
        rows.append(row)
    return pd.DataFrame(rows).sort_values(["clip_id", *many], ignore_index=True)


def _check_row(where: str, fields: dict[str, str], classes: list[str], many: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {name: fields[name] for name in (*CLIP_COLUMNS, *many, "label", "prediction")}
    for name in ("label", "prediction"):
        if row[name] not in classes:
            raise EmolightError(
                f"{where}: unknown {name} '{row[name]}'.",
                f"{nearest(row[name], classes)}By the header the classes are {', '.join(classes)}.",
            )
    for name in (*INTEGERS, *many):
        try:
            row[name] = int(row[name])
        except ValueError:
            raise EmolightError(f"{where}: {name} '{row[name]}' is no whole number.", "Mend the line.") from None
    for name in (PREFIX + emotion for emotion in classes):
        try:
            row[name] = float(fields[name])
        except ValueError:
            row[name] = math.nan
        if not 0 <= row[name] <= 1:
            raise EmolightError(
                f"{where}: {name} is '{fields[name]}', expected a number from 0 to 1.",
                "Mend the line; where the model gave it, its training diverged.",
            )
    total = sum(row[PREFIX + emotion] for emotion in classes)
    if abs(total - 1) > SUM_TOLERANCE:
        raise EmolightError(f"{where}: the probabilities sum to {total:.6f}, not to 1.", "Normalise the line.")
    return row


def scores(table: pd.DataFrame) -> dict[str, Any]:
    """The figures that a paper quotes, as fractions.

    Returns:
        ``uar``: unweighted average recall, the mean over the classes that occur as label; ``wa``: accuracy;
        ``macro_f1``: mean over the classes that occur as label or prediction; ``recall``: emotion to recall,
        for the classes that occur; ``n``: clips.
    """
    label, prediction = table["label"], table["prediction"]
    occurring = [name for name in class_names(table) if (label == name).any()]
    recall = recall_score(label, prediction, labels=occurring, average=None, zero_division=0)
    return {
        "uar": float(np.mean(recall)),
        "wa": float(accuracy_score(label, prediction)),
        "macro_f1": float(f1_score(label, prediction, average="macro", zero_division=0)),
        "recall": {name: float(value) for name, value in zip(occurring, recall, strict=True)},
        "n": len(table),
    }


def scores_by(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Scores of each group of clips.

    Args:
        table: predictions table.
        column: ``actor``, ``sex``, ``channel`` or ``intensity``.

    Returns:
        Index the groups, sorted; columns ``n``, ``uar`` (over the classes that occur in the group), ``wa``.
    """
    groups = {group: scores(rows) for group, rows in table.groupby(column)}
    index = pd.Index(list(groups), name=column)
    return pd.DataFrame([{key: found[key] for key in ("n", "uar", "wa")} for found in groups.values()], index=index)


def confusion(table: pd.DataFrame) -> np.ndarray:
    """Clips counted, ``[C, C]`` integers: rows the true class, columns the predicted one, in class order."""
    counts: np.ndarray = confusion_matrix(table["label"], table["prediction"], labels=class_names(table))
    return counts


def wilson_interval(correct: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927, JASA 22:209), as fractions.

    It takes clips as independent. Clips of one actor are not: to compare systems, resample actors.

    Args:
        correct: successes.
        n: trials; of none nothing is known, and the interval is 0 to 1.
        z: quantile of the normal distribution, 1.96 for 95 %.
    """
    if n == 0:
        return 0.0, 1.0
    share = correct / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)
