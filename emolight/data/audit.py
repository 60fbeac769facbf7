"""``python -m emolight audit``: is this folder the RAVDESS that papers report on?

Exit code 1 for what spoils results: missing clips, two recordings under one name, unreadable or silent files,
files in a folder that contradicts their name. Duplicates (counted once), clipping, equal samples under two names
and clips that were never published are warnings.

Rules: *unreadable* and *silent* is what :func:`emolight.data.audio.read_audio` refuses, and so does training;
*clipped* is a file with three consecutive samples of a channel at 1 - 1/32768 of full scale or above.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import soundfile
from tqdm import tqdm

from emolight.data.audio import AudioError, read_audio, read_bytes
from emolight.data.ravdess import ARTICLE_EMOTIONS, CHANNELS, EMOTIONS, discover, expected_clips, select
from emolight.data.splits import PROTOCOLS, make_split
from emolight.errors import EmolightError
from emolight.files import atomic_write

STEP = 1 / 32768
ERRORS = {
    "missing": "missing clips",
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


class Probe(NamedTuple):
    """What decoding one file told; ``error`` is empty for a usable file."""

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
        content = read_bytes(path)
        read_audio(path, content)
    except AudioError as error:
        silent = error.reason.startswith("is silent")
        if not silent:
            return Probe(error=error.reason)
    samples, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    high = np.abs(samples) >= 1 - STEP
    return Probe(
        rate,
        samples.shape[1],
        len(samples) / rate,
        silent=silent,
        clipped=bool((high[2:] & high[1:-1] & high[:-2]).any()),
        digest=hashlib.blake2b(
            samples.tobytes(), digest_size=16, key=str((rate, samples.shape)).encode()
        ).hexdigest(),
    )


def misplacement(path: str, clip: Mapping[Any, Any]) -> str:
    """How the folders of a relative path contradict the clip's name, or an empty string."""
    for folder in PurePosixPath(path).parts[:-1]:
        actor = re.fullmatch(r"actor[ _-]?([0-9]{1,2})", folder.lower())
        if actor and int(actor[1]) != clip["actor"]:
            return f"is by actor {clip['actor']}"
        named = [name for name in CHANNELS if name in folder.lower()]
        if len(named) == 1 and named[0] != clip["channel"]:
            return f"is {clip['channel']}"
    return ""


def twin_share(split: pd.DataFrame) -> float:
    """Share of the validation clips whose other repetition (all other fields equal) is in training.

    Args:
        split: table with ``clip_id`` and ``subset``, with at least one validation clip.
    """
    sentence = split["clip_id"].str.replace(r"-\d\d(-\d\d)$", r"\1", regex=True)
    training = set(sentence[split["subset"] == "train"])
    return float(sentence[split["subset"] == "val"].isin(training).mean())


