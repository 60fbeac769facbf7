"""The corpora that come along, a small file each; and how a name, a CSV or a class of one's own becomes a corpus."""

import re
import shlex
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any

from emolight.data.corpora.cremad import CREMAD
from emolight.data.corpora.emodb import EMODB
from emolight.data.corpora.nemo import NEMO
from emolight.data.corpora.ravdess import RAVDESS
from emolight.data.corpora.savee import SAVEE
from emolight.data.corpora.synthetic import Synthetic
from emolight.data.corpora.table import SUFFIXES, Table
from emolight.data.corpora.tess import TESS
from emolight.data.corpus import Corpus
from emolight.errors import EmolightError, nearest, trusted_module
from emolight.files import expand

__all__ = ["CORPORA", "CREMAD", "EMODB", "NEMO", "RAVDESS", "SAVEE", "TESS", "Synthetic", "Table"]
__all__ += ["corpus_of", "module_of", "recognise"]

CORPORA: dict[str, type[Corpus]] = {one.__name__: one for one in (RAVDESS, EMODB, CREMAD, TESS, SAVEE, NEMO, Synthetic)}
"""By the name that ``--data.corpus`` takes."""
SHEETS = {".xls", ".xlsx", ".ods", ".json", ".jsonl", ".parquet", ".pkl"}

Spec = str | Path | Mapping[str, Any] | Corpus  # how a configuration names a corpus


def corpus_of(spec: Spec) -> Corpus:
    """The corpus that a name, the path of a table, or a ``class_path`` with its ``init_args`` means.

    Example:
        >>> corpus_of("RAVDESS").name
        'RAVDESS'
    """
    if isinstance(spec, Corpus):
        return spec
    arguments: dict[str, Any] = {}
    if isinstance(spec, Mapping):
        arguments = dict(spec.get("init_args") or {})
        spec = str(spec.get("class_path", ""))
    name, path = str(spec), expand(str(spec))
    names = {alias.lower(): one for key, one in CORPORA.items() for alias in (key, one.name)}
    kind: Any = {"table": Table, **names}.get(name.lower())
    if path.suffix.lower() in SUFFIXES:
        kind, arguments = Table, {"csv": name, **arguments}
    elif kind is None and name and path.is_dir():
        fix = f"Name the corpus, and the folder by --data.root {shlex.quote(name)}"
        raise EmolightError(f"data.corpus is the folder '{name}'.", fix)
    elif kind is None and (path.suffix.lower() in SHEETS or path.is_file()):
        raise EmolightError(f"data.corpus is '{name}', which is no CSV.", "Save the table as CSV, and name that.")
    try:
        made: Corpus = (kind or _own_class(name))(**arguments)
    except TypeError as error:
        raise EmolightError(f"data.corpus: {name} does not take these arguments ({error}).", "See its class.") from None
    return made


def module_of(name: str) -> str:
    """The module of ``my_module.MyClass``; an empty text for a table, a short name, and what is no name."""
    is_class = re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", name) and PurePath(name).suffix.lower() not in SUFFIXES | SHEETS
    return name.rpartition(".")[0] if is_class else ""


def _own_class(name: str) -> type[Corpus]:
    module, dot, attribute = name.rpartition(".")
    fix = f"{nearest(name, [*CORPORA, *map(str, Path().glob('*.csv'))])}Valid: {', '.join(CORPORA)}, a CSV, mine.Class."
    if not dot or not all(part.isidentifier() for part in name.split(".")):
        raise EmolightError(f"Unknown corpus '{name}'.", fix)
    trusted_module("data.corpus", name)
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.insert(0, str(Path.cwd()))
    try:
        kind = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise EmolightError(f"Unknown corpus '{name}': {error}.", fix) from None
    if not (isinstance(kind, type) and issubclass(kind, Corpus)):
        raise EmolightError(f"data.corpus names '{name}', which is no Corpus.", "See docs/extend.md.")
    return kind


def recognise(path: str | PurePath) -> tuple[Corpus, dict[str, object]] | None:
    """Which corpus a file name is of, and what the name says; None when no grammar knows it."""
    for kind in CORPORA.values():
        if kind is not Synthetic and (clip := kind().label(Path(path))) is not None:
            return kind(), clip
    return None
