"""Predictions as text, CSV, JSON or JSON lines: a row a recording, below it a row a window."""

from __future__ import annotations

import csv
import json
from typing import Any, TextIO

from emolight.inference.prediction import Prediction

BAR = 20
"""Characters of a bar that stands for probability 1."""


def shown(path: str) -> str:
    """A file name as a line of text; names may hold line ends and bytes that are no UTF-8."""
    return path if path.isprintable() else path.encode("unicode_escape").decode()


class Writer:
    """Writes predictions to a text stream as they come, one JSON object a line: those of windows have times."""

    def __init__(self, out: TextIO, classes: list[str]) -> None:
        self.out, self.classes = out, classes

    def write(self, path: str, truth: str | None, prediction: Prediction) -> None:
        """Write what the model says of a recording; ``truth`` is what its file name says."""
        for one in (prediction, *prediction.windows):
            print(json.dumps(self._row(path, truth, one)), file=self.out)

    def close(self) -> None:
        """Write what follows the last recording."""

    def _row(self, path: str, truth: str | None, one: Prediction) -> dict[str, Any]:
        row: dict[str, Any] = {"path": path}
        if one.times:
            row |= {"start": one.times[0], "end": one.times[1]}
        confidence = None if one.silent else round(one.confidence, 6)
        row |= {"prediction": one.label, "confidence": confidence, "label": truth}
        row["probabilities"] = {name: round(value, 6) for name, value in one.probabilities.items()}
        return {**row, "how": one.how, "warnings": one.warnings}


class JsonWriter(Writer):
    """A list of objects, one a recording; its ``windows`` are objects, too."""

    def __init__(self, out: TextIO, classes: list[str]) -> None:
        super().__init__(out, classes)
        self.rows: list[dict[str, Any]] = []

    def write(self, path: str, truth: str | None, prediction: Prediction) -> None:
        """See :class:`Writer`."""
        windows = [self._row(path, truth, one) for one in prediction.windows]
        self.rows.append({**self._row(path, truth, prediction), "windows": windows})

    def close(self) -> None:
        """Write the list."""
        print(json.dumps(self.rows, indent=1), file=self.out)


class CsvWriter(Writer):
    """Rows as CSV, a probability a column; ``start`` and ``end`` are empty in the row of a whole recording."""

    def __init__(self, out: TextIO, classes: list[str]) -> None:
        super().__init__(out, classes)
        self.table = csv.writer(out, lineterminator="\n")
        columns = ["path", "start", "end", "prediction", "confidence", "label"]
        self.table.writerow([*columns, *(f"prob_{name}" for name in classes), "how", "warnings"])

    def write(self, path: str, truth: str | None, prediction: Prediction) -> None:
        """See :class:`Writer`."""
        for one in (prediction, *prediction.windows):
            times = [f"{time:g}" for time in one.times] if one.times else ["", ""]
            values = [one.confidence, *one.probabilities.values()]
            confidence, *rest = [""] * (1 + len(self.classes)) if one.silent else [f"{value:.6f}" for value in values]
            row = [path, *times, one.label or "", confidence, truth or "", *rest]
            self.table.writerow([*row, one.how, "; ".join(one.warnings)])


class TextWriter(Writer):
    """Lines for people; with bars for every emotion on a terminal."""

    right = labelled = 0

    def write(self, path: str, truth: str | None, prediction: Prediction) -> None:
        """See :class:`Writer`."""
        mark = f"  ({prediction.how})" if prediction.how else ""
        if truth is not None and truth not in prediction.probabilities:
            mark += f"  it is {truth}, which the model does not know"
        elif truth is not None and prediction.label is not None:
            self.labelled += 1
            self.right += truth == prediction.label
            mark += "  right" if truth == prediction.label else f"  wrong: it is {truth}"
        print(f"{shown(path)}  {_said(prediction)}{mark}", file=self.out)
        width = max(len(name) for name in self.classes)
        for name, value in prediction.probabilities.items() if self.out.isatty() else ():
            print(f"  {name:<{width}} {'█' * round(BAR * value):<{BAR}} {value:4.0%}", file=self.out)
        for text in prediction.warnings:
            print(f"  warning: {text}", file=self.out)
        for one in prediction.windows:
            start, end = one.times or (0.0, 0.0)
            print(f"  {start:.2f}-{end:.2f} s  {_said(one)}", file=self.out)

    def close(self) -> None:
        """How many of the labelled recordings were right."""
        if self.labelled:
            share = f"{self.right} of {self.labelled} recordings with a label in their name"
            print(f"{share}: {self.right / self.labelled:.1%} right", file=self.out)


def _said(one: Prediction) -> str:
    return "silent" if one.silent else f"{one.label or 'no answer'} {one.confidence:.0%}"


WRITERS = {"text": TextWriter, "csv": CsvWriter, "json": JsonWriter, "jsonl": Writer}
"""By the name that ``--format`` takes."""
