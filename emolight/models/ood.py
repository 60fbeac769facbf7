"""How unlike the training clips a clip is: an out-of-distribution score of what the network's last layer sees."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from emolight.models.parts import Float32

if TYPE_CHECKING:
    from emolight.models.classifier import EmotionClassifier

RANK = 32
"""So many directions have a variance of their own, at most; the others share one."""
MOST = 256
"""Clips at most of each subset that it is fitted to, drawn by chance: every second one may be half of the speakers."""
SHARE = 0.95
"""Of the validation clips that have a score of at most 1."""
BATCH = 32


class OutOfDistribution(Float32):
    """Embeddings ``[B, E]`` to scores ``[B]``: the Mahalanobis distance over that of 95 % of the validation clips.

    The covariance is that of probabilistic PCA, which a few hundred clips are enough for.

    Args:
        mean: ``[E]``, of the training clips.
        axes: ``[E, R]``, directions of the largest variance, orthonormal.
        variances: ``[R]``, along these.
        noise: variance along every other direction.

    Source:
        Lee et al., *A Simple Unified Framework for Detecting Out-of-Distribution Samples*, 2018; Tipping and Bishop,
        *Probabilistic Principal Component Analysis*, 1999.
    """

    mean: Tensor
    axes: Tensor
    variances: Tensor
    noise: Tensor

    def __init__(self, mean: Tensor, axes: Tensor, variances: Tensor, noise: Tensor) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("axes", axes), ("variances", variances), ("noise", noise)):
            self.register_buffer(name, values.float())

    def forward(self, embeddings: Tensor) -> Tensor:
        """Scores ``[B]``, float32."""
        apart = embeddings.float() - self.mean
        along = (apart @ self.axes).square()
        beside = (apart.square().sum(1) - along.sum(1)).clamp(min=0)
        return ((along / self.variances).sum(1) + beside / self.noise).sqrt()


def fit_ood(
    model: EmotionClassifier, data: Any, cast: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> OutOfDistribution:
    """Fit the score to the training clips and the validation clips of a data module that is set up.

    Args:
        model: in evaluation mode; clips are shifted as its ``enrol`` says.
        data: an :class:`~emolight.data.datamodule.EmotionDataModule`.
        cast: the context that the network computes in, such as a training's autocast.
    """
    from sklearn.decomposition import PCA

    train = _embeddings(model, data, "train", cast)
    found = PCA(min(RANK, train.shape[1] - 1, len(train) - 1), random_state=0).fit(train.double().numpy())
    least = 1e-6 * max(found.explained_variance_[0], 1e-6)
    spread = np.append(found.explained_variance_, found.noise_variance_).clip(min=least)
    parts = (found.mean_, found.components_.T, spread[:-1], spread[-1])
    score = OutOfDistribution(*(torch.tensor(values) for values in parts))
    limit = score(_embeddings(model, data, "val", cast)).quantile(SHARE).clamp(min=1e-6).square()
    return OutOfDistribution(score.mean, score.axes, score.variances * limit, score.noise * limit)


def _embeddings(model: EmotionClassifier, data: Any, subset: str, cast: Callable[[], Any]) -> Tensor:
    """Of a subset's clips, ``[N, E]``, on the CPU."""
    rows = data.subset(subset)
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:MOST])
    dataset = data.dataset(rows)
    dataset.embeddings = data.embedded
    parts = []
    for first in range(0, len(rows), BATCH):
        batch = dataset.__getitems__(range(first, min(first + BATCH, len(rows))))
        with cast():
            parts.append(model.embed({name: values.to(model.device) for name, values in batch.items()}).cpu())
    return torch.cat(parts)
