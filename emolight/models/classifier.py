"""The LightningModule: front-end, normalisation, augmentation, network, loss, metrics, optimiser."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, MetricCollection

from emolight.errors import EmolightError
from emolight.evaluation.metrics import classification_metrics
from emolight.models.augment import Augment, SpecAugment, WaveformAugment, mixup
from emolight.models.averaging import MovingAverage
from emolight.models.checkpoint import read_checkpoint
from emolight.models.frontend import Features, FrontEnd
from emolight.models.resnet import resnet18
from emolight.models.wave_cnn import WaveCNN

Batch = dict[str, Tensor]
"""``waveform`` [B, T] float32, ``label`` [B] and ``index`` [B] int64: the clip's row in the clip table."""


class Normalise(nn.Module):
    """Zero mean and unit deviation of every feature row, by statistics of the training clips.

    The statistics are buffers, so a checkpoint carries them.
    """

    mean: Tensor
    std: Tensor
    fitted: Tensor

    def __init__(self, n_rows: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_rows, 1))
        self.register_buffer("std", torch.ones(n_rows, 1))
        self.register_buffer("fitted", torch.tensor(False))

    def forward(self, image: Tensor) -> Tensor:
        """Normalise ``[..., n_rows, N]``."""
        return (image - self.mean) / self.std

    @torch.no_grad()
    def fit(self, images: Iterable[Tensor]) -> None:
        """Set mean and standard deviation from batches ``[B, 1, n_rows, N]`` or ``[B, 1, N]``."""
        total = square = torch.zeros_like(self.mean, dtype=torch.float64).squeeze(1)
        count = 0
        for image in images:
            rows = image.double().reshape(-1, len(self.mean), image.shape[-1])
            total = total + rows.sum(dim=(0, 2))
            square = square + rows.square().sum(dim=(0, 2))
            count += rows.shape[0] * rows.shape[2]
        mean = total / count
        std = (square / count - mean.square()).clamp(min=0).sqrt()
        self.mean.copy_(mean[:, None])
        # A row that never changes carries nothing: leave it at zero instead of dividing by nothing.
        self.std.copy_(torch.where(std > 1e-5, std, 1.0)[:, None])
        self.fitted.fill_(True)


