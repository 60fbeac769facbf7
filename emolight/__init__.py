"""Speech emotion recognition experiments that can be trusted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emolight.inference.recognizer import Prediction, Recognizer, load

__version__ = "0.1.0"
__all__ = ["Prediction", "Recognizer", "__version__", "load"]

# ONNX Runtime 1.32 reports to its maker as soon as it is imported, and Lightning imports it where it is installed.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> object:
    """Import the Python interface when it is first asked for: ``import emolight`` stays free of its cost."""
    if name not in ("Prediction", "Recognizer", "load"):
        raise AttributeError(f"module 'emolight' has no attribute '{name}'")
    from emolight.inference import recognizer

    return getattr(recognizer, name)
