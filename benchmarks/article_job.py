"""The article's job: when each mode passes the article's own accuracy, and the notebook way's time for as many epochs.

python benchmarks/article_job.py --root DIR [--threads 2] [--modes mfcc mel spectrogram] [--whole]

RAVDESS, the article's split (320 random clips validate, speaker-dependent), the shipped recipes; on two cores about 12
minutes, and 5 more for the notebook way. A mode ends once it has passed, unless --whole. Wall time counts from the
command's first line, with reading the recordings into an empty cache, to the end of the epoch. Of the notebook way
(librosa in __getitem__, no augmentation, torchvision's network, float32, as many threads) one epoch over the same
training clips is measured, and multiplied.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from common import CLASSES, CONFIGS, MODES, Notebook, machine, markdown, shipped, stepper, torchvision_network
from torch.utils.data import DataLoader

from emolight.data.datamodule import EmotionDataModule
from emolight.run import cli

ARTICLE = {"mfcc": 0.6594, "mel": 0.6687, "spectrogram": 0.7563}
MINUTES = {"mfcc": 5, "mel": 5, "spectrogram": 8}


class Watch(pl.Callback):
    """Notes when the article's accuracy is passed."""

    def __init__(self, target: float, whole: bool) -> None:
        self.target, self.whole, self.start = target, whole, time.perf_counter()
        self.passed: tuple[int, float, float] | None = None
        self.last = 0.0

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Look at the validation of this epoch."""
        self.last = float(trainer.callback_metrics["val/accuracy"])
        if self.passed is None and self.last >= self.target:
            self.passed = trainer.current_epoch + 1, time.perf_counter() - self.start, self.last
            trainer.should_stop = not self.whole


def notebook_epoch(data: EmotionDataModule, mode: str) -> float:
    """Wall seconds of one epoch over the training clips."""
    clips = data.clips.iloc[data.subset("train")]
    labels = [data.classes.index(name) for name in clips["emotion"]]
    dataset, network = Notebook(clips["file"].tolist(), labels, shipped(mode)), torchvision_network()
    step = stepper(network, network.parameters(), "32-true", fused=False)
    dataset[0]  # librosa compiles
    start = time.perf_counter()
    for images, targets in DataLoader(dataset, data.batch_size, shuffle=True, drop_last=True):
        step(images, targets)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of RAVDESS")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--whole", action="store_true", help="train to the recipe's end")
    options = parser.parse_args()
    root, rows = options.root.resolve(), []
    torch.set_num_threads(options.threads)
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)
        for mode in options.modes:
            places = {"root": str(root), "cache_dir": str(folder / mode), "splits_dir": str(folder / "splits")}
            words = [f"--data.{key}={value}" for key, value in places.items()]
            words += ["--trainer.accelerator=cpu", f"--trainer.default_root_dir={folder}", f"--name={mode}"]
            configs = [CONFIGS / f"{mode}.yaml", CONFIGS / "overlays/random.yaml"]
            watch = Watch(ARTICLE[mode], options.whole)
            with (folder / f"{mode}.log").open("w", encoding="utf-8") as log, contextlib.redirect_stdout(log):
                words = [word for path in configs for word in ("--config", str(path))] + words
                cli.main(["fit", *words], callbacks=[watch])
            config = cli.full_config(words)
            data = EmotionDataModule(**config["data"])
            data.setup("fit")
            assert len(data.classes) == CLASSES
            epoch = notebook_epoch(data, mode)
            head = (mode, f"{100 * ARTICLE[mode]:.2f}")
            if watch.passed is None:
                rows.append((*head, "not passed", f"{100 * watch.last:.2f} at the end", "", "", ""))
            else:
                number, seconds, accuracy = watch.passed
                of_all = f"{number} of {config['trainer']['max_epochs']}"
                times = f"{seconds:.0f} s (at most {60 * MINUTES[mode]})", f"{epoch * number:.0f} s"
                rows.append((*head, of_all, f"{100 * accuracy:.2f}", *times, f"{epoch * number / seconds:.1f}"))
            print(rows[-1], flush=True)
    print(f"\nRAVDESS, 320 random clips, {options.threads} threads, wall time; speaker-dependent\n")
    head = ("input", "article's accuracy, %", "passed in epoch", "accuracy there, %", "`fit` until there")
    print(markdown((*head, "notebook way, as many epochs", "times slower"), rows))
    print(machine())


if __name__ == "__main__":
    main()
