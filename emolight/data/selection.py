"""Which clips of which corpora are meant: labels renamed, columns filtered, several corpora put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from emolight.data.corpora import Spec, corpus_of
from emolight.data.corpus import LOSSY, UNKNOWN, Corpus, Discovery, Task
from emolight.errors import EmolightError, nearest

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Choice:
    """What the configuration says of the clips; see :class:`~emolight.data.datamodule.EmotionDataModule`."""

    task: str | None = None
    emotions: Sequence[str] | None = None
    label_map: Mapping[str, str] | None = None
    filter: Mapping[str, Sequence[str | int | float]] | None = None
    speakers: str = "known"
    scored: bool = False
    """The emotions are those of a trained model: others are left out, and some may have no clip."""


@dataclass
class Selection:
    """The clips that are meant.

    Attributes:
        clips: clip table with ``file``, the absolute path; of several corpora ids and speakers begin with their names.
        classes: emotions in the order of the network's outputs.
        corpus: the one corpus, or a stand-in for several.
        corpora: each of them.
        task: name for tables and files.
        left_out: reason to number of files or clips.
        notes: what a reader of the figures must know, a sentence each.
    """

    clips: pd.DataFrame
    classes: list[str]
    corpus: Corpus
    corpora: list[Corpus]
    task: str
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Several(Corpus):
    """Several corpora as one; it has no published folds."""

    about = "several corpora"

    def __init__(self, corpora: Sequence[Corpus]) -> None:
        self.name = " + ".join(one.name for one in corpora)  # type: ignore[misc]
        self.about = "; ".join(one.about for one in corpora)
        self.licence = "; ".join(dict.fromkeys(f"{one.name}: {one.licence or 'unknown'}" for one in corpora))
        self.citation = "; ".join(one.citation for one in corpora if one.citation)
        self.groups = tuple(dict.fromkeys([name for one in corpora for name in one.groups] + ["corpus"]))


def corpora_of(spec: Spec | Sequence[Spec], root: str | Sequence[str] | None) -> list[tuple[Corpus, Path]]:
    """Each corpus that ``data.corpus`` names, with its root.

    Raises:
        EmolightError: an unknown corpus, or not a root for each.
    """
    specs: list[Any] = list(spec) if isinstance(spec, list | tuple) else [spec]
    corpora = [corpus_of(one) for one in specs]
    roots: list[Any] = list(root) if isinstance(root, list | tuple) else [root] * len(corpora)
    if len(roots) != len(corpora) or (root is not None and not isinstance(root, list | tuple) and len(corpora) > 1):
        raise EmolightError(
            f"data.root is {root!r} for {len(corpora)} corpora.", "Give a list with a folder for each, or leave it out."
        )
    return [(one, Path(where or one.default_root).expanduser()) for one, where in zip(corpora, roots, strict=True)]


class _Part(NamedTuple):
    """A corpus as it was found; each table is read once."""

    corpus: Corpus
    root: Path
    found: Discovery


def select(places: Sequence[tuple[Corpus, Path]], choice: Choice) -> Selection:
    """Find the clips of the corpora and keep those that are meant.

    Raises:
        EmolightError: no recordings, an unknown label, task, column or value, no speakers, or no clip left.
    """
    parts: list[_Part] = []
    for corpus, root in places:
        corpus.prepare(root)
        parts.append(_Part(corpus, root, corpus.find(root)))
    _check(parts, choice)
    selections = [_one(part, choice) for part in parts]
    whole = selections[0] if len(selections) == 1 else _together(selections)
    labels = _labels(parts, choice)
    here = set(whole.clips["emotion"])
    if choice.emotions is not None:
        whole.classes = list(choice.emotions)
        absent = [name for name in whole.classes if name not in here]
        if choice.scored and (unknown := [name for name in labels if name not in whole.classes]):
            whole.notes.append(f"left out, since the model does not know them: clips labelled {', '.join(unknown)}")
        if choice.scored and absent:
            whole.notes.append(f"never predicted, since no clip is labelled so: {', '.join(absent)}")
        elif absent:
            raise EmolightError(
                f"No clip is left of emotion '{absent[0]}', by data.emotions, data.task and data.filter.",
                f"{nearest(absent[0], labels)}Labels: {', '.join(labels)}.",
            )
    if len(whole.classes) < 2:
        raise EmolightError(
            f"The classes are [{', '.join(whole.classes)}]; a classifier needs at least two.", "Change data.emotions."
        )
    return whole


def _check(parts: Sequence[_Part], choice: Choice) -> None:
    """Refuse what no corpus has: a label to rename, a column to filter by, a value of it."""
    tables = [part.found.table for part in parts]
    what = " + ".join(part.corpus.name for part in parts)
    labels = sorted({label for table in tables for label in table["emotion"].unique()})
    for label in choice.label_map or ():
        if label not in labels:
            raise EmolightError(
                f"data.label_map renames '{label}', which no clip has.",
                f"{nearest(label, labels)}Labels: {', '.join(labels)}.",
            )
    for name, values in _asked(choice).items():
        having = [table for table in tables if name in table]
        if not having:
            every = dict.fromkeys(str(one) for table in tables for one in table)
            columns = [one for one in every if one not in ("clip_id", "path")]
            raise EmolightError(
                f"data.filter names '{name}', which is no column of {what}.",
                f"{nearest(name, columns)}Columns: {', '.join(columns)}.",
            )
        there = sorted({value for table in having for value in table[name].astype(str).unique()})
        for value in values:
            if value not in there:
                raise EmolightError(
                    f"data.filter: no clip of {what} has {name} '{value}'.",
                    f"{nearest(value, there)}Values: {', '.join(there[:12])}.",
                )


def _asked(choice: Choice) -> dict[str, tuple[str, ...]]:
    """The filter of the configuration; one value may stand without a list."""
    given: Mapping[str, Any] = choice.filter or {}
    lists = {name: values if isinstance(values, list | tuple) else [values] for name, values in given.items()}
    return {name: tuple(map(str, values)) for name, values in lists.items()}


def _labels(parts: Sequence[_Part], choice: Choice) -> list[str]:
    """All labels of the corpora, renamed."""
    return sorted({name for part in parts for name in _renamed(part.found.table["emotion"].unique(), choice)})


def _renamed(labels: Iterable[str], choice: Choice) -> list[str]:
    renamed = dict(choice.label_map or {})
    return [renamed.get(label, label) for label in labels]


def _one(part: _Part, choice: Choice) -> Selection:
    corpus, root, found = part
    table = found.table
    if choice.speakers != "unknown" and (table["speaker"] == UNKNOWN).all():
        raise EmolightError(
            f"{corpus.name} has no column `speaker`: no figure could say anything about new voices.",
            "Add the column; or pass --data.speakers unknown, and every result is labelled speaker-dependent.",
        )
    task = _task(corpus, choice, table)
    clips = _meant(table, task, choice).reset_index(drop=True)
    emotions = choice.emotions if choice.emotions is not None else list(dict.fromkeys(_renamed(task.emotions, choice)))
    if clips.empty:
        filtered = "".join(f", {name} {' or '.join(values)}" for name, values in task.filter.items())
        labels = ", ".join(_labels([part], choice))
        raise EmolightError(
            f"No clip of {corpus.name} is left: emotions {', '.join(emotions) or 'none'}{filtered}.",
            f"Its labels: {labels}. Change data.emotions, task or filter, or rename labels by data.label_map.",
        )
    if choice.speakers == "unknown":
        clips = clips.assign(speaker=UNKNOWN)
    left_out = Counter(found.passed_over)
    left_out[f"clips of {corpus.name} outside of the task"] = len(table) - len(clips)
    present = set(clips["emotion"])
    return Selection(
        clips.assign(file=[str((root / path).absolute()) for path in clips["path"]]),
        [name for name in emotions if name in present],
        corpus,
        [corpus],
        task_name(corpus, task, choice, emotions),
        dict(+left_out),
        _notes(part, task, choice, clips),
    )


def _task(corpus: Corpus, choice: Choice, table: pd.DataFrame) -> Task:
    """The task that is meant of this corpus, by its own labels; the filter is the one of the configuration, too."""
    name = choice.task or corpus.default_task
    present = set(table["emotion"])
    every = Task((*(one for one in corpus.emotions if one in present), *sorted(present - set(corpus.emotions))))
    tasks: dict[str, Task] = {"all": every, **corpus.tasks}
    if name not in tasks:
        raise EmolightError(f"{corpus.name} has no task '{name}'.", f"{nearest(name, tasks)}Valid: {', '.join(tasks)}.")
    if choice.emotions is not None and len(set(choice.emotions)) < len(choice.emotions):
        raise EmolightError(f"data.emotions names one twice: {', '.join(choice.emotions)}.", "Name each once.")
    own = {column: values for column, values in _asked(choice).items() if column in table}
    return Task(tasks[name].emotions, {**tasks[name].filter, **own})


def _meant(table: pd.DataFrame, task: Task, choice: Choice) -> pd.DataFrame:
    """The rows of a clip table that are meant, their labels renamed: the task's, unless emotions are named."""
    meant = table if choice.emotions is not None else table[table["emotion"].isin(task.emotions)]
    if choice.label_map:
        meant = meant.assign(emotion=_renamed(meant["emotion"], choice))
    if choice.emotions is not None:
        meant = meant[meant["emotion"].isin(choice.emotions)]
    for name, values in task.filter.items():
        if name in meant:
            meant = meant[meant[name].astype(str).isin(values)]
    return meant