class EmotionClassifier(pl.LightningModule):
    """Emotion of a clip from its waveform.

    Args:
        features: what the network sees; mode ``waveform`` takes the 1-D network, every other mode the ResNet18.
        augment: changes of the training clips.
        pretrained: start the ResNet18 from ImageNet weights.
        label_smoothing: share of the target spread over all classes.
        class_weights: weigh the loss by inverse class frequency of the training clips.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: AdamW's decay.
        warmup: share of the steps in which the learning rate rises.
        average: decay of the moving average of the weights, which is validated and saved; 0 takes the last weights.
        channels_last: memory layout of the ResNet18.
        classes: class names in order; the command line links them from the data.
        sample_rate: Hz of the waveforms; linked from the data.
        duration: seconds of a training clip; linked from the data.
        trim_db: the trimming rule of the training clips; linked from the data.
        seed: base of the augmentation's random numbers; linked from ``seed_everything``.

    Shape:
        waveforms ``[B, T]`` float32 to logits ``[B, C]``.

    Raises:
        EmolightError: a value out of range; see :class:`~emolight.models.frontend.FrontEnd`.
    """

    class_weight: Tensor
    temperature: Tensor
    training_facts: dict[str, Any]
    augment_image: nn.Module

    def __init__(
        self,
        features: Features = Features(),  # noqa: B008 - frozen
        augment: Augment = Augment(),  # noqa: B008 - frozen
        pretrained: bool = False,
        label_smoothing: float = 0.1,
        class_weights: bool = False,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.2,
        average: float = 0.0,
        channels_last: bool = True,
        classes: Sequence[str] = (),
        sample_rate: int = 16000,
        duration: float = 2.25,
        trim_db: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        features = Features(**features) if isinstance(features, dict) else features
        augment = Augment(**augment) if isinstance(augment, dict) else augment
        if len(classes) < 2:
            raise EmolightError(
                f"The classes are [{', '.join(classes)}]; a classifier needs at least two.", "Change data.emotions."
            )
        if sample_rate < 1000:
            raise EmolightError(f"data.sample_rate is {sample_rate}; it must be at least 1000.", "16000 is usual.")
        if not 0 <= label_smoothing < 1:
            raise EmolightError(
                f"model.label_smoothing is {label_smoothing:g}; it must be from 0 to below 1.",
                "0.1 is usual.",
            )
        if learning_rate <= 0:
            raise EmolightError(f"model.learning_rate is {learning_rate:g}; it must be above 0.", "0.001 is usual.")
        if not 0 < warmup < 1:
            raise EmolightError(f"model.warmup is {warmup:g}; it must be between 0 and 1.", "0.2 is usual.")
        if not 0 <= average < 1:
            raise EmolightError(
                f"model.average is {average:g}; it must be from 0 to below 1.", "0.99 is usual; 0 turns it off."
            )
        augment.check()
        # Plain values only, so that the checkpoint loads with weights_only=True.
        self.save_hyperparameters(
            {
                "features": asdict(features),
                "augment": asdict(augment),
                "pretrained": pretrained,
                "label_smoothing": label_smoothing,
                "class_weights": class_weights,
                "learning_rate": learning_rate,
                "weight_decay": weight_decay,
                "warmup": warmup,
                "average": average,
                "channels_last": channels_last,
                "classes": list(classes),
                "sample_rate": sample_rate,
                "duration": duration,
                "trim_db": trim_db,
                "seed": seed,
            },
            logger=False,
        )
        self.classes = list(classes)
        self.front_end = FrontEnd(features, sample_rate)
        self.normalise = Normalise(self.front_end.n_rows)
        self.augment_waveform = WaveformAugment(augment)
        self.augment_image = nn.Identity() if features.mode == "waveform" else SpecAugment(augment)
        self.network: nn.Module
        if features.mode == "waveform":
            if pretrained:
                raise EmolightError(
                    "model.pretrained is true, but the waveform network has no published weights.",
                    "Set model.pretrained false, or choose another model.features.mode.",
                )
            self.network = WaveCNN(len(self.classes))
        else:
            self.network = resnet18(len(self.classes), pretrained)
            if channels_last:
                self.network.to(memory_format=torch.channels_last)
        self.register_buffer("class_weight", torch.ones(len(self.classes)))
        # Divides the logits of predictions, not of the loss; the recorder fits it to the validation clips.
        self.register_buffer("temperature", torch.tensor(1.0))
        self.training_facts = {}
        self.val_metrics = classification_metrics(self.classes, "val/")
        self.test_metrics = classification_metrics(self.classes, "test/")
        self.val_loss, self.test_loss = MeanMetric(), MeanMetric()

    def configure_callbacks(self) -> list[pl.Callback]:
        """The moving average of the weights in a fit, where it is on."""
        fitting = self.trainer.state.fn == "fit"
        return [MovingAverage(self.hparams["average"])] if self.hparams["average"] and fitting else []

    def features(self, waveform: Tensor) -> Tensor:
        """Normalised features ``[B, 1, F, N]`` (or ``[B, 1, T]``) of waveforms ``[B, T]``."""
        image: Tensor = self.normalise(self.front_end(waveform))
        if self.hparams["channels_last"] and image.dim() == 4:
            image = image.contiguous(memory_format=torch.channels_last)
        return image

    def forward(self, waveform: Tensor) -> Tensor:
        """Logits ``[B, C]`` of waveforms ``[B, T]``."""
        logits: Tensor = self.network(self.features(waveform))
        return logits

    def on_fit_start(self) -> None:
        """Fit normalisation and class weights on the training clips, unless a checkpoint brought them."""
        if self.normalise.fitted:
            return
        self.training_facts = self.trainer.datamodule.training_facts()  # type: ignore[attr-defined]
        batches: Iterable[Batch] = self.trainer.datamodule.statistics_dataloader()  # type: ignore[attr-defined]
        counts = torch.zeros(len(self.classes), device=self.device)

        def images() -> Iterable[Tensor]:
            for batch in batches:
                labels = batch["label"].to(self.device)
                counts.add_(F.one_hot(labels, len(self.classes)).sum(dim=0))
                yield self.front_end(batch["waveform"].to(self.device))

        self.normalise.fit(images())
        if self.hparams["class_weights"]:
            self.class_weight.copy_(counts.sum() / (len(counts) * counts.clamp(min=1)))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the users of the checkpoint must know of its training clips."""
        checkpoint["training"] = self.training_facts

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the same from a checkpoint."""
        self.training_facts = checkpoint["training"]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed the augmentation by epoch, batch and process: a resumed run draws what an uninterrupted one does."""
        words = (self.hparams["seed"], self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one augmented batch."""
        with torch.no_grad():
            image = self.augment_image(self.features(self.augment_waveform(batch["waveform"])))
            targets = F.one_hot(batch["label"], len(self.classes)).to(image.dtype)
            image, targets = mixup(image, targets, self.hparams["augment"]["mixup"])
        logits = self.network(image)
        loss = F.cross_entropy(
            logits, targets, weight=self.class_weight, label_smoothing=self.hparams["label_smoothing"]
        )
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(targets), sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Score one batch; callbacks receive ``index`` [B] and ``probabilities`` [B, C]."""
        return self._evaluate(batch, self.val_metrics, self.val_loss)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """As :meth:`validation_step`, on the test clips."""
        return self._evaluate(batch, self.test_metrics, self.test_loss)

    def _evaluate(self, batch: Batch, metrics: MetricCollection, mean_loss: MeanMetric) -> dict[str, Tensor]:
        logits = self(batch["waveform"]).float()
        mean_loss.update(F.cross_entropy(logits, batch["label"], reduction="none"))
        metrics.update(logits, batch["label"])
        return {"index": batch["index"], "probabilities": logits.softmax(dim=1)}

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics of all processes' clips; EmolightError when the loss is not finite."""
        self._log_metrics("val/loss", self.val_metrics, self.val_loss)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics of all processes' clips."""
        self._log_metrics("test/loss", self.test_metrics, self.test_loss)

    def _log_metrics(self, loss_name: str, metrics: MetricCollection, mean_loss: MeanMetric) -> None:
        values = {loss_name: mean_loss.compute(), **metrics.compute()}
        if not values[loss_name].isfinite():
            raise EmolightError(
                f"{loss_name} is {values[loss_name]:g} after {self.trainer.global_step} steps: training diverged.",
                "Lower model.learning_rate, or train with trainer.precision 32-true.",
            )
        self.log_dict(values, sync_dist=True)
        metrics.reset()
        mean_loss.reset()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW under a one-cycle schedule, stepped by batch."""
        optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=self.hparams["learning_rate"],
            weight_decay=self.hparams["weight_decay"],
            fused=self.device.type == "cpu",  # a fifth of a training step less
        )
        # A fused step can unscale float16 gradients, and Lightning then refuses to clip them; a CPU scales none.
        optimizer._step_supports_amp_scaling = False
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=self.hparams["learning_rate"],
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=self.hparams["warmup"],
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def load_classifier(path: str | Path) -> EmotionClassifier:
    """Load a checkpoint of this project for inference, on the CPU, without executing anything from it.

    Raises:
        EmolightError: the file is missing, damaged, or not a checkpoint of this project.
    """
    checkpoint = read_checkpoint(path)
    try:
        model = EmotionClassifier(**{**checkpoint["hyper_parameters"], "pretrained": False})
        model.on_load_checkpoint(checkpoint)
        model.load_state_dict(checkpoint["state_dict"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EmolightError(f"{path} does not fit this version of emolight: {reason}", "Train it again.") from None
    return model.eval()
