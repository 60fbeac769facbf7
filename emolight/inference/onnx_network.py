"""An exported model as a function from waveforms to calibrated probabilities; needs onnxruntime and no torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from emolight.data.audio import Waveform
from emolight.errors import EmolightError
from emolight.inference.recognizer import Contract, Network, Probabilities

INSTALL = 'Type: pip install "emolight[export]"'
FIELDS = ("classes", "sample_rate", "duration", "trim_db", "training", "title")
"""What a :class:`Contract` is made of; each is a property of the ONNX file, as JSON."""
MARK = b"\x72\x4a\x0a\x06sha256\x12\x40"
"""How the last 76 bytes begin: field 14 of a ModelProto, a property ``sha256`` of 64 hexadecimal digits."""
SEAL = len(MARK) + 64


def load_onnx(path: Path, threads: int = 0) -> tuple[Contract, Network]:
    """Load an exported model; see :func:`emolight.inference.recognizer.load`.

    The file must have the SHA-256 that stands at its end.

    Args:
        path: the ``.onnx`` file.
        threads: threads of one operation; 0 leaves the number to ONNX Runtime.

    Returns:
        What the model expects, and the network: float32 ``[B, T]`` to probabilities ``[B, C]``.

    Raises:
        EmolightError: onnxruntime is not installed; the file is missing, damaged, changed since its export, or
            not a model of this project.
    """
    try:
        import onnxruntime
    except ImportError:
        raise EmolightError("Predicting with an ONNX file needs onnxruntime.", INSTALL) from None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EmolightError(
            f"{path} cannot be read: {error.strerror}.", "Give a model.onnx of python -m emolight export."
        ) from None
    _check_seal(path, content)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # its warnings speak of graph optimisation, which no user can change
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        meta = session.get_modelmeta().custom_metadata_map
    except Exception as error:  # onnxruntime's errors have no common class of their own
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise EmolightError(f"{path} cannot be loaded: {reason}", "Export the checkpoint again.") from None
    contract = _contract(path, meta)

    def network(waveforms: Waveform) -> Probabilities:
        result: Probabilities = session.run(["probabilities"], {"waveform": waveforms})[0]
        return result

    return contract, network


def seal(content: bytes) -> bytes:
    """What belongs behind the bytes of an ONNX file: the property ``sha256``, of everything before it.

    Fields of a protocol buffer may be appended; every program that reads ONNX reads the file with its seal.
    """
    return MARK + hashlib.sha256(content).hexdigest().encode()


def _check_seal(path: Path, content: bytes) -> None:
    again = "Copy it again, or export the checkpoint again."
    if not content:
        raise EmolightError(f"{path} is empty.", again)
    if not content[-SEAL:].startswith(MARK):
        raise EmolightError(
            f"{path} has no checksum at its end: it is damaged or cut off, or is not an export of emolight.", again
        )
    if seal(content[:-SEAL]) != content[-SEAL:]:
        raise EmolightError(f"{path} is damaged: its content does not fit its SHA-256.", again)


def _contract(path: Path, meta: dict[str, str]) -> Contract:
    missing = [name for name in FIELDS if name not in meta]
    if missing:
        raise EmolightError(
            f"{path} is not a model of emolight: it lacks the properties {', '.join(missing)}.",
            "Give a model.onnx of python -m emolight export.",
        )
    try:
        values: dict[str, Any] = {name: json.loads(meta[name]) for name in FIELDS}
    except ValueError:
        raise EmolightError(f"{path} has damaged properties.", "Export the checkpoint again.") from None
    return Contract(**values)
