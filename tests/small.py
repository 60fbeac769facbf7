"""Shipped configurations made small enough for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).resolve().parents[1] / "configs"

LIGHT = {"model.network": "MobileNetV3"}
"""For tests that do not look at predictions: an eighth of the weights, in each of the checkpoints of a fit."""


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
        "trainer.accelerator": "cpu",
        **changed,
    }
    return [f"--{name}={value}" for name, value in small.items()]
