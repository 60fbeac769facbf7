"""The LightningDataModule: from a folder of recordings to batches of waveforms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from emolight.data.audio import fix_length, profile
from emolight.data.cache import WaveformCache, open_cache
from emolight.data.ravdess import ARTICLE_EMOTIONS, CHANNELS, discover, select, task_name
from emolight.data.splits import load_or_make_split, protocol_label, read_split
from emolight.data.synthetic import make_corpus
from emolight.errors import EmolightError


class ClipDataset(Dataset[dict[str, Tensor]]):
    """Clips of one subset as fixed-length waveforms, a batch at a time.

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

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, items: Sequence[int]) -> dict[str, Tensor]:
        """A batch: ``waveform`` [B, T] float32, ``label`` [B] and ``index`` [B] int64."""
        rows = self.rows[items]
        waveforms = np.empty((len(rows), self.length), dtype=np.float32)
        for waveform, row in zip(waveforms, rows, strict=True):
            clip = self.cache.waveform(self.clip_ids[row])
            start = None
            if self.seed is not None:
                spare = max(0, len(clip) - self.length)
                start = int(np.random.default_rng((self.seed, self.epoch, int(row))).integers(spare + 1))
            waveform[:] = fix_length(clip, self.length, start)
        return {
            "waveform": torch.from_numpy(waveforms),
            "label": torch.from_numpy(self.labels[rows]),
            "index": torch.from_numpy(rows),
        }


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


