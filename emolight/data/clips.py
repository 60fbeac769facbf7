"""Clips as batches: fixed-length waveforms, and each process' share of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from emolight.data.audio import fix_length
from emolight.data.cache import WaveformCache


class ClipDataset(Dataset[dict[str, Tensor]]):
    """Clips as fixed-length waveforms, a batch at a time.

    A longer clip is cropped, at random in training and in the middle otherwise; a shorter one gets zeros behind.

    Args:
        cache: the decoded waveforms.
        clip_ids: ids of all clips of the task.
        labels: class number of each.
        rows: which of them belong to the subset.
        length: samples of a waveform.
        seed: base of the random crops; None crops in the middle. A crop follows from seed, epoch and clip alone.
    """

    def __init__(
        self,
        cache: WaveformCache,
        clip_ids: Sequence[str],
        labels: np.ndarray,
        rows: np.ndarray,
        length: int,
        seed: int | None = None,
    ) -> None:
        self.cache, self.clip_ids, self.labels, self.rows = cache, clip_ids, labels, rows
        self.length, self.seed = length, seed
        self.epoch = 0
        self.embeddings: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def start(self, row: int, samples: int) -> int:
        """The first sample that is taken of a clip with so many."""
        spare = max(0, samples - self.length)
        if self.seed is None or not spare:
            return spare // 2
        return int(np.random.default_rng((self.seed, self.epoch, row)).integers(spare + 1))

    def __getitems__(self, items: Sequence[int]) -> dict[str, Tensor]:
        """A batch: ``waveform`` [B, T] (or ``embedding`` [B, ...]) float32, ``label`` and ``index`` [B] int64."""
        rows = self.rows[items]
        known = {"label": torch.from_numpy(self.labels[rows]), "index": torch.from_numpy(rows)}
        if self.embeddings is not None:
            return {"embedding": torch.from_numpy(self.embeddings[rows]), **known}
        waveforms = np.empty((len(rows), self.length), dtype=np.float32)
        for waveform, row in zip(waveforms, rows, strict=True):
            clip = self.cache.waveform(self.clip_ids[row])
            waveform[:] = fix_length(clip, self.length, self.start(int(row), len(clip)))
        return {"waveform": torch.from_numpy(waveforms), **known}


class ShardSampler(Sampler[int]):
    """This process's share of a subset, never padded: no clip is counted twice in a metric.

    Training shuffles by (seed, epoch) and gives every process the same number of clips; evaluation keeps the
    order and gives every clip to one process.
    """

    def __init__(self, size: int, rank: int, world_size: int, seed: int | None = None, epoch: int = 0) -> None:
        self.size, self.rank, self.world_size, self.seed, self.epoch = size, rank, world_size, seed, epoch

    def __iter__(self) -> Iterator[int]:
        order = np.arange(self.size)
        if self.seed is not None:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.size)
            order = order[: self.size - self.size % self.world_size]
        return iter(order[self.rank :: self.world_size].tolist())

    def __len__(self) -> int:
        if self.seed is not None:
            return self.size // self.world_size
        return len(range(self.rank, self.size, self.world_size))


def as_it_is(batch: Any) -> Any:
    """The dataset makes whole batches: nothing is left to collate."""
    return batch
