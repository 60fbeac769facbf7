"""An exported model as a function from waveforms to calibrated probabilities; needs onnxruntime and no torch."""

import hashlib
import json
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from emolight.data.audio import Waveform
from emolight.errors import EmolightError, needing, refusals
from emolight.inference.network import Array, Network, Probabilities, Speakers
from emolight.inference.prediction import Contract

AGAIN = "Give a model.onnx of python -m emolight export; where it was one, copy it again or export it again."
FIELDS = ("classes", "sample_rate", "duration", "trim_db", "training", "title")
"""What a :class:`Contract` is made of; each is a property of the ONNX file, as JSON."""
SCORE = "ood_score"
"""The output with the out-of-distribution scores ``[B]`` of a model that has them."""
SPEAKERS = "speaker_norm"
"""The property with the :class:`Speakers` of a model that can be adapted."""
MARK = b"\x72\x4a\x0a\x06sha256\x12\x40"
"""How the last 76 bytes begin: field 14 of a ModelProto, a property ``sha256`` of 64 hexadecimal digits."""
SEAL = len(MARK) + 64


def seal(content: bytes) -> bytes:
    """What belongs behind the bytes of an ONNX file: the property ``sha256``, of everything before it.

    Fields of a protocol buffer may be appended; every program that reads ONNX reads the file with its seal.
    """
    return MARK + hashlib.sha256(content).hexdigest().encode()


def load_onnx(path: Path, threads: int = 0) -> tuple[Contract, Network]:
    """Load an exported model, whose SHA-256 stands at its end; see :func:`emolight.inference.recognizer.load`.

    ``threads`` of one operation; 0 leaves the number to ONNX Runtime. Returns what the model expects, and the network:
    float32 ``[B, T]`` to probabilities ``[B, C]``.
    """
    with needing("export", "Predicting with an ONNX file needs onnxruntime."):
        import onnxruntime
    with refusals(f"{path} cannot be read", AGAIN):
        content = path.read_bytes()
    if not content[-SEAL:].startswith(MARK):
        problem = "has no checksum at its end: it is damaged or cut off, or is not an export of emolight"
        raise EmolightError(f"{path} {problem if content else 'is empty'}.", AGAIN)
    if seal(content[:-SEAL]) != content[-SEAL:]:
        raise EmolightError(f"{path} is damaged: its content does not fit its SHA-256.", AGAIN)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # nothing: its errors are raised anyway
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        meta = session.get_modelmeta().custom_metadata_map
        contract = Contract(**{name: json.loads(meta[name]) for name in FIELDS})
        packed = meta.get(SPEAKERS)
    except Exception as error:  # onnxruntime's errors have no common class of their own
        missing = "it is not a model of emolight, and lacks the property " if isinstance(error, KeyError) else ""
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise EmolightError(f"{path} cannot be loaded: {missing}{reason}", AGAIN) from None
    return contract, OnnxNetwork(session, Speakers.unpacked(json.loads(packed)) if packed else None)


class OnnxNetwork(Network):
    """A session of ONNX Runtime."""

    def __init__(self, session: Any, speakers: Speakers | None) -> None:
        self.session, self.speakers = session, speakers
        self.answers = [one.name for one in session.get_outputs() if one.name in ("probabilities", SCORE)]

    def __call__(self, waveforms: Waveform, offset: Any = None) -> tuple[Probabilities, Array]:
        """As :meth:`Network.__call__`."""
        probabilities, *scores = self._run(self.answers, waveforms, offset)
        return probabilities, scores[0] if scores else np.full(len(waveforms), np.nan, np.float32)

    def statistics(self, waveforms: Waveform) -> Array:
        """As :meth:`Network.statistics`."""
        return self._run(["statistic"], waveforms)[0]

    def _run(self, names: list[str], waveforms: Waveform, offset: Any = None) -> list[Array]:
        inputs = {"waveform": waveforms}
        if self.speakers is not None:
            inputs["offset"] = np.zeros_like(self.speakers.centre) if offset is None else offset
        try:
            found: list[Array] = self.session.run(names, inputs)
        except Exception as error:  # see above; of Whisper above 30 s
            reason = shorten(str(error), 100)
            problem = f"The exported model cannot take clips of {waveforms.shape[1]} samples: {reason}"
            raise EmolightError(problem, "Take shorter windows.") from None
        return found
