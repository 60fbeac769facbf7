"""Which clips of which corpora are meant: labels renamed, columns filtered, several corpora put together."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from emolight.data.corpora import Spec, corpus_of
from emolight.data.corpora.table import NOTHING
from emolight.data.corpus import LOSSY, UNKNOWN, Corpus, Discovery, Task
from emolight.data.splits import plain_number
from emolight.errors import EmolightError, nearest
from emolight.files import expand


@dataclass(frozen=True)
class Choice:
    """What the configuration says of the clips; see :class:`~emolight.data.datamodule.EmotionDataModule`."""

    task: str | None = None
    label: str | None = None
    emotions: Sequence[str] | None = None
    label_map: Mapping[str, str] | None = None
    filter: Mapping[str, Sequence[str | int | float]] | None = None
    speakers: str = "known"
    scored: bool = False  # the emotions are those of a trained model: others are left out, and some may have no clip

    def asked(self) -> dict[str, tuple[str, ...]]:
        """The filter; one value may stand without a list."""
        given: Mapping[str, Any] = self.filter or {}
        return {
            name: tuple(map(str, values if isinstance(values, list | tuple) else [values]))
            for name, values in given.items()
        }

    def renamed(self, labels: Iterable[str]) -> list[str]:
        """Labels by the names that they shall have."""
        return [(self.label_map or {}).get(label, label) for label in labels]


@dataclass
class Selection:
    """The clips that are meant, their classes in the order of the network's outputs, and what is to be told of them.

    ``clips`` has ``file``, the absolute path; of several corpora ids and speakers begin with their names, and
    ``corpus`` stands in for them. ``left_out``: reason to number of files or clips. ``notes``: sentences for readers.
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

    def __init__(self, corpora: Sequence[Corpus]) -> None:
        self.name = " + ".join(one.name for one in corpora)  # type: ignore[misc]
        self.about = "; ".join(one.about for one in corpora)
        self.licence = "; ".join(dict.fromkeys(f"{one.name}: {one.licence or 'unknown'}" for one in corpora))
        self.citation = "; ".join(one.citation for one in corpora if one.citation)
        self.groups = tuple(dict.fromkeys([name for one in corpora for name in one.groups] + ["corpus"]))


def corpora_of(spec: Spec | Sequence[Spec], root: str | Sequence[str] | None) -> list[tuple[Corpus, Path]]:
    """Each corpus that ``data.corpus`` names, with its root."""
    specs: list[Any] = list(spec) if isinstance(spec, list | tuple) else [spec]
    corpora = [corpus_of(one) for one in specs]
    roots: list[Any] = list(root) if isinstance(root, list | tuple) else [root] * (len(specs) if root is None else 1)
    if len(roots) != len(corpora):
        problem = f"data.root is {root!r} for {len(corpora)} corpora."
        raise EmolightError(problem, "Give a list with a folder for each, or leave it out.")
    return [(one, expand(where or one.default_root)) for one, where in zip(corpora, roots, strict=True)]