class EmotionDataModule(pl.LightningDataModule):
    """RAVDESS recordings, filtered to a task and split by a protocol.

    Args:
        root: folder of the recordings, in any layout.
        emotions: the classes, in the order of the network's outputs.
        channels: ``speech``, ``song`` or both.
        protocol: who is held out: emobox6, luna5, loso (by actor) or random (the article's split).
        fold: fold of an actor protocol; null is its first.
        split_seed: which random split.
        split_csv: a split of your own instead of a protocol's.
        splits_dir: where the protocols' splits are kept as CSV.
        sample_rate: Hz to which recordings are resampled.
        duration: seconds of a clip: longer ones are cropped, shorter ones padded.
        trim_db: silence at both ends, this many dB below the clip's loudest frame, is cut; null keeps it.
        batch_size: clips a batch and process.
        num_workers: loading processes; 0 is fastest here, since the cache is memory-mapped.
        cache_dir: where decoded waveforms are kept; null is the user's cache folder.
        on_bad_clip: ``error`` refuses a corpus with unreadable clips, ``skip`` leaves them out and lists them.
        synthetic: make the synthetic corpus at ``root`` when it is not there.
        seed: base of shuffling and random crops; linked from ``seed_everything``.

    Raises:
        EmolightError: from ``setup``, for a corpus, split or clip that cannot be used.
    """

    def __init__(
        self,
        root: str = "data/ravdess",
        emotions: list[str] = list(ARTICLE_EMOTIONS),  # noqa: B006 - shown as the default by --help
        channels: list[str] = list(CHANNELS),  # noqa: B006
        protocol: Literal["emobox6", "luna5", "loso", "random"] = "emobox6",
        fold: int | None = None,
        split_seed: int = 0,
        split_csv: str | None = None,
        splits_dir: str = "configs/splits",
        sample_rate: int = 16000,
        duration: float = 2.25,
        trim_db: float | None = 30.0,
        batch_size: int = 32,
        num_workers: int = 0,
        cache_dir: str | None = None,
        on_bad_clip: Literal["error", "skip"] = "error",
        synthetic: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("sample_rate", sample_rate, 1000),
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers, 0),
        ):
            if value < least:
                raise EmolightError(f"data.{name} is {value}; it must be at least {least}.", f"Change data.{name}.")
        if not 0.05 <= duration <= 60:
            raise EmolightError(
                f"data.duration is {duration:g} s; it must be from 0.05 to 60.", "Change data.duration."
            )
        self.root, self.emotions, self.channels = Path(root), emotions, channels
        self.protocol, self.fold, self.split_seed = protocol, fold, split_seed
        self.split_csv = Path(split_csv) if split_csv else None
        self.splits_dir = Path(splits_dir)
        self.sample_rate, self.duration, self.trim_db = sample_rate, duration, trim_db
        self.batch_size, self.num_workers = batch_size, num_workers
        self.cache_dir = Path(cache_dir) if cache_dir else None
        self.on_bad_clip, self.synthetic, self.seed = on_bad_clip, synthetic, seed
        self.clips: pd.DataFrame
        self.split: pd.DataFrame
        self.cache: WaveformCache

    @property
    def length(self) -> int:
        """Samples of a waveform in a batch."""
        return round(self.duration * self.sample_rate)

    def prepare_data(self) -> None:
        """Make the synthetic corpus if it was asked for; recordings are never downloaded unasked."""
        if self.synthetic:
            make_corpus(self.root)

    def setup(self, stage: str | None = None) -> None:
        """Find the clips, read or write the split, open the cache."""
        if hasattr(self, "cache"):
            return
        found = discover(self.root).table
        clips = select(found, self.emotions, self.channels)
        self.cache = open_cache(self.root, found, self.cache_dir, self.sample_rate, self.trim_db)
        bad = [clip_id for clip_id in clips["clip_id"] if clip_id in self.cache.problems]
        split = self._load_split(clips)
        if bad:
            self._report_bad(bad)
        usable = split[~split["clip_id"].isin(bad)]
        self.clips = (
            usable[["clip_id", "subset"]].merge(clips, on="clip_id").sort_values("clip_id", ignore_index=True)
        )
        self.split = split

    def _load_split(self, clips: pd.DataFrame) -> pd.DataFrame:
        if self.split_csv is not None:
            return read_split(self.split_csv, clips)
        label = protocol_label(self.protocol, self.fold, self.split_seed)
        path = self.splits_dir / f"{task_name(self.emotions, self.channels)}-{label.replace(' ', '-')}.csv"
        return load_or_make_split(path, clips, self.protocol, self.fold, self.split_seed)

    def _report_bad(self, bad: list[str]) -> None:
        reasons = [self.cache.problems[clip_id] for clip_id in bad]
        if self.on_bad_clip == "error":
            raise EmolightError(
                f"{len(bad)} of the clips cannot be used, the first: {reasons[0]}",
                "Restore them (python -m emolight audit lists all), or pass --data.on_bad_clip skip.",
            )
        for reason in reasons:
            rank_zero_warn(f"left out: {reason}")

    def subset(self, name: str) -> np.ndarray:
        """Rows of ``clips`` in the subset ``train``, ``val`` or ``test``."""
        return np.flatnonzero(self.clips["subset"] == name)

    def dataset(self, rows: np.ndarray, seed: int | None = None) -> ClipDataset:
        """The clips of some rows of ``clips``; see :class:`ClipDataset` for ``seed``."""
        codes = {name: number for number, name in enumerate(self.emotions)}
        labels = self.clips["emotion"].map(codes).to_numpy(dtype=np.int64)
        return ClipDataset(self.cache, self.clips["clip_id"].tolist(), labels, rows, self.length, seed)

    def _dataset(self, subset: str, seed: int | None = None) -> ClipDataset:
        rows = self.subset(subset)
        if not len(rows):
            raise EmolightError(
                f"Split '{self.split['protocol'].iloc[0]}' has no {subset} clips.",
                "Use `validate` for the validation clips, or a protocol that holds actors out.",
            )
        return self.dataset(rows, seed)

    def _loader(self, dataset: ClipDataset, sampler: ShardSampler) -> DataLoader[Any]:
        pin = self.trainer is not None and self.trainer.accelerator.__class__.__name__ == "CUDAAccelerator"
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            # One clip alone has no variance for batch norm: in training the last, short batch goes.
            drop_last=sampler.seed is not None and len(sampler) > self.batch_size,
            num_workers=self.num_workers,
            collate_fn=_as_it_is,
            pin_memory=pin,
        )

    def _shard(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled training batches; called anew each epoch, so that epoch and seed alone fix order and crops."""
        dataset = self._dataset("train", self.seed)
        dataset.epoch = self.trainer.current_epoch if self.trainer else 0
        return self._loader(dataset, ShardSampler(len(dataset), *self._shard(), self.seed, dataset.epoch))

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation batches, every clip once over all processes."""
        dataset = self._dataset("val")
        return self._loader(dataset, ShardSampler(len(dataset), *self._shard()))

    def test_dataloader(self) -> DataLoader[Any]:
        """Test batches, every clip once over all processes."""
        dataset = self._dataset("test")
        return self._loader(dataset, ShardSampler(len(dataset), *self._shard()))

    def statistics_dataloader(self) -> DataLoader[Any]:
        """The training clips in order and not augmented, whole in every process, for the normalisation."""
        dataset = self._dataset("train")
        return self._loader(dataset, ShardSampler(len(dataset), 0, 1))

    def training_facts(self) -> dict[str, Any]:
        """What a checkpoint tells its users of the clips that it was trained on, in plain values.

        Returns:
            ``corpus`` (``RAVDESS`` or ``synthetic``), ``protocol``, ``actors`` (numbers), ``hashes`` (of the files'
            content), and ``ranges``: lowest and highest of each value of :func:`emolight.data.audio.profile`.
        """
        clips = self.clips.iloc[self.subset("train")]
        profiles = [profile(self.cache.waveform(clip_id), self.sample_rate) for clip_id in clips["clip_id"]]
        return {
            "corpus": "synthetic" if self.synthetic else "RAVDESS",
            "protocol": str(self.split["protocol"].iloc[0]),
            "actors": sorted(int(actor) for actor in clips["actor"].unique()),
            "hashes": [self.cache.hashes[clip_id] for clip_id in clips["clip_id"]],
            "ranges": {
                name: [min(one[name] for one in profiles), max(one[name] for one in profiles)]
                for name in profiles[0]
            },
        }


def _as_it_is(batch: Any) -> Any:
    """The dataset makes whole batches: nothing is left to collate."""
    return batch
