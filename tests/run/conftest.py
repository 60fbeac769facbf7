"""One finished run for the tests that only read it, or work on a copy."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from emolight.__main__ import run
from tests.small import CONFIGS, options


@pytest.fixture(scope="session")
def fitted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs."""
    folder = tmp_path_factory.mktemp("fitted")
    with contextlib.chdir(folder):
        run(["fit", "--config", str(CONFIGS / "mfcc.yaml"), *options(corpus, **{"trainer.max_epochs": 2})])
    return folder / "lightning_logs" / "mfcc" / "version_0"
