"""What a reader needs to rerun a run elsewhere: versions, commit, device, threads, seed."""

import contextlib
import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from emolight import __version__
from emolight.run.precision import processor

LIBRARIES = ("torch", "torchvision", "torchaudio", "lightning", "torchmetrics", "numpy", "pandas", "soundfile", "soxr")


def environment(device: str, precision: str, seed: int, processes: int) -> dict[str, Any]:
    """Plain values for ``environment.json``."""
    return {
        "versions": {"emolight": __version__, **{name: version(name) for name in LIBRARIES}},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "commit": _commit(),
        "device": device,
        "device_name": torch.cuda.get_device_name() if device.startswith("cuda") else processor(),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "processes": processes,
        "seed": seed,
        "command": shlex.join(sys.argv[1:]),
        "slurm_job": slurm_job(),
    }


def slurm_job() -> str | None:
    """The id by which ``scontrol requeue`` knows this job, or None outside of SLURM."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def _commit() -> str | None:
    """Commit of the source tree the package runs from, with ``+`` when it has changes; None outside git."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    with contextlib.suppress(OSError, subprocess.SubprocessError):
        # A package installed into someone else's repository must not claim that repository's commit.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    return None