def _notes(part: _Part, task: Task, choice: Choice, clips: pd.DataFrame) -> list[str]:
    """What is missing, was passed over, or was compressed."""
    corpus, root, found = part
    notes = []
    expected = corpus.expected()
    if expected is not None:
        lacking = len(set(_meant(expected, task, choice)["clip_id"]) - set(clips["clip_id"]))
    else:
        wanted = set(choice.emotions if choice.emotions is not None else _renamed(task.emotions, choice))
        published = {} if task.filter else corpus.counts
        has = found.table["emotion"].value_counts()
        lacking = sum(
            max(0, count - int(has.get(name, 0)))
            for name, count in published.items()
            if _renamed([name], choice)[0] in wanted
        )
    if lacking:
        notes.append(f"{lacking} published clips of {corpus.name} are missing under '{root}' (audit lists them)")
    notes += [f"{count} files passed over: {reason}" for reason, count in found.passed_over.items()]
    suffixes = Counter("." + path.rpartition(".")[2].lower() for path in clips["path"].unique())
    if LOSSY & set(suffixes) and set(suffixes) - LOSSY:
        mixed = ", ".join(f"{count} × {name}" for name, count in suffixes.most_common())
        notes.append(f"some files of {corpus.name} are compressed with loss and others are not: {mixed}")
    return notes


