"""Speed of the front-end and of training, side by side with librosa and with a bare loop.

python benchmarks/speed.py [--root DIR] [--threads N] [--clips N] [--epochs N]

Without --root, a folder of RAVDESS, it makes a synthetic corpus (16 kHz, so that the notebook way has nothing to
resample). Figures are medians of epochs, each timed just after as many bare steps; run it on an idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
import yaml
from clock import EpochClock
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, Dataset

from emolight.data.audio import load_waveform
from emolight.data.cache import open_cache
from emolight.data.datamodule import EmotionDataModule
from emolight.models.features import MFCC, Features, MelSpectrogram, Spectrogram
from emolight.models.networks import ResNet18
from emolight.models.parts import build
from emolight.run import cli

RATE, LENGTH, BATCH = 16000, 36000, 32
FRONT_ENDS = {"spectrogram": Spectrogram, "mel": MelSpectrogram, "mfcc": MFCC}
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SPEECH = {"channel": ["speech"]}


def shipped(name: str) -> Any:
    """The front-end of a shipped configuration."""
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    return build(config["model"]["features"], Features)(RATE)


def by_librosa(wave: np.ndarray, like: Any) -> np.ndarray:
    """The features ``[rows, N]`` of a clip, as a notebook computes them."""
    sizes = {"n_fft": like.n_fft, "hop_length": like.hop_length}
    power = np.abs(librosa.stft(wave, pad_mode="constant", **sizes)) ** 2
    if not isinstance(like, MelSpectrogram):
        return librosa.power_to_db(power)[like.first_bin : like.last_bin]
    n_mels = like.mel.shape[1]
    level = librosa.power_to_db(librosa.feature.melspectrogram(S=power, sr=RATE, n_fft=like.n_fft, n_mels=n_mels))
    return librosa.feature.mfcc(S=level, n_mfcc=like.rows) if isinstance(like, MFCC) else level


def median_seconds(work: Callable[[], Any], times: int = 9) -> float:
    """CPU seconds of ``work``."""
    work()
    seconds = []
    for _ in range(times):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def train(network: nn.Module, batches: Any, fused: bool) -> None:
    """Plain optimiser steps."""
    optimizer = torch.optim.AdamW(network.parameters(), fused=fused)
    for images, labels in batches:
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


class Notebook(Dataset[Any]):
    """The usual way: load and transform each clip when it is asked for."""

    def __init__(self, files: Sequence[str], like: Any) -> None:
        self.files, self.like = files, like

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, item: int) -> Any:
        wave, _ = librosa.load(self.files[item], sr=RATE)
        wave, _ = librosa.effects.trim(wave, top_db=30)
        image = by_librosa(librosa.util.fix_length(wave, size=LENGTH), self.like)
        return torch.from_numpy(image.astype(np.float32))[None], item % 5


def fit_epochs(mode: str, words: list[str], clock: EpochClock) -> np.ndarray:
    """Seconds of the training part of each epoch of `fit`, and of the bare steps before it, without the first."""
    cli.main(["fit", "--config", str(CONFIGS / f"{mode}.yaml"), *words], callbacks=[clock])
    return np.array(clock.seconds[1:])


def cache_seconds(corpus: str, root: Path, folder: Path) -> tuple[float, float]:
    """Seconds to build the waveform cache of all clips of a corpus, and to open it again."""
    clips, seconds = EmotionDataModule(corpus, root=str(root), task="all").selection.clips, []
    for _ in range(2):
        start = time.perf_counter()
        open_cache(clips, folder / "fresh", RATE, 30.0, progress=False)
        seconds.append(time.perf_counter() - start)
    return seconds[0], seconds[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=8, help="two or more; the first does not count")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder))


def measure(options: argparse.Namespace, folder: Path) -> None:
    corpus, root = ("RAVDESS", options.root.resolve()) if options.root else ("Synthetic", folder / "corpus")
    clips = EmotionDataModule(corpus, root=str(root), task="article", filter=SPEECH).selection.clips
    files = list(clips["file"])[: options.clips]
    steps = len(files) // BATCH
    waves = np.stack([librosa.util.fix_length(load_waveform(file, RATE), size=LENGTH) for file in files[:BATCH]])
    words = [f"--data.corpus={corpus}", f"--data.root={root}", "--data.task=article", f"--data.filter={SPEECH}"]
    words += [f"--data.cache_dir={folder / 'cache'}", f"--data.splits_dir={folder / 'splits'}"]
    words += [f"--data.batch_size={BATCH}", f"--trainer.limit_train_batches={steps}", "--trainer.accelerator=cpu"]
    words += [f"--trainer.max_epochs={options.epochs}", "--trainer.limit_val_batches=1"]
    words += [f"--trainer.default_root_dir={folder}"]

    console = Console(width=110)
    front = Table(title=f"front-end, batch of {BATCH} against librosa clip by clip, 1 thread, CPU ms a clip")
    training = Table(title=f"training, {steps} steps of {BATCH} clips, {options.threads} thread(s), seconds")
    for name in ("mode", "librosa", "emolight", "times faster", "% of a training step"):
        front.add_column(name, justify="right")
    for name in ("mode", "input", "bare steps", "fit", "fit / bare", "notebook way", "notebook / fit"):
        training.add_column(name, justify="right")
    for mode, kind in FRONT_ENDS.items():
        torch.set_num_threads(1)
        whole, tensor = kind(RATE), torch.from_numpy(waves)
        ours = median_seconds(lambda front_end=whole, x=tensor: front_end(x)) / BATCH
        theirs = median_seconds(lambda like=whole: [by_librosa(wave, like) for wave in waves]) / BATCH
        torch.set_num_threads(options.threads)
        images = shipped(mode)(tensor)
        batches = [(images, torch.arange(BATCH) % 5)] * steps
        bare_network = ResNet18(1, 5)
        clock = EpochClock(lambda network=bare_network, some=batches: train(network, some, fused=True))
        seconds = fit_epochs(mode, words, clock)
        fitted, bare = np.median(seconds, axis=0)
        share = 100 * ours * BATCH / (bare / steps * options.threads)
        front.add_row(mode, f"{1e3 * theirs:.2f}", f"{1e3 * ours:.2f}", f"{theirs / ours:.1f}", f"{share:.1f}")
        start = time.perf_counter()
        loader = DataLoader(Notebook(files, shipped(mode)), batch_size=BATCH, shuffle=True, drop_last=True)
        train(ResNet18(1, 5), loader, fused=False)
        notebook = time.perf_counter() - start
        ratios = (f"{np.median(seconds[:, 0] / seconds[:, 1]):.3f}", f"{notebook:.2f}", f"{notebook / fitted:.2f}")
        training.add_row(mode, f"{images.shape[2]}×{images.shape[3]}", f"{bare:.2f}", f"{fitted:.2f}", *ratios)
    console.print(front)
    built, opened = cache_seconds(corpus, root, folder)
    console.print(f"waveform cache of {root.name}: built in {built:.1f} s, reopened and checked in {opened:.2f} s")
    console.print(training)


if __name__ == "__main__":
    main()
