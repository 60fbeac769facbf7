"""The folder of a run: what stands in it, and the one way to read it."""

import contextlib
import csv
import io
import itertools
import json
import os
import re
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import filelock
import pandas as pd
import yaml

from emolight.data.corpora import Table
from emolight.data.datamodule import EmotionDataModule
from emolight.data.selection import corpora_of
from emolight.data.splits import Split
from emolight.errors import EmolightError, refusals
from emolight.evaluation.predictions import read_predictions, scores
from emolight.files import expand, write_json, write_text

LOGS = Path("lightning_logs")
CONFIG, SPLIT, ENVIRONMENT, TESTED = "config.yaml", "split.csv", "environment.json", "test_scorings.csv"
CLAIMED = "EMOLIGHT_RUN_FOLDER"
"""Set by the first process of a run, so that the others of its group use the same folder."""
A_RUN = "Give lightning_logs/NAME/version_N, or a checkpoint in it."


class Run:
    """A run folder, ``lightning_logs/NAME/version_N``; :meth:`open` finds it, :meth:`claim` makes it.

    Example:
        >>> run = Run.open("lightning_logs/mfcc/version_0")  # doctest: +SKIP
        >>> run.metrics["uar"]
        0.673
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def __repr__(self) -> str:
        return f"Run('{self.folder}')"

    @classmethod
    def claim(cls, logs: Path, name: str) -> Self:
        """Make ``logs/name/version_N`` with the first free N; two processes never get the same."""
        if not Path(name).name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise EmolightError(f"The name '{name}' leads out of {logs}, or to itself.", "Pass another --name.")
        with refusals(f"No run folder can be made under {logs / name}", "Free the place, or pass another --name."):
            (logs / name).mkdir(parents=True, exist_ok=True)
            versions = [folder.name.removeprefix("version_") for folder in (logs / name).glob("version_*")]
            number = max((int(version) for version in versions if version.isdigit()), default=-1) + 1
            for folder in (logs / name / f"version_{place}" for place in itertools.count(number)):
                with contextlib.suppress(FileExistsError):
                    folder.mkdir()
                    break
        return cls(folder)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The run of a run folder, or of a checkpoint or folder in it; EmolightError where there is none."""
        if re.match(r"\w\w+:/", str(path)):
            raise EmolightError(f"'{path}' is an address; runs are read from files.", "Fetch it yourself first.")
        path = Path(path).expanduser()
        if not path.exists():
            raise EmolightError(f"There is no run '{path}'.", A_RUN)
        if run := cls.around(path):
            return run
        if any(path.glob("fold_*_seed_*")):
            fix = "The same command goes on with it; or give one of the runs in it."
            raise EmolightError(f"The cross-validation in '{path}' is not finished.", fix)
        where = f"'{path}'" if path.is_dir() else f"the folders above '{path}'"
        inside = sorted(path.glob("version_*/config.yaml"), key=lambda one: one.stat().st_mtime)
        fix = f"Give a run of it, the latest: {inside[-1].parent}" if inside else A_RUN
        raise EmolightError(f"No {CONFIG} in {where}: that is no run folder.", fix)

    @classmethod
    def around(cls, path: Path) -> Self | None:
        """The run that a path is, or lies in at most two folders deep; None when there is none."""
        real = path.resolve()
        folders = (path, *path.parents[:2], real, *real.parents[:2])
        return next((cls(folder) for folder in folders if (folder / CONFIG).is_file()), None)

    @property
    def name(self) -> str:
        """For tables: ``mfcc version_0``."""
        return f"{self.config.get('name', self.folder.resolve().parent.name)} {self.folder.resolve().name}"

    @cached_property
    def config(self) -> dict[str, Any]:
        """The complete configuration, as plain YAML; errors as :func:`read_config`."""
        return read_config(self.folder / CONFIG)

    @cached_property
    def split(self) -> Split:
        """Which clip was in which subset."""
        return Split.read(self.folder / SPLIT)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """What the run was made with, and what it found; empty when it was stopped before it could tell."""
        path = self.folder / ENVIRONMENT
        return read_json(path, "Restore it, or train again.") if path.exists() else {}

    def note(self, **facts: Any) -> None:
        """Add facts to ``environment.json``."""
        self.__dict__["environment"] = {**self.environment, **facts}
        write_json(self.folder / ENVIRONMENT, self.environment)

    @property
    def finished(self) -> bool:
        """Whether the training came to its end."""
        return bool(self.environment.get("finished"))

    @property
    def best(self) -> Path:
        """The model whose figures the run shows: weights alone."""
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        """What the run goes on from."""
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def subset(self) -> str:
        """Which clips the run's figures are of: ``test`` once it is tested, else ``val``."""
        return "test" if (self.folder / "predictions_test.csv").is_file() else "val"

    def predictions(self, subset: str = "val", suffix: str = "") -> pd.DataFrame:
        """The predictions table of a subset; EmolightError where it was not written, or is damaged."""
        path = self.folder / f"predictions_{subset}{suffix}.csv"
        if not path.is_file():
            command = f"python -m emolight {'test' if subset == 'test' else 'validate'} --ckpt_path {self.best}"
            raise EmolightError(f"There is no predictions file {path}.", f"Write it: {command}")
        return read_predictions(path)

    @property
    def metrics(self) -> dict[str, Any]:
        """``uar``, ``accuracy``, ``macro_f1``, ``recall`` and ``n`` of :attr:`subset`, as fractions."""
        return scores(self.predictions(self.subset))

    @property
    def fingerprint(self) -> dict[str, str]:
        """What must agree before two results may be ranked in one table."""
        split, facts = self.split, {name: str(self.environment.get(name, "")) for name in ("corpus", "task")}
        scored = {"protocol": split.label, "clips scored": self.subset}
        return {**facts, **scored, "split": split.hash, "selection": split.selection}

    def data(self, **changes: Any) -> EmotionDataModule:
        """The data module of this run, on its own split, before ``setup``.

        ``changes`` are arguments that differ, such as ``root``, where the recordings are now, or a list of places.
        """
        changes = {name: value for name, value in changes.items() if name != "root" or value is not None}
        given = (self.config["data"].get("corpus"), changes.get("root"))
        corpora, roots = (one if isinstance(one, list) else [one] for one in given)
        if "root" in changes and len(corpora) == len(roots):  # a table moves together with its recordings
            moved = [_moved(one, str(root)) for one, root in zip(corpora, roots, strict=True)]
            changes |= {"corpus": moved, "root": roots} if len(moved) > 1 else {"corpus": moved[0], "root": roots[0]}
        own = {"split_csv": str(self.folder / SPLIT), "seed": self.config["seed_everything"]}
        settings = {**self.data_settings(moved="root" in changes), **own, **changes}
        try:
            return EmotionDataModule(**settings)
        except (TypeError, ValueError) as error:
            raise EmolightError(f"{self.folder / CONFIG} does not fit: {error}.", "Was it another version's?") from None

    def data_settings(self, moved: bool = False) -> dict[str, Any]:
        """What the configuration says of the data; EmolightError where the recordings are not, unless they ``moved``.

        The configuration may be a stranger's, so it makes no folder anywhere.
        """
        data = {name: value for name, value in self.config["data"].items() if name not in ("split_csv", "splits_dir")}
        if (cache := data.get("cache_dir")) and not any(expand(str(cache)).glob("waveforms-v*")):
            data.pop("cache_dir")
        for corpus, root in [] if moved else corpora_of(data.get("corpus", ""), data.get("root")):
            if isinstance(corpus, Table) and not corpus.csv.is_file():
                problem = f"The table of {self.folder} is not at '{corpus.csv}'."
                fix = f"Say where: --data.corpus FOLDER/{corpus.csv.name}, or of its folder --root FOLDER"
                raise EmolightError(problem, fix)
            if not root.is_dir() or not any(root.iterdir()):  # a corpus that makes itself would do it there
                problem = f"The recordings of {self.folder} are not at '{root}'."
                raise EmolightError(problem, "Say where: --data.root DIR")
        return data

    @property
    def openings(self) -> int:
        """How often the test clips were scored."""
        path = self.folder / TESTED
        return max(0, len(path.read_text(encoding="utf-8").splitlines()) - 1) if path.is_file() else 0

    def check_writable(self) -> None:
        """Refuse, before clips are scored, a folder that could not take their tables; EmolightError."""
        if not os.access(self.folder, os.W_OK):
            fix = "Copy it to where you may write, and give the copy."
            raise EmolightError(f"The run folder {self.folder} cannot be written to, where the scores go.", fix)

    def count_test(self, checkpoint: str | Path, clips: int) -> int:
        """Note that test clips were scored; returns how often that has happened. Processes do not lose each other's."""
        path, line = self.folder / TESTED, io.StringIO()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        csv.writer(line, lineterminator="\n").writerow([now, Path(checkpoint).name, clips])
        with filelock.FileLock(path.with_name(f".{path.name}.lock")):
            earlier = path.read_text(encoding="utf-8") if path.is_file() else "time,checkpoint,clips\n"
            write_text(path, earlier + line.getvalue())
        return self.openings


