"""A checkpoint as a function from waveforms to calibrated probabilities."""

from __future__ import annotations

from pathlib import Path

import torch

from emolight.data.audio import Waveform
from emolight.errors import EmolightError
from emolight.inference.recognizer import Contract, Network, Probabilities
from emolight.models.classifier import EmotionClassifier
from emolight.models.loading import load_classifier


def contract_of(model: EmotionClassifier) -> Contract:
    """What a loaded checkpoint expects."""
    own = {name: model.hparams[name] for name in ("classes", "sample_rate", "duration", "trim_db")}
    return Contract(**own, training=model.training_facts, title=model.front_end.title)


def checkpoint_of(path: Path) -> Path:
    """The checkpoint that is meant: a folder is a run, whose best one counts; errors as :meth:`Run.open`."""
    path = path.expanduser()
    if not path.is_dir():
        return path
    from emolight.run.folder import Run  # here, because a checkpoint alone loads without what a run needs

    return Run.open(path).best


def load_torch(path: Path, device: str = "cpu") -> tuple[Contract, Network]:
    """Load a checkpoint; see :func:`emolight.inference.recognizer.load`."""
    try:
        model = load_classifier(checkpoint_of(path)).to(device)
    except (RuntimeError, AssertionError) as error:
        raise EmolightError(f"'{device}' cannot be used: {str(error).splitlines()[0]}", "Try cpu.") from None

    @torch.inference_mode()
    def network(waveforms: Waveform) -> Probabilities:
        logits = model(torch.from_numpy(waveforms).to(device)) / model.temperature
        result: Probabilities = logits.float().softmax(dim=1).cpu().numpy()
        return result

    return contract_of(model), network