def select(places: Sequence[tuple[Corpus, Path]], choice: Choice) -> Selection:
    """Find the clips of the corpora and keep those that are meant."""
    found: list[Discovery] = []
    for corpus, root in places:
        corpus.prepare(root)
        found.append(_labelled(corpus, corpus.find(root), choice))
    tables, corpora = [one.table for one in found], [corpus for corpus, _ in places]
    names = [corpus.name for corpus in corpora]
    what = " + ".join(names)
    given = sorted({str(label) for table in tables for label in table["emotion"].unique()})
    labels = sorted(set(choice.renamed(given)))
    columns = list(dict.fromkeys(str(one) for table in tables for one in table))
    _check("data.label_map renames '{}', which no clip has", choice.label_map or (), given)
    _check(f"data.filter names '{{}}', which is no column of {what}", choice.asked(), columns)
    for name, values in choice.asked().items():
        there = {str(value) for table in tables if name in table for value in table[name].astype(str).unique()}
        _check(f"data.filter: no clip of {what} has {name} '{{}}'", values, sorted(there))
    if choice.emotions is not None and len(set(choice.emotions)) < len(choice.emotions):
        raise EmolightError(f"data.emotions names one twice: {', '.join(choice.emotions)}.", "Name each once.")
    if twice := [name for name in names if names.count(name) > 1]:
        raise EmolightError(f"Two corpora have the name '{twice[0]}'.", "Rename a file, or list all clips in one CSV.")
    parts = [_one(corpus, root, one, choice) for (corpus, root), one in zip(places, found, strict=True)]
    clips = parts[0].clips
    if len(parts) > 1:
        clips = pd.concat([part.clips.assign(corpus=part.corpus.name) for part in parts])
        clips["clip_id"] = clips["corpus"] + "/" + clips["clip_id"]
        clips["speaker"] = clips["speaker"].where(clips["speaker"] == UNKNOWN, clips["corpus"] + "/" + clips["speaker"])
        clips = clips.sort_values("clip_id", ignore_index=True)
        texts = clips.select_dtypes(exclude="number").columns
        clips[texts] = clips[texts].fillna("")  # columns that not all of them have
    classes = list(dict.fromkeys(name for part in parts for name in part.classes))
    task = " + ".join(dict.fromkeys(part.task for part in parts))
    left_out: dict[str, int] = dict(sum((Counter(part.left_out) for part in parts), Counter()))
    notes = [note for part in parts for note in part.notes]
    as_one = corpora[0] if len(corpora) == 1 else Several(corpora)
    whole = Selection(clips, classes, as_one, corpora, task, left_out, notes)
    if choice.emotions is not None:
        whole.classes = list(choice.emotions)
        here = set(whole.clips["emotion"])
        absent = [name for name in whole.classes if name not in here]
        if choice.scored and len(here) < 2:
            problem = f"Of the model's emotions {what} has {min(here)} alone, so that every clip would be right."
            raise EmolightError(problem, f"Its labels: {', '.join(labels)}. Rename some by data.label_map.")
        if choice.scored and (unknown := [name for name in labels if name not in whole.classes]):
            whole.notes.append(f"left out, since the model does not know them: clips labelled {', '.join(unknown)}")
        if choice.scored and absent:
            whole.notes.append(f"never predicted, since no clip is labelled so: {', '.join(absent)}")
        elif absent:
            problem = f"No clip is left of emotion '{absent[0]}', by data.emotions, data.task and data.filter."
            raise EmolightError(problem, f"{nearest(absent[0], labels)}Labels: {', '.join(labels)}.")
    if not choice.scored:
        meant = set(map(_bare, whole.classes))
        fix = 'Write them alike, or pass --data.label_map \'{{"{}": "{}"}}\''
        _refuse_alike(f"The labels of {what}", [one for one in labels if _bare(one) in meant], fix, _bare)
    if len(whole.classes) < 2:
        problem = f"The classes are [{', '.join(whole.classes)}]; a classifier needs at least two."
        raise EmolightError(problem, "Change data.emotions.")
    return whole


def _labelled(corpus: Corpus, found: Discovery, choice: Choice) -> Discovery:
    """The clips of the task with another column for their ``emotion``, where ``data.label`` names one."""
    if choice.label is None:
        return found
    columns = [str(name) for name in found.table if name not in ("clip_id", "path", "speaker")]
    _check(f"data.label is '{{}}', which is no column of {corpus.name} with labels", [choice.label], columns)
    table, task = found.table, corpus.tasks.get(choice.task or corpus.default_task)
    table = table if task is None else _meant(table, task, Choice())
    table = table.assign(emotion=table[choice.label].fillna("").astype(str))
    empty = table["emotion"].str.lower().isin(NOTHING)
    left_out = {f"no {choice.label}": int(empty.sum())}
    return replace(found, table=table[~empty], passed_over=found.passed_over | left_out)


def _check(problem: str, names: Iterable[str], valid: Sequence[str]) -> None:
    """Refuse what no corpus has: a label to rename, a column to filter by, a value of it."""
    for name in names:
        if name not in valid:
            raise EmolightError(f"{problem.format(name)}.", f"{nearest(name, valid)}Valid: {', '.join(valid[:12])}.")


def _bare(label: str) -> str:
    """A label without case, blanks and signs; a sign in front stays, as of -1."""
    return re.sub(r"(?<=\w)[\W_]+|\s", "", unicodedata.normalize("NFKC", label).casefold().replace("_", " "))


def _bare_speaker(speaker: str) -> str:
    """A speaker without case and what a spreadsheet makes of a number."""
    return plain_number(unicodedata.normalize("NFKC", speaker).casefold())


def _refuse_alike(what: str, names: Iterable[str], fix: str, bare: Callable[[str], str]) -> None:
    """Refuse two names that are one to the eye: they would count as two classes, or as two speakers."""
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(bare(name), name)) != name:
            raise EmolightError(f"{what} '{other}' and '{name}' differ in writing only.", fix.format(name, other))


