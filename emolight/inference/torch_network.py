"""A checkpoint as a function from waveforms to calibrated probabilities."""

import re
from pathlib import Path
from typing import Any

import torch

from emolight.data.audio import Waveform
from emolight.errors import EmolightError
from emolight.inference.network import Array, Network, Probabilities, Speakers
from emolight.inference.prediction import Contract
from emolight.models.classifier import EmotionClassifier
from emolight.models.loading import load_classifier
from emolight.models.networks import head_inputs

CROSSVAL = "crossval.json"
"""Stands in the folder of a cross-validation or an ensemble."""


def contract_of(model: EmotionClassifier) -> Contract:
    """What a loaded checkpoint expects."""
    own = {name: model.hparams[name] for name in ("classes", "sample_rate", "duration", "trim_db")}
    return Contract(**own, training=model.training_facts, title=model.front_end.title)


def checkpoint_of(path: Path) -> Path:
    """The checkpoint that is meant: a folder is a run, whose best one counts; errors as :meth:`Run.open`."""
    path = path.expanduser()
    if not path.is_dir():
        return path
    if (path / CROSSVAL).is_file():
        raise EmolightError(f"'{path}' holds several models; this takes one.", "Give one of its runs.")
    from emolight.run.folder import Run  # here, because a checkpoint alone loads without what a run needs

    return Run.open(path).best


class TorchNetwork(Network):
    """A classifier in evaluation mode, on its device."""

    def __init__(self, model: EmotionClassifier) -> None:
        self.model = model
        if model.speakers is not None:
            centre, ordinary, strength = (values.cpu().numpy() for _, values in model.speakers.named_buffers())
            self.speakers = Speakers(centre, ordinary, float(strength))

    @torch.inference_mode()
    def __call__(self, waveforms: Waveform, offset: Any = None) -> tuple[Probabilities, Array]:
        """As :meth:`Network.__call__`."""
        model, shift = self.model, 0.0 if offset is None else self._tensor(offset)
        with head_inputs(model.network, model.ood is not None) as seen:
            logits = model.logits({"waveform": self._tensor(waveforms)}, shift) / model.temperature
        none = logits.new_full((len(logits),), torch.nan, dtype=torch.float32)
        scores = none if model.ood is None else model.ood(seen[0].flatten(1))
        return logits.float().softmax(dim=1).cpu().numpy(), scores.cpu().numpy()

    @torch.inference_mode()
    def statistics(self, waveforms: Waveform) -> Array:
        """As :meth:`Network.statistics`."""
        result: Array = self.model.statistics({"waveform": self._tensor(waveforms)}).float().cpu().numpy()
        return result

    def _tensor(self, values: Array) -> torch.Tensor:
        return torch.from_numpy(values).to(self.model.device)


def load_torch(path: Path, device: str = "cpu") -> tuple[Contract, Network]:
    """Load a checkpoint; see :func:`emolight.inference.recognizer.load`."""
    try:
        model = load_classifier(checkpoint_of(path)).to(device)
    except (RuntimeError, AssertionError) as error:
        reason = re.split(r" (?:Please|Expected)|^Expected", str(error).splitlines()[0])[0] or "no such device."
        raise EmolightError(f"'{device}' cannot be used: {reason}", "Valid: cpu, cuda, cuda:1, mps.") from None
    return contract_of(model), TorchNetwork(model)
