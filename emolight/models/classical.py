"""The classical row: statistics of a clip over time, and a linear classifier fitted in one step."""

import copy
import functools
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import torch
from jsonargparse.typing import PositiveFloat
from torch import Tensor, nn

from emolight.errors import EmolightError, needing
from emolight.models.encoder_inputs import lengths_of
from emolight.models.features import MFCC, slopes
from emolight.models.fitting import fit_linear, fit_scale
from emolight.models.networks import Embedder
from emolight.models.parts import Float32

N_MFCC, HOP = 40, 256
PERCENTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
FUNCTIONALS = 7 + len(PERCENTILES)
SIZES = {"mfcc": FUNCTIONALS * 2 * N_MFCC, "eGeMAPSv02": 88, "ComParE_2016": 6373}
PENALTIES = {
    "mfcc": {"logistic": 0.003, "svm": 0.0001},
    "eGeMAPSv02": {"logistic": 0.1, "svm": 0.03},
    "ComParE_2016": {"logistic": 0.003, "svm": 0.00003},
}
"""scikit-learn's C by statistics and head: the best for the validation speakers of RAVDESS, both tasks, ``emobox6``."""
LIMIT = 10.0
"""Standard deviations: what lies farther from the training clips says no more, and would ruin the calibration."""
SHORTEST = 1600
"""Samples: openSMILE gets zeros behind a shorter clip, of which it gives nothing."""


