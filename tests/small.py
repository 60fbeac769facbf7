"""Shipped configurations made small enough for a test."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

ACCELERATOR = os.environ.get("EMOLIGHT_ACCELERATOR", "cpu")
"""Of the small trainings; two processes are always on the CPU."""
CPU = {"trainer.accelerator": "cpu"}
CONFIGS = Path(__file__).resolve().parents[1] / "configs"

LIGHT = {"model.network": "MobileNetV3"}
"""An eighth of the weights, in each checkpoint of a fit. After few steps it predicts the same of every clip, so this is
for tests that look neither at predictions nor at which epoch is the best."""


def options(corpus: Path, **changed: Any) -> list[str]:
    """What makes a shipped configuration small enough for a test."""
    small = {
        "data.corpus": "Synthetic",
        "data.root": corpus,
        "data.cache_dir": corpus.parent / "cache",
        "data.splits_dir": "splits",
        "data.task": "article",
        "data.duration": 0.6,
        "data.batch_size": 16,
        "trainer.max_epochs": 1,
        "trainer.limit_train_batches": 2,
        "trainer.accelerator": ACCELERATOR,
        **changed,
    }
    return [f"--{name}={value}" for name, value in small.items()]
