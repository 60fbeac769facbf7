"""What the benchmarks share: a corpus, the notebook way, bare steps, an epoch's clock, and tables."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
import torchvision
import yaml
from torch import Tensor, nn
from torch.utils.data import Dataset

from emolight.data.corpora import Synthetic
from emolight.data.corpora.synthetic import make_corpus
from emolight.experiments.jobs import fitted
from emolight.models.features import MFCC, Features, MelSpectrogram
from emolight.models.parts import build
from emolight.run import cli
from emolight.run.recorder import Recorder

RATE, SECONDS, CLASSES = 16000, 2.25, 5
LENGTH = round(RATE * SECONDS)
MODES = ("mfcc", "mel", "spectrogram")
REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = REPOSITORY / "configs"


def machine() -> str:
    """Processor, the flags that decide how fast bfloat16 is, GPU, versions, load."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.is_file() else ""
    model = re.search(r"model name\s*: (.*)", text)
    flags = sorted(set(re.findall(r"\b(?:avx2|avx512f|avx512_bf16|amx_bf16)\b", text)))
    card = f"; {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    name = model[1] if model else platform.processor()
    return f"{name} × {os.cpu_count()}: {' '.join(flags)}{card}; torch {torch.__version__}; load {load}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def make_table(folder: Path, links: int, repetitions: int = 2, seconds: float = 2.2) -> Path:
    """A CSV of synthetic voices, each recording under several names, so that an epoch is long enough to be timed."""
    root = folder / "voices"
    make_corpus(root, repetitions=repetitions, duration=seconds)
    clips, parts, under = Synthetic().find(root).table, [], folder / "clips"
    under.mkdir()
    for link in range(links):
        names = [f"{link}-{Path(path).name}" for path in clips["path"]]
        for name, path in zip(names, clips["path"], strict=True):
            os.link(root / path, under / name)
        parts.append(clips[["emotion", "speaker"]].assign(path=names))
    table = pd.concat(parts)[["path", "emotion", "speaker"]]
    table.to_csv(under / "clips.csv", index=False)
    return under / "clips.csv"


def shipped(mode: str) -> Any:
    """The front-end of a shipped configuration."""
    config = yaml.safe_load((CONFIGS / f"{mode}.yaml").read_text(encoding="utf-8"))
    return build(config["model"]["features"], Features)(RATE)


def by_librosa(wave: np.ndarray, like: Any) -> np.ndarray:
    """The features ``[rows, N]`` of a clip, as a notebook computes them."""
    import librosa

    power = np.abs(librosa.stft(wave, pad_mode="constant", n_fft=like.n_fft, hop_length=like.hop_length)) ** 2
    if not isinstance(like, MelSpectrogram):
        return librosa.power_to_db(power)[like.first_bin : like.last_bin]
    n_mels = like.mel.shape[1]
    level = librosa.power_to_db(librosa.feature.melspectrogram(S=power, sr=RATE, n_fft=like.n_fft, n_mels=n_mels))
    return librosa.feature.mfcc(S=level, n_mfcc=like.rows) if isinstance(like, MFCC) else level


class Notebook(Dataset[Any]):
    """The usual way: load and transform each clip when it is asked for."""

    def __init__(self, files: Sequence[str], labels: Sequence[int], like: Any) -> None:
        self.files, self.labels, self.like = files, labels, like

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, item: int) -> Any:
        import librosa

        wave, _ = librosa.load(self.files[item], sr=RATE)
        wave, _ = librosa.effects.trim(wave, top_db=30)
        image = by_librosa(librosa.util.fix_length(wave, size=LENGTH), self.like)
        return torch.from_numpy(image.astype(np.float32))[None], self.labels[item]


def stepper(
    network: Callable[[Tensor], Tensor], weights: Iterable[nn.Parameter], precision: str, fused: bool = True
) -> Callable[[Tensor, Tensor], Tensor]:
    """A bare optimiser step on images ``[B, 1, F, N]`` and labels ``[B]``; returns the loss."""
    optimizer = torch.optim.AdamW(weights, fused=fused)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision == "bf16-mixed"):
            logits = network(images)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def torchvision_network() -> nn.Module:
    """torchvision's ResNet18 as PyTorch makes it, with a stem for one channel."""
    network: nn.Module = torchvision.models.resnet18(num_classes=CLASSES)
    network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return network


def wait() -> None:
    """Until a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class EpochClock(pl.Callback):
    """Seconds of each epoch's training, of ``bare``, run just before it so that both see the same machine, and of all.

    Attributes:
        training: training steps alone: validation, which runs inside Lightning's training epoch, does not count.
        bare: what was run before.
        whole: with validation, tables, pictures and both checkpoints.
        losses: of the validations.

    Args:
        bare: what is run before each epoch's training.
        clock: wall time, or :func:`time.process_time`, which other processes disturb less.
    """

    def __init__(
        self, bare: Callable[[], object] = lambda: None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.work, self.clock = bare, clock
        self.training, self.bare, self.whole = list[float](), list[float](), list[float]()
        self.losses: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        """Run and time the bare steps, then start the epoch's clock."""
        wait()
        start = self.clock()
        if len(self.whole) < len(self.training):
            self.whole.append(start - self.start)
        self.work()
        wait()
        self.start = self.clock()
        self.bare.append(self.start - start)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stop after the last batch."""
        if trainer.is_last_batch:
            wait()
            self.training.append(self.clock() - self.start)

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Note the loss."""
        if not trainer.sanity_checking:
            self.losses.append(float(trainer.callback_metrics["val/loss"]))

    def on_train_end(self, *_: Any) -> None:
        """Stop the clock of the last epoch."""
        self.whole.append(self.clock() - self.start)


class WrittenClock(EpochClock):
    """Leaves what it measured in ``clock.json`` of the run folder: for the trials of a sweep, by trainer.callbacks."""

    def __init__(self) -> None:
        super().__init__()

    def on_fit_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Write."""
        recorder = next(one for one in trainer.callbacks if isinstance(one, Recorder))  # type: ignore[attr-defined]
        found = {"steps": sum(self.training), "epochs": sum(self.whole), "count": len(self.whole)}
        (recorder.run.folder / "clock.json").write_text(json.dumps(found), encoding="utf-8")


def timed_fold(folder: str, options: list[str]) -> None:
    """Train and test as `crossval` does, with clocks that end in ``clock.json``; for a process of its own."""
    clocks = EpochClock(clock=time.process_time), EpochClock()
    cli.main(["fit", *options], callbacks=list(clocks), pictures=False)
    cli.main(["test", "--ckpt_path", str(fitted(Path(folder))[0].best)], pictures=False)
    found = {"cpu": time.process_time(), "epochs": len(clocks[0].whole)}
    found |= {"epochs_cpu": sum(clocks[0].whole), "epochs_wall": sum(clocks[1].whole)}
    (Path(folder) / "clock.json").write_text(json.dumps(found), encoding="utf-8")