def audit(root: Path, channels: Sequence[str] = CHANNELS) -> dict[str, Any]:
    """Compare a folder with the published set and decode every clip in it.

    Args:
        root: folder with the recordings.
        channels: which parts of the data set are meant to be there.

    Returns:
        Plain values, ready for JSON: a list for each key of ``ERRORS`` and ``WARNINGS``; counts, measurements and
        ``twin_share`` by protocol (first fold, the article's emotions); ``ok``.

    Raises:
        EmolightError: no such folder, or no clip in it.
    """
    found = discover(root, strict=False)
    table = found.table[found.table["channel"].isin(list(channels))].reset_index(drop=True)
    expected = expected_clips()
    expected = expected[expected["channel"].isin(list(channels))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = pool.map(probe, [root / path for path in table["path"]])
        bar = tqdm(jobs, total=len(table), desc="Reading", unit="clip", ncols=79, leave=False, disable=None)
        table = table.join(
            pd.DataFrame(list(bar), columns=list(Probe._fields)).rename(columns={"channels": "width"})
        )
    good = table[table["error"] == ""]
    clips = dict(zip(table["clip_id"], table.to_dict("records"), strict=True))
    paths = [*table["path"], *(other for _, other in found.duplicates + found.conflicts)]
    placed = [
        (path, misplacement(path, clips[stem])) for path in paths if (stem := PurePosixPath(path).stem) in clips
    ]
    same = good.groupby("digest")["path"].agg(list)
    report: dict[str, Any] = {
        "root": str(root),
        "channels": list(channels),
        "missing": sorted(set(expected["clip_id"]) - set(table["clip_id"])),
        "conflicts": [list(pair) for pair in found.conflicts],
        "unreadable": [list(pair) for pair in table.loc[table["error"] != "", ["path", "error"]].to_numpy()],
        "silent": list(good.loc[good["silent"], "path"]),
        "misplaced": [[path, why] for path, why in placed if why],
        "duplicates": [list(pair) for pair in found.duplicates],
        "same_samples": [paths for paths in same if len(paths) > 1 and not clips[Path(paths[0]).stem]["silent"]],
        "clipped": list(good.loc[good["clipped"], "path"]),
        "unpublished": sorted(set(table["clip_id"]) - set(expected["clip_id"])),
        "passed_over": found.passed_over,
        "counts": {
            column: {
                channel: {
                    str(value): [_count(table, channel, column, value), _count(expected, channel, column, value)]
                    for value in values
                }
                for channel in channels
            }
            for column, values in (("emotion", EMOTIONS), ("actor", range(1, 25)))
        },
        "totals": {name: [int((part["channel"] == name).sum()) for part in (table, expected)] for name in channels},
        "sound": {
            channel: {
                "sample_rates": _tally(part["rate"]),
                "channel_counts": _tally(part["width"]),
                "seconds": {name: round(float(part["seconds"].agg(name)), 3) for name in ("min", "median", "max")},
            }
            for channel in channels
            if len(part := good[good["channel"] == channel])
        },
        "twin_share": {protocol: _twins(table, channels, protocol) for protocol in PROTOCOLS},
    }
    report["ok"] = not any(report[name] for name in ERRORS)
    return report


def _count(table: pd.DataFrame, channel: str, column: str, value: object) -> int:
    return int(((table["channel"] == channel) & (table[column] == value)).sum())


def _tally(values: pd.Series[Any]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values.astype(int).tolist()).items())}


