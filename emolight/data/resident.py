"""Clips that stay on a GPU: a batch is cut there, and nothing travels while a network trains."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from emolight.data.cache import WaveformCache
from emolight.data.clips import ClipDataset

SHARE = 0.25
"""The part of a device's free memory that waveforms may take."""


class ResidentClips:
    """The waveforms of clips, end to end in the memory of a device."""

    def __init__(self, cache: WaveformCache, clip_ids: Sequence[str], device: torch.device) -> None:
        self.sizes = sizes_of(cache, clip_ids)
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.device, self.samples = device, torch.empty(int(self.sizes.sum()), device=device)
        for clip_id, start, size in zip(clip_ids, self.starts, self.sizes, strict=True):
            self.samples[start : start + size] = torch.tensor(cache.waveform(clip_id))


class ResidentLoader:
    """What a ``DataLoader`` over a :class:`~emolight.data.clips.ClipDataset` gives, to the bit, on the device.

    ``clips`` are all of the dataset; ``order`` are numbers within it, batch after batch.
    """

    def __init__(
        self, clips: ResidentClips, dataset: ClipDataset, order: Sequence[int], batch_size: int, drop_last: bool
    ) -> None:
        self.clips, self.dataset, self.order = clips, dataset, np.asarray(order, dtype=np.int64)
        self.batch_size = batch_size
        self.batches = len(order) // batch_size if drop_last else -(-len(order) // batch_size)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        clips, length, rows = self.clips, self.dataset.length, self.dataset.rows[self.order]
        begin, sizes = clips.starts[rows], clips.sizes[rows]
        crops = [self.dataset.start(row, size) for row, size in zip(rows.tolist(), sizes.tolist(), strict=True)]
        values = (begin + np.array(crops, dtype=np.int64), begin + sizes, rows, self.dataset.labels[rows])
        starts, ends, index, label = (torch.from_numpy(one).to(clips.device) for one in values)
        within = torch.arange(length, device=clips.device)
        for batch in range(self.batches):
            some = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
            place = starts[some, None] + within
            sound = clips.samples[place.clamp(max=len(clips.samples) - 1)]
            waveform = torch.where(place < ends[some, None], sound, 0.0)
            yield {"waveform": waveform, "label": label[some], "index": index[some]}


def sizes_of(cache: WaveformCache, clip_ids: Sequence[str]) -> np.ndarray:
    """Samples of each clip."""
    return np.array([round(cache.durations[clip_id] * cache.sample_rate) for clip_id in clip_ids], dtype=np.int64)


def fits(cache: WaveformCache, clip_ids: Sequence[str], device: torch.device) -> bool:
    """Whether the clips take no more than :data:`SHARE` of the memory that is free on a GPU; elsewhere never."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return bool(4 * sizes_of(cache, clip_ids).sum() <= SHARE * free)
