"""Any table of recordings: CSV with commas, semicolons or tabs, TSV, as spreadsheets and audformat write it."""

from __future__ import annotations

import posixpath
import unicodedata
from os.path import isfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emolight.data.corpus import REQUIRED, UNKNOWN, Corpus, Discovery, clip_table
from emolight.data.sheet import Sheet, read_sheet
from emolight.errors import EmolightError, nearest
from emolight.files import expand

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
NOTHING = {"", "nan", "<na>", "null", "n/a", "#n/a"}
"""What programs write into a cell that has no value, in any case."""
SEXES = {"f": "female", "m": "male", "w": "female"}
MOST_GROUPS = 12  # a column with more values than these is no group by which results are tabled
NO_GROUPS = {*REQUIRED, "file", "start", "end", "subset", "label", "prediction", "fold", "seed"}
"""Nor are these, which mean something else in a table of predictions."""


class Table(Corpus):
    """Recordings that a CSV lists: a path, a label and a speaker a row, and whatever else it knows.

    Columns (in any case): ``path`` or ``file``, relative to the root; ``emotion`` or ``label``; ``speaker`` or
    ``actor``; optionally ``subset``, ``sex``, ``clip_id``, and any others. Where a file has several clips, ``start``
    and ``end`` say where these are, in seconds or as audformat writes times (``0 days 00:00:01.5``).

    ``licence``, ``citation`` and ``about`` (who says what) are for model cards.

    Example:
        >>> Table("mine.csv").table(Path("."))["speaker"].nunique()  # doctest: +SKIP
        12
    """

    def __init__(self, csv: str, licence: str = "", citation: str = "", about: str = "") -> None:
        self.csv = expand(csv)
        self.name = self.csv.stem  # type: ignore[misc]
        self.licence, self.citation = licence, citation
        self.about = about or f"the recordings that {self.csv.name} lists"
        self.default_root = str(self.csv.parent)
        self.groups = ()

    def find(self, root: str | Path, strict: bool = True) -> Discovery:
        """Read the table; recordings that are not there are an error."""
        import pandas as pd

        sheet = read_sheet(self.csv, "table of clips")
        table = sheet.table = self._renamed(sheet.table)
        for name in ("path", "emotion", "speaker", "clip_id"):
            if name in table:
                sheet.refuse(table[name].str.lower().isin(NOTHING), f"no {name}", "Fill it in, or delete the line.")
        if "subset" in table:
            subset = table["subset"].str.lower().map(SUBSETS)
            valid = "Valid: train, val, test. A column that means something else needs another name."
            sheet.refuse(subset.isna(), "unknown subset {}", valid, table["subset"])
            table["subset"] = subset
        for name in [name for name in ("start", "end") if name in table]:
            given = table[name].where(~table[name].str.lower().isin({*NOTHING, "nat"}))
            plain = given.str.replace(",", ".", regex=False)
            numbers = pd.to_numeric(plain, errors="coerce").astype(float)
            # audformat writes times as "0 days 00:00:01.5".
            times = pd.to_timedelta(plain[numbers.isna()], errors="coerce").dt.total_seconds()
            seconds = numbers.fillna(times)
            bad = (seconds.isna() & plain.notna()) | (seconds < 0) | np.isinf(seconds)
            sheet.refuse(bad, "{} is no time", "Give seconds from the file's start, such as 1.25.", table[name])
            table[name] = seconds
        if "start" in table and "end" in table:
            early = table["end"] <= table["start"].fillna(0)
            sheet.refuse(early, "a clip that ends at {} s", "Let it end after its start.", table["end"])
        table["path"] = self._paths(sheet, Path(root).expanduser())
        table["speaker"] = table.get("speaker", UNKNOWN)
        table["speaker"] = table["speaker"].where(table["speaker"].str.lower() != UNKNOWN, UNKNOWN)
        if "clip_id" not in table:
            table["clip_id"] = _clip_ids(table)
        twice = table["clip_id"].duplicated()
        sheet.refuse(twice, "clip {} stands there already", "Delete one of the lines.", table["clip_id"])
        if "sex" in table:
            table["sex"] = table["sex"].str.lower().replace(SEXES)
        table = clip_table(table)
        most = min(MOST_GROUPS, (len(table) - 1) // 2)
        groups = [name for name in map(str, table) if name not in NO_GROUPS and not name.startswith("prob_")]
        self.groups = tuple(name for name in groups if 2 <= table[name].nunique() <= most)
        few = 3 <= table["speaker"].nunique() < 5
        self.default_protocol = "subset" if "subset" in table else "loso" if few else "speakers5"
        return Discovery(table)

    def _renamed(self, table: pd.DataFrame) -> pd.DataFrame:
        """The columns by the names of a clip table; an alias that is not taken keeps its own."""
        columns = list(map(str, table))
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
        return table.rename(columns={column: name for name, column in own.items() if column is not None})

    def _paths(self, sheet: Sheet, root: Path) -> NDArray[Any]:
        """The paths with forward slashes and without ``~``, every one of an existing file."""
        import pandas as pd

        codes, unique = pd.factorize(sheet.table["path"])
        paths = [posixpath.normpath(path.replace("\\", "/")) for path in unique]
        paths = [Path(path).expanduser().as_posix() if path.startswith("~/") else path for path in paths]
        # Path.is_file raises for a name that is too long, and for a folder that may not be entered.
        absent = np.array([not isfile(root / path) for path in paths])  # noqa: PTH113
        for place in np.flatnonzero(absent):  # a Mac takes names apart: ü is u and two dots
            written = [unicodedata.normalize(form, paths[place]) for form in ("NFC", "NFD")]
            found = [path for path in written if isfile(root / path)]  # noqa: PTH113
            paths[place], absent[place] = (found or [paths[place]])[0], not found
        if absent.any():
            first = Path(paths[int(absent.argmax())])
            more = f", and {absent.sum() - 1} more are missing" if absent.sum() > 1 else ""
            folder = (root / first).parent
            names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
            near = [f"There is {name}. " for name in names if name.casefold() == first.name.casefold()]
            fix = f"{''.join(near[:1])}Paths are relative to '{root}'; another folder: --data.root DIR."
            if isfile(first) and not first.is_absolute():  # noqa: PTH113
                fix = "The paths start from the working folder: --data.root ."
            sheet.refuse(absent[codes], f"there is no recording '{root / first}'{more}", fix)
        return np.array(paths, dtype=object)[codes]


def _clip_ids(table: pd.DataFrame) -> pd.Series[str]:
    """The names of the files, as far as is needed with suffix or folders; with the times where a file has several."""
    paths = table["path"]
    stems = paths.str.replace(r"\.[^./]*$", "", regex=True)
    first = ~paths.duplicated()
    choices = (stems.str.rpartition("/")[2].str.strip(), stems.str.strip(), paths)
    ids = next(one for one in choices if one is paths or not one[first].duplicated().any())
    if not first.all():
        for name in [name for name in ("start", "end") if name in table]:
            ids = ids + table[name].map("_{:.3f}".format).where(table[name].notna(), "")
    return ids
