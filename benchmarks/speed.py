"""Speed of the front-end and of training, side by side with librosa and with a bare loop.

python benchmarks/speed.py [--root DIR] [--threads N] [--clips N]

Without --root it makes a synthetic corpus (16 kHz, so that the notebook way has nothing to resample).
Figures are medians of epochs, each timed just after as many bare steps; run it on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
import yaml
from clock import EpochClock
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset

from emolight.__main__ import run
from emolight.data.audio import load_waveform
from emolight.data.cache import open_cache
from emolight.data.ravdess import ARTICLE_EMOTIONS, discover, select
from emolight.data.synthetic import make_corpus
from emolight.models.frontend import Features, FrontEnd
from emolight.models.resnet import resnet18

RATE, LENGTH, BATCH = 16000, 36000, 32
MODES = ("spectrogram", "mel", "mfcc")
CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def features_of(mode: str) -> Features:
    """The features of the shipped configuration."""
    config = yaml.safe_load((CONFIGS / f"{mode}.yaml").read_text(encoding="utf-8"))
    return Features(**config["model"]["features"])


def by_librosa(wave: np.ndarray, features: Features) -> np.ndarray:
    power = np.abs(librosa.stft(wave, n_fft=512, hop_length=features.hop_length, pad_mode="constant")) ** 2
    if features.mode == "spectrogram":
        return librosa.power_to_db(power)[: FrontEnd(features, RATE).n_rows]
    level = librosa.power_to_db(librosa.feature.melspectrogram(S=power, sr=RATE, n_fft=512, n_mels=features.n_mels))
    return level if features.mode == "mel" else librosa.feature.mfcc(S=level, n_mfcc=features.n_mfcc)


def median_seconds(work: Callable[[], Any], clock: Callable[[], float], times: int = 9) -> float:
    work()
    seconds = []
    for _ in range(times):
        start = clock()
        work()
        seconds.append(clock() - start)
    return statistics.median(seconds)


def bare_steps(shape: tuple[int, ...], steps: int) -> Callable[[], None]:
    """Optimiser steps of the same network on tensors in memory."""
    network = resnet18(5).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    images = torch.randn(BATCH, *shape).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 5, (BATCH,))

    def run_steps() -> None:
        for _ in range(steps):
            loss = torch.nn.functional.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run_steps


class Notebook(Dataset[Any]):
    """The usual way: load and transform each clip when it is asked for."""

    def __init__(self, files: list[Path], features: Features) -> None:
        self.files, self.features = files, features

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, item: int) -> Any:
        wave, _ = librosa.load(self.files[item], sr=RATE)
        wave, _ = librosa.effects.trim(wave, top_db=30)
        image = by_librosa(librosa.util.fix_length(wave, size=LENGTH), self.features)
        return torch.from_numpy(image.astype(np.float32))[None], item % 5


def notebook_epoch(files: list[Path], features: Features) -> float:
    network = resnet18(5)
    optimizer = torch.optim.AdamW(network.parameters())
    start = time.perf_counter()
    for images, labels in DataLoader(Notebook(files, features), batch_size=BATCH, shuffle=True, drop_last=True):
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - start


def fit_epochs(mode: str, root: Path, steps: int, folder: Path, bare: Callable[[], None]) -> np.ndarray:
    """Seconds of the training part of each epoch of `fit`, and of the bare steps before it, without the first."""
    EpochClock.seconds.clear()
    EpochClock.bare = staticmethod(bare)
    run(
        [
            *("fit", "--config", str(CONFIGS / f"{mode}.yaml"), "--trainer.callbacks+=clock.EpochClock"),
            *(
                f"--data.root={root}",
                f"--data.cache_dir={folder / 'cache'}",
                f"--data.splits_dir={folder / 'splits'}",
            ),
            *("--data.channels=[speech]", f"--data.batch_size={BATCH}", "--data.synthetic=false"),
            *(f"--trainer.limit_train_batches={steps}", "--trainer.max_epochs=8", "--trainer.limit_val_batches=1"),
            *(f"--trainer.default_root_dir={folder}", "--trainer.accelerator=cpu"),
        ]
    )
    return np.array(EpochClock.seconds[1:])


def cache_seconds(root: Path, folder: Path) -> tuple[float, float]:
    """Seconds to build the waveform cache of a corpus, and to open it again."""
    table, seconds = discover(root).table, []
    for _ in range(2):
        start = time.perf_counter()
        open_cache(root, table, folder / "fresh", RATE, 30.0, progress=False)
        seconds.append(time.perf_counter() - start)
    return seconds[0], seconds[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clips", type=int, default=256)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = Path(tempfile.mkdtemp())
    root = arguments.root.resolve() if arguments.root else folder / "corpus"
    if arguments.root is None:
        make_corpus(root)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    os.environ["EMOLIGHT_IMPORTS"] = EpochClock.__module__
    clips = select(discover(root).table, list(ARTICLE_EMOTIONS), ["speech"])
    files = [root / path for path in clips["path"]][: arguments.clips]
    steps = len(files) // BATCH
    waves = np.stack([librosa.util.fix_length(load_waveform(file, RATE), size=LENGTH) for file in files[:BATCH]])

    console = Console(width=110)
    front = Table(title=f"front-end, batch of {BATCH} against librosa clip by clip, 1 thread, CPU ms a clip")
    train = Table(title=f"training, {steps} steps of {BATCH} clips, {arguments.threads} thread(s), seconds")
    for name in ("mode", "librosa", "emolight", "times faster", "% of a training step"):
        front.add_column(name, justify="right")
    for name in ("mode", "input", "bare steps", "fit", "fit / bare", "notebook way", "notebook / fit"):
        train.add_column(name, justify="right")
    for mode in MODES:
        features = features_of(mode)
        whole = Features(mode=mode)  # type: ignore[arg-type]
        torch.set_num_threads(1)
        tensor, front_end = torch.from_numpy(waves), FrontEnd(whole, RATE)
        ours = median_seconds(lambda fe=front_end, x=tensor: fe(x), time.process_time) / BATCH
        theirs = median_seconds(lambda f=whole: [by_librosa(wave, f) for wave in waves], time.process_time) / BATCH
        torch.set_num_threads(arguments.threads)
        shape = FrontEnd(features, RATE)(tensor).shape[1:]
        seconds = fit_epochs(mode, root, steps, folder, bare_steps(tuple(shape), steps))
        fitted, bare = np.median(seconds, axis=0)
        share = 100 * ours * BATCH / (bare / steps * arguments.threads)
        front.add_row(mode, f"{1e3 * theirs:.2f}", f"{1e3 * ours:.2f}", f"{theirs / ours:.1f}", f"{share:.1f}")
        notebook = notebook_epoch(files, features)
        size = f"{shape[1]}×{shape[2]}"
        train.add_row(
            mode,
            size,
            f"{bare:.2f}",
            f"{fitted:.2f}",
            f"{np.median(seconds[:, 0] / seconds[:, 1]):.3f}",
            f"{notebook:.2f}",
            f"{notebook / fitted:.2f}",
        )
    console.print(front)
    built, opened = cache_seconds(root, folder)
    console.print(f"waveform cache of {root.name}: built in {built:.1f} s, reopened and checked in {opened:.2f} s")
    console.print(train)


if __name__ == "__main__":
    main()
