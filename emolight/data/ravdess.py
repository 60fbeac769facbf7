"""RAVDESS: the grammar of its file names, what was published, and finding the clips on a disk.

Source: Livingstone and Russo 2018, PLoS ONE 13(5): e0196391; Zenodo record 1188976. A name is
``modality-channel-emotion-intensity-statement-repetition-actor``, two digits each.
"""

from __future__ import annotations

import filecmp
import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from emolight.errors import EmolightError, check_choice

if TYPE_CHECKING:
    import pandas as pd

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
CHANNELS = ("speech", "song")
ARTICLE_EMOTIONS = ("calm", "happy", "sad", "angry", "fearful")
"""The five emotions of the article's task, which has them in speech and song."""
INTENSITIES = ("normal", "strong")
FOLDERS = {"speech": "Audio_Speech_Actors_01-24", "song": "Audio_Song_Actors_01-24"}
"""The two published folders."""
COLUMNS = (
    *("clip_id", "path", "emotion", "actor", "sex"),
    *("channel", "intensity", "statement", "repetition"),
)

SONG_EMOTIONS = 6
ACTOR_WITHOUT_SONG = 18
READ = {".wav", ".flac"}
OTHER_AUDIO = {".aac", ".aif", ".aiff", ".m4a", ".mp3", ".ogg", ".opus", ".wma"}
VIDEO = {".avi", ".mkv", ".mov", ".mp4", ".webm"}


@dataclass(frozen=True)
class Discovery:
    """What :func:`discover` found; every path is relative to the root, with forward slashes.

    Attributes:
        table: clip table, sorted by clip id.
        passed_over: reason → number of files (or folders) that were left out for it.
        duplicates: (kept, dropped) paths of one clip with the same samples.
        conflicts: (kept, other) paths of one clip whose samples differ; empty unless ``strict`` was off.
    """

    table: pd.DataFrame
    passed_over: dict[str, int]
    duplicates: list[tuple[str, str]]
    conflicts: list[tuple[str, str]]


def is_video(name: str) -> bool:
    """Whether a file stem is a RAVDESS name of a recording with video (modality 01 or 02)."""
    return re.fullmatch(r"0[12](-[0-9]{2}){6}", name) is not None


def parse_name(name: str) -> dict[str, object] | None:
    """Read the fields of an audio clip from its file stem.

    Args:
        name: file name without folder and suffix, such as ``03-01-06-01-02-01-12``.

    Returns:
        The columns of the clip table without ``path``, or None for a name that no RAVDESS clip can have.
    """
    if not re.fullmatch(r"03(-[0-9]{2}){6}", name):
        return None
    channel, emotion, intensity, statement, repetition, actor = (int(field) for field in name.split("-")[1:])
    if not (channel in (1, 2) and intensity in (1, 2) and statement in (1, 2) and repetition in (1, 2)):
        return None
    emotions = SONG_EMOTIONS if channel == 2 else len(EMOTIONS)
    if not (1 <= emotion <= emotions and 1 <= actor <= 24) or (emotion == 1 and intensity == 2):
        return None
    return {
        "clip_id": name,
        "emotion": EMOTIONS[emotion - 1],
        "actor": actor,
        "sex": "male" if actor % 2 else "female",
        "channel": CHANNELS[channel - 1],
        "intensity": INTENSITIES[intensity - 1],
        "statement": statement,
        "repetition": repetition,
    }


def expected_clips() -> pd.DataFrame:
    """The clip table of the published set: 1440 speech and 1012 song clips, in the published folders."""
    rows = []
    for numbers in product((1, 2), range(1, 9), (1, 2), (1, 2), (1, 2), range(1, 25)):
        clip = parse_name("03-" + "-".join(f"{number:02d}" for number in numbers))
        if clip is None or (clip["channel"] == "song" and clip["actor"] == ACTOR_WITHOUT_SONG):
            continue
        folder = FOLDERS[str(clip["channel"])]
        rows.append({**clip, "path": f"{folder}/Actor_{clip['actor']:02d}/{clip['clip_id']}.wav"})
    return _table(rows)


