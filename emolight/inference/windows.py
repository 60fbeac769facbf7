"""Windows of a long recording: where they lie, and which of them hold no sound."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emolight.data.audio import Waveform
from emolight.errors import EmolightError

SILENT_DB = 60.0
"""A window this far below the loudest one is silent: 16 bits of quiet room noise beside a voice."""
MIN_WINDOW, MAX_WINDOW = 0.05, 60.0


def check_windows(window: float, hop: float) -> None:
    """Raise :class:`EmolightError` unless windows of ``window`` s can follow each other every ``hop`` s."""
    if not MIN_WINDOW <= window <= MAX_WINDOW or not 0 < hop <= window:
        raise EmolightError(
            f"Windows of {window:g} s every {hop:g} s cannot be made.",
            f"Take a window from {MIN_WINDOW:g} to {MAX_WINDOW:g} s, and a hop above 0 and at most the window.",
        )


def window_starts(samples: int, length: int, step: int) -> list[int]:
    """First samples of the windows that cover a recording; the last one ends where the recording ends.

    Args:
        samples: of the recording; a shorter one than a window has one window.
        length: samples of a window.
        step: samples from one window to the next.

    Example:
        >>> window_starts(11, 4, 3)
        [0, 3, 6, 7]
    """
    starts = list(range(0, max(1, samples - length + 1), step))
    if starts[-1] + length < samples:
        starts.append(samples - length)
    return starts


def silent_windows(wave: Waveform, starts: list[int], length: int) -> NDArray[np.bool_]:
    """Which windows hold no sound: :data:`SILENT_DB` below the loudest one, a constant offset aside."""
    levels = np.array([float(np.std(wave[start : start + length])) for start in starts])
    silent: NDArray[np.bool_] = levels <= levels.max() * 10 ** (-SILENT_DB / 20)
    return silent
