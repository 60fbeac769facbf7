"""Checkpoint files: written whole or not at all, with a checksum inside, read without executing anything.

A checkpoint is PyTorch's zip archive whose comment holds the SHA-256 of everything before it, so that the checksum
goes wherever the file goes, and any program that reads PyTorch's files reads it.
"""

import hashlib
import io
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from emolight.errors import EmolightError, refusals
from emolight.files import atomic_write

BEST = "A run keeps its own in RUN/checkpoints/best.ckpt."
ANOTHER = "Take another checkpoint of the run."
MARK = b"emolight sha256 "
END_OF_ARCHIVE = b"PK\x05\x06"
"""How the last record of a zip archive begins; the length of the comment is its last two bytes of 22."""
WEIGHTS = (
    "epoch",
    "global_step",
    "pytorch-lightning_version",
    "state_dict",
    "hparams_name",
    "hyper_parameters",
    "training",
)
"""What :func:`weights_only_state` keeps."""


def save_checkpoint(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Write a checkpoint atomically, with its checksum.

    Raises:
        OSError: it cannot be written; a file that stood there is intact.
    """
    stream = io.BytesIO()
    torch.save(checkpoint, stream)
    content = stream.getbuffer()
    assert content[-22:-18] == END_OF_ARCHIVE, "PyTorch's archives have no comment"
    content[-2:] = (len(MARK) + 64).to_bytes(2, "little")
    with atomic_write(path) as part, part.open("wb") as file:
        file.write(content)
        file.write(MARK + hashlib.sha256(content).hexdigest().encode())


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint of this project, on the CPU, with ``weights_only=True``.

    A checkpoint that another program wrote, such as a plain Lightning Trainer, has no checksum: a warning says so.

    Raises:
        EmolightError: the file is missing, cut off or damaged, or is not a checkpoint of this project.
    """
    check_is_file(path)
    path = Path(path)
    with refusals(f"{path} cannot be read", ANOTHER):
        content = path.read_bytes()
    _check_sum(path, content)
    try:
        checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises half a dozen kinds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if "weights_only" in reason:  # PyTorch's advice is to execute what stands in the file
            reason = "it is no checkpoint of plain values, and nothing in it was executed."
        raise EmolightError(f"{path} cannot be loaded: {reason}", ANOTHER) from None
    if not isinstance(checkpoint, dict) or not {"hyper_parameters", "state_dict"} <= checkpoint.keys():
        raise EmolightError(f"{path} is not a Lightning checkpoint.", BEST)
    made_of = checkpoint["hyper_parameters"]
    ours = isinstance(made_of, dict) and {"classes", "features", "network"} <= made_of.keys()
    if not ours or "training" not in checkpoint:
        raise EmolightError(f"{path} is not a checkpoint of emolight.", BEST)
    return checkpoint


def check_is_file(path: str | Path) -> None:
    """Raise :class:`EmolightError` unless ``path`` is a file; an address is never fetched."""
    path = str(path)
    if re.match(r"\w\w+:/", path):
        raise EmolightError(f"'{path}' is an address; checkpoints are read from files.", "Fetch it yourself first.")
    if Path(path).is_dir():
        raise EmolightError(f"'{path}' is a folder, no checkpoint.", BEST)
    if not Path(path).is_file():
        raise EmolightError(f"There is no checkpoint {path}.", BEST)


def weights_only_state(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint without the state of its training: what ``test`` and every user of the model need."""
    return {name: checkpoint[name] for name in WEIGHTS if name in checkpoint}


def _check_sum(path: Path, content: bytes) -> None:
    if not content:
        raise EmolightError(f"{path} is empty.", ANOTHER)
    if not content.startswith(b"PK"):
        raise EmolightError(f"{path} is no checkpoint: it begins with {content[:16]!r}.", ANOTHER)
    end = content.rfind(END_OF_ARCHIVE)
    comment = content[end + 22 :]
    if end < 0 or len(comment) != int.from_bytes(content[end + 20 : end + 22], "little"):
        raise EmolightError(f"{path} is cut off: its end is missing.", ANOTHER)
    if not comment.startswith(MARK):
        warnings.warn(f"{path} has no checksum: damage in it would not be noticed.", stacklevel=3)
    elif comment[len(MARK) :] != hashlib.sha256(memoryview(content)[: end + 22]).hexdigest().encode():
        raise EmolightError(f"{path} is damaged: its content does not fit its SHA-256.", ANOTHER)


class CheckpointFiles(TorchCheckpointIO):
    """Lets Lightning's Trainer write and read checkpoints by this module."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """As :func:`save_checkpoint`."""
        save_checkpoint(checkpoint, path)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """As :func:`read_checkpoint`; strategies move it to their devices."""
        return read_checkpoint(path)
