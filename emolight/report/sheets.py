"""The tables of the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from emolight.evaluation.predictions import class_names, confusion
from emolight.report.pages import Cell, Sheet, between, percent

METRICS = ("accuracy", "macro_f1")
CONTROL_NOTES = {
    "majority": "always the most frequent emotion of the training clips",
    "duration": "logistic regression on how long the clip is",
    "MFCC": "no network: mean, spread and range of each coefficient",
    "labels permuted": "the same after shuffling the training labels: what is left is chance",
}
"""By the first words of a control's name."""
SHOWN = 12
"""Of more names than these a sentence or a cell gives the first ones."""


def listed(names: Iterable[str]) -> str:
    """``01, 11, 20``; of many the first ones: ``1, 2, ... and 79 more``."""
    every = list(names)
    rest = len(every) - SHOWN
    return ", ".join(every) if rest <= 1 else f"{', '.join(every[:SHOWN])} and {rest} more"


def controls_sheet(name: str, summary: Mapping[str, Any]) -> Sheet:
    """The result above its controls."""
    pooled = summary["pooled"]
    own = {metric: pooled[metric]["value"] for metric in ("uar", *METRICS)}
    own["uar_low"], own["uar_high"] = pooled["uar"]["by_speaker"]
    notes = [""]
    for control in summary["controls"]:
        notes.append(next((note for key, note in CONTROL_NOTES.items() if control["name"].startswith(key)), ""))
    rows = [
        [
            Cell(one["name"], one["name"], note=note),
            Cell(percent(one["uar"]), one["uar"], (one["uar"], one["uar_low"], one["uar_high"])),
            Cell(between(one["uar_low"], one["uar_high"]), one["uar_low"]),
            *(Cell(percent(one[metric]), one[metric]) for metric in METRICS),
        ]
        for one, note in zip([{"name": name, **own}, *summary["controls"]], notes, strict=True)
    ]
    columns = ["predictor", "UAR", "95 % by speaker", "accuracy", "macro-F1"]
    return Sheet("The result and its controls", columns, rows, strong=1)


def group_sheet(table: pd.DataFrame, groups: Sequence[Mapping[str, Any]], column: str) -> Sheet:
    """Scores of the groups of a column; beside a speaker stands the sex, beside a fold its speakers."""
    beside = {"speaker": "sex", "fold": "speaker"}.get(column, "")
    beside = beside if beside in table else ""
    rows = []
    for one in groups:
        cells = [Cell(str(one["group"]), one["group"])]
        if beside:
            inside = table.loc[table[column] == one["group"], beside]
            words = listed(sorted(str(name) for name in inside.unique()))
            cells.append(Cell(words, words))
        cells += [Cell(str(one["n"]), one["n"]), Cell(percent(one["uar"]), one["uar"], (one["uar"], None, None))]
        rows.append([*cells, Cell(percent(one["accuracy"]), one["accuracy"])])
    more = [{"speaker": "speakers"}.get(beside, beside)] if beside else []
    return Sheet(f"Results by {column}", [column, *more, "clips", "UAR", "accuracy"], rows)


def recall_sheet(table: pd.DataFrame, pooled: Mapping[str, Any]) -> Sheet:
    """Recall of each class that occurs, with its interval."""
    clips = table.drop_duplicates("clip_id")["label"].value_counts()
    rows = []
    for name in (one for one in class_names(table) if one in clips):
        found, count = pooled[f"recall {name}"], int(clips[name])
        low, high = found["by_speaker"]
        strip = Cell(percent(found["value"]), found["value"], (found["value"], low, high))
        rows.append([Cell(name, name), Cell(str(count), count), strip, Cell(between(low, high), low)])
    return Sheet("Recall per class", ["emotion", "clips", "recall", "95 % by speaker"], rows)


def confusions(table: pd.DataFrame, count: int = 3) -> list[tuple[str, str, float]]:
    """The most frequent confusions: true emotion, predicted one, share of the true one's predictions."""
    names, counts = class_names(table), confusion(table)
    found = [
        (true, other, float(counts[row, column] / counts[row].sum()))
        for row, true in enumerate(names)
        for column, other in enumerate(names)
        if row != column and counts[row, column]
    ]
    return sorted(found, key=lambda one: -one[2])[:count]