def _together(parts: Sequence[Selection]) -> Selection:
    """Several corpora as one: ids and speakers begin with the corpus' name."""
    import pandas as pd

    names = [part.corpus.name for part in parts]
    if twice := [name for name in names if names.count(name) > 1]:
        raise EmolightError(f"Two corpora have the name '{twice[0]}'.", "Rename a file, or list all clips in one CSV.")
    tables = []
    for name, part in zip(names, parts, strict=True):
        own, speakers = part.clips, part.clips["speaker"]
        speakers = speakers.where(speakers == UNKNOWN, f"{name}/" + speakers)
        tables.append(own.assign(corpus=name, clip_id=f"{name}/" + own["clip_id"], speaker=speakers))
    clips = pd.concat(tables, ignore_index=True).sort_values("clip_id", ignore_index=True)
    texts = clips.select_dtypes(exclude="number").columns
    clips[texts] = clips[texts].fillna("")  # columns that not all of them have
    left_out: Counter[str] = Counter()
    for part in parts:
        left_out.update(part.left_out)
    corpora = [part.corpus for part in parts]
    return Selection(
        clips,
        list(dict.fromkeys(name for part in parts for name in part.classes)),
        Several(corpora),
        corpora,
        " + ".join(dict.fromkeys(part.task for part in parts)),
        dict(left_out),
        [note for part in parts for note in part.notes],
    )


def task_name(corpus: Corpus, task: Task, choice: Choice, emotions: Sequence[str]) -> str:
    """The name that the corpus has for a task, or its emotions and filter themselves, for tables and file names."""
    for name, known in corpus.tasks.items():
        same = set(known.emotions) == set(emotions) and dict(known.filter) == dict(task.filter)
        if same and not choice.label_map:
            return name
    return "-".join([*emotions, *(value for values in task.filter.values() for value in values)])
