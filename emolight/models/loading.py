"""Trained models from their checkpoints."""

from pathlib import Path
from typing import Any

from emolight.errors import EmolightError
from emolight.models.checkpoint import read_checkpoint
from emolight.models.classifier import EmotionClassifier


def load_classifier(path: str | Path) -> EmotionClassifier:
    """Load a checkpoint of this project for inference, on the CPU, without executing anything from it.

    Raises:
        EmolightError: the file is missing, damaged, or not a checkpoint of this project.
    """
    return classifier_of(read_checkpoint(path), path)


def classifier_of(checkpoint: dict[str, Any], path: str | Path) -> EmotionClassifier:
    """As :func:`load_classifier`, of a checkpoint that was read from ``path``."""
    try:
        settings = dict(checkpoint["hyper_parameters"])
        arguments = dict(settings["network"]["init_args"])
        if "pretrained" in arguments:  # the weights follow
            settings["network"] = {**settings["network"], "init_args": {**arguments, "pretrained": False}}
        model = EmotionClassifier(**settings)
        model.on_load_checkpoint(checkpoint)
        state = checkpoint["state_dict"].items()  # `torch.compile(network)` puts a word into the names
        model.load_state_dict({name.replace("_orig_mod.", ""): values for name, values in state})
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EmolightError(f"{path} does not fit this version of emolight: {reason}", "Train it again.") from None
    return model.eval()
