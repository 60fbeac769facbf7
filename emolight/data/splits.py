"""Who trains, who validates, who is held out: a :class:`Split` of clips, and its CSV that every model shares."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import filelock
import pandas as pd

from emolight.data.corpus import UNKNOWN
from emolight.data.sheet import read_sheet, shown
from emolight.errors import EmolightError, refusals
from emolight.files import remove_left_overs, write_text

SUBSETS = {"train": "training", "val": "validation", "test": "test"}
COLUMNS = ("clip_id", "emotion", "speaker", "subset", "protocol")
ALL_TEST = "every clip tests"  # label of a split that only scores: another corpus under a trained model
CUSTOM = "custom"
BEST_EPOCH, LAST_EPOCH = "best epoch by validation UAR", "last epoch, nothing selected"
INDEPENDENT = "speaker-independent: no speaker is in two subsets"
SCORED = {"val": "validation", "test": "test"}


@dataclass(frozen=True, eq=False)
class Split:
    """Which clip is in which subset, and what that means for the figures.

    Args:
        table: a row a clip, sorted by clip id, with ``clip_id``, ``emotion``, ``speaker`` and ``subset``.
        label: ``emobox6 fold 1``, ``random seed 0``, ``custom`` …
    """

    table: pd.DataFrame
    label: str

    @property
    def protocol(self) -> str:
        """The label's first word."""
        return self.label.split()[0]

    @property
    def fold(self) -> int | None:
        """Number of the fold, or None."""
        words = self.label.split()
        return int(words[2]) if len(words) > 2 and words[1] == "fold" and words[2].isdigit() else None

    def clips(self, subset: str) -> list[str]:
        """Clip ids of a subset."""
        return list(self.table.loc[self.table["subset"] == subset, "clip_id"])

    def speakers(self, subset: str) -> list[str]:
        """Speakers of a subset, sorted."""
        return sorted(self.table.loc[self.table["subset"] == subset, "speaker"].unique())

    def _shared(self) -> dict[str, tuple[set[str], set[str]]]:
        """Speakers whom validation shares with training, and test clips with both; and those of training."""
        train, val, test = (set(self.speakers(name)) for name in SUBSETS)
        return {"val": (val & train, train), "test": (test & (train | val), train)}

    def speaker_independent(self, subset: str | None = None) -> bool:
        """Whether no speaker is in two subsets, computed from the speakers: those of ``val`` not in training, those of
        ``test`` neither in training nor in validation, or (None) both.
        """
        apart = {name: not shared for name, (shared, _) in self._shared().items()}
        return not (self.table["speaker"] == UNKNOWN).any() and (apart[subset] if subset else all(apart.values()))

    @property
    def meaning(self) -> str:
        """One sentence on what the split means for the figures that stand under it."""
        if (self.table["subset"] == "test").all():
            return "every clip is scored; none was in training"
        if self.speaker_independent():
            return INDEPENDENT
        if (self.table["speaker"] == UNKNOWN).any():
            return "speaker-dependent: nobody knows all speakers, so the same may train and be scored"
        parts = [
            f"{len(shared)} of {len(self.speakers(name))} speakers of the {SCORED[name]} clips "
            f"are in {'training' if shared & train else 'validation'} too"
            for name, (shared, train) in self._shared().items()
            if shared
        ]
        return f"speaker-dependent: {' and '.join(parts)}, which flatters the figures"

    @property
    def selects_epoch(self) -> bool:
        """Whether the best epoch on the validation clips counts; where these are quoted themselves, the last does."""
        return self.speaker_independent("val") and bool(self.clips("val"))

    @property
    def selection(self) -> str:
        """How the epoch is chosen, in words."""
        return BEST_EPOCH if self.selects_epoch else LAST_EPOCH

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the CSV."""
        return hashlib.sha256(self.to_csv().encode()).hexdigest()

    def to_csv(self) -> str:
        """The split as CSV: the same split gives the same text on every system."""
        return self.table.assign(protocol=self.label).to_csv(columns=list(COLUMNS), index=False, lineterminator="\n")

    def write(self, path: str | Path) -> None:
        """Write the CSV."""
        write_text(Path(path).expanduser(), self.to_csv())

    def without(self, clip_ids: Iterable[str]) -> Self:
        """The split without some clips, for those that cannot be read."""
        return replace(self, table=self.table[~self.table["clip_id"].isin(list(clip_ids))].reset_index(drop=True))

    @classmethod
    def read(cls, path: str | Path, clips: pd.DataFrame | None = None, complete: bool = False) -> Self:
        """Read a split that this project, a spreadsheet or a script wrote; what is wrong is told with its line.

        Args:
            path: CSV with ``clip_id``, ``emotion``, ``speaker`` and ``subset``; ``protocol`` may be missing.
            clips: the clip table that the task selected, which the rows are held to; None trusts them.
            complete: also refuse a file that leaves out clips, as one written by a protocol never does.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise EmolightError(f"There is no split file {path}.", "Check data.split_csv, or leave it out.")
        sheet = read_sheet(path, "split")
        table = sheet.table if "speaker" in sheet.table else sheet.table.rename(columns={"actor": "speaker"})
        if missing := [name for name in COLUMNS[:4] if name not in table]:
            raise EmolightError(
                f"{path}, line 1: no column {', '.join(missing)} in {shown(', '.join(map(str, table)))}.",
                f"A split has the columns {', '.join(COLUMNS)}, with commas, semicolons or tabs between them.",
            )
        table = table.reindex(columns=COLUMNS, fill_value="")
        ids, subsets, protocols = table["clip_id"], table["subset"], table.pop("protocol")
        anew = ", or delete the file to write the split anew." if complete else "."
        mend = f"Mend the line, or take it out{anew}"
        sheet.refuse(~subsets.isin(SUBSETS), "unknown subset {}", "Valid: train, val, test.", subsets)
        sheet.refuse(ids.duplicated(), "clip {} stands there already", mend, ids)
        several = protocols != protocols[0]
        sheet.refuse(several, "protocol {}, unlike the lines above", "A split has one protocol.", protocols)
        if clips is not None:
            known = clips.set_index("clip_id").reindex(ids).reset_index()
            restore = f"Restore the recording (--data.root DIR), or take the line out{anew} Another corpus' split?"
            sheet.refuse(known["emotion"].isna(), "clip {} is not in the corpus, or not of the task", restore, ids)
            for name, plain in (("emotion", str), ("speaker", plain_number)):
                wrong = table[name].map(plain) != known[name].map(plain)
                sheet.refuse(wrong, f"{name} {{}}, but clip {{}} is {{}}", mend, table[name], ids, known[name])
            table["speaker"] = known["speaker"]  # a spreadsheet says 1.0
            left_out = sorted(set(clips["clip_id"]) - set(ids))
            if complete and left_out:
                fix = "Delete the file to write it anew, or give it by data.split_csv if it is meant."
                raise EmolightError(f"{path}: {len(left_out)} clips of the corpus are missing, as {left_out[0]}.", fix)
        label = " ".join(protocols[0].split()) or CUSTOM
        return cls(table.sort_values("clip_id", ignore_index=True), label)


def load_or_make(path: Path, made: Split, clips: pd.DataFrame) -> Split:
    """Read the split at ``path``, or write ``made`` there; it is never rewritten; of several processes one writes."""
    fix = "Free the place, or choose another folder: --data.splits_dir DIR."
    with refusals(f"The split cannot be written to {path}", fix):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(path.with_name(f".{path.name}.lock")):
                remove_left_overs(path.parent, f".{path.name}.*.part")
                if not path.exists():
                    made.write(path)
    split = Split.read(path, clips, complete=True)
    if split.label != made.label:
        problem = f"{path} holds the split '{split.label}', asked for '{made.label}'."
        raise EmolightError(problem, "Delete the file to write it anew, or give it by data.split_csv if it is meant.")
    return split


def plain_number(speaker: str) -> str:
    """A speaker as a spreadsheet may have left it: 01, 1 and 1.0 are one."""
    return " ".join(speaker.split()).removesuffix(".0").lstrip("0") or "0"
