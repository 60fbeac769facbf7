"""Rows of a CSV in any usual dress, with their line numbers: what spreadsheets, pandas and people write."""

from __future__ import annotations

import codecs
import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emolight.errors import EmolightError, counted, refusals

if TYPE_CHECKING:
    import pandas as pd

MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass
class Sheet:
    """A CSV as a table of texts, with the (last) line number of each row."""

    path: Path
    table: pd.DataFrame
    lines: list[int]

    def refuse(self, wrong: Any, problem: str, fix: str, *values: pd.Series[Any]) -> None:
        """Refuse the first row that is wrong, with its line; its values go into the braces of ``problem``."""
        if (rows := np.flatnonzero(wrong)).size:
            texts = [shown(str(column.iloc[rows[0]])) for column in values]
            problem = problem.format(*texts) if texts else problem
            raise EmolightError(f"{self.path}, line {self.lines[rows[0]]}: {problem}.", fix)


def read_sheet(path: Path, what: str) -> Sheet:
    """The rows of a CSV that are not empty.

    Comma, semicolon or tab between the fields; UTF-8 with or without mark, UTF-16 with it, or Latin-1. Columns without
    a name, as of pandas' row numbers, are left out. ``what`` names the file in errors, such as ``split``.
    """
    import pandas as pd  # here, because predictions start faster without it

    with refusals(f"The {what} {path} cannot be read", "Check the path."):
        content = path.read_bytes()
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
    if not text.strip():
        raise EmolightError(f"{path} is empty.", f"A {what} has a line a clip.")
    if "\0" in text:
        raise EmolightError(f"{path} is no text file.", f"A {what} is a CSV file: let the spreadsheet save it as one.")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    first = text.partition("\n")[0].strip().strip('"')
    excel = first.lower().startswith("sep=")  # what Excel is told
    separator = (first[4:5] or "\t") if excel else max(",;\t", key=text.lstrip().partition("\n")[0].count)
    try:
        reader = csv.reader(io.StringIO(text), delimiter=separator)
        lines, plain, start = list[tuple[int, list[str]]](), text.split("\n"), 0
        for row in reader:
            if below := plain[start + 1 : reader.line_num]:  # a field goes on
                width = next((len(header) for _, header in lines[excel:] if any(header)), len(row))
                if whole := sum(width > 1 and line.count(separator) == width - 1 for line in below):
                    problem = f"{path}, line {start + 1}: a quote takes in {counted(whole, 'row')} below it."
                    raise EmolightError(problem, "Take the quote out; a text with line breaks goes on one line.")
            lines.append((reader.line_num, [field.strip() for field in row]))
            start = reader.line_num
    except csv.Error as error:
        raise EmolightError(f"{path} is not a CSV file: {error}.", f"A {what} has a line a clip.") from None
    rows = [(number, row) for number, row in lines[excel:] if any(row)]
    if len(rows) < 2:
        raise EmolightError(f"{path} has no clips below its column names.", f"A {what} has a line a clip.")
    (line, columns), *rows = rows
    named = [place for place, name in enumerate(columns) if name]
    lower = [columns[place].lower() for place in named]
    if twice := [name for name in lower if lower.count(name) > 1]:
        raise EmolightError(f"{path}, line {line}: two columns {shown(twice[0])}.", "Rename one of them.")
    for number, row in rows:
        if any(row[len(columns) :]):
            problem = f"{path}, line {number}: {len(row)} fields, but {len(columns)} columns."
            raise EmolightError(problem, f"Put quotes around a field that holds '{separator}'.")
        row += [""] * (len(columns) - len(row))
    table = pd.DataFrame([row[: len(columns)] for _, row in rows], dtype=str)[named]
    table.columns = pd.Index([columns[place] for place in named])
    return Sheet(path, table, [number for number, _ in rows])


def shown(text: str) -> str:
    """A value from a file as it may stand in a message of one line."""
    short = text if len(text) <= 60 else text[:57] + "..."
    return f"'{short}'" if short.isprintable() else ascii(short)
