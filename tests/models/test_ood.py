"""The out-of-distribution score: its formula, its threshold, and the checkpoints that have it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import emolight
from emolight.__main__ import run
from emolight.data.corpora import Synthetic
from emolight.models import ood
from emolight.models.checkpoint import read_checkpoint
from emolight.models.ood import OutOfDistribution, fit_ood
from emolight.run.folder import Run
from tests.small import CONFIGS, options


class Clips:
    """Embeddings of twelve numbers, as a data module and its model."""

    embedded, device = None, torch.device("cpu")

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.values = random.standard_normal((1000, 12)) * np.linspace(0.1, 3, 12) + 8

    def subset(self, name: str) -> np.ndarray:
        return np.arange(500) if name == "train" else np.arange(500, 1000)

    def dataset(self, rows: np.ndarray) -> Any:
        def batch(items: range) -> dict[str, torch.Tensor]:
            return {"index": torch.from_numpy(rows[items])}

        return SimpleNamespace(embeddings=None, __getitems__=batch)

    def embed(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.from_numpy(self.values[batch["index"].numpy()]).float()


@pytest.mark.parametrize("rank", [32, 4])
def test_it_is_mahalanobis_distance_over_that_of_95_percent_of_the_validation_clips(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ood, "RANK", rank)
    monkeypatch.setattr(ood, "MOST", 800)
    clips: Any = Clips()
    score = fit_ood(clips, clips)
    found = score(torch.from_numpy(clips.values)).numpy()
    variances, axes = np.linalg.eigh(np.cov(clips.values[:500], rowvar=False))
    variances[:-rank] = variances[:-rank].mean() if rank < 12 else 1.0
    apart = (clips.values - clips.values[:500].mean(0)) @ axes
    distances = np.sqrt((apart**2 / variances).sum(1))
    np.testing.assert_allclose(found, distances / np.quantile(distances[500:], 0.95), rtol=1e-3)
    assert (found[500:] > 1).mean() == 0.05
    assert score(torch.full((1, 12), 40.0)).item() > 1
    assert score.bfloat16().axes.dtype == torch.float32


def test_a_large_subset_is_drawn_without_a_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorted by name, every second clip of a corpus may be of the same few speakers."""
    monkeypatch.setattr(ood, "MOST", 400)
    clips: Any = Clips()
    clips.values[::2] += 10
    score = fit_ood(clips, clips)
    np.testing.assert_allclose(score.mean.numpy(), clips.values[:800].mean(0), atol=1.5)
    assert torch.equal(score.mean, fit_ood(clips, clips).mean)


def test_the_best_checkpoint_has_it_and_the_last_has_none(corpus: Path, here: Path) -> None:
    """Also of a classical network whose clips are shifted by their speaker's mean."""
    config = ["--config", str(CONFIGS / "classical.yaml"), "--model.speaker_norm", "true"]
    run(["fit", *config, *options(corpus)])
    made = Run.open("lightning_logs/classical/version_0")
    assert "ood.axes" not in read_checkpoint(made.last)["state_dict"]
    model = emolight.load(made.folder)
    assert isinstance(model.network.model.ood, OutOfDistribution)  # type: ignore[attr-defined]
    clips = Synthetic().table(corpus).set_index("clip_id")
    of_val = [corpus / clips.loc[name, "path"] for name in made.split.clips("val")]
    scores = [model.predict_file(path).ood_score for path in of_val]
    assert np.mean(np.array(scores, float) > 1) == pytest.approx(0.05, abs=1.1 / len(scores))
    time = np.arange(5000) / 16000
    for strange in (np.random.default_rng(0).standard_normal(5000) / 10, np.sin(2000 * np.pi * time) / 2):
        said = model.predict(strange, 16000)
        assert said.ood_score is not None
        assert said.ood_score > 1
        assert any("out-of-distribution score" in text for text in said.warnings)
    assert emolight.load(made.last).predict_file(of_val[0]).ood_score is None
    run(["predict", str(made.last), str(of_val[0]), "--output", "none.csv"])
    assert pd.read_csv("none.csv")["ood_score"].isna().all()
