"""Any table of recordings: CSV with commas, semicolons or tabs, TSV, as spreadsheets and audformat write it."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emolight.data.corpus import REQUIRED, UNKNOWN, Corpus, Discovery, clip_table
from emolight.data.csv_rows import read_rows, shown
from emolight.errors import EmolightError, nearest

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = {".csv", ".tsv", ".txt"}
NAMES = {
    "path": ("path", "file", "filename", "filepath"),
    "emotion": ("emotion", "label"),
    "speaker": ("speaker", "actor", "speaker_id"),
    "sex": ("sex", "gender"),
    "subset": ("subset", "split"),
    **{name: (name,) for name in ("clip_id", "start", "end")},
}
"""What a column may be called, in any case; the first that is there is taken."""
SUBSETS = {"train": "train", "training": "train", "val": "val", "dev": "val", "devel": "val", "valid": "val"}
SUBSETS |= {"validation": "val", "test": "test", "testing": "test"}
SEXES = {"f": "female", "m": "male", "w": "female"}
MOST_GROUPS = 12
"""A column with more values than these is no group by which results are tabled."""
NO_GROUPS = {*REQUIRED, "file", "corpus", "start", "end", "subset", "label", "prediction", "fold", "seed"}
"""Nor are these, which mean something else in a table of predictions."""


class Table(Corpus):
    """Recordings that a CSV lists: a path, a label and a speaker a row, and whatever else it knows.

    Columns (in any case): ``path`` or ``file``, relative to the root; ``emotion`` or ``label``; ``speaker`` or
    ``actor``; optionally ``subset``, ``sex``, ``clip_id``, and any others. Where a file has several clips, ``start``
    and ``end`` say where these are, in seconds or as audformat writes times (``0 days 00:00:01.5``).

    Args:
        csv: the file.
        licence: of the recordings.
        citation: of the corpus.
        about: who says what.

    Example:
        >>> Table("mine.csv").table(Path("."))["speaker"].nunique()  # doctest: +SKIP
        12
    """

    def __init__(self, csv: str, licence: str = "", citation: str = "", about: str = "") -> None:
        self.csv = Path(csv).expanduser()
        self.name = self.csv.stem  # type: ignore[misc]
        self.licence, self.citation = licence, citation
        self.about = about or f"the recordings that {self.csv.name} lists"
        self.default_root = str(self.csv.parent)
        self.groups = ()

    def find(self, root: str | Path, strict: bool = True) -> Discovery:
        """Read the table; recordings that are not there are an error.

        Raises:
            EmolightError: no such file, a column is missing, a row without label, times that cannot be, a clip that
                stands twice, or recordings that do not exist.
        """
        import pandas as pd

        columns, rows = read_rows(self.csv, "table of clips")
        lines = [number for number, _ in rows]
        table = pd.DataFrame([row for _, row in rows], columns=self._renamed(columns), dtype=str)
        for name in ("path", "emotion", "speaker", "clip_id"):
            if name in table:
                self._refuse(table[name] == "", lines, f"no {name}", "Fill it in, or delete the line.")
        if "subset" in table:
            subset = table["subset"].str.lower().map(SUBSETS)
            valid = "Valid: train, val, test. A column that means something else needs another name."
            self._refuse(subset.isna(), lines, "unknown subset {}", valid, table["subset"])
            table["subset"] = subset
        for name in ("start", "end"):
            if name in table:
                table[name] = self._seconds(table[name], lines)
        if "start" in table and "end" in table:
            ends = table["end"]
            early = ends <= table["start"].fillna(0)
            self._refuse(early, lines, "a clip that ends at {} s", "Let it end after its start.", ends)
        table["path"] = self._paths(table["path"], Path(root).expanduser(), lines)
        if "speaker" not in table:
            table["speaker"] = UNKNOWN
        if "clip_id" not in table:
            table["clip_id"] = _clip_ids(table)
        ids = table["clip_id"]
        self._refuse(ids.duplicated(), lines, "clip {} stands there already", "Delete one of the lines.", ids)
        if "sex" in table:
            table["sex"] = table["sex"].str.lower().replace(SEXES)
        table = clip_table(table)
        most = min(MOST_GROUPS, (len(table) - 1) // 2)
        groups = [name for name in map(str, table) if name not in NO_GROUPS and not name.startswith("prob_")]
        self.groups = tuple(name for name in groups if 2 <= table[name].nunique() <= most)
        few = 3 <= table["speaker"].nunique() < 5
        self.default_protocol = "subset" if "subset" in table else "loso" if few else "speakers5"
        return Discovery(table)

    def _refuse(
        self, wrong: pd.Series[bool], lines: list[int], problem: str, fix: str, values: pd.Series[Any] | None = None
    ) -> None:
        """Refuse the first row that is wrong, with its line; its value goes into the braces of ``problem``."""
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            value = "" if values is None else shown(str(values.iloc[row]))
            raise EmolightError(f"{self.csv}, line {lines[row]}: {problem.format(value)}.", fix)

    def _renamed(self, columns: list[str]) -> list[str]:
        """The columns by the names of a clip table; an alias that is not taken keeps its own."""
        lower = {name.lower(): name for name in reversed(columns)}
        own = {name: next((lower[alias] for alias in NAMES[name] if alias in lower), None) for name in NAMES}
        for name in ("path", "emotion"):
            if own[name] is None:
                wanted = " or ".join(f"'{alias}'" for alias in NAMES[name][:2])
                raise EmolightError(
                    f"{self.csv}, line 1: no column {wanted} among {', '.join(columns[:12])}.",
                    f"{nearest(name, columns)}It needs path, emotion and speaker, with commas, semicolons or tabs "
                    "between them.",
                )
        named = {column: name for name, column in own.items() if column is not None}
        return [named.get(column, column) for column in columns]

    def _seconds(self, given: pd.Series[str], lines: list[int]) -> pd.Series[float]:
        import pandas as pd

        plain = given.where(~given.isin(["", "NaT", "nan"])).str.replace(",", ".", regex=False)
        numbers = pd.to_numeric(plain, errors="coerce").astype(float)
        # audformat writes times as "0 days 00:00:01.5".
        times = pd.to_timedelta(plain[numbers.isna()], errors="coerce").dt.total_seconds()
        seconds = numbers.fillna(times)
        bad = (seconds.isna() & plain.notna()) | (seconds < 0) | np.isinf(seconds)
        self._refuse(bad, lines, "{} is no time", "Give seconds from the file's start, such as 1.25.", given)
        return seconds

    def _paths(self, given: pd.Series[str], root: Path, lines: list[int]) -> pd.Series[str]:
        """The paths with forward slashes and without ``~``, every one of an existing file."""
        import pandas as pd

        codes, unique = pd.factorize(given)
        paths = [posixpath.normpath(path.replace("\\", "/")) for path in unique]
        paths = [Path(path).expanduser().as_posix() if path.startswith("~/") else path for path in paths]
        absent = np.array([not _is_file(root / path) for path in paths])[codes]
        if absent.any():
            row = int(absent.argmax())
            path = Path(paths[codes[row]])
            more = len(np.unique(codes[absent])) - 1
            here = _is_file(path) and not path.is_absolute()
            raise EmolightError(
                f"{self.csv}, line {lines[row]}: there is no recording '{root / path}'"
                f"{f', and {more} more are missing' if more else ''}.",
                "The paths start from the working folder: --data.root ."
                if here
                else f"Paths are relative to '{root}'; another folder: --data.root DIR.",
            )
        return pd.Series(np.array(paths, dtype=object)[codes], dtype=str)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a folder that may not be entered, a name that is too long
        return False


def _clip_ids(table: pd.DataFrame) -> pd.Series[str]:
    """The names of the files, as far as is needed with suffix or folders; with the times where a file has several."""
    paths = table["path"]
    stems = paths.str.replace(r"\.[^./]*$", "", regex=True)
    first = ~paths.duplicated()
    choices = (stems.str.rpartition("/")[2], stems, paths)
    ids = next(one for one in choices if one is paths or not one[first].duplicated().any())
    if not first.all() and "start" in table:
        for name in [name for name in ("start", "end") if name in table]:
            ids = ids + table[name].map("_{:.3f}".format).where(table[name].notna(), "")
    return ids
