"""What a worker needs of its operating system: signals that wait, and an end with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
STOPPED = tuple(128 + number for number in SIGNALS)
"""Exit codes of a process that one of them ended."""
RANKS = ("RANK", "LOCAL_RANK", "GLOBAL_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")
"""By these Lightning takes a process for one of a group that trains together; workers are not."""
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@contextmanager
def signals_wait() -> Iterator[None]:
    """Holds SIGTERM and SIGINT back until the block is left; only the main thread can be interrupted by them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    before = {number: signal.signal(number, lambda which, _: waiting.append(which)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if waiting:
        signal.raise_signal(waiting[0])


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """SIGTERM raises ``SystemExit(143)``, so that what stands in ``finally`` is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_with_parent() -> None:
    """For ``preexec_fn``: a killed parent must not leave a process behind that trains for nobody (Linux only)."""
    if _LIBC is not None:
        _LIBC.prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def stand_alone() -> None:
    """Forget ranks that a launcher such as ``srun`` has set, before Lightning is imported and reads them."""
    for name in RANKS:
        os.environ.pop(name, None)
