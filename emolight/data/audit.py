"""``python -m emolight audit``: are these the recordings that papers report on? Exit code 1 where :data:`ERRORS` are.

*Unreadable* and *silent* is what training refuses, too; *clipped* is a file with three consecutive samples of a channel
at 1 - 1/32768 of full scale or above.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from emolight.data.audio import AudioError, read_audio
from emolight.data.corpora import CORPORA, Synthetic, Table, corpus_of, module_of
from emolight.data.corpora.synthetic import MARKER
from emolight.data.corpora.table import SUFFIXES
from emolight.data.corpus import READ, UNKNOWN, Corpus, walk
from emolight.data.selection import Choice, select
from emolight.data.sound_file import TOLERANCE, open_sound
from emolight.errors import CommandParser, EmolightError, check_choice, counted, trust

ERRORS = {
    "missing": "missing clips",
    "too_few": "emotions with fewer clips than published",
    "conflicts": "same name, different content",
    "unreadable": "unreadable files",
    "silent": "silent clips",
    "outside": "parts that lie outside of their recordings",
    "refused": "what `fit` refuses",
}
WARNINGS = {
    "duplicates": "duplicates, counted once",
    "same_samples": "same samples under different names",
    "clipped": "clipped clips",
    "unpublished": "clips that are not in the published set",
}
LISTED = 20  # entries of a list that are printed; the JSON has all


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
    root: str | Path, corpus: Corpus | None = None, only: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Any]:
    """Compare a folder, or a CSV that lists recordings, with what its corpus published, and decode every clip in it.

    ``only``: column to values, the part that is meant to be there. Returns plain values: a list for each key of
    ``ERRORS`` and ``WARNINGS``; counts as [found, published] by emotion and speaker; measurements; ``ok``.
    """
    root = Path(root).expanduser()
    corpus, only = corpus or corpus_in(root), only or {}
    root = root.parent if root.is_file() else root
    try:
        found, published = corpus.find(root, strict=False), corpus.expected()
    except EmolightError as error:
        problem, _, fix = str(error).partition("\n")
        fix = fix if isinstance(corpus, Table) else "Give the folder of its recordings, or another --corpus."
        raise EmolightError(problem, fix) from None
    table, known = found.table, {} if only or published is not None else corpus.counts
    for column, values in only.items():
        check_choice("column of the clips", column, table.columns)
        table = table[table[column].astype(str).isin(list(values))]
        published = None if published is None else published[published[column].astype(str).isin(list(values))]
    names = set(table["clip_id"])
    wanted = names if published is None else set(published["clip_id"])
    if not names | wanted:
        raise EmolightError(f"{corpus.name} has no clip with {dict(only)}.", "Check the values of --filter.")

    paths, console = sorted(set(table["path"])), Console(stderr=True)
    how: dict[str, Any] = {"console": console, "transient": True, "disable": not console.is_terminal}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        some = track(pool.map(probe, [root / path for path in paths]), "Reading", len(paths), **how)
        probes = dict(zip(paths, some, strict=True))
    good = {path: sound for path, sound in probes.items() if not sound.error}
    same: dict[str, list[str]] = {}
    for path, sound in good.items():
        if not sound.silent:
            same.setdefault(sound.digest, []).append(path)

    def pairs(column: str, of: Mapping[str, int], order: Sequence[str] = ()) -> dict[str, list[int | None]]:
        """Value of a column to its clips found and published; None where nobody knows how many were published."""
        has, of = Counter(table[column]), of if published is None else Counter(published[column])
        unknown = None if published is None else 0
        return {name: [has[name], of.get(name, unknown)] for name in [*order, *sorted({*has, *of} - {*order})]}

    outside, refused = [], []
    if isinstance(corpus, Table) and table["emotion"].nunique() > 1:
        rows = table.reindex(columns=["path", "start", "end", "clip_id"]).itertuples(index=False)
        parts = [(clip, good[path].seconds, start, end) for path, start, end, clip in rows if path in good]
        outside = [clip for clip, length, start, end in parts if start >= length or end > length + TOLERANCE]
        nobody = {*table["speaker"]} == {UNKNOWN}
        try:
            select([(corpus, root)], Choice(filter=only, speakers="unknown" if nobody else "known"))
        except EmolightError as error:
            refused = [" ".join(str(error).splitlines())]
    has = Counter(table["emotion"])
    rates, channels = Counter(sound.rate for sound in good.values()), Counter(sound.channels for sound in good.values())
    seconds = [sound.seconds for sound in good.values()] or [0.0]
    report: dict[str, Any] = {
        "root": str(root),
        "corpus": corpus.name,
        "missing": sorted(wanted - names),
        "too_few": [[name, f"{has[name]} of {count}"] for name, count in known.items() if has[name] < count],
        "conflicts": [list(pair) for pair in found.conflicts],
        "unreadable": [[path, sound.error] for path, sound in probes.items() if sound.error],
        "outside": outside,
        "refused": refused,
        "silent": [path for path, sound in good.items() if sound.silent],
        "duplicates": [list(pair) for pair in found.duplicates],
        "same_samples": [paths for paths in same.values() if len(paths) > 1],
        "clipped": [path for path, sound in good.items() if sound.clipped],
        "unpublished": sorted(names - wanted),
        "passed_over": found.passed_over,
        "emotions": pairs("emotion", known, [name for name in corpus.emotions if name in {*has, *known}]),
        "speakers": pairs("speaker", {}),
        "sample_rates": {str(value): rates[value] for value in sorted(rates)},
        "channel_counts": {str(value): channels[value] for value in sorted(channels)},
        "seconds": {how.__name__: round(how(seconds), 3) for how in (min, median, max)},
    }
    return {**report, "ok": not any(report[name] for name in ERRORS)}


def _show(report: Mapping[str, Any]) -> None:
    def listed(title: str, lines: Sequence[str]) -> None:
        more = [f"… and {len(lines) - LISTED} more (--json lists all)"] if len(lines) > LISTED else []
        print("\n    ".join([title, *lines[:LISTED], *more]))

    def shown(pairs: Mapping[str, Sequence[int | None]]) -> list[str]:
        return [f"{name}: {has}" + ("" if of is None else f" / {of}") for name, (has, of) in pairs.items()]

    known = any(pair[1] is not None for pair in report["emotions"].values())
    listed(f"{report['corpus']}: clips found{' / published' * known}", shown(report["emotions"]))
    short = {name: pair for name, pair in report["speakers"].items() if pair[1] not in (None, pair[0])}
    unknown = {*report["speakers"]} == {UNKNOWN}
    speakers = "speakers unknown" if unknown else counted(len(report["speakers"]), "speaker")
    listed(f"{speakers}, {len(short)} of them not complete:" if short else speakers, shown(short))
    rates, channels = report["sample_rates"], report["channel_counts"]
    print(", ".join(f"{counted(count, 'file')} of {rate} Hz" for rate, count in rates.items()))
    print(", ".join(f"{counted(count, 'file')} of {counted(int(n), 'channel')}" for n, count in channels.items()))
    print("seconds of a file: " + ", ".join(f"{name} {value:.2f}" for name, value in report["seconds"].items()))
    for name, title in {**ERRORS, **WARNINGS}.items():
        if entries := report[name]:
            lines = [entry if isinstance(entry, str) else "  |  ".join(entry) for entry in entries]
            listed(f"{'ERROR' if name in ERRORS else 'warning'}: {title}: {len(entries)}", lines)
    for reason, count in report["passed_over"].items():
        print(f"passed over: {count} × {reason}")
    fine = "The set is complete and sound." if known else "The recordings are sound; what was published is not known."
    print(fine if report["ok"] else "Something is wrong: see ERROR above.")


def main(argv: Sequence[str]) -> int:
    """Run ``python -m emolight audit``; returns 1 when something is wrong with the recordings, else 0."""
    parser = CommandParser("audit", "Check a folder of recordings against what its corpus published.")
    parser.add_argument("root", type=Path, help="folder with the recordings; or a CSV that lists them")
    parser.add_argument("--corpus", help=f"{', '.join(CORPORA)}, a CSV, or module.Class; default: by file names")
    part = "the part that is meant to be there, such as channel=speech"
    parser.add_argument("--filter", nargs="+", default=[], metavar="COLUMN=VALUE", help=part)
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    options = parser.parse_args(argv)
    only: dict[str, list[str]] = {}
    for text in options.filter:
        column, equal, value = text.partition("=")
        if not equal:
            raise EmolightError(f"--filter {text} has no '='.", "Write COLUMN=VALUE, such as channel=speech.")
        only.setdefault(column, []).append(value)
    trust([module_of(options.corpus or "")])
    report = audit(options.root, corpus_of(options.corpus) if options.corpus else None, only)
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        _show(report)
    return 0 if report["ok"] else 1
