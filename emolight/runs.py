"""The run folder: where it is, what stands in it, and how a checkpoint finds its own."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
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
CLAIMED = "EMOLIGHT_RUN_FOLDER"
"""Set by the first process of a run, so that the others of its group use the same folder."""


def claim_run_folder(logs: Path, name: str) -> Path:
    """Make and return ``logs/name/version_N`` with the first free N; two processes never get the same."""
    if getattr(rank_zero_only, "rank", 0) != 0:
        # On a cluster every process starts by itself; only the first writes, so the others need no folder.
        return Path(os.environ.get(CLAIMED, logs / name))
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


def run_folder_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in: the nearest parent with a ``config.yaml``."""
    for folder in (*checkpoint.parents, *checkpoint.resolve().parents):
        if (folder / "config.yaml").is_file():
            return folder
    return None


def write_environment(path: Path, device: str, precision: str, seed: int, processes: int) -> None:
    """Write what a reader needs to rerun the run elsewhere: versions, commit, device, threads, seed."""
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
    }
    write_text(path, json.dumps(environment, indent=2) + "\n")


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
