from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
import torch

from emolight.evaluation.metrics import classification_metrics

CLASSES = ["calm", "happy", "sad"]


def test_metrics_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    label, guess = rng.integers(0, 3, 60), rng.integers(0, 3, 60)
    metrics = classification_metrics(CLASSES, "val/")
    for part in (slice(0, 25), slice(25, 60)):
        metrics.update(torch.from_numpy(guess[part]), torch.from_numpy(label[part]))
    values = {name: float(value) for name, value in metrics.compute().items()}
    recalls = sklearn.metrics.recall_score(label, guess, average=None)
    assert values == pytest.approx(
        {
            "val/uar": sklearn.metrics.balanced_accuracy_score(label, guess),
            "val/accuracy": sklearn.metrics.accuracy_score(label, guess),
            "val/f1": sklearn.metrics.f1_score(label, guess, average="macro"),
            **{f"val/recall_{name}": recall for name, recall in zip(CLASSES, recalls, strict=True)},
        }
    )


def test_uar_leaves_out_a_class_that_does_not_occur() -> None:
    metrics = classification_metrics(CLASSES, "val/")
    metrics.update(torch.tensor([0, 1, 2]), torch.tensor([0, 0, 2]))
    assert float(metrics.compute()["val/uar"]) == pytest.approx(0.75)
