"""Clips as batches: fixed-length waveforms, and each process' share of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from emolight.data.audio import fix_length
from emolight.data.cache import WaveformCache


@dataclass(eq=False)
class ClipDataset(Dataset[dict[str, Tensor]]):
    """Clips as fixed-length waveforms, a batch at a time: longer ones are cropped, shorter ones get zeros behind.

    ``clip_ids`` and ``labels`` (class numbers) are of all clips, ``rows`` those of the subset, ``length`` the samples
    of a waveform. Random crops follow from seed, epoch and clip alone; without a seed all are of the middle.
    """

    cache: WaveformCache
    clip_ids: Sequence[str]
    labels: np.ndarray
    rows: np.ndarray
    length: int
    seed: int | None = None
    epoch: int = 0
    embeddings: np.ndarray | None = None

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


def share(size: int, rank: int, processes: int, seed: int | None = None, epoch: int = 0) -> list[int]:
    """A process's share of so many clips, never padded: no clip is counted twice in a metric.

    Training shuffles by (seed, epoch) and gives every process the same number of clips; evaluation, without a seed,
    keeps the order and gives every clip to one process.
    """
    order = np.arange(size)
    if seed is not None:
        order = np.random.default_rng((seed, epoch)).permutation(size)[: size - size % processes]
    some: list[int] = order[rank::processes].tolist()
    return some
