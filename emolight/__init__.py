"""Speech emotion recognition experiments that can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emolight.inference.recognizer import Prediction, Recognizer, load

__version__ = "0.1.0"
__all__ = ["Prediction", "Recognizer", "__version__", "load"]


def __getattr__(name: str) -> object:
    """Import the Python interface when it is first asked for: ``import emolight`` stays free of its cost."""
    if name not in ("Prediction", "Recognizer", "load"):
        raise AttributeError(f"module 'emolight' has no attribute '{name}'")
    from emolight.inference import recognizer

    return getattr(recognizer, name)
