"""Predictions as text, CSV, JSON or JSON lines: a row a recording, below it a row a window."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, TextIO

from emolight.data.corpora import recognise
from emolight.inference.prediction import Clip, Prediction

FORMATS = ("text", "csv", "json", "jsonl")
BAR = 20  # characters of a bar that stands for probability 1


@dataclass(frozen=True)
class Result:
    """A recording, what the model says of it, and the label in its name, if that follows a corpus' grammar."""

    path: str
    clip: Clip
    prediction: Prediction
    column: str = "emotion"

    @property
    def name(self) -> str:
        """The recording's name without folder and suffix."""
        return "standard input" if self.path == "-" else PurePath(self.path).stem

    @property
    def truth(self) -> str | None:
        """What the model tells, such as the emotion, where the grammar of a published corpus says it of a file name."""
        known = recognise(self.path)
        return str(known[1][self.column]) if known and self.column in known[1] else None

    def rows(self) -> Iterator[dict[str, Any]]:
        """The recording, then its windows, which have times."""
        for one in (self.prediction, *self.prediction.windows):
            times = {"start": round(one.times[0], 3), "end": round(one.times[1], 3)} if one.times[1] else {}
            yield {
                "path": self.path,
                **times,
                "prediction": one.label,
                "confidence": None if one.silent else round(one.confidence, 6),
                "label": self.truth,
                "probabilities": {name: round(value, 6) for name, value in one.probabilities.items()},
                "ood_score": None if one.ood_score is None else round(one.ood_score, 4),
                "how": one.how,
                "warnings": one.warnings,
            }


def shown(path: str) -> str:
    """A file name as a line of text; names may hold line ends and bytes that are no UTF-8."""
    return path if path.isprintable() else path.encode("unicode_escape").decode()


def write_table(results: Sequence[list[dict[str, Any]]], form: str, classes: list[str], out: TextIO) -> None:
    """Write the rows of recordings: in JSON a recording's object holds its ``windows``."""
    rows = [row for own in results for row in own]
    if form == "json":
        print(json.dumps([{**whole, "windows": windows} for whole, *windows in results], indent=1), file=out)
    elif form == "jsonl":
        out.writelines(f"{json.dumps(row)}\n" for row in rows)
    elif form == "csv":
        columns = ["path", "start", "end", "prediction", "confidence", "label"]
        columns += [*(f"prob_{name}" for name in classes), "ood_score", "how", "warnings"]
        table = csv.DictWriter(out, columns, lineterminator="\n")
        table.writeheader()
        for row in rows:
            values = {f"prob_{name}": value for name, value in row.pop("probabilities").items()}
            table.writerow({**row, **values, "warnings": "; ".join(row["warnings"])})


def print_result(result: Result, classes: list[str], out: TextIO) -> bool | None:
    """Print lines for people, on a terminal with bars; returns whether a label in the file's name agrees."""
    prediction, truth, mark, right = result.prediction, result.truth, "", None
    if truth is not None and truth not in classes:
        mark = f"  it is {truth}, which the model does not know"
    elif truth is not None and prediction.label is not None:
        right = truth == prediction.label
        mark = "  right" if right else f"  wrong: it is {truth}"
    print(f"{shown(result.path)}  {prediction}{mark}", file=out)
    width = max(map(len, classes))
    for name, value in prediction.probabilities.items() if out.isatty() else ():
        print(f"  {name:<{width}} {'█' * round(BAR * value):<{BAR}} {value:4.0%}", file=out)
    for text in prediction.warnings:
        print(f"  warning: {text}", file=out)
    for one in prediction.windows:
        print(f"  {window_line(one)}", file=out)
    return right


def window_line(one: Prediction) -> str:
    """Such as "2.25-4.50 s  happy 63%"."""
    return "{:.2f}-{:.2f} s  ".format(*one.times) + str(one)
