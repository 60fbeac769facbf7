"""A small sweep."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.small import CONFIGS, options

YAML = f"""
config: {CONFIGS / "mfcc.yaml"}
space:
  model.features.mode:
    choices: [mel, mfcc]
    with: {{mel: {{model.mixup: 0}}}}
  model.learning_rate: {{low: 3.0e-4, high: 5.0e-3, log: true}}
trials: 2
epochs: 1
pruner: none
"""


@pytest.fixture
def words(corpus: Path, here: Path) -> list[str]:
    """Options of a sweep that is small enough for a test."""
    (here / "small.yaml").write_text(YAML, encoding="utf-8")
    given = [word for word in options(corpus) if not word.startswith("--trainer.max_epochs")]
    return ["--config", "small.yaml", *given]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of a sweep is the last of these seconds, so that its timeout comes when a test says so."""
    seconds = [0.0]
    monkeypatch.setattr("emolight.sweep.workers.time", SimpleNamespace(monotonic=lambda: seconds[-1]))
    return seconds
