"""What a classifier fits to its training clips in one step, before the batches: speakers, normalisation, head."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.nn import functional as F

from emolight.errors import EmolightError
from emolight.evaluation.calibration import fit_temperature
from emolight.models.networks import Embedder
from emolight.models.scores import Batch
from emolight.models.speakers import ORDINARY, SpeakerNorm

if TYPE_CHECKING:
    from emolight.models.classifier import EmotionClassifier


@torch.no_grad()
def fit_speakers(model: EmotionClassifier, speakers: SpeakerNorm, data: Any) -> None:
    """Learn what the training speakers' clips have in common, and shift them; clips of others stay.

    EmolightError where nobody knows the speakers.
    """
    if data.choice.speakers == "unknown":
        raise EmolightError("model.speaker_norm needs to know the speakers.", "Give the column speaker.")
    batches = [move_data_to_device(batch, model.device) for batch in data.statistics_dataloader()]
    rows = torch.cat([batch["index"] for batch in batches]).cpu()
    clips = data.clips.iloc[rows.numpy() % len(data.clips)]
    codes, names = clips["speaker"].factorize()
    # A speaker's clips at another speed are another speaker's.
    codes = torch.from_numpy(codes.astype(np.int64)) + len(names) * (rows // len(data.clips))
    ordinary = torch.tensor(clips["emotion"].isin(ORDINARY).to_numpy())  # pandas gives an array that is not writable
    statistics = torch.cat([model.statistics(batch).cpu() for batch in batches])
    offsets = speakers.cpu().fit(statistics, codes, ordinary)
    speakers.to(model.device)
    numbers = torch.full((max(len(data.clips), 1 + int(rows.max())),), len(offsets))
    numbers[rows] = codes
    model.enrol(torch.cat([offsets, torch.zeros_like(offsets[:1])]), numbers)


@torch.no_grad()
def fit_inputs(model: EmotionClassifier, batches: Iterable[Batch]) -> None:
    """Fit the normalisation of features, or what a network of embeddings fits, and the class weights."""
    labels: list[Tensor] = []

    def seen() -> Iterator[Tensor]:
        for batch in batches:
            batch = move_data_to_device(batch, model.device)
            labels.append(batch["label"])
            if isinstance(model.network, Embedder):
                yield model.statistics(batch) - model.offset(batch)
            else:
                yield model.front_end(batch["waveform"]) - model.offset(batch)[..., None]

    if isinstance(model.network, Embedder):
        embeddings = torch.cat(list(seen()))
        model.network.fit(embeddings, torch.cat(labels))
        model.normalise.fitted.fill_(True)
        learns = any(weights.requires_grad for weights in model.parameters())
        if len(model.augment) and not learns:
            rank_zero_only(print)("note:   model.augment is not used: the head is fitted to the clips as they are")
    else:
        model.normalise.fit(seen())
    if model.hparams["class_weights"]:
        counts = F.one_hot(torch.cat(labels), len(model.classes)).sum(dim=0).float()
        model.class_weight.copy_(counts.sum() / (len(counts) * counts.clamp(min=1)))


def average_again(model: EmotionClassifier, stage: str) -> None:
    """Let Lightning's callbacks copy a model that had no layers when they copied it: they would average nothing."""
    for one in model.trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(one, StochasticWeightAveraging | WeightAveraging):
            one.setup(model.trainer, model, stage)


def fit_temperatures(model: EmotionClassifier) -> None:
    """Fit the temperature to a validation, also that of averaged weights, which are swapped back by then."""
    fitted = fit_temperature(model.predictions["probabilities"], model.predictions["label"])
    model.temperature.fill_(fitted)
    trainer: Any = model.trainer
    averages: list[Any] = [one for one in trainer.callbacks if isinstance(one, WeightAveraging)]
    for one in averages:
        one._average_model.module.temperature.fill_(fitted)


@torch.no_grad()
def fit_scale(embeddings: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Set ``mean`` and ``std`` ``[...]`` to those of embeddings ``[N, ...]``; returns them standardised, ``[N, E]``."""
    values = embeddings.double()
    mean.copy_(values.mean(0))
    deviation = values.std(0, correction=0)
    std.copy_(torch.where(deviation > 1e-6 * values.abs().amax(0), deviation, 1.0))  # else it is rounding
    return ((embeddings - mean) / std).flatten(1)


@torch.no_grad()
def fit_linear(
    layer: Any, values: Tensor, labels: Tensor, kind: Literal["logistic", "svm"], inverse_penalty: float
) -> None:
    """Fit scikit-learn's classifier to ``values`` ``[N, E]`` and labels ``[N]``, and write it into a linear layer.

    EmolightError where all clips are of one class.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    if (labels == labels[0]).all():
        raise EmolightError("The training clips are all of one emotion.", "Change data.emotions, or the split.")
    inputs, basis = values.cpu().numpy(), None
    if kind == "logistic":
        # To the end and in float64: else rounding of another CPU moves a probability by 0.005, and figures with it.
        model, inputs = LogisticRegression(C=inverse_penalty, max_iter=10000, tol=1e-6), inputs.astype(np.float64)
        if len(inputs) < inputs.shape[1]:  # the weights are sums of clips: there are no more directions
            basis = np.linalg.qr(inputs.T)[0]
            inputs = inputs @ basis
    else:
        model = LinearSVC(C=inverse_penalty, dual="auto", max_iter=10000, random_state=0)
    model.fit(inputs, labels.cpu().numpy())
    weight = torch.from_numpy(model.coef_ if basis is None else model.coef_ @ basis.T)
    bias = torch.from_numpy(model.intercept_)
    if len(model.classes_) == 2:
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    layer.weight.zero_()
    layer.bias.fill_(-30.0)  # of a class without training clips
    layer.weight[model.classes_] = weight.to(layer.weight)
    layer.bias[model.classes_] = bias.to(layer.bias)
