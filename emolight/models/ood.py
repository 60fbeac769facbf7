"""How unlike the training clips a clip is: an out-of-distribution score of what the network's last layer sees."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
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
Cast: TypeAlias = Callable[[], AbstractContextManager[Any]]
"""Makes the context that a network computes in, such as a training's autocast."""


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


def fit_ood(model: EmotionClassifier, data: Any, cast: Cast = nullcontext) -> OutOfDistribution:
    """Fit the score to the training clips and the validation clips of an EmotionDataModule that is set up.

    The model is in evaluation mode, and shifts clips as its ``enrol`` says.
    """
    from sklearn.decomposition import PCA

    def seen(subset: str) -> Tensor:
        rows = np.random.default_rng(0).permutation(data.subset(subset))[:MOST]
        return embeddings_of(model, data, np.sort(rows), cast)

    train = seen("train")
    found = PCA(min(RANK, train.shape[1] - 1, len(train) - 1), random_state=0).fit(train.double().numpy())
    least = 1e-6 * max(found.explained_variance_[0], 1e-6)
    spread = np.append(found.explained_variance_, found.noise_variance_).clip(min=least)
    parts = (found.mean_, found.components_.T, spread[:-1], spread[-1])
    score = OutOfDistribution(*(torch.tensor(values) for values in parts))
    limit = score(seen("val")).quantile(SHARE).clamp(min=1e-6).square()
    return OutOfDistribution(score.mean, score.axes, score.variances * limit, score.noise * limit)


def embeddings_of(model: EmotionClassifier, data: Any, rows: np.ndarray, cast: Cast = nullcontext) -> Tensor:
    """What a model in evaluation mode embeds of some rows of a data module's clip table, ``[N, E]``, on the CPU."""
    dataset = data.dataset(rows)
    dataset.embeddings = data.embedded
    parts = []
    for first in range(0, len(rows), BATCH):
        batch = dataset.__getitems__(range(first, min(first + BATCH, len(rows))))
        with cast():
            parts.append(model.embed(move_data_to_device(batch, model.device)).cpu())
    return torch.cat(parts)
