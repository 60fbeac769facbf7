"""A model as a function of waveforms, and how a few recordings of a speaker shift it; needs numpy alone."""

import base64
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from emolight.data.audio import Waveform
from emolight.errors import EmolightError

Array: TypeAlias = NDArray[np.float32]
Probabilities: TypeAlias = Array
BATCH = 32  # windows of the trained length in one pass of the network


@dataclass(frozen=True)
class Speakers:
    """What a model knows of its training speakers: see :class:`emolight.models.speakers.SpeakerNorm`."""

    centre: Array
    ordinary: Array
    strength: float

    def offset(self, statistics: Array, ordinary: bool) -> Array:
        """As :meth:`emolight.models.speakers.SpeakerNorm.offset`, of one clip or more."""
        if ordinary and np.isnan(self.ordinary).any():
            raise EmolightError(
                "The model was trained without clips labelled neutral or calm: it knows no ordinary voice.",
                "Enrol clips of all labels, as mixed.",
            )
        shift, count = self.centre + (self.ordinary if ordinary else 0.0), len(statistics)
        return np.asarray((statistics.mean(0) - shift) * (count / (count + self.strength)), dtype=np.float32)

    def packed(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = np.concatenate([self.centre.ravel(), self.ordinary.ravel(), [self.strength]]).astype("<f4")
        return {"shape": list(self.centre.shape), "values": base64.b64encode(values.tobytes()).decode()}

    @classmethod
    def unpacked(cls, packed: dict[str, Any]) -> Self:
        """Of what :meth:`packed` gave."""
        *values, strength = np.frombuffer(base64.b64decode(packed["values"]), "<f4").astype(np.float32)
        centre, ordinary = np.reshape(np.array(values, np.float32), (2, *packed["shape"]))
        return cls(centre, ordinary, float(strength))


class Network:
    """Waveforms ``[B, T]`` to calibrated probabilities ``[B, C]`` and out-of-distribution scores ``[B]``.

    Attributes:
        speakers: None where the model cannot be adapted to a speaker.
        about: what to say of every prediction; empty for one model.
    """

    speakers: Speakers | None = None
    about: str = ""

    def __call__(self, waveforms: Waveform, offset: Any = None) -> tuple[Probabilities, Array]:
        """``offset`` is what :meth:`enrol` gave; None: the speaker is not enrolled. NaN where a model has no score."""
        raise NotImplementedError

    def statistics(self, waveforms: Waveform) -> Array:
        """What :class:`Speakers` compares, ``[B, ...]``."""
        raise NotImplementedError

    def enrol(self, waveforms: Waveform, ordinary: bool) -> Any:
        """A speaker's offset from some of their clips ``[k, T]``, all ``ordinary`` or of all emotions."""
        assert self.speakers is not None
        parts = [self.statistics(waveforms[first : first + BATCH]) for first in range(0, len(waveforms), BATCH)]
        return self.speakers.offset(np.concatenate(parts), ordinary)
