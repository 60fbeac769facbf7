"""``python -m emolight audit``: are these the recordings that papers report on?

Exit code 1 for what spoils results, :data:`ERRORS`. *Unreadable* and *silent* is what
:func:`emolight.data.audio.read_audio` refuses, and so does training; *clipped* is a file with three consecutive samples
of a channel at 1 - 1/32768 of full scale or above.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track
from rich.table import Table as Grid

from emolight.data.audio import AudioError, read_audio
from emolight.data.corpora import CORPORA, Synthetic, Table, corpus_of
from emolight.data.corpora.synthetic import MARKER
from emolight.data.corpora.table import SUFFIXES
from emolight.data.corpus import READ, Corpus, walk
from emolight.data.sound_file import open_sound
from emolight.errors import EmolightError, check_choice

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
LISTED = 20
"""Entries of a list that are printed; the JSON has all."""


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
    silent = clipped = False
    try:
        read_audio(path)
    except AudioError as error:
        silent = error.reason.startswith("is silent")
        if not silent:
            return Probe(error=error.reason)
    with open_sound(path) as sound:
        digest, frames = hashlib.blake2b(f"{sound.rate} {sound.channels}".encode(), digest_size=16), 0
        high = np.zeros((0, sound.channels), dtype=bool)
        for block in sound.blocks():
            digest.update(block.tobytes())
            frames += len(block)
            high = np.concatenate([high[-2:], np.abs(block) >= 1 - 1 / 32768])
            clipped = clipped or bool((high[2:] & high[1:-1] & high[:-2]).any())
    return Probe(sound.rate, sound.channels, frames / sound.rate, silent, clipped, digest.hexdigest())


def corpus_in(root: str | Path) -> Corpus:
    """The corpus whose grammar knows most file names below ``root``, or the table that ``root`` is."""
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
        by: column that counts and sound are tabled by; None: what the tasks choose by, or the first group.

    Returns:
        Plain values, ready for JSON: a list for each key of ``ERRORS`` and ``WARNINGS``; counts as [found, published]
        by group and emotion, and by speaker; measurements; ``ok``.
    """
    root = Path(root).expanduser()
    corpus, only = corpus or corpus_in(root), only or {}
    root = root.parent if root.is_file() else root
    found = corpus.find(root, strict=False)
    for column in (*only, *([by] if by else [])):
        check_choice("column of the clips", column, found.table.columns)
    table = _part(found.table, only)
    published = None if (whole := corpus.expected()) is None else _part(whole, only)
    if not len(table) + len(published if published is not None else ()):
        raise EmolightError(f"{corpus.name} has no clip with {dict(only)}.", "Check the values of --filter.")
    chosen = (name for task in corpus.tasks.values() for name in task.filter)
    by = by or next((name for name in (*chosen, *corpus.groups) if name in table), None)

    paths, console = sorted(set(table["path"])), Console(stderr=True)
    how: dict[str, Any] = {"console": console, "transient": True, "disable": not console.is_terminal}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        some = track(pool.map(probe, [root / path for path in paths]), "Reading", len(paths), **how)
        probes = pd.DataFrame(some, index=pd.Index(paths, dtype=object), columns=list(Probe._fields))
    good = probes[probes["error"] == ""]
    same = good[~good["silent"].astype(bool)].groupby("digest", sort=False).groups.values()
    clips = dict(zip(found.table["path"], found.table.to_dict("records"), strict=True))
    copies = [(other, clips[kept]) for kept, other in found.duplicates + found.conflicts]
    placed = [(path, corpus.misplaced(path, clip)) for path, clip in [*((p, clips[p]) for p in paths), *copies]]
    parts: dict[str, Mapping[str, Sequence[str]]] = {}
    if by:
        parts = {value: {by: [value]} for value in dict.fromkeys(table[by].astype(str))}
    parts[ALL] = {}
    known = {} if only or published is not None else corpus.counts
    counts = {name: _pairs(table, published, "emotion", part, {} if part else known) for name, part in parts.items()}
    order = [*corpus.emotions, *counts[ALL]]
    counts[ALL] = {name: counts[ALL][name] for name in order if name in counts[ALL]}
    names = set(table["clip_id"])
    wanted = names if published is None else set(published["clip_id"])
    few = {name: (counts[ALL][name][0], number) for name, number in known.items() if counts[ALL][name][0] < number}
    report: dict[str, Any] = {
        "root": str(root),
        "corpus": corpus.name,
        "missing": sorted(wanted - names),
        "too_few": [[name, f"{there} of {number}"] for name, (there, number) in few.items()],
        "conflicts": [list(pair) for pair in found.conflicts],
        "unreadable": [[path, error] for path, error in probes["error"].items() if error],
        "silent": list(good.index[good["silent"].astype(bool)]),
        "misplaced": [[path, why] for path, why in placed if why],
        "duplicates": [list(pair) for pair in found.duplicates],
        "same_samples": [list(paths) for paths in same if len(paths) > 1],
        "clipped": list(good.index[good["clipped"].astype(bool)]),
        "unpublished": sorted(names - wanted),
        "passed_over": found.passed_over,
        "by": by,
        "counts": counts,
        "speakers": _pairs(table, published, "speaker", {}, {}),
        "sound": {name: _sound(good.reindex(_part(table, part)["path"]).dropna()) for name, part in parts.items()},
    }
    report["ok"] = not any(report[name] for name in ERRORS)
    return report


