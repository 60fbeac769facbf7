"""Fixtures: the synthetic corpus for everything, and the real recordings where they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# Two test processes with PyTorch's threads in each would fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings
from matplotlib.figure import Figure

from emolight.data.corpora.synthetic import make_corpus
from emolight.run.precision import processor

# The same examples each time, so that a commit is green or not; `pytest --hypothesis-profile default` draws others.
settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")

DRAW = Figure.draw
PACKED = Path(__file__).resolve().parents[2] / "shared" / "ravdess"


def pytest_report_header() -> str:
    """Which CPU a log is from: arithmetic in bfloat16 differs between them."""
    return f"cpu: {processor()}, torch {torch.__version__}"


@pytest.fixture(scope="session")
def ravdess_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real recordings: from EMOLIGHT_RAVDESS, or unpacked once for the session."""
    if given := os.environ.get("EMOLIGHT_RAVDESS"):
        return Path(given)
    if not (PACKED / "unpack.py").exists():
        pytest.skip("the RAVDESS recordings are not here: set EMOLIGHT_RAVDESS to their folder")
    root = tmp_path_factory.mktemp("ravdess")
    subprocess.run([sys.executable, str(PACKED / "unpack.py"), str(root)], check=True)
    return root


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic corpus of 24 actors and 480 short clips; tests read it and never write into it."""
    root = tmp_path_factory.mktemp("synthetic") / "corpus"
    make_corpus(root, repetitions=1, duration=0.6)
    return root


@pytest.fixture(scope="module", autouse=True)
def undrawn() -> Iterator[None]:
    """Figures are made and not painted, which takes a third of a small fit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "draw", lambda *_: None)
        yield


@pytest.fixture(autouse=True)
def drawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are painted in tests and modules that are marked so."""
    if request.node.get_closest_marker("drawn"):
        monkeypatch.setattr(Figure, "draw", DRAW)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
