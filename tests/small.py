"""Shipped configurations made small enough for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def options(corpus: Path, **changed: Any) -> list[str]:
    """What makes a shipped configuration small enough for a test."""
    small = {
        "data.root": corpus,
        "data.cache_dir": corpus.parent / "cache",
        "data.synthetic": "false",
        "data.splits_dir": "splits",
        "data.channels": "[speech]",
        "data.emotions": "[calm, happy, sad, angry, fearful]",
        # Below 17 frames the last stage sees one column, where oneDNN's bfloat16 gradients are at times NaN on CPUs
        # without bfloat16 instructions.
        "data.duration": 0.6,
        "data.batch_size": 16,
        "trainer.max_epochs": 1,
        "trainer.limit_train_batches": 2,
        "trainer.accelerator": "cpu",
        **changed,
    }
    return [f"--{name}={value}" for name, value in small.items()]
