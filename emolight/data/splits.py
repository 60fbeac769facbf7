"""Who trains, who validates, who is held out: protocols, and the split as a CSV that every model shares.

Sources of the folds: EmoBox (Ma et al. 2024) for the test actors of ``emobox6``; Luna-Jiménez et al. 2021 for
the test actors of ``luna5``, with the validation actors of ResLSTM; the validation actors of ``emobox6`` are
this project's.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

import filelock
import numpy as np
import pandas as pd

from emolight.errors import EmolightError, check_choice, nearest
from emolight.files import remove_left_overs, write_text

SUBSETS = ("train", "val", "test")
COLUMNS = ("clip_id", "emotion", "actor", "subset", "protocol")
RANDOM_VALIDATION_CLIPS = 320
"""The article's validation set; corpora of fewer than 640 clips give a fifth instead."""


class Fold(NamedTuple):
    """The actors that a fold keeps out of training."""

    test: tuple[int, ...]
    val: tuple[int, ...]


EMOBOX6 = {
    1: Fold((1, 11, 20, 21), (4, 9, 10, 19)),
    2: Fold((4, 10, 12, 14), (8, 9, 19, 24)),
    3: Fold((8, 9, 19, 23), (2, 3, 5, 24)),
    4: Fold((3, 5, 7, 24), (2, 13, 15, 16)),
    5: Fold((2, 15, 16, 18), (6, 13, 17, 22)),
    6: Fold((6, 13, 17, 22), (1, 4, 11, 20)),
}
LUNA5 = {
    0: Fold((2, 5, 14, 15, 16), (3, 6)),
    1: Fold((3, 6, 7, 13, 18), (10, 11)),
    2: Fold((10, 11, 12, 19, 20), (8, 17)),
    3: Fold((8, 17, 21, 23, 24), (1, 14)),
    4: Fold((1, 4, 9, 22), (2, 5)),
}
# The next man and the next woman validate: with actor 24 held out these are actors 1 and 2.
LOSO = {actor: Fold((actor,), (actor % 24 + 1, (actor + 1) % 24 + 1)) for actor in range(1, 25)}
FOLDS: dict[str, dict[int, Fold]] = {"emobox6": EMOBOX6, "luna5": LUNA5, "loso": LOSO}
PROTOCOLS = (*FOLDS, "random")


def protocol_label(protocol: str, fold: int | None = None, seed: int = 0) -> str:
    """What the CSV's ``protocol`` column says, such as ``emobox6 fold 1`` or ``random seed 0``.

    Raises:
        EmolightError: unknown protocol, or a fold that the protocol does not have.
    """
    check_choice("protocol", protocol, PROTOCOLS)
    if protocol == "random":
        if fold is not None:
            raise EmolightError(
                f"Protocol 'random' has no folds: data.fold is {fold}.",
                "Leave data.fold out, or vary data.split_seed.",
            )
        return f"random seed {seed}"
    folds = FOLDS[protocol]
    fold = min(folds) if fold is None else fold
    if fold not in folds:
        raise EmolightError(
            f"Protocol '{protocol}' has no fold {fold}.", f"Give data.fold from {min(folds)} to {max(folds)}."
        )
    return f"{protocol} fold {fold}"


def describe_protocol(label: str) -> str:
    """One sentence on what a protocol label means for the figures that stand under it."""
    if label.startswith("random"):
        return "speaker-dependent: actors and their twin takes are in training, which flatters the figures"
    if label.split()[0] in FOLDS:
        return "speaker-independent: no actor is in two subsets"
    return "a split of your own"


def make_split(clips: pd.DataFrame, protocol: str, fold: int | None = None, seed: int = 0) -> pd.DataFrame:
    """Assign every clip to ``train``, ``val`` or ``test``.

    Args:
        clips: clip table with ``clip_id``, ``emotion`` and ``actor``.
        protocol: one of :data:`PROTOCOLS`.
        fold: the fold of an actor protocol; None takes its first.
        seed: which random split; actor protocols do not depend on it.

    Returns:
        A row a clip, sorted by clip id, with the columns of :data:`COLUMNS`. ``random`` has no test clips.

    Raises:
        EmolightError: unknown protocol or fold, or a subset without clips.
    """
    label = protocol_label(protocol, fold, seed)
    table = clips[["clip_id", "emotion", "actor"]].sort_values("clip_id", ignore_index=True)
    subset = np.full(len(table), "train", dtype=object)
    if protocol == "random":
        held_out = RANDOM_VALIDATION_CLIPS if len(table) >= 2 * RANDOM_VALIDATION_CLIPS else len(table) // 5
        subset[np.random.default_rng(seed).permutation(len(table))[:held_out]] = "val"
    else:
        actors = FOLDS[protocol][int(label.rsplit(" ", 1)[1])]
        subset[table["actor"].isin(actors.val)] = "val"
        subset[table["actor"].isin(actors.test)] = "test"
    for name in ("train", "val"):
        if name not in subset:
            present = ", ".join(str(actor) for actor in sorted(set(table["actor"])))
            raise EmolightError(
                f"Split '{label}' leaves no clip for '{name}'; the corpus has actors {present}.",
                "Choose another data.fold, or data.protocol random.",
            )
    return table.assign(subset=subset, protocol=label)


def write_split(path: Path, split: pd.DataFrame) -> None:
    """Write the split as CSV: the same split gives the same bytes on every system."""
    text = io.StringIO()
    split.to_csv(text, columns=list(COLUMNS), index=False, lineterminator="\n")
    write_text(path, text.getvalue())


