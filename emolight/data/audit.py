"""``python -m emolight audit``: are these the recordings that papers report on?

Exit code 1 for what spoils results: missing clips, two recordings under one name, unreadable or silent files, files
in a folder that contradicts their name. Warnings: duplicates (counted once), clipping, equal samples under two
names and clips that were never published.

Rules: *unreadable* and *silent* is what :func:`emolight.data.audio.read_audio` refuses, and so does training;
*clipped* is a file with three consecutive samples of a channel at 1 - 1/32768 of full scale or above.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from emolight.data import audit_view
from emolight.data.audio import AudioError, read_audio
from emolight.data.corpora import CORPORA, Synthetic, Table, corpus_of
from emolight.data.corpora.synthetic import MARKER
from emolight.data.corpora.table import SUFFIXES
from emolight.data.corpus import READ, Corpus, Task, walk
from emolight.data.protocols import make_split
from emolight.data.sound_file import open_sound
from emolight.errors import EmolightError, check_choice

STEP = 1 / 32768
ERRORS = {
    "missing": "missing clips",
    "too_few": "emotions with fewer clips than published",
    "conflicts": "same name, different samples",
    "unreadable": "unreadable files",
    "silent": "silent clips",
    "misplaced": "files in a folder that contradicts their name",
}
WARNINGS = {
    "duplicates": "duplicates, counted once",
    "same_samples": "same samples under different names",
    "clipped": "clipped clips",
    "unpublished": "clips that are not in the published set",
}
ALL = "all"
"""The group of every clip."""


class Probe(NamedTuple):
    """What decoding one file gave; ``error`` is empty for a usable file."""

    rate: int = 0
    channels: int = 0
    seconds: float = 0.0
    silent: bool = False
    clipped: bool = False
    digest: str = ""
    error: str = ""


def probe(path: Path) -> Probe:
    """Decode a file as training does, and measure it by the rules of this module."""
    silent = False
    try:
        read_audio(path)
    except AudioError as error:
        silent = error.reason.startswith("is silent")
        if not silent:
            return Probe(error=error.reason)
    with open_sound(path) as sound:
        digest, frames, clipped = (
            hashlib.blake2b(f"{sound.rate} {sound.channels}".encode(), digest_size=16),
            0,
            False,
        )
        high = np.zeros((0, sound.channels), dtype=bool)
        for block in sound.blocks():
            digest.update(block.tobytes())
            frames += len(block)
            high = np.concatenate([high[-2:], np.abs(block) >= 1 - STEP])
            clipped = clipped or bool((high[2:] & high[1:-1] & high[:-2]).any())
    return Probe(sound.rate, sound.channels, frames / sound.rate, silent, clipped, digest.hexdigest())


def corpus_in(root: str | Path) -> Corpus:
    """The corpus whose grammar knows most file names below ``root``, or the table that ``root`` is.

    Raises:
        EmolightError: no such folder, or no grammar knows any name.
    """
    root = Path(root).expanduser()
    if root.suffix.lower() in SUFFIXES and root.is_file():
        return Table(str(root))
    if not root.is_dir():
        raise EmolightError(f"There is no folder with recordings at '{root}'.", "Give the folder that holds them.")
    if (root / MARKER).is_file():
        return Synthetic()
    paths = [path for path in walk(root, Counter()) if path.suffix.lower() in READ]
    known = {name: sum(kind().parse_path(path) is not None for path in paths) for name, kind in CORPORA.items()}
    best = max(known, key=lambda name: known[name])
    if not known[best]:
        raise EmolightError(
            f"Of the {len(paths)} sound files under '{root}' none has a name of a corpus that is known here.",
            f"Name it: --corpus {'|'.join(CORPORA)}, or list your recordings in a CSV: --corpus mine.csv",
        )
    return corpus_of(best)


def twin_share(split: pd.DataFrame, twin: Callable[[str], str | None]) -> float:
    """Share of the validation clips of a split of which another take (the same ``twin``) is in training."""
    sentence = split["clip_id"].map(twin)
    training = set(sentence[split["subset"] == "train"].dropna())
    return float(sentence[split["subset"] == "val"].isin(training).mean())


def audit(
    root: str | Path,
    corpus: Corpus | None = None,
    only: Mapping[str, Sequence[str]] | None = None,
    by: str | None = None,
) -> dict[str, Any]:
    """Compare a folder with what its corpus published, and decode every clip in it.

    Args:
        root: folder with the recordings, or a CSV that lists them.
        corpus: which one it is; None: :func:`corpus_in`.
        only: column to values: which part of the corpus is meant to be there.
        by: column that counts and sound are tabled by; None: what the tasks of the corpus choose by, or its first
            group.

    Returns:
        Plain values, ready for JSON: a list for each key of ``ERRORS`` and ``WARNINGS``; counts as [found,
        published] by group and emotion, and by speaker; measurements; ``twin_share`` of the default protocol and of
        a random split, with the default task, or why there is none; ``ok``.

    Raises:
        EmolightError: no such folder, no clip in it, or no such column.
    """
    root = Path(root).expanduser()
    corpus = corpus or corpus_in(root)
    root = root.parent if root.is_file() else root
    found = corpus.find(root, strict=False)
    only = only or {}
    for column in (*only, *([by] if by else [])):
        check_choice("column of the clips", column, found.table.columns)
    table = _part(found.table, only)
    published = None if (whole := corpus.expected()) is None else _part(whole, only)
    if not len(table) + len(published if published is not None else ()):
        raise EmolightError(f"{corpus.name} has no clip with {dict(only)}.", "Check the values of --filter.")
    chosen = (name for task in corpus.tasks.values() for name in task.filter)
    by = by or next((name for name in (*chosen, *corpus.groups) if name in table), None)

    paths = sorted(set(table["path"]))
    probes = dict(zip(paths, _probe_all([root / path for path in paths]), strict=True))
    good = {path: sound for path, sound in probes.items() if not sound.error}
    same: dict[str, list[str]] = {}
    for path, sound in good.items():
        if not sound.silent:
            same.setdefault(sound.digest, []).append(path)
    clips = dict(zip(found.table["path"], found.table.to_dict("records"), strict=True))
    copies = [(other, clips[kept]) for kept, other in found.duplicates + found.conflicts]
    placed = [(path, corpus.misplaced(path, clip)) for path, clip in [*((p, clips[p]) for p in paths), *copies]]
    filters = {value: {by: [value]} for value in dict.fromkeys(table[by].astype(str))} if by else {}
    known = {} if only else corpus.counts
    parts: dict[str, Mapping[str, Sequence[str]]] = {**filters, ALL: {}}
    counts = {name: _pairs(table, published, "emotion", part, {} if part else known) for name, part in parts.items()}
    order = [*corpus.emotions, *sorted(set(counts[ALL]) - set(corpus.emotions))]
    counts[ALL] = {name: counts[ALL][name] for name in order if name in counts[ALL]}
    names = set(table["clip_id"])
    wanted = names if published is None else set(published["clip_id"])
    report: dict[str, Any] = {
        "root": str(root),
        "corpus": corpus.name,
        "missing": sorted(wanted - names),
        "too_few": [
            [name, f"{counts[ALL][name][0]} of {number}"]
            for name, number in (known if published is None else {}).items()
            if counts[ALL][name][0] < number
        ],
        "conflicts": [list(pair) for pair in found.conflicts],
        "unreadable": [[path, sound.error] for path, sound in probes.items() if sound.error],
        "silent": [path for path, sound in good.items() if sound.silent],
        "misplaced": [[path, why] for path, why in placed if why],
        "duplicates": [list(pair) for pair in found.duplicates],
        "same_samples": [paths for paths in same.values() if len(paths) > 1],
        "clipped": [path for path, sound in good.items() if sound.clipped],
        "unpublished": sorted(names - wanted),
        "passed_over": found.passed_over,
        "by": by,
        "counts": counts,
        "speakers": _pairs(table, published, "speaker", {}, {}),
        "sound": {name: _sound([probes[path] for path in _part(table, part)["path"]]) for name, part in parts.items()},
        "twin_share": _twins(corpus, table),
    }
    report["ok"] = not any(report[name] for name in ERRORS)
    return report


def _part(table: pd.DataFrame, only: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    for column, values in only.items():
        table = table[table[column].astype(str).isin(list(values))]
    return table.reset_index(drop=True)


def _probe_all(paths: list[Path]) -> list[Probe]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    how: dict[str, Any] = {"console": console, "transient": True, "disable": not console.is_terminal}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(track(pool.map(probe, paths), "Reading", len(paths), **how))


def _pairs(
    table: pd.DataFrame,
    published: pd.DataFrame | None,
    column: str,
    part: Mapping[str, Sequence[str]],
    known: Mapping[str, int],
) -> dict[str, list[Any]]:
    """Value of a column to its clips found and published; None where nobody knows how many were published."""
    has = Counter(_part(table, part)[column])
    of: Mapping[str, int] = known if published is None else Counter(_part(published, part)[column])
    unknown = None if published is None else 0
    return {name: [has[name], of.get(name, unknown)] for name in sorted({*has, *of})}


def _sound(probes: Sequence[Probe]) -> dict[str, Any]:
    good = [sound for sound in probes if not sound.error]
    seconds = [sound.seconds for sound in good] or [0.0]
    return {
        "sample_rates": _tally(sound.rate for sound in good),
        "channel_counts": _tally(sound.channels for sound in good),
        "seconds": {how.__name__: round(how(seconds), 3) for how in (min, median, max)},
    }


def _tally(values: Iterable[int]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}


def _twins(corpus: Corpus, table: pd.DataFrame) -> dict[str, Any]:
    task = corpus.tasks.get(corpus.default_task, Task(tuple(table["emotion"].unique())))
    clips = _part(table, {"emotion": task.emotions, **task.filter})
    if not len(clips) or corpus.twin(clips["clip_id"].iloc[0]) is None:
        return {}
    shares: dict[str, Any] = {}
    for protocol in dict.fromkeys([corpus.default_protocol, "random"]):
        try:
            split = make_split(clips, corpus, protocol)
            shares[split.label] = round(twin_share(split.table, corpus.twin), 4)
        except EmolightError as error:
            shares[protocol] = str(error).splitlines()[0]
    return shares


def main(argv: Sequence[str]) -> int:
    """Run ``python -m emolight audit``; returns 1 when something is wrong with the recordings, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m emolight audit",
        description="Check a folder of recordings against what its corpus published.",
    )
    parser.add_argument("root", type=Path, help="folder with the recordings; or a CSV that lists them")
    parser.add_argument("--corpus", help=f"{', '.join(CORPORA)}, a CSV, or module.Class; default: by file names")
    part = "the part that is meant to be there, such as channel=speech"
    parser.add_argument("--filter", nargs="+", default=[], metavar="COLUMN=VALUE", help=part)
    parser.add_argument("--by", metavar="COLUMN", help="column to table by, such as sex")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="draw the clips of each emotion")
    options = parser.parse_args(argv)
    only: dict[str, list[str]] = {}
    for text in options.filter:
        column, equal, value = text.partition("=")
        if not equal:
            raise EmolightError(f"--filter {text} has no '='.", "Write COLUMN=VALUE, such as channel=speech.")
        only.setdefault(column, []).append(value)
    corpus = corpus_of(options.corpus) if options.corpus else corpus_in(options.root)
    report = audit(options.root, corpus, only, options.by)
    if options.figure:
        report["figure"] = str(options.figure.expanduser())
        task = corpus.tasks.get(corpus.default_task)
        audit_view.draw(report, Path(report["figure"]), task.emotions if task else ())
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        audit_view.show(report, ERRORS, WARNINGS)
    return 0 if report["ok"] else 1
