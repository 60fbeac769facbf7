"""The models of a cross-validation or of an ensemble as one, the weighted mean of their calibrated probabilities."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from emolight.data.audio import Waveform, fix_length
from emolight.errors import EmolightError
from emolight.inference.network import Array, Network, Probabilities
from emolight.inference.prediction import Contract
from emolight.inference.torch_network import CROSSVAL, checkpoint_of, load_torch
from emolight.models.classifier import JOINED
from emolight.models.encoder_inputs import shared_encoders


def members_of(folder: Path, weight: float = 1.0) -> Iterator[tuple[Path, float]]:
    """The best checkpoints of a run, cross-validation or ensemble, and their weights, which sum to ``weight``."""
    if not (folder / CROSSVAL).is_file():
        yield checkpoint_of(folder), weight
        return
    about = json.loads((folder / CROSSVAL).read_text(encoding="utf-8"))
    for run in about["runs"]:
        yield checkpoint_of(folder / run["folder"]), weight / len(about["runs"])
    for member in about.get("members", ()):
        yield from members_of(folder / member["folder"], weight * member["weight"])


class Mean(Network):
    """The weighted mean of networks; each gets the clips at the length that it was trained on."""

    def __init__(self, members: Sequence[tuple[Contract, Network, float]], about: str) -> None:
        self.members, self.about = members, about
        self.speakers = next((network.speakers for _, network, _ in members if network.speakers), None)

    def __call__(self, waveforms: Waveform, offset: Any = None) -> tuple[Probabilities, Array]:
        """As :meth:`Network.__call__`; ``offset`` holds one for each network. All hear all of a longer window."""
        known = waveforms.shape[1] <= max(contract.length for contract, _, _ in self.members)
        found = [
            [weight * values for values in network(pieces(waveforms, contract.length) if known else waveforms, own)]
            for (contract, network, weight), own in zip(self.members, offset or [None] * len(self.members), strict=True)
        ]
        probabilities, scores = (np.array(parts, np.float32).sum(axis=0) for parts in zip(*found, strict=True))
        return probabilities, scores

    def enrol(self, waveforms: Waveform, ordinary: bool) -> Any:
        """As :meth:`Network.enrol`; networks that cannot be adapted stay as they are."""
        return [
            network.enrol(pieces(waveforms, contract.length), ordinary) if network.speakers else None
            for contract, network, _ in self.members
        ]


def pieces(waveforms: Waveform, length: int) -> Waveform:
    """The middle of clips ``[B, T]`` that zeros fill, as clips of ``length`` samples; of a shorter T all."""
    if waveforms.shape[1] <= length:
        return waveforms
    ends = ((waveforms != 0) * np.arange(1, waveforms.shape[1] + 1)).max(axis=1)
    return np.stack([fix_length(wave[:end], length) for wave, end in zip(waveforms, ends, strict=True)])


def load_ensemble(folder: Path, device: str = "cpu") -> tuple[Contract, Network]:
    """Load the models of a cross-validation or ensemble; see :func:`emolight.inference.recognizer.load`."""
    try:
        found = list(members_of(folder))
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise EmolightError(f"{folder / CROSSVAL} is damaged: {error}.", "Make it again.") from None
    if not found or not np.isclose(sum(weight for _, weight in found), 1):
        problem = f"'{folder}' holds results without their models, as of enrolled speakers."
        raise EmolightError(problem, "Give the run or cross-validation that they were made of.")
    with shared_encoders():
        members = [(*load_torch(path, device), weight) for path, weight in found]
    contracts = [contract for contract, _, _ in members]
    first = max(contracts, key=lambda one: one.length)
    for other in contracts:
        for key in ("classes", "sample_rate", "trim_db"):
            if getattr(other, key) != (value := getattr(first, key)):
                problem = f"The members have different {key}: {getattr(other, key)} and {value}."
                raise EmolightError(problem, "Predict with each of them.")
    joined = {key: sorted({value for one in contracts for value in one.training.get(key, ())}) for key in JOINED}
    about = f"mean of {len(members)} models of {folder.name}"
    return replace(first, training={**first.training, **joined}), Mean(members, about)
