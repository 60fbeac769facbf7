"""What a corpus is: a table of clips, and what is known of them beforehand. Everything after the table knows no corpus.

A corpus whose file names tell everything is a small class with a grammar; see ``corpora/nemo.py``.
"""

from __future__ import annotations

import filecmp
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from emolight.errors import EmolightError

if TYPE_CHECKING:
    import pandas as pd

REQUIRED = ("clip_id", "path", "emotion", "speaker")  # columns of every clip table; all of them texts
UNKNOWN = "unknown"  # the speaker of clips whose speakers nobody knows
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
    """What :meth:`Corpus.find` came upon, with relative paths: why files were passed over, and how many; (kept, other)
    paths of one clip with the same bytes, and with different ones.
    """

    table: pd.DataFrame
    passed_over: dict[str, int] = field(default_factory=dict)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    conflicts: list[tuple[str, str]] = field(default_factory=list)


class Corpus:
    """Recordings with labels and speakers.

    A subclass sets what it knows, and has a ``grammar``, or a :meth:`parse` (file names tell everything), or a
    :meth:`find`.

    Attributes:
        name: for tables and labels.
        about: who says what, for model cards: "acted English sentences by 24 professional actors".
        emotions: labels in their usual order; empty where they follow from the table.
        licence, citation: of the recordings; empty where they are not known.
        grammar: regular expression of a file name without suffix, whose named groups are columns.
        codes: column to what its values in file names mean.
        voices: speaker to columns that follow from it.
        foreign_folder: name of a folder with other signals of the same names.
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
    grammar: str = ""
    codes: Mapping[str, Mapping[str, str]] = {}
    voices: Mapping[str, Mapping[str, object]] = {}
    foreign_folder: str = ""
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

        It needs an ``emotion``. Without a ``speaker`` nobody knows who speaks; ``clip_id`` is the name, if not given.
        """
        if not self.grammar or not (match := re.fullmatch(self.grammar, stem)):
            return None
        clip = {name: self.codes.get(name, {}).get(value, value) for name, value in match.groupdict().items()}
        return {"clip_id": stem, **clip, **self.voices.get(clip.get("speaker", ""), {})}

    def parse_path(self, path: Path) -> dict[str, object] | None:
        """As :meth:`parse`; for grammars in which the folder says something, too."""
        return None if self.foreign_folder in path.parts else self.parse(path.stem.strip())

    def label(self, path: Path) -> dict[str, object] | None:
        """What the name of any file of the corpus tells, also of those that are no clips of it."""
        return self.parse_path(path)

    def expected(self) -> pd.DataFrame | None:
        """The published clip table, or None where it cannot be named clip by clip."""
        return None

    def table(self, root: str | Path) -> pd.DataFrame:
        """The clip table of the recordings below ``root``; errors as :meth:`find`."""
        return self.find(root).table

    def prepare(self, root: str | Path) -> None:
        """Make what can be made unasked; recordings are never downloaded unasked."""

    def passed_over(self, path: Path) -> str:
        """Why a sound file that :meth:`parse` does not know is left out."""
        return "foreign name"

    def find(self, root: str | Path, strict: bool = True) -> Discovery:
        """Find the clips below ``root``, in whatever folders they lie: the file name decides.

        A clip that is there twice with the same bytes counts once: the path that sorts first is kept. A lossy copy
        (MP3, Ogg) is taken where there is no other. Linked folders are followed, each real folder once.
        ``strict`` refuses a clip that is there twice with different bytes; otherwise it is listed in ``conflicts``.
        """
        root = Path(root).expanduser()
        fetch = f"Fetch them: python -m emolight download {shlex.quote(str(root))} --corpus {self.name}; or say"
        ways = f"{fetch if self.archives else 'Say'} where they are: --data.root DIR"
        ways += "; or try the synthetic demo: --config demo"
        if not root.is_dir():
            raise EmolightError(f"There is no folder with recordings at '{root}'.", ways)
        passed_over: Counter[str] = Counter()
        clips: dict[str, list[dict[str, object]]] = {}
        for path in walk(root, passed_over):
            suffix = path.suffix.lower()
            if path.name.startswith("._") or suffix not in READ:
                if suffix in READ | OTHER_MEDIA:
                    passed_over["._ file" if suffix in READ else f"{suffix} file, which cannot be read"] += 1
            elif (parsed := self.parse_path(path)) is None:
                passed_over[self.passed_over(path)] += 1
            else:
                clip = {"clip_id": path.stem.strip(), "speaker": UNKNOWN, **parsed}
                if any(value != value.encode(errors="ignore").decode() for value in map(str, clip.values())):
                    passed_over["name that is no UTF-8"] += 1
                    continue
                clips.setdefault(str(clip["clip_id"]), []).append({**clip, "path": path.as_posix()})
        if not clips:
            seen = ", ".join(f"{count} × {reason}" for reason, count in sorted(passed_over.items()))
            raise EmolightError(f"No {self.name} clip under '{root}'{f' ({seen})' if seen else ''}.", ways)
        rows, duplicates, conflicts = [], list[tuple[str, str]](), list[tuple[str, str]]()
        for clip_id, copies in sorted(clips.items()):
            lossless = [clip for clip in copies if Path(str(clip["path"])).suffix.lower() not in LOSSY] or copies
            if len(lossless) < len(copies):
                passed_over["lossy copy of a clip that is there without loss"] += len(copies) - len(lossless)
            row, *others = sorted(lossless, key=lambda clip: str(clip["path"]))
            rows.append(row)
            for kept, other in ((str(row["path"]), str(clip["path"])) for clip in others):
                files = root / kept, root / other
                same = all(map(Path.is_file, files)) and filecmp.cmp(*files, shallow=False)
                (duplicates if same else conflicts).append((kept, other))
                if strict and not same:
                    raise EmolightError(
                        f"Clip {clip_id} is there twice with different content: '{kept}' and '{other}'.",
                        f"Keep one of them; python -m emolight audit {shlex.quote(str(root))} lists all.",
                    )
        return Discovery(clip_table(rows), dict(sorted(passed_over.items())), duplicates, conflicts)


def clip_table(rows: Sequence[Mapping[str, object]] | pd.DataFrame) -> pd.DataFrame:
    """Rows as a clip table, sorted by clip id, the required columns first and texts."""
    import pandas as pd  # here, because predictions start faster without it

    table = pd.DataFrame(rows)
    if missing := [name for name in REQUIRED if name not in table]:
        problem = f"The clips have no {' and no '.join(missing)}, only {', '.join(map(str, table.columns))}."
        raise EmolightError(problem, f"The corpus must give {', '.join(REQUIRED)} of each.")
    table = table[[*REQUIRED, *(name for name in table.columns if name not in REQUIRED)]]
    return table.astype(dict.fromkeys(REQUIRED, str)).sort_values("clip_id", ignore_index=True)


def walk(root: Path, passed_over: Counter[str]) -> Iterator[Path]:
    """Every file below ``root``, relative to it; a link back to a folder already walked is not entered."""
    walked: set[str] = set()
    refused = lambda _: passed_over.update(["unreadable folder"])  # noqa: E731
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=refused):
        if (real := os.path.realpath(folder)) in walked:
            subfolders.clear()
            continue
        walked.add(real)
        subfolders.sort()
        yield from (Path(folder).relative_to(root) / name for name in names)
