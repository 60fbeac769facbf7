"""Rows of a CSV in any usual dress, with their line numbers: what spreadsheets, pandas and people write."""

from __future__ import annotations

import codecs
import csv
import io
from pathlib import Path

from emolight.errors import EmolightError

MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_rows(path: Path, what: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Column names, and line number and fields of every row that is not empty, of a CSV in any usual dress.

    Columns without a name, as of pandas' row numbers, are left out.

    Args:
        path: comma, semicolon or tab between the fields; UTF-8 with or without mark, UTF-16 with it, or Latin-1.
        what: names the file in errors, such as ``split``.

    Returns:
        The line is the last of a row that has several.

    Raises:
        EmolightError: no such file, no table, or a column twice.
    """
    text = _text(path, what)
    told, _, rest = text.partition("\n")
    if told.strip().strip('"').lower().startswith("sep="):  # what Excel is told
        text, separator, skipped = rest, told.strip().strip('"')[4:5] or "\t", 1
    else:
        header = text.lstrip().partition("\n")[0]
        separator, skipped = max(",;\t", key=header.count), 0
    try:
        reader = csv.reader(io.StringIO(text), delimiter=separator)
        rows = [(reader.line_num + skipped, [field.strip() for field in row]) for row in reader]
    except csv.Error as error:
        raise EmolightError(f"{path} is not a CSV file: {error}.", f"A {what} has a line a clip.") from None
    rows = [(number, row) for number, row in rows if any(row)]
    if len(rows) < 2:
        raise EmolightError(f"{path} has no clips below its column names.", f"A {what} has a line a clip.")
    (line, columns), *rows = rows
    named = [place for place, name in enumerate(columns) if name]
    lower = [columns[place].lower() for place in named]
    if twice := [name for name in lower if lower.count(name) > 1]:
        raise EmolightError(f"{path}, line {line}: two columns {shown(twice[0])}.", "Rename one of them.")
    width = len(columns)
    for number, row in rows:
        if len(row) > width and any(row[width:]):
            raise EmolightError(
                f"{path}, line {number}: {len(row)} fields, but {width} columns.",
                f"Put quotes around a field that holds '{separator}'.",
            )
    filled = [(number, row if len(row) == width else (row + [""] * width)[:width]) for number, row in rows]
    if len(named) < width:
        filled = [(number, [row[place] for place in named]) for number, row in filled]
    return [columns[place] for place in named], filled


def shown(text: str) -> str:
    """A value from a file as it may stand in a message of one line."""
    short = text if len(text) <= 60 else text[:57] + "..."
    return f"'{short}'" if short.isprintable() else ascii(short)


def _text(path: Path, what: str) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EmolightError(f"The {what} {path} cannot be read: {error.strerror}.", "Check the path.") from None
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
    if "\0" in text:
        raise EmolightError(f"{path} is no text file.", f"A {what} is a CSV file: let the spreadsheet save it as one.")
    return text.replace("\r\n", "\n").replace("\r", "\n")
