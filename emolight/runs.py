"""The run folder: where it is, what stands in it, and how a checkpoint finds its own."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch.utilities import rank_zero_only

from emolight import __version__
from emolight.errors import EmolightError
from emolight.files import write_text

LOGS = Path("lightning_logs")
LIBRARIES = (
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "numpy",
    "pandas",
    "soundfile",
    "soxr",
)
OPENINGS = "test_openings.csv"
"""Stands in a run folder: a line for each time that its test clips were scored."""
CLAIMED = "EMOLIGHT_RUN_FOLDER"
"""Set by the first process of a run, so that the others of its group use the same folder."""


def claim_run_folder(logs: Path, name: str) -> Path:
    """Make and return ``logs/name/version_N`` with the first free N; two processes never get the same."""
    if getattr(rank_zero_only, "rank", 0) != 0:
        # On a cluster every process starts by itself; only the first writes, so the others need no folder.
        return Path(os.environ.get(CLAIMED, logs / name))
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise EmolightError(f"The name '{name}' leads out of {logs}.", "Pass another --name.")
    try:
        (logs / name).mkdir(parents=True, exist_ok=True)
        versions = [folder.name.removeprefix("version_") for folder in (logs / name).glob("version_*")]
        number = max((int(version) for version in versions if version.isdigit()), default=-1) + 1
        while True:
            folder = logs / name / f"version_{number}"
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                number += 1
    except OSError as error:
        raise EmolightError(
            f"No run folder can be made under {logs / name}: {error.strerror}.",
            "Free the place, or pass another --name.",
        ) from None


def remove_unused(run: Path) -> None:
    """Remove a run folder whose run ended with a mistake before anything but an empty event file was written."""
    if all(path.name.startswith("events.out.tfevents.") for path in run.iterdir()):
        shutil.rmtree(run, ignore_errors=True)


def run_folder_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in: the nearest parent with a ``config.yaml``."""
    for folder in (*checkpoint.parents, *checkpoint.resolve().parents):
        if (folder / "config.yaml").is_file():
            return folder
    return None


def read_run_config(run: Path, name: str = "config.yaml") -> dict[str, Any]:
    """The complete configuration in a run folder, as plain YAML.

    Raises:
        EmolightError: it is damaged, or is not complete.
    """
    path = run / name
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EmolightError(f"{path} is not valid YAML: {reason}", "Mend it; only plain YAML is read.") from None
    groups = config if isinstance(config, dict) else {}
    if missing := [name for name in ("data", "model", "trainer") if not isinstance(groups.get(name), dict)]:
        raise EmolightError(
            f"{path} is not the configuration of a run: no {', '.join(missing)}.",
            "Take the file that the run wrote.",
        )
    return groups


def record_opening(run: Path, checkpoint: str, clips: int) -> int:
    """Note that a run's test clips are scored now; returns how often that has happened.

    Args:
        run: the run folder.
        checkpoint: name of the checkpoint, such as ``best.ckpt``.
        clips: how many clips are scored.
    """
    path = run / OPENINGS
    earlier = path.read_text(encoding="utf-8") if path.is_file() else "time,checkpoint,clips\n"
    line = io.StringIO()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    csv.writer(line, lineterminator="\n").writerow([now, checkpoint, clips])
    write_text(path, earlier + line.getvalue())
    return count_openings(run)


def count_openings(run: Path) -> int:
    """How often the test clips of a run were scored."""
    path = run / OPENINGS
    return max(0, len(path.read_text(encoding="utf-8").splitlines()) - 1) if path.is_file() else 0


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_environment(path: Path, device: str, precision: str, seed: int, processes: int) -> None:
    """Write what a reader needs to rerun the run elsewhere: versions, commit, device, threads, seed."""
    earlier = read_environment(path.parent)
    environment: dict[str, Any] = {
        "versions": {"emolight": __version__, **{name: _version(name) for name in LIBRARIES}},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "commit": _commit(),
        "device": device,
        "device_name": torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor(),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "processes": processes,
        "seed": seed,
        "command": shlex.join(sys.argv[1:]),
        "slurm_job": slurm_job(),
        "resumed": earlier.get("resumed", -1) + 1,
    }
    write_text(path, json.dumps(environment, indent=2) + "\n")


def slurm_job() -> str | None:
    """The id by which ``scontrol requeue`` knows this job, or None outside of SLURM."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def read_environment(run: Path) -> dict[str, Any]:
    """What :func:`write_environment` wrote into a run folder; empty when it did not."""
    path = run / "environment.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of the source tree the package runs from, with ``+`` when it has changes; None outside git."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        # A package installed into someone else's repository must not claim that repository's commit.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None
