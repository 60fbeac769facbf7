"""Speech emotion recognition experiments that can be trusted.

Everything below is imported when it is first asked for: ``import emolight`` stays free of its cost.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emolight.api import fit
    from emolight.data.corpora import CREMAD, EMODB, NEMO, RAVDESS, SAVEE, TESS, Synthetic, Table
    from emolight.data.corpus import Corpus
    from emolight.data.datamodule import EmotionDataModule
    from emolight.errors import EmolightError
    from emolight.inference.recognizer import Prediction, Recognizer, load
    from emolight.models.classifier import EmotionClassifier
    from emolight.run.folder import Run

__version__ = "0.1.0"
__all__ = ["CREMAD", "EMODB", "NEMO", "RAVDESS", "SAVEE", "TESS", "Corpus", "EmolightError", "EmotionClassifier"]
__all__ += ["EmotionDataModule", "Prediction", "Recognizer", "Run", "Synthetic", "Table", "__version__", "fit", "load"]

_PLACES = {
    "api": ("fit",),
    "data.corpora": ("CREMAD", "EMODB", "NEMO", "RAVDESS", "SAVEE", "TESS", "Synthetic", "Table"),
    "data.corpus": ("Corpus",),
    "data.datamodule": ("EmotionDataModule",),
    "errors": ("EmolightError",),
    "inference.recognizer": ("Prediction", "Recognizer", "load"),
    "models.classifier": ("EmotionClassifier",),
    "run.folder": ("Run",),
}

# ONNX Runtime 1.32 reports to its maker as soon as it is imported, and Lightning imports it where it is installed.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    place = next((module for module, names in _PLACES.items() if name in names), None)
    if place is None:
        raise AttributeError(f"module 'emolight' has no attribute '{name}'")
    return getattr(import_module(f"emolight.{place}"), name)
