"""What a corpus is: a table of clips, and what is known of them beforehand. Everything after the table knows no corpus.

A corpus whose file names tell everything is a small class with a :meth:`Corpus.parse`; see ``corpora/savee.py``.
"""

from __future__ import annotations

import filecmp
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from emolight.errors import EmolightError

if TYPE_CHECKING:
    import pandas as pd

REQUIRED = ("clip_id", "path", "emotion", "speaker")
"""Columns of every clip table; all of them texts."""
UNKNOWN = "unknown"
"""The speaker of clips whose speakers nobody knows."""
LOSSY = {".mp3", ".oga", ".ogg", ".opus"}
READ = {".aif", ".aiff", ".au", ".caf", ".flac", ".rf64", ".w64", ".wav", *LOSSY}
OTHER_MEDIA = {".3gp", ".aac", ".amr", ".avi", ".m4a", ".mkv", ".mov", ".mp4", ".webm", ".wma"}


class Task(NamedTuple):
    """Which clips of a corpus are meant: its ``emotions``, and the values that other columns may have."""

    emotions: tuple[str, ...]
    filter: Mapping[str, tuple[str, ...]] = {}


class Fold(NamedTuple):
    """The speakers that a fold keeps out of training."""

    test: tuple[str, ...]
    val: tuple[str, ...]


class Archive(NamedTuple):
    """A published archive: ``checksum`` as ``md5:…`` or ``sha256:…``, ``size`` in bytes, unpacked into ``folder``."""

    name: str
    url: str
    checksum: str
    size: int
    folder: str
    clips: int


@dataclass(frozen=True)
class Discovery:
    """What :meth:`Corpus.find` came upon; every path is relative to the root, with forward slashes.

    Attributes:
        table: clip table, sorted by clip id.
        passed_over: reason to number of files that were left out for it.
        duplicates: (kept, dropped) paths of one clip with the same samples.
        conflicts: (kept, other) paths of one clip whose samples differ; empty unless ``strict`` was off.
    """

    table: pd.DataFrame
    passed_over: dict[str, int] = field(default_factory=dict)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    conflicts: list[tuple[str, str]] = field(default_factory=list)


