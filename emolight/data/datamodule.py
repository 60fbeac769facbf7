"""The LightningDataModule: from a corpus to batches of waveforms."""

import hashlib
import re
import shutil
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch.utils.data import DataLoader, default_convert

from emolight.data.audio import Waveform, profile
from emolight.data.cache import WaveformCache, open_cache
from emolight.data.clips import ClipDataset, share
from emolight.data.corpus import UNKNOWN
from emolight.data.embeddings import embeddings
from emolight.data.protocols import check_label, make_split
from emolight.data.resident import ResidentClips, ResidentLoader, fits
from emolight.data.selection import Choice, Selection, corpora_of, select
from emolight.data.splits import ALL_TEST, SUBSETS, Split, load_or_make
from emolight.errors import EmolightError
from emolight.files import expand

SPLITS = Path("configs/splits")
EVERY_CLIP = "test"  # a protocol that only scores: another corpus under a trained model
MOST_WARNINGS, LONGEST_NAME = 20, 200
PROFILED = 1000  # clips, which take 0.7 s
Embed = Callable[[Waveform], NDArray[np.float32]]


class EmotionDataModule(pl.LightningDataModule):
    """Recordings of any corpus, filtered to a task and split by a protocol.

    Args:
        corpus: RAVDESS, EMODB, CREMAD, TESS, SAVEE, NEMO or Synthetic; a CSV of your own; a class; or a list of these.
        root: folder of the recordings, one for each corpus; null: the usual one, a CSV's own folder.
        task: a task of the corpus, such as article or full; null is its usual one.
        label: column that holds the labels, such as sex or channel; null is the emotion.
        emotions: the classes, in the order of the network's outputs; null takes the task's.
        label_map: labels to rename, as {happiness: happy}.
        filter: rows to keep by any column, as {channel: [speech]}.
        speakers: unknown: nobody knows them, and every result is labelled speaker-dependent.
        protocol: who is held out: speakers5, loso, random, subset, or one of the corpus; null: its usual one.
        fold: fold of the protocol; null is its first.
        split_seed: which random split, and which five folds by speaker.
        split_csv: a split of your own instead of a protocol's.
        splits_dir: where splits are kept as CSV; null is configs/splits where there is a folder configs.
        sample_rate: Hz to which recordings are resampled.
        duration: seconds of a clip: longer ones are cropped, shorter ones padded.
        trim_db: cut ends this many dB below the loudest frame, and steady noise; null: nothing.
        batch_size: clips a batch and process.
        num_workers: loading processes; 0 is fastest here: the cache is memory-mapped, or on the GPU if it fits.
        cache_dir: where decoded waveforms are kept; null is the user's cache folder.
        on_bad_clip: error refuses a corpus with unreadable clips, skip leaves them out and lists them.
        seed: base of shuffling and random crops; linked from seed_everything.

    Raises:
        EmolightError: from ``setup``, for a corpus, split or clip that cannot be used.

    Example:
        >>> data = EmotionDataModule("mine.csv", duration=3.0)  # doctest: +SKIP
        >>> data.classes
        ['angry', 'happy', 'sad']
    """

    def __init__(
        self,
        corpus: str | dict[str, Any] | list[str | dict[str, Any]] = "RAVDESS",
        root: str | list[str] | None = None,
        task: str | None = None,
        label: str | None = None,
        emotions: list[str | int | float | bool] | None = None,
        label_map: dict[str, str] | None = None,
        filter: dict[str, list[str | int | float | bool]] | None = None,
        speakers: Literal["known", "unknown"] = "known",
        protocol: str | None = None,
        fold: int | None = None,
        split_seed: NonNegativeInt = 0,
        split_csv: str | None = None,
        splits_dir: str | None = None,
        sample_rate: int = 16000,
        duration: float = 2.25,
        trim_db: float | None = 30.0,
        batch_size: PositiveInt = 32,
        num_workers: NonNegativeInt = 0,
        cache_dir: str | None = None,
        on_bad_clip: Literal["error", "skip"] = "error",
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least, most, usual in (
            ("sample_rate", sample_rate, 1000, 192_000, "16000 Hz is usual."),
            ("duration", duration, 0.05, 60, "2.25 s is usual."),
            ("trim_db", 30 if trim_db is None else trim_db, 1, 1000, "30 dB is usual; null cuts nothing."),
        ):
            if not least <= value <= most:
                raise EmolightError(f"data.{name} is {value:g}; take {least:g} to {most:g}.", usual)
        self.places = corpora_of(corpus, root)
        rows = [("filter", words) for words in (filter or {}).values()]
        for option, words in [("emotions", emotions), ("label_map", label_map), *rows]:
            if isinstance(words, list | dict) and any(isinstance(word, bool) for word in words):
                problem = f"data.{option} has {list(words)}: YAML reads yes, no, on and off as true and false."
                raise EmolightError(problem, 'Quote such words: ["no", "yes"]')
        names = None if emotions is None else [str(name) for name in emotions]  # YAML makes numbers of 0 and 1
        renamed = {str(name): new for name, new in (label_map or {}).items()}
        label = None if label == "emotion" else label
        self.choice = Choice(task, label, names, renamed, filter, speakers, protocol == EVERY_CLIP)
        self.protocol, self.fold, self.split_seed = protocol, fold, split_seed
        self.split_csv = expand(split_csv) if split_csv else None
        self.splits_dir = expand(splits_dir) if splits_dir else None
        self.sample_rate, self.duration, self.trim_db = int(sample_rate), float(duration), trim_db
        self.batch_size, self.num_workers = batch_size, num_workers
        self.cache_dir = expand(cache_dir) if cache_dir else None
        self.on_bad_clip, self.seed = on_bad_clip, seed
        self.clips: pd.DataFrame
        self.split: Split
        self.cache: WaveformCache
        self._resident: ResidentClips | None = None
        self.embedded: NDArray[np.float32] | None = None
        self.copies = 0  # of the clips, which stand behind them in embedded

    @cached_property
    def selection(self) -> Selection:
        """The clips that are meant, whatever their subset."""
        return select(self.places, self.choice)

    @property
    def classes(self) -> list[str]:
        """Emotions in the order of the network's outputs."""
        return self.selection.classes

    @property
    def corpus_name(self) -> str:
        """Names of the corpora, for tables."""
        return self.selection.corpus.name

    @property
    def task_name(self) -> str:
        """Name of the task, for tables and files."""
        return self.selection.task

    @property
    def groups(self) -> tuple[str, ...]:
        """Columns of ``clips`` by which results are tabled."""
        return tuple(name for name in self.selection.corpus.groups if name in self.selection.clips)

    @property
    def length(self) -> int:
        """Samples of a waveform in a batch."""
        return round(self.duration * self.sample_rate)

    @property
    def contract(self) -> dict[str, Any]:
        """What a model must know of the data: ``classes``, ``sample_rate``, ``duration``, ``trim_db``."""
        audio = {"sample_rate": self.sample_rate, "duration": self.duration, "trim_db": self.trim_db}
        return {"classes": list(self.classes), **audio}

    def setup(self, stage: str | None = None) -> None:
        """Find the clips, read or make the split, open the cache."""
        if self.trainer is not None:  # else it would deal the shares out again, and keep the first epoch's order
            self.trainer._accelerator_connector.use_distributed_sampler = False
            setattr(self.trainer, "reload_dataloaders_every_n_epochs", 1)  # noqa: B010
            self.embedded, self.copies = None, 0  # of another model
        if hasattr(self, "cache"):
            return
        # Loading processes hand their batches over in shared memory; where it is small they would wait for ever.
        shared, needed = Path("/dev/shm"), 16 * self.num_workers * self.batch_size * self.length
        if needed and shared.is_dir() and (free := shutil.disk_usage(shared).free) < needed:
            raise EmolightError(
                f"data.num_workers is {self.num_workers}, which needs about {needed / 2**20:.0f} MB in {shared}; "
                f"{free / 2**20:.0f} MB are free.",
                "Set data.num_workers 0, which is fastest here, or enlarge it (docker run --shm-size 1g).",
            )
        clips, split = self.selection.clips, self.make_split()
        used = clips.drop(columns="subset", errors="ignore").merge(split.table[["clip_id", "subset"]], on="clip_id")
        if unused := len(clips) - len(used):
            self.selection.left_out["clips that are not in the split"] = unused
            self.selection.notes.append(f"{unused} clips of the task are not in the split")
        cache = open_cache(used, self.cache_dir, self.sample_rate, self.trim_db)
        bad = [clip_id for clip_id in used["clip_id"] if clip_id in cache.problems]
        if bad and self.on_bad_clip == "error":
            fix = "Restore them (python -m emolight audit lists all), or pass --data.on_bad_clip skip."
            raise EmolightError(f"{len(bad)} of the clips cannot be used, the first: {cache.problems[bad[0]]}", fix)
        if bad:
            self.selection.left_out["clips that cannot be read"] = len(bad)
            self.selection.notes.append(f"{len(bad)} clips cannot be read and are left out (data.on_bad_clip skip)")
            for clip_id in bad[:MOST_WARNINGS]:
                rank_zero_warn(f"left out: {cache.problems[clip_id]}")
            used, split = used[~used["clip_id"].isin(bad)], split.without(bad)
        self.clips = used.sort_values("clip_id", ignore_index=True)
        self.split, self.cache = split, cache
        self.selection.notes += self._oddities()

    def _oddities(self) -> list[str]:
        """What makes figures other than they seem: emotions that a subset lacks, and sound that is there twice."""
        found, ids = [], self.clips["clip_id"]
        for name, word in SUBSETS.items():
            there = set(self.clips.loc[self.clips["subset"] == name, "emotion"])
            if there and not self.choice.scored and (absent := [one for one in self.classes if one not in there]):
                found.append(f"no {word} clip is labelled {', '.join(absent)}")
        sounds = ids.map(self.cache.content)
        if (twice := sounds.duplicated()).any():
            several = (self.clips["subset"].groupby(sounds).nunique() > 1).sum()
            note = f"clips whose sound is there already: {twice.sum()}, the first is {ids[twice].iloc[0]}"
            found.append(f"{note}; in two subsets: {several}, which flatters the figures" if several else note)
        return found

    def make_split(self) -> Split:
        """The split that is asked for; no recording is decoded for it."""
        clips, corpus = self.selection.clips, self.selection.corpus
        if self.split_csv is not None:
            split = Split.read(self.split_csv, clips)
        elif self.protocol == EVERY_CLIP:
            split = Split(clips[["clip_id", "emotion", "speaker"]].assign(subset="test"), ALL_TEST)
        else:
            protocol = self.protocol or corpus.default_protocol
            if self.protocol is None and protocol != "subset" and set(clips["speaker"]) == {UNKNOWN}:
                protocol = "random"
            made = make_split(clips, corpus, protocol, self.fold, self.split_seed)
            voices = "-unknown-speakers" if self.choice.speakers == "unknown" else ""
            name = re.sub(r"[^\w.+-]+", "-", f"{self.corpus_name}-{self.task_name}-{made.label}{voices}")
            if len(name.encode()) > LONGEST_NAME:
                name = f"{name[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
            folder = self.splits_dir or (SPLITS if SPLITS.parent.is_dir() else Path("lightning_logs/splits"))
            split = made if protocol == "subset" else load_or_make(folder / f"{name}.csv", made, clips)
        check_label(split, corpus)
        return split

    def subset(self, name: str) -> np.ndarray:
        """Rows of ``clips`` in the subset ``train``, ``val`` or ``test``."""
        return np.flatnonzero(self.clips["subset"] == name)

    def dataset(self, rows: np.ndarray, seed: int | None = None) -> ClipDataset:
        """The clips of some rows of ``clips``; see :class:`ClipDataset` for ``seed``."""
        codes = {name: number for number, name in enumerate(self.classes)}
        labels = np.tile(self.clips["emotion"].map(codes).to_numpy(dtype=np.int64), 1 + self.copies)
        return ClipDataset(self.cache, self.clips["clip_id"].tolist(), labels, rows, self.length, seed)

    def _loader(
        self, subset: str = "", seed: int | None = None, sharded: bool = True, copies: int = 0
    ) -> DataLoader[Any] | ResidentLoader:
        """Batches of a subset, or of all clips, and of their copies; the share of this process."""
        rows = self.subset(subset) if subset else np.arange(len(self.clips))
        rows = np.concatenate([rows + number * len(self.clips) for number in range(1 + copies)])
        if not len(rows):
            fix = f"Use `{'test' if subset == 'val' else 'validate'}`, or a protocol that has {subset} clips."
            raise EmolightError(f"Split '{self.split.label}' has no {subset} clips.", fix)
        dataset, trainer = self.dataset(rows, seed), self.trainer
        dataset.epoch, dataset.embeddings = trainer.current_epoch if trainer else 0, self.embedded
        rank, processes = (trainer.global_rank, trainer.world_size) if trainer and sharded else (0, 1)
        if len(rows) < processes:
            problem = f"There are {processes} processes, but {len(rows)} {subset or 'scored'} clips."
            raise EmolightError(problem, f"Take at most {len(rows)} processes (trainer.devices).")
        drawn = None if getattr(trainer, "overfit_batches", 0) else seed  # Lightning sees to a DataLoader alone
        order = share(len(dataset), rank, processes, drawn, dataset.epoch)
        # One clip alone has no variance for batch norm: in training the last, short batch goes.
        drop_last = seed is not None and len(order) > self.batch_size
        device = trainer.strategy.root_device if trainer else torch.device("cpu")
        if self.embedded is None and (clips := self._on_device(dataset, device)) is not None:
            return ResidentLoader(clips, dataset, order, self.batch_size, drop_last)
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=order,
            drop_last=drop_last,
            num_workers=self.num_workers,
            collate_fn=default_convert,  # the dataset makes whole batches
            pin_memory=device.type == "cuda",
        )

    def embed(self, network: str, compute: Embed, copies: Mapping[str, Embed] | None = None) -> None:
        """From here on batches hold ``embedding`` instead of ``waveform``; see :mod:`emolight.data.embeddings`.

        The training clips are embedded by each of ``copies``, too. Copy k of clip i has the ``index`` i + k * N.
        """
        parts, train = [embeddings(self.clips, self.cache, self.length, network, compute)], self.subset("train")
        for name, of_copy in (copies or {}).items():
            clips, part = self.clips.iloc[train], np.zeros_like(parts[0])
            part[train] = embeddings(clips, self.cache, self.length, f"{network} {name}", of_copy)
            parts.append(part)
        self.embedded, self.copies = np.concatenate(parts), len(parts) - 1

    def _on_device(self, dataset: ClipDataset, device: torch.device) -> ResidentClips | None:
        """All clips in the memory of the trainer's GPU, if they fit there and no loading processes are asked for."""
        if self._resident is None and not self.num_workers and fits(self.cache, dataset.clip_ids, device):
            self._resident = ResidentClips(self.cache, dataset.clip_ids, device)
        return self._resident

    def teardown(self, stage: str | None = None) -> None:
        """Give the memory of the GPU back."""
        self._resident = None

    def train_dataloader(self) -> DataLoader[Any] | ResidentLoader:
        """Shuffled training batches; called anew each epoch, so that epoch and seed alone fix order and crops."""
        return self._loader("train", self.seed)

    def val_dataloader(self) -> DataLoader[Any] | ResidentLoader:
        """Validation batches, every clip once over all processes."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Any] | ResidentLoader:
        """Test batches, every clip once over all processes."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Any] | ResidentLoader:
        """Every clip, whatever its subset, in the order of ``clips``."""
        return self._loader()

    def statistics_dataloader(self) -> DataLoader[Any] | ResidentLoader:
        """The training clips in order and not augmented, then their copies, whole in every process, to fit to."""
        return self._loader("train", sharded=False, copies=self.copies)

    def training_facts(self) -> dict[str, Any]:
        """What a checkpoint tells its users of the clips that it was trained on, in plain values.

        ``hashes`` are of the recordings' content, and of parts of them with their times; ``ranges`` are lowest and
        highest of each value of :func:`emolight.data.audio.profile` in training, of at most :data:`PROFILED` clips.
        """
        corpus, train, val = self.selection.corpus, self.subset("train"), self.subset("val")
        of_train, of_val = (list(self.clips["clip_id"].iloc[rows]) for rows in (train, val))
        drawn = np.random.default_rng(0).permutation(of_train)[:PROFILED]
        profiles = [profile(self.cache.waveform(clip_id), self.sample_rate) for clip_id in drawn]
        return {
            "corpus": corpus.name,
            "about": corpus.about,
            "licence": corpus.licence,
            "citation": corpus.citation,
            "task": self.task_name,
            "label": self.split.label,
            "column": self.choice.label or "emotion",
            "speaker_independent": self.split.speaker_independent("val"),
            "speakers": self.split.speakers("train"),
            "val_speakers": self.split.speakers("val"),
            "hashes": [self.cache.content(clip_id) for clip_id in of_train],
            "val_hashes": [self.cache.content(clip_id) for clip_id in of_val],
            "ranges": pd.DataFrame(profiles).agg(["min", "max"]).to_dict("list"),
        }