def _one(corpus: Corpus, root: Path, found: Discovery, choice: Choice) -> Selection:
    table = found.table
    if choice.speakers != "unknown" and (table["speaker"] == UNKNOWN).all():
        raise EmolightError(
            f"{corpus.name} has no column `speaker`: no figure could say anything about new voices.",
            "Add the column; or pass --data.speakers unknown, and every result is labelled speaker-dependent.",
        )
    name, present = choice.task or corpus.default_task, set(table["emotion"])
    every = Task((*(one for one in corpus.emotions if one in present), *sorted(present - set(corpus.emotions))))
    tasks: dict[str, Task] = {"all": every, **corpus.tasks}
    if choice.label:
        tasks = {known: Task(every.emotions, of.filter) for known, of in tasks.items()}
    if name not in tasks:
        raise EmolightError(f"{corpus.name} has no task '{name}'.", f"{nearest(name, tasks)}Valid: {', '.join(tasks)}.")
    own = {column: values for column, values in choice.asked().items() if column in table}
    task = Task(tasks[name].emotions, {**tasks[name].filter, **own})
    emotions = choice.emotions if choice.emotions is not None else list(dict.fromkeys(choice.renamed(task.emotions)))
    clips = _meant(table, task, choice).reset_index(drop=True)
    if clips.empty:
        filtered = "".join(f", {name} {' or '.join(values)}" for name, values in task.filter.items())
        raise EmolightError(
            f"No clip of {corpus.name} is left: emotions {', '.join(emotions) or 'none'}{filtered}.",
            f"Its labels: {', '.join(sorted(set(choice.renamed(present))))}. Change data.emotions, task or filter, "
            "or rename labels by data.label_map.",
        )
    if choice.speakers == "unknown":
        clips = clips.assign(speaker=UNKNOWN)
    fix = "Write them alike in the table: as two speakers they could be in training and in test at once."
    _refuse_alike(f"The speakers of {corpus.name}", clips["speaker"].unique(), fix, _bare_speaker)
    outside = {f"clips of {corpus.name} outside of the task": len(table) - len(clips)}
    left_out = {reason: count for reason, count in {**found.passed_over, **outside}.items() if count}
    # The name that the corpus has for the task, or its emotions and filter themselves.
    kept = [value for values in task.filter.values() for value in values]
    title = "-".join(
        [*([name] if choice.label and corpus.tasks else []), *emotions, *kept]
    )  # the labels do not tell which emotions
    for known in () if choice.label_map else sorted(corpus.tasks, key=name.__eq__):  # the one that is asked for last
        same = set(tasks[known].emotions) == set(emotions) and dict(tasks[known].filter) == dict(task.filter)
        title = known if same and (known == name or not choice.label) else title
    title = f"{title} {choice.label}" if choice.label else title
    notes = []
    if (expected := corpus.expected()) is not None:
        published = _labelled(corpus, Discovery(expected), choice).table
        lacking = len(set(_meant(published, task, choice)["clip_id"]) - set(clips["clip_id"]))
    else:
        counts: Counter[str] = Counter()
        for name, count in corpus.counts.items() if not task.filter else ():
            (renamed,) = choice.renamed([name])
            if name in task.emotions if choice.emotions is None else renamed in choice.emotions:
                counts[renamed] += count
        lacking = (counts - Counter(clips["emotion"])).total()
    if lacking:
        notes.append(f"{lacking} published clips of {corpus.name} are missing under '{root}' (audit lists them)")
    notes += [f"{count} files passed over: {reason}" for reason, count in found.passed_over.items() if count]
    if 2 * (speakers := clips["speaker"].nunique()) > len(clips) > 10:
        notes.append(f"{speakers} speakers of {len(clips)} clips: if that is not who speaks, no split is independent")
    suffixes = Counter("." + path.rpartition(".")[2].lower() for path in clips["path"].unique())
    if LOSSY & set(suffixes) and set(suffixes) - LOSSY:
        mixed = ", ".join(f"{count} × {name}" for name, count in suffixes.most_common())
        notes.append(f"some files of {corpus.name} are compressed with loss and others are not: {mixed}")
    clips = clips.assign(file=[str((root / path).absolute()) for path in clips["path"]])
    classes = [name for name in emotions if name in set(clips["emotion"])]
    return Selection(clips, classes, corpus, [corpus], title, left_out, notes)


def _meant(table: pd.DataFrame, task: Task, choice: Choice) -> pd.DataFrame:
    """The rows of a clip table that are meant: the task's, unless emotions are named; filtered, then renamed."""
    meant = table if choice.emotions is not None else table[table["emotion"].isin(task.emotions)]
    for name, values in task.filter.items():
        if name in meant:
            meant = meant[meant[name].astype(str).isin(values)]
    if choice.label_map:
        meant = meant.assign(emotion=choice.renamed(meant["emotion"]))
    return meant if choice.emotions is None else meant[meant["emotion"].isin(choice.emotions)]