class Corpus:
    """Recordings with labels and speakers.

    A subclass sets what it knows, and gives either :meth:`parse` (file names tell everything) or :meth:`find`.

    Attributes:
        name: for tables and labels.
        about: who says what, for model cards: "acted English sentences by 24 professional actors".
        emotions: labels in their usual order; empty where they follow from the table.
        licence: of the recordings; empty where it is not known.
        citation: of the corpus.
        archives: what ``download`` fetches.
        tasks: name to :class:`Task`; "all" is every clip.
        default_task: the one that is meant when none is named.
        protocols: published folds: protocol to fold to :class:`Fold`.
        default_protocol: the one that is meant when none is named.
        groups: columns by which results are tabled.
        default_root: where the recordings lie when no root is given.
        counts: emotion to its published number of clips, where :meth:`expected` cannot name them.

    Example:
        >>> class Mine(Corpus):
        ...     name = "mine"
        ...     def parse(self, stem):
        ...         speaker, _, emotion = stem.partition("_")
        ...         return {"speaker": speaker, "emotion": emotion} if emotion in ("sad", "happy") else None
    """

    name: ClassVar[str] = "corpus"
    about: str = "recordings of a corpus that does not describe itself"
    emotions: tuple[str, ...] = ()
    licence: str = ""
    citation: str = ""
    archives: tuple[Archive, ...] = ()
    tasks: Mapping[str, Task] = {}
    default_task: str = "all"
    protocols: Mapping[str, Mapping[int, Fold]] = {}
    default_protocol: str = "speakers5"
    groups: tuple[str, ...] = ("sex",)
    default_root: str = "data"
    counts: Mapping[str, int] = {}

    def parse(self, stem: str) -> dict[str, object] | None:
        """Columns of a clip, from its file name without suffix; None when no clip is called so.

        It needs an ``emotion``. Without a ``speaker`` nobody knows who speaks; ``clip_id`` is the name itself if it
        is not given.
        """
        return None

    def expected(self) -> pd.DataFrame | None:
        """The published clip table, or None where it cannot be named clip by clip."""
        return None

    def table(self, root: str | Path) -> pd.DataFrame:
        """The clip table of the recordings below ``root``; errors as :meth:`find`."""
        return self.find(root).table

    def prepare(self, root: str | Path) -> None:
        """Make what can be made unasked; recordings are never downloaded unasked."""

    def twin(self, clip_id: str) -> str | None:
        """What two takes of one sentence by one speaker have in common, or None where no sentence is said twice."""
        return None

    def misplaced(self, path: str, clip: Mapping[Any, Any]) -> str:
        """How the folders of a relative path contradict the clip's name, or an empty string."""
        return ""

    def passed_over(self, path: Path) -> str:
        """Why a sound file that :meth:`parse` does not know is left out."""
        return "foreign name"

    def ways(self, root: str | Path) -> str:
        """What to do when there are no recordings."""
        fetch = f"Fetch them: python -m emolight download {shlex.quote(str(root))} --corpus {self.name}; or say"
        start = fetch if self.archives else "Say"
        return f"{start} where they are: --data.root DIR; or try the synthetic demo: --config demo"

    def find(self, root: str | Path, strict: bool = True) -> Discovery:
        """Find the clips below ``root``, in whatever folders they lie: the file name decides.

        A clip that is there twice with the same samples (also as WAV and FLAC) counts once: the path that sorts
        first is kept. A lossy copy (MP3, Ogg) is taken where there is no other. Linked folders are followed, each
        real folder once.

        Args:
            root: folder with the recordings.
            strict: refuse a clip that is there twice with different samples; otherwise list it in ``conflicts``.

        Raises:
            EmolightError: no such folder, no clip in it, the same clip with different samples, or a clip without
                emotion.
        """
        root = Path(root).expanduser()
        if not root.is_dir():
            raise EmolightError(f"There is no folder with recordings at '{root}'.", self.ways(root))
        passed_over: Counter[str] = Counter()
        clips: dict[str, list[dict[str, object]]] = {}
        for path in walk(root, passed_over):
            clip, reason = self._look(path)
            if clip is not None:
                clip = {"clip_id": path.stem, "speaker": UNKNOWN, **clip, "path": path.as_posix()}
                clips.setdefault(str(clip["clip_id"]), []).append(clip)
            elif reason:
                passed_over[reason] += 1
        if not clips:
            seen = ", ".join(f"{count} × {reason}" for reason, count in sorted(passed_over.items()))
            raise EmolightError(f"No {self.name} clip under '{root}'{f' ({seen})' if seen else ''}.", self.ways(root))
        rows, duplicates, conflicts = [], [], []
        for clip_id, copies in sorted(clips.items()):
            lossless = [clip for clip in copies if Path(str(clip["path"])).suffix.lower() not in LOSSY] or copies
            if len(lossless) < len(copies):
                passed_over["lossy copy of a clip that is there without loss"] += len(copies) - len(lossless)
            row, *others = sorted(lossless, key=lambda clip: str(clip["path"]))
            rows.append(row)
            kept = str(row["path"])
            for other in (str(clip["path"]) for clip in others):
                if same_samples(root / kept, root / other):
                    duplicates.append((kept, other))
                elif strict:
                    raise EmolightError(
                        f"Clip {clip_id} is there twice with different samples: '{kept}' and '{other}'.",
                        f"Keep one of them; python -m emolight audit {shlex.quote(str(root))} lists all.",
                    )
                else:
                    conflicts.append((kept, other))
        return Discovery(clip_table(rows), dict(sorted(passed_over.items())), duplicates, conflicts)

    def _look(self, path: Path) -> tuple[dict[str, object] | None, str]:
        """The clip that a file is, or why it is none; no reason for what is no recording at all."""
        suffix = path.suffix.lower()
        if path.name.startswith("._"):
            return None, "._ file" if suffix in READ else ""
        if suffix in OTHER_MEDIA:
            return None, f"{suffix} file, which cannot be read"
        if suffix not in READ:
            return None, ""
        clip = self.parse_path(path)
        return clip, "" if clip else self.passed_over(path)

    def label(self, path: Path) -> dict[str, object] | None:
        """What the name of any file of the corpus tells, also of those that are no clips of it."""
        return self.parse_path(path)

    def parse_path(self, path: Path) -> dict[str, object] | None:
        """As :meth:`parse`; for grammars in which the folder says something, too."""
        return self.parse(path.stem)


def clip_table(rows: Sequence[Mapping[str, object]] | pd.DataFrame) -> pd.DataFrame:
    """Rows as a clip table, sorted by clip id, the required columns first and texts.

    Raises:
        EmolightError: a required column is missing.
    """
    import pandas as pd  # here, because predictions start faster without it

    table = pd.DataFrame(rows)
    if missing := [name for name in REQUIRED if name not in table]:
        raise EmolightError(
            f"The clips have no {' and no '.join(missing)}, only {', '.join(map(str, table.columns))}.",
            f"The corpus must give {', '.join(REQUIRED)} of each.",
        )
    rest = [name for name in table.columns if name not in REQUIRED]
    table = table[[*REQUIRED, *rest]].astype(dict.fromkeys(REQUIRED, str))
    return table.sort_values("clip_id", ignore_index=True)


def walk(root: Path, passed_over: Counter[str]) -> Iterator[Path]:
    """Every file below ``root``, relative to it; a link back to a folder already walked is not entered."""

    def refused(_: OSError) -> None:
        passed_over["unreadable folder"] += 1

    walked: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=refused):
        real = os.path.realpath(folder)
        if real in walked:
            subfolders.clear()
            continue
        walked.add(real)
        subfolders.sort()
        place = Path(folder).relative_to(root)
        yield from (place / name for name in names)


def same_samples(one: Path, other: Path) -> bool:
    """Whether two files hold the same samples; float32 is exact for 16 and 24 bits."""
    import soundfile

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