def _part(table: pd.DataFrame, only: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    for column, values in only.items():
        table = table[table[column].astype(str).isin(list(values))]
    return table.reset_index(drop=True)


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


def _sound(good: pd.DataFrame) -> dict[str, Any]:
    tallies = {name: good[name].astype(int).value_counts().sort_index() for name in ("rate", "channels")}
    rates, channels = ({str(value): int(count) for value, count in some.items()} for some in tallies.values())
    seconds = {how: round(float(good["seconds"].agg(how)), 3) if len(good) else 0.0 for how in ("min", "median", "max")}
    return {"sample_rates": rates, "channel_counts": channels, "seconds": seconds}


def _show(report: Mapping[str, Any]) -> None:
    """Print a report of :func:`audit`."""
    console = Console(highlight=False, markup=False, soft_wrap=True)

    def shown(pair: Sequence[int | None]) -> str:
        return f"{pair[0]}" if pair[1] is None else f"{pair[0]} / {pair[1]}"

    def listed(lines: Sequence[str]) -> None:
        more = [f"… and {len(lines) - LISTED} more (--json lists all)"] if len(lines) > LISTED else []
        for line in [*lines[:LISTED], *more]:
            console.print(f"    {line}")

    counts = report["counts"]
    grid = Grid("emotion", *counts, title=f"{report['corpus']}: clips found / published", title_justify="left")
    for name in counts[ALL]:
        grid.add_row(name, *(shown(of.get(name, (0, 0))) for of in counts.values()))
    console.print(grid)
    short = [f"{name}: {shown(pair)}" for name, pair in report["speakers"].items() if pair[1] not in (None, pair[0])]
    console.print(f"{len(report['speakers'])} speakers" + (f", {len(short)} of them not complete:" if short else ""))
    listed(short)
    grid = Grid(report["by"] or "", "sample rates (Hz)", "audio channels", "seconds: min / median / max")
    for group, sound in report["sound"].items():
        parts = (sound["sample_rates"], sound["channel_counts"])
        tallies = (", ".join(f"{value} × {count}" for value, count in part.items()) for part in parts)
        grid.add_row(group, *tallies, " / ".join(f"{second:.2f}" for second in sound["seconds"].values()))
    console.print(grid)
    for name, title in {**ERRORS, **WARNINGS}.items():
        if entries := report[name]:
            console.print(f"{'ERROR' if name in ERRORS else 'warning'}: {len(entries)} {title}")
            listed([entry if isinstance(entry, str) else "  |  ".join(entry) for entry in entries])
    for reason, count in report["passed_over"].items():
        console.print(f"passed over: {count} × {reason}")
    known = any(pair[1] is not None for pair in counts[ALL].values())
    fine = "The set is complete and sound." if known else "The recordings are sound; what was published is not known."
    console.print(fine if report["ok"] else "Something is wrong: see ERROR above.")


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
    options = parser.parse_args(argv)
    only: dict[str, list[str]] = {}
    for text in options.filter:
        column, equal, value = text.partition("=")
        if not equal:
            raise EmolightError(f"--filter {text} has no '='.", "Write COLUMN=VALUE, such as channel=speech.")
        only.setdefault(column, []).append(value)
    report = audit(options.root, corpus_of(options.corpus) if options.corpus else None, only, options.by)
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        _show(report)
    return 0 if report["ok"] else 1