def load_or_make_split(
    path: Path, clips: pd.DataFrame, protocol: str, fold: int | None = None, seed: int = 0
) -> pd.DataFrame:
    """Read the split at ``path``, or write it there when there is none; an existing file is never rewritten.

    Several processes may call this at once: one writes, the others read.

    Raises:
        EmolightError: as :func:`make_split` and :func:`read_split`.
    """
    try:
        if not path.exists():
            made = make_split(clips, protocol, fold, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(path.with_name(f".{path.name}.lock")):
                remove_left_overs(path.parent, f".{path.name}.*.part")
                if not path.exists():
                    write_split(path, made)
    except OSError as error:
        raise EmolightError(
            f"The split cannot be written to {path}: {error.strerror or error}.",
            "Free the place, or choose another folder: --data.splits_dir DIR.",
        ) from None
    expected = protocol_label(protocol, fold, seed)
    split = read_split(path, clips, complete=True)
    if set(split["protocol"]) != {expected}:
        raise EmolightError(
            f"{path} holds the split '{split['protocol'].iloc[0]}', asked for '{expected}'.",
            "Delete the file to write it anew, or give it by data.split_csv if it is meant.",
        )
    return split


def read_split(path: Path, clips: pd.DataFrame, complete: bool = False) -> pd.DataFrame:
    """Read a split CSV and check it against the corpus.

    Args:
        path: CSV with ``clip_id``, ``emotion``, ``actor`` and ``subset``; ``protocol`` may be missing.
        clips: the clip table that the task selected.
        complete: also refuse a file that leaves out clips of the corpus, as one written by a protocol never does.

    Returns:
        The rows as in :func:`make_split`, in the file's order.

    Raises:
        EmolightError: with the line number, for a clip that is unknown or stands twice, a label or actor that
            contradicts the corpus, an unknown subset, an actor in two subsets under an actor protocol.
    """
    if not path.is_file():
        raise EmolightError(f"There is no split file {path}.", "Check data.split_csv, or leave it out.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            rows = [
                (reader.line_num, {name: (line.get(name) or "").strip() for name in COLUMNS}) for line in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EmolightError(
            f"{path} is not a CSV file: {error}.", f"It needs the columns {', '.join(COLUMNS)}."
        ) from None
    if missing := [name for name in COLUMNS[:4] if name not in columns]:
        raise EmolightError(
            f"{path}, line 1: no column {', '.join(missing)}.",
            f"A split has the columns {', '.join(COLUMNS)}.",
        )
    if not rows:
        raise EmolightError(f"{path} has no clips, only the names of columns.", "It needs a line a clip.")
    _check_rows(path, rows, clips)
    table = pd.DataFrame([row for _, row in rows])
    table["actor"] = table["actor"].astype(int)
    table["protocol"] = table["protocol"].replace("", "custom")
    left_out = sorted(set(clips["clip_id"]) - set(table["clip_id"]))
    if complete and left_out:
        raise EmolightError(
            f"{path}, line {rows[-1][0] + 1}: {len(left_out)} clips of the corpus are missing, as {left_out[0]}.",
            "Delete the file to write it anew, or give it by data.split_csv if it is meant.",
        )
    return table


def _shown(text: str) -> str:
    """A value from a file as it may stand in a message of one line."""
    short = text if len(text) <= 60 else text[:57] + "..."
    return f"'{short}'" if short.isprintable() else ascii(short)


def _check_rows(path: Path, rows: list[tuple[int, dict[str, str]]], clips: pd.DataFrame) -> None:
    known = dict(zip(clips["clip_id"], zip(clips["emotion"], clips["actor"].astype(str), strict=True), strict=True))
    first_line: dict[str, int] = {}
    subset_of: dict[str, tuple[str, int]] = {}
    first, protocol = rows[0][0], rows[0][1]["protocol"]
    for number, row in rows:
        clip, where = row["clip_id"], f"{path}, line {number}"
        if row["subset"] not in SUBSETS:
            raise EmolightError(
                f"{where}: unknown subset {_shown(row['subset'])}.",
                f"{nearest(row['subset'], SUBSETS)}Valid: train, val, test.",
            )
        if clip not in known:
            raise EmolightError(
                f"{where}: clip {_shown(clip)} is not in the corpus.",
                "Restore the recording, take the line out, or delete the file to write the split anew.",
            )
        if clip in first_line:
            raise EmolightError(
                f"{where}: clip '{clip}' stands already in line {first_line[clip]}.", "Take one line out."
            )
        first_line[clip] = number
        emotion, actor = known[clip]
        if row["emotion"] != emotion:
            raise EmolightError(
                f"{where}: emotion {_shown(row['emotion'])}, but clip '{clip}' is '{emotion}'.", "Mend the line."
            )
        if not re.fullmatch(r"0{0,9}" + actor, row["actor"]):
            raise EmolightError(
                f"{where}: actor {_shown(row['actor'])}, but clip '{clip}' is of actor {actor}.", "Mend the line."
            )
        if row["protocol"] != protocol:
            raise EmolightError(
                f"{where}: protocol {_shown(row['protocol'])}, but line {first} says {_shown(protocol)}.",
                "A split has one protocol.",
            )
        if protocol.split()[:1] and protocol.split()[0] in FOLDS:
            subset, earlier = subset_of.setdefault(actor, (row["subset"], number))
            if subset != row["subset"]:
                raise EmolightError(
                    f"{where}: actor {actor} is in {_shown(row['subset'])} and, by line {earlier}, in '{subset}'.",
                    f"Protocol {_shown(protocol)} keeps every actor in one subset.",
                )
