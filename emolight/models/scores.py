"""What one evaluation found: loss, metrics, and the probabilities of every clip, over all processes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from emolight.evaluation.metrics import classification_metrics

Batch = dict[str, Tensor]
"""``waveform`` [B, T] float32, ``label`` [B] and ``index`` [B] int64: the clip's row in the clip table."""


class Scores(nn.Module):
    """Collects an evaluation of ``subset``, the first word of the metrics' names, batch by batch."""

    def __init__(self, classes: Sequence[str], subset: str) -> None:
        super().__init__()
        self.loss_name = f"{subset}/loss"
        self.metrics, self.mean_loss = classification_metrics(classes, f"{subset}/"), MeanMetric()
        self.parts: list[Batch] = []

    def add(self, batch: Batch, logits: Tensor) -> Batch:
        """Add a batch with its ``logits`` [B, C]; returns ``index``, ``label`` and ``probabilities``."""
        logits = logits.float()
        self.mean_loss.update(F.cross_entropy(logits, batch["label"], reduction="none"))
        part = {"index": batch["index"], "label": batch["label"], "probabilities": logits.softmax(dim=1)}
        self.metrics.update(part["probabilities"], batch["label"])  # logits can differ where these are equal
        self.parts.append(part)
        return part

    def compute(self) -> dict[str, Tensor]:
        """Loss and metrics of all processes' clips, by name."""
        return {self.loss_name: self.mean_loss.compute(), **self.metrics.compute()}

    def predictions(self, processes: int) -> dict[str, np.ndarray]:
        """What :meth:`add` returned in all processes, each clip once, by index."""
        parts = [{name: values.cpu().numpy() for name, values in part.items()} for part in self.parts]
        if processes > 1:
            everyone: list[Any] = [None] * processes
            torch.distributed.all_gather_object(everyone, parts)
            parts = [part for share in everyone for part in share]
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        _, first = np.unique(whole["index"], return_index=True)
        return {name: values[first] for name, values in whole.items()}

    def reset(self) -> None:
        """Begin anew."""
        self.metrics.reset()
        self.mean_loss.reset()
        self.parts.clear()