def _twins(table: pd.DataFrame, channels: Sequence[str], protocol: str) -> dict[str, Any]:
    try:
        split = make_split(select(table, ARTICLE_EMOTIONS, channels), protocol)
    except EmolightError as error:
        return {"why_not": str(error).splitlines()[0]}
    sizes = {f"{name}_clips": int((split["subset"] == name).sum()) for name in ("train", "val")}
    return {"split": str(split["protocol"].iloc[0]), **sizes, "share": round(twin_share(split), 4)}


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw the clips of each emotion as PNG, before and after the article's filter."""
    from matplotlib.figure import Figure

    colours = {"speech": "#0072B2", "song": "#E69F00"}  # Okabe and Ito's, safe for the colour-blind
    figure = Figure(figsize=(10, 4.6), dpi=130, layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    titles = ("All clips found", "After the filter: the article's five emotions")
    for axis, title, kept in zip(axes, titles, (EMOTIONS, ARTICLE_EMOTIONS), strict=True):
        left = np.zeros(len(EMOTIONS))
        for channel in report["channels"]:
            counts = [report["counts"]["emotion"][channel][name][0] * (name in kept) for name in EMOTIONS]
            axis.barh(EMOTIONS, counts, left=left, color=colours[channel], label=channel, height=0.72)
            left += counts
        for row, (name, total) in enumerate(zip(EMOTIONS, left, strict=True)):
            text = f" {total:.0f}" if name in kept else " left out"
            axis.text(total, row, text, va="center", color="#222222" if name in kept else "#767676")
        axis.set_title(f"{title} ({left.sum():.0f})", loc="left", fontsize=12)
        axis.set_xlabel("clips")
        axis.grid(axis="x", color="#dddddd", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(left=False)
    axes[0].invert_yaxis()
    axes[0].margins(x=0.1)
    axes[0].legend(loc="lower right", frameon=False, ncols=2)
    with atomic_write(path) as part:
        figure.savefig(part, format="png", facecolor="white")


def show(report: dict[str, Any], listed: int = 20) -> None:
    """Print the report for people; long lists are cut after ``listed`` lines."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, soft_wrap=True)
    channels = report["channels"]
    for column, title in (("emotion", "Clips by emotion"), ("actor", "Actors that are not complete")):
        table = Table(column, *channels, title=f"{title} (found / published)", title_justify="left")
        for value in report["counts"][column][channels[0]]:
            pairs = [report["counts"][column][channel][value] for channel in channels]
            if column == "emotion" or any(found != published for found, published in pairs):
                table.add_row(value, *(f"{found} / {published}" for found, published in pairs))
        if column == "emotion":
            table.add_section()
            table.add_row("all", *("{} / {}".format(*report["totals"][channel]) for channel in channels))
        if table.row_count:
            console.print(table)
    table = Table("channel", "sample rates (Hz)", "audio channels", "seconds: min / median / max", title="Sound")
    for channel, sound in report["sound"].items():
        parts = (sound["sample_rates"], sound["channel_counts"])
        tallies = (", ".join(f"{value} × {count}" for value, count in part.items()) for part in parts)
        table.add_row(channel, *tallies, " / ".join(f"{second:.2f}" for second in sound["seconds"].values()))
    console.print(table)
    table = Table("split", "training", "validation", "twin in training", title="Twin takes, article's emotions")
    for protocol, twins in report["twin_share"].items():
        if "share" in twins:
            sizes = (str(twins["train_clips"]), str(twins["val_clips"]))
            table.add_row(twins["split"], *sizes, f"{100 * twins['share']:.1f} %")
        else:
            table.add_row(protocol, "-", "-", twins["why_not"])
    console.print(table)
    for name, title in {**ERRORS, **WARNINGS}.items():
        entries = report[name]
        if entries:
            console.print(f"{'ERROR' if name in ERRORS else 'warning'}: {len(entries)} {title}")
            lines = [entry if isinstance(entry, str) else "  |  ".join(entry) for entry in entries]
            console.print("\n".join(f"    {line}" for line in lines[:listed]))
            if len(lines) > listed:
                console.print(f"    … and {len(lines) - listed} more (--json lists all)")
    for reason, count in report["passed_over"].items():
        console.print(f"passed over: {count} × {reason}")
    console.print("The set is complete and sound." if report["ok"] else "Something is wrong: see ERROR above.")


def main(argv: Sequence[str]) -> int:
    """Run ``python -m emolight audit``.

    Returns:
        0 when all is well, 1 when something is wrong with the recordings.

    Raises:
        EmolightError: no such folder, or no clip in it.
    """
    parser = argparse.ArgumentParser(
        prog="python -m emolight audit",
        description="Check a folder of RAVDESS recordings against the published set.",
    )
    parser.add_argument("root", type=Path, help="folder with the recordings, in any layout")
    parser.add_argument("--channels", nargs="+", choices=CHANNELS, default=CHANNELS, help="default: both")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    parser.add_argument("--figure", type=Path, default=Path("emolight-audit.png"), help="default: %(default)s")
    options = parser.parse_args(argv)
    report = audit(options.root, list(dict.fromkeys(options.channels)))
    try:
        draw(report, options.figure)
    except OSError as error:
        raise EmolightError(
            f"Cannot write '{options.figure}': {error.strerror}.", "Give another place by --figure PATH."
        ) from None
    if options.json:
        print(json.dumps({**report, "figure": str(options.figure)}, indent=1))
    else:
        show(report)
        print(f"Class distribution: {options.figure}")
    return 0 if report["ok"] else 1