def logs_of(config: Any) -> Path:
    """The ``lightning_logs`` folder of a complete configuration."""
    return expand(config["trainer"]["default_root_dir"] or ".") / LOGS


def run_name(folder: Path) -> str:
    """The ``--name`` of runs that lie in ``folder``, somewhere below a ``lightning_logs``."""
    return folder.relative_to(next(parent for parent in folder.parents if parent.name == LOGS.name)).as_posix()


def _moved(corpus: Any, root: str) -> Any:
    """The corpus; in the place of a table that is gone, the one of its name in ``root``."""
    gone = isinstance(corpus, str) and corpus.endswith(".csv") and not expand(corpus).is_file()
    return str(expand(root) / Path(corpus).name) if gone else corpus


def read_json(path: Path, fix: str = "Restore it, or make it again.") -> dict[str, Any]:
    """Content of a JSON file; EmolightError where it is missing or damaged."""
    with refusals(f"{path} cannot be read", fix):
        content = path.read_bytes()
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise EmolightError(f"{path} is damaged.", fix)
    return found


def read_config(path: Path) -> dict[str, Any]:
    """A complete configuration; EmolightError where it is damaged, or is not complete."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        problem = f"{path} is not valid YAML: {str(error)[:200]}"
        raise EmolightError(problem, "Mend it; only plain YAML is read.") from None
    groups = config if isinstance(config, dict) else {}
    if missing := [name for name in ("data", "model", "trainer") if not isinstance(groups.get(name), dict)]:
        problem = f"{path} is not the configuration of a run: no {', '.join(missing)}."
        raise EmolightError(problem, "Take the file that the run wrote.")
    return {"name": path.parent.parent.name, "seed_everything": 0, **groups}
