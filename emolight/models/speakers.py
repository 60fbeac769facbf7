"""Adaptation to a speaker: what all of their clips have in common is taken off, and a few unlabelled clips tell it."""

import torch
from torch import Tensor

from emolight.errors import EmolightError
from emolight.models.parts import Float32

ORDINARY = ("neutral", "calm")
"""Classes of somebody's ordinary voice."""
KINDS = {
    "mixed": "of all emotions",
    "ordinary": "neutral or calm",
    "one emotion": "of one emotion, taken for all: what a wrong draw costs",
}
"""What clips that enrol a speaker are."""


class SpeakerNorm(Float32):
    """How a speaker's mean differs from that of the training speakers, estimated from a few clips.

    A clip's *statistic* is its embedding, or the mean over time of its feature rows. In training each speaker's
    clips are shifted so that their mean is the training speakers' mean; another speaker's offset is estimated from
    clips of theirs, shrunk towards zero, so that a few clips do no harm.

    Args:
        shape: of a statistic.

    Attributes:
        centre: mean of the training speakers' means.
        ordinary: mean difference of their neutral and calm clips from all of their clips; NaN where there are none.
        strength: how many clips of a speaker weigh as much as the training speakers do.

    Source:
        James and Stein, *Estimation with Quadratic Loss*, 1961, in the form of empirical Bayes: the strength is the
        variance of clips within a speaker over the variance of the speakers' means.
    """

    centre: Tensor
    ordinary: Tensor
    strength: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(shape))
        self.register_buffer("ordinary", torch.full(shape, torch.nan))
        self.register_buffer("strength", torch.tensor(torch.inf))

    @torch.no_grad()
    def fit(self, statistics: Tensor, speakers: Tensor, ordinary: Tensor) -> Tensor:
        """Learn from training clips; returns the offset of each speaker ``[S, ...]``.

        Args:
            statistics: ``[N, ...]``.
            speakers: number from 0 of each clip's speaker, ``[N]``.
            ordinary: which clips are of an ordinary voice, ``[N]``.
        """
        groups = [speakers == number for number in range(int(speakers.max()) + 1)]
        means = torch.stack([statistics[group].mean(0) for group in groups])
        self.centre.copy_(means.mean(0))
        if shifts := [
            statistics[group & ordinary].mean(0) - mean
            for group, mean in zip(groups, means, strict=True)
            if (group & ordinary).any()
        ]:
            self.ordinary.copy_(torch.stack(shifts).mean(0))
        within = torch.stack([statistics[group].var(0, correction=0) for group in groups]).mean(0)
        between = (means - self.centre).square().mean(0) - within * len(groups) / len(statistics)
        scale = statistics.var(0).clamp(min=1e-12)
        self.strength.copy_((within / scale).sum() / (between / scale).sum().clamp(min=1e-6))
        return means - self.centre

    @torch.no_grad()
    def offset(self, statistics: Tensor, ordinary: bool) -> Tensor:
        """A speaker's offset from the statistics of some of their clips ``[k, ...]``; k may be 0.

        The clips are all of the speaker's ``ordinary`` voice, or hold all emotions. EmolightError for the former where
        no training clip was neutral or calm.
        """
        if not len(statistics):
            return torch.zeros_like(self.centre)
        if ordinary and self.ordinary.isnan().any():
            raise EmolightError(
                "The model was trained without clips labelled neutral or calm: it knows no ordinary voice.",
                "Enrol clips of all labels, as mixed.",
            )
        shift = self.centre + (self.ordinary if ordinary else 0.0)
        return (statistics.mean(0) - shift) * len(statistics) / (len(statistics) + self.strength)