class Classical(Float32, Embedder):
    """Statistics of a clip and a linear classifier, samples ``[B, 1, T]`` to logits ``[B, num_classes]``.

    The statistics are standardised by the training clips, and cut off at :data:`LIMIT`. Zeros behind a clip are
    padding, and change nothing.
    eGeMAPSv02 (88 statistics) and ComParE_2016 (6373) are computed by audEERING's openSMILE, which is free for research
    and other non-commercial use alone; ``mfcc`` needs nothing.

    Args:
        statistics: mfcc (960: mean, deviation, skewness, kurtosis, trend, minimum, maximum and five percentiles over
            time of 40 MFCC and their slopes), eGeMAPSv02, or ComParE_2016.
        head: logistic regression, or a linear svm, one class against the others; by scikit-learn.
        inverse_penalty: of the head; scikit-learn's C. null is what validation speakers of RAVDESS preferred.

    Raises:
        EmolightError: the package opensmile is not installed.

    Example:
        >>> EmotionClassifier(features=Waveform, network=partial(Classical, statistics="eGeMAPSv02"))

    Source:
        Eyben et al., *The Geneva Minimalistic Acoustic Parameter Set*, 2016; Schuller et al., *The INTERSPEECH 2016
        Computational Paralinguistics Challenge*, 2016.
    """

    sample_rate = 16000
    standard_mean: Tensor
    standard_std: Tensor

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        statistics: Literal["mfcc", "eGeMAPSv02", "ComParE_2016"] = "mfcc",
        head: Literal["logistic", "svm"] = "logistic",
        inverse_penalty: PositiveFloat | None = None,
    ) -> None:
        super().__init__(in_channels, num_classes)
        self.statistics, self.kind = statistics, head
        self.inverse_penalty = inverse_penalty or PENALTIES[statistics][head]
        self.shape = (SIZES[statistics],)
        self.front: nn.Module | None = None
        if statistics == "mfcc":
            self.front = MFCC(self.sample_rate, n_mfcc=N_MFCC, hop_length=HOP)
            self.key = f"classical mfcc {N_MFCC} {FUNCTIONALS} 1"
        else:
            _smile(statistics)
            self.key = f"opensmile {version('opensmile')} {statistics} 1"
        self.register_buffer("standard_mean", torch.zeros(self.shape))
        self.register_buffer("standard_std", torch.ones(self.shape))
        self.last = nn.Linear(*self.shape, num_classes)
        self.requires_grad_(False)

    def embed(self, samples: Tensor) -> Tensor:
        """Statistics ``[B, E]`` float32 of samples ``[B, T]``, with zeros behind each clip."""
        if self.front is not None:
            return masked_statistics(self.front(samples).squeeze(1), 1 + lengths_of(samples) // HOP)
        rows = []
        for wave, length in zip(samples.float().cpu().numpy(), lengths_of(samples).tolist(), strict=True):
            wave = np.pad(wave[:length], (0, max(0, SHORTEST - length))).clip(-1, 32767 / 32768)  # int16 would wrap
            rows.append(np.asarray(_smile(self.statistics)(wave, self.sample_rate)).reshape(self.shape))
        return torch.from_numpy(np.nan_to_num(np.stack(rows), posinf=0.0, neginf=0.0)).to(samples.device)

    def classify(self, embeddings: Tensor) -> Tensor:
        """Logits of what :meth:`embed` gives."""
        with torch.autocast(embeddings.device.type, enabled=False):  # as it was fitted
            standard = (embeddings.float() - self.standard_mean) / self.standard_std
            logits: Tensor = self.last(standard.clamp(-LIMIT, LIMIT))
        return logits

    def fit(self, embeddings: Tensor, labels: Tensor) -> None:
        """Standardise by training embeddings ``[N, E]``, and fit the head to the labels ``[N]``."""
        values = fit_scale(embeddings, self.standard_mean, self.standard_std)
        fit_linear(self.last, values.clamp(-LIMIT, LIMIT), labels, self.kind, self.inverse_penalty)

    def exportable(self) -> nn.Module:
        """The same by operators that ONNX knows; EmolightError where the statistics are openSMILE's."""
        if not isinstance(self.front, MFCC):
            problem = f"{self.statistics} is computed by openSMILE, which no ONNX file can hold."
            raise EmolightError(problem, "Predict with the checkpoint, or train with --model.network.statistics mfcc.")
        other = copy.deepcopy(self)
        other.front = self.front.exportable()
        return other


def masked_statistics(image: Tensor, frames: Tensor) -> Tensor:
    """:data:`FUNCTIONALS` over time of ``[B, F, N]`` and its slopes, in each clip's first ``frames`` ``[B]``.

    Returns:
        ``[B, FUNCTIONALS * 2 F]``: a functional at a time, in each the F rows and then their slopes.
    """
    step, count = torch.arange(image.shape[2], device=image.device), frames[:, None, None].to(image.dtype)
    last = torch.minimum(step, frames[:, None] - 1)  # a clip's last frame goes on behind it
    image = torch.gather(image, 2, last[:, None].expand_as(image))
    rows = torch.cat([image, slopes(image)], dim=1)
    mask = (step < frames[:, None])[:, None]
    mean = (rows * mask).sum(2, keepdim=True) / count
    centred = (rows - mean) * mask
    std = (centred.square().sum(2, keepdim=True) / count).sqrt()
    scaled = centred / std.clamp(min=1e-3)
    skewness, kurtosis = (scaled**3).sum(2) / count[..., 0], (scaled**4).sum(2) / count[..., 0]
    time = (2 * step / (count - 1).clamp(min=1) - 1) * mask
    trend = (centred * time).sum(2) / time.square().sum(2)
    ordered = rows.masked_fill(~mask, torch.inf).sort(dim=2).values
    found = [mean[..., 0], std[..., 0], skewness, kurtosis, trend]
    for share in (0.0, 1.0, *PERCENTILES):
        place = share * (count - 1).expand(-1, rows.shape[1], -1)
        below, above = (torch.gather(ordered, 2, at.long()) for at in (place.floor(), place.ceil()))
        found.append((below + (above - below) * place.frac())[..., 0])
    return torch.cat(found, dim=1).float()


@functools.cache
def _smile(statistics: str) -> Callable[[Any, int], Any]:
    with needing("opensmile", f"{statistics} needs the package opensmile."):
        import opensmile
    smile: Callable[[Any, int], Any] = opensmile.Smile(opensmile.FeatureSet[statistics])
    return smile