def discover(root: str | Path, strict: bool = True) -> Discovery:
    """Find the clips below ``root``, in whatever folders they lie: the file name decides.

    A clip that is there twice with the same samples (also as WAV and FLAC) counts once: the path that sorts
    first is kept. Linked folders are followed, each real folder once.

    Args:
        root: folder with the recordings.
        strict: refuse a clip that is there twice with different samples; otherwise list it in ``conflicts``.

    Raises:
        EmolightError: no such folder, no clip in it, or the same clip with different samples.
    """
    root = Path(root)
    ways = (
        f"Fetch them: python -m emolight download {shlex.quote(str(root))}; or say where they are: "
        "--data.root DIR; or try the synthetic demo: --config configs/demo.yaml"
    )
    if not root.is_dir():
        raise EmolightError(f"There is no folder with recordings at '{root}'.", ways)
    passed_over: Counter[str] = Counter()
    paths: dict[str, list[str]] = {}
    for path in _files(root, passed_over):
        reason = _why_not(path)
        if reason is None:
            paths.setdefault(path.stem, []).append(path.as_posix())
        elif reason:
            passed_over[reason] += 1
    if not paths:
        seen = ", ".join(f"{count} × {reason}" for reason, count in sorted(passed_over.items()))
        raise EmolightError(f"No RAVDESS clip under '{root}'{f' ({seen})' if seen else ''}.", ways)
    rows, duplicates, conflicts = [], [], []
    for name, copies in sorted(paths.items()):
        kept, *others = sorted(copies)
        rows.append({**(parse_name(name) or {}), "path": kept})
        for other in others:
            if _same_samples(root / kept, root / other):
                duplicates.append((kept, other))
            elif strict:
                raise EmolightError(
                    f"Clip {name} is there twice with different samples: '{kept}' and '{other}'.",
                    f"Keep one of them; python -m emolight audit {shlex.quote(str(root))} lists all.",
                )
            else:
                conflicts.append((kept, other))
    return Discovery(_table(rows), dict(sorted(passed_over.items())), duplicates, conflicts)


def select(table: pd.DataFrame, emotions: Sequence[str], channels: Sequence[str]) -> pd.DataFrame:
    """Keep the clips of a task.

    Args:
        table: clip table.
        emotions: names from :data:`EMOTIONS`, in any order.
        channels: names from :data:`CHANNELS`.

    Returns:
        The clip table of the task, sorted by clip id.

    Raises:
        EmolightError: an unknown or repeated name, an empty list, or a name that no clip is left for.
    """
    for what, names, valid in (("emotion", emotions, EMOTIONS), ("channel", channels, CHANNELS)):
        if not names:
            raise EmolightError(f"data.{what}s is empty.", f"Valid: {', '.join(valid)}.")
        for name in names:
            check_choice(what, name, valid)
        if len(set(names)) < len(names):
            raise EmolightError(f"data.{what}s names a {what} twice: {', '.join(names)}.", "Name each once.")
    chosen = table[table["emotion"].isin(list(emotions)) & table["channel"].isin(list(channels))]
    for what, names in (("emotion", emotions), ("channel", channels)):
        absent = [name for name in names if name not in set(chosen[what])]
        if absent:
            raise EmolightError(
                f"No clip is left of {what} {', '.join(absent)}, with emotions {', '.join(emotions)} in "
                f"{' and '.join(channels)}.",
                f"Change data.{what}s, or complete data.root (python -m emolight audit shows what it lacks).",
            )
    return chosen.sort_values("clip_id", ignore_index=True)


def _table(rows: Sequence[dict[str, object]]) -> pd.DataFrame:
    import pandas as pd  # here, because predictions start faster without it

    return pd.DataFrame(list(rows), columns=list(COLUMNS)).sort_values("clip_id", ignore_index=True)


def _files(root: Path, passed_over: Counter[str]) -> list[Path]:
    """Every file below ``root``, relative to it; a link back to a folder already walked is not entered."""

    def refused(_: OSError) -> None:
        passed_over["unreadable folder"] += 1

    found: list[Path] = []
    walked: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=refused):
        real = os.path.realpath(folder)
        if real in walked:
            subfolders.clear()
            continue
        walked.add(real)
        subfolders.sort()
        found.extend(Path(folder, name).relative_to(root) for name in names)
    return found


def _why_not(path: Path) -> str | None:
    """Why a file is no clip; None for a clip, an empty string for a file that is no recording at all."""
    suffix = path.suffix.lower()
    if path.name.startswith("._"):
        return "._ file"
    if suffix in VIDEO or (suffix in READ and is_video(path.stem)):
        return "video file"
    if suffix in OTHER_AUDIO:
        return "neither WAV nor FLAC"
    if suffix in READ:
        return "foreign name" if parse_name(path.stem) is None else None
    return ""


def _same_samples(one: Path, other: Path) -> bool:
    """Whether two files hold the same samples; float32 is exact for 16 and 24 bits."""
    if not (one.is_file() and other.is_file()):  # to open a named pipe would wait for ever
        return False
    try:
        if filecmp.cmp(one, other, shallow=False):
            return True
        (first, first_rate), (second, second_rate) = (
            soundfile.read(path, dtype="float32", always_2d=True) for path in (one, other)
        )
    except (OSError, RuntimeError, ValueError, TypeError, OverflowError, MemoryError):
        return False  # damaged: soundfile raises all of these
    return bool(first_rate == second_rate and np.array_equal(first, second))


def task_name(emotions: Sequence[str], channels: Sequence[str]) -> str:
    """``article``, ``full``, or the emotions and channels themselves, for file names and tables."""
    chosen = (set(emotions), set(channels))
    if chosen == (set(ARTICLE_EMOTIONS), set(CHANNELS)):
        return "article"
    if chosen == (set(EMOTIONS), {"speech"}):
        return "full"
    return "-".join([*emotions, *channels])
