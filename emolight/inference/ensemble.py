"""The models of a cross-validation or of an ensemble as one, the weighted mean of their calibrated probabilities."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from emolight.data.audio import Waveform, fix_length
from emolight.errors import EmolightError
from emolight.inference.network import Array, Network, Probabilities
from emolight.inference.prediction import Contract
from emolight.inference.torch_network import CROSSVAL, checkpoint_of, load_torch
from emolight.models.classifier import JOINED
from emolight.models.encoder_inputs import shared_encoders

Part: TypeAlias = tuple[Contract, Network]


class Mean(Network):
    """The weighted mean of networks; each gets the clips at the length that it was trained on.

    Args:
        members: with the weight of each, or with a ``gate`` the weights for each of its classes.
        gate: its probabilities say how much the weights for each class count.
    """

    def __init__(self, members: Sequence[tuple[Part, ArrayLike]], gate: Part | None = None) -> None:
        self.parts = [part for part, _ in members]
        self.weights = np.array([weight for _, weight in members], np.float32).reshape(len(members), -1)
        self.gate = gate
        self.speakers = next((network.speakers for _, network in self.parts if network.speakers), None)

    def __call__(self, waveforms: Waveform, offset: Any = None) -> tuple[Probabilities, Array]:
        """As :meth:`Network.__call__`; ``offset`` holds one for each network. All hear all of a longer window."""
        parts = self.parts + ([self.gate] if self.gate else [])
        known = waveforms.shape[1] <= max(contract.length for contract, _ in parts)
        found = [
            network(pieces(waveforms, contract.length) if known else waveforms, own)
            for (contract, network), own in zip(parts, offset or [None] * len(parts), strict=True)
        ]
        said = found.pop()[0] if self.gate else np.ones((len(waveforms), 1), np.float32)
        probabilities, scores = map(np.stack, zip(*found, strict=True))
        weights = self.weights @ said.T  # [networks, B]
        return (weights[..., None] * probabilities).sum(axis=0), (weights * scores).sum(axis=0)

    def enrol(self, waveforms: Waveform, ordinary: bool) -> Any:
        """As :meth:`Network.enrol`; networks that cannot be adapted stay as they are, and so does the gate."""
        return [
            network.enrol(pieces(waveforms, contract.length), ordinary) if network.speakers else None
            for contract, network in self.parts
        ] + [None] * bool(self.gate)


def pieces(waveforms: Waveform, length: int) -> Waveform:
    """The middle of clips ``[B, T]`` that zeros fill, as clips of ``length`` samples; of a shorter T all."""
    if waveforms.shape[1] <= length:
        return waveforms
    ends = ((waveforms != 0) * np.arange(1, waveforms.shape[1] + 1)).max(axis=1)
    return np.stack([fix_length(wave[:end], length) for wave, end in zip(waveforms, ends, strict=True)])


def load_ensemble(folder: Path, device: str = "cpu") -> tuple[Contract, Network]:
    """Load the models of a cross-validation or ensemble; see :func:`emolight.inference.recognizer.load`."""
    with shared_encoders():
        contract, network, count = _loaded(folder, device)
    network.about = f"mean of {count} models of {folder.name}"
    return contract, network


def _loaded(folder: Path, device: str) -> tuple[Contract, Network, int]:
    """What a folder holds as one, and of how many models."""
    if not (folder / CROSSVAL).is_file():
        return *load_torch(checkpoint_of(folder), device), 1
    try:
        about = json.loads((folder / CROSSVAL).read_text(encoding="utf-8"))
        runs, members, gate = about["runs"], about.get("members", []), about.get("gate")
        weights: list[Any] = [1 / len(runs) for _ in runs]
        weights += [list(one.get("by", {}).values()) or one["weight"] for one in members]
        places = [folder / one["folder"] for one in [*runs, *members, *([gate] if gate else [])]]
        labels = list(members[0]["by"]) if gate else []
        whole = bool(weights) and np.allclose(sum(map(np.array, weights)), 1)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise EmolightError(f"{folder / CROSSVAL} is damaged: {error}.", "Make it again.") from None
    if not whole:
        problem = f"'{folder}' holds results without their models, as of enrolled speakers."
        raise EmolightError(problem, "Give the run or cross-validation that they were made of.")
    found = [_loaded(place, device) for place in places]
    judges = found[: len(weights)]
    first = max((contract for contract, *_ in judges), key=lambda one: one.length)
    for place, (other, *_) in enumerate(found):
        known = first if place < len(judges) else replace(first, classes=labels)
        for key in ("sample_rate", "trim_db", "classes"):
            if getattr(other, key) != (value := getattr(known, key)):
                problem = f"The members have different {key}: {getattr(other, key)} and {value}."
                raise EmolightError(problem, "Predict with each of them.")
    joined = {key: sorted({value for one, *_ in judges for value in one.training.get(key, ())}) for key in JOINED}
    parts = [(contract, network) for contract, network, _ in found]
    mean = Mean(list(zip(parts, weights, strict=False)), parts[-1] if gate else None)
    longest = max(contract.duration for contract, _ in parts)  # a gate may hear more than the others
    whole_of = replace(first, duration=longest, training={**first.training, **joined})
    return whole_of, mean, sum(count for *_, count in judges)
