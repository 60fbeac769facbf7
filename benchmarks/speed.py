"""An epoch of `fit` against bare steps, against torchvision's ResNet18, and against the notebook way; all three modes.

python benchmarks/speed.py [--root DIR] [--threads 1] [--clips 256] [--epochs 8] [--precision P]

About 5 minutes with one thread. Without --root, synthetic voices are taken; with it, RAVDESS, whose 48 kHz cost the
notebook way more. One run: before each epoch come the same number of bare steps on tensors in memory, of the same
network and of torchvision's own, at the same input size, batch, precision and threads; the notebook way (librosa in
__getitem__, a plain loop in float32) follows in the same process. With one thread seconds are of CPU time, which other
processes disturb less; with more of wall time. Run it on an idle machine all the same.

--precision: what `fit` gets; by default both, of which the one that this machine takes by itself is marked.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    CLASSES,
    CONFIGS,
    LENGTH,
    MODES,
    RATE,
    EpochClock,
    Notebook,
    by_librosa,
    machine,
    make_table,
    markdown,
    shipped,
    stepper,
    torchvision_network,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader

from emolight.data.audio import fix_length
from emolight.data.cache import open_cache
from emolight.data.datamodule import EmotionDataModule
from emolight.models.features import MFCC, MelSpectrogram, Spectrogram
from emolight.models.vision import ResNet18
from emolight.run import cli
from emolight.run.precision import fast_precision

BATCH = 32
FRONT_ENDS = {"mfcc": MFCC, "mel": MelSpectrogram, "spectrogram": Spectrogram}
BARS = {"bf16-mixed": ("0.70", "3"), "32-true": ("0.80", "1.9")}


def front_ends(waves: np.ndarray) -> str:
    """CPU milliseconds a clip of the front-ends, at librosa's usual sizes."""
    rows, tensor = [], torch.from_numpy(waves)
    for mode, kind in FRONT_ENDS.items():
        like: Any = kind(RATE)
        found = []
        for work in (lambda like=like: [by_librosa(wave, like) for wave in waves], lambda like=like: like(tensor)):
            work()
            seconds = []
            for _ in range(7):
                start = time.process_time()
                work()
                seconds.append(time.process_time() - start)
            found.append(1e3 * statistics.median(seconds) / len(waves))
        rows.append((mode, f"{found[0]:.2f}", f"{found[1]:.2f}", f"{found[0] / found[1]:.1f}"))
    return markdown(("front-end", "librosa, CPU ms a clip", "emolight", "times faster"), rows)


class Measured:
    """One run of all modes."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.clock = time.process_time if options.threads == 1 else time.perf_counter
        corpus = {"corpus": str(make_table(folder, 1))} if options.root is None else {"root": str(options.root)}
        places = {"cache_dir": str(folder / "cache"), "splits_dir": str(folder / "splits")}
        protocol = "speakers5" if options.root is None else "emobox6"
        self.data = EmotionDataModule(**corpus, **places, protocol=protocol)
        self.data.setup("fit")
        rows = self.data.subset("train")[: options.clips]
        self.clips, self.steps = self.data.clips.iloc[rows], len(rows) // BATCH
        self.waves = [fix_length(self.data.cache.waveform(name), LENGTH) for name in self.clips["clip_id"][:BATCH]]
        self.words = [f"--data.{name}={value}" for name, value in {**corpus, **places, "protocol": protocol}.items()]
        self.words += [f"--data.batch_size={BATCH}", f"--trainer.limit_train_batches={self.steps}"]
        self.words += ["--trainer.accelerator=cpu", f"--trainer.max_epochs={options.epochs}"]
        self.words += ["--trainer.limit_val_batches=1", f"--trainer.default_root_dir={folder}"]

    def row(self, mode: str, precision: str, notebook: float) -> tuple[str, ...]:
        """A row of the table; medians over the epochs but the first."""
        images = shipped(mode)(torch.from_numpy(np.stack(self.waves)))
        labels, seconds = torch.arange(BATCH) % CLASSES, []
        work = [self.bare(network, images, labels, precision) for network in (torchvision_network(), ResNet18(1, 5))]

        def bare() -> None:
            start = self.clock()
            work[0]()
            seconds.append(self.clock() - start)
            work[1]()

        clock = EpochClock(bare, self.clock)
        words = [*self.words, f"--trainer.precision={precision}", f"--name={mode}"]
        with (self.folder / "fit.log").open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
            cli.main(["fit", "--config", str(CONFIGS / f"{mode}.yaml"), *words], callbacks=[clock])
        fit, theirs = np.array(clock.training[1:]), np.array(seconds[1:])
        own = np.array(clock.bare[1:]) - theirs
        middle = [float(np.median(values)) for values in (theirs, own, fit)]
        ratios = [float(np.median(fit / values)) for values in (own, theirs)]
        marked = precision + (" (by itself)" if precision == fast_precision("cpu") else "")
        shown = [f"{mode}, {images.shape[2]}×{images.shape[3]}", marked, *(f"{value:.2f}" for value in middle)]
        shown += [f"{ratios[0]:.3f}", f"{ratios[1]:.2f} (at most {BARS[precision][0]})"]
        shown += [f"{notebook:.2f}", f"{notebook / middle[2]:.2f} (at least {BARS[precision][1]})"]
        return tuple(shown)

    def bare(self, network: nn.Module, images: Tensor, labels: Tensor, precision: str) -> Any:
        """As many steps as an epoch has."""
        step = stepper(network, network.parameters(), precision)
        return lambda: [step(images, labels) for _ in range(self.steps)]

    def notebook(self, mode: str) -> float:
        """Seconds of the notebook way for as many clips."""
        network = torchvision_network()
        step = stepper(network, network.parameters(), "32-true", fused=False)
        dataset = Notebook(
            self.clips["file"].tolist(), [number % 5 for number in range(len(self.clips))], shipped(mode)
        )
        dataset[0]  # librosa compiles
        start = self.clock()
        for images, labels in DataLoader(dataset, BATCH, shuffle=True, drop_last=True):
            step(images, labels)
        return self.clock() - start

    def cache(self) -> str:
        """Seconds to build the waveform cache, and to open it again."""
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            open_cache(self.data.selection.clips, self.folder / "fresh", RATE, 30.0, progress=False)
            seconds.append(time.perf_counter() - start)
        count = len(self.data.selection.clips)
        return f"waveform cache of {count} clips: built in {seconds[0]:.1f} s, opened again in {seconds[1]:.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=8, help="two or more; the first does not count")
    parser.add_argument("--precision", nargs="+", default=list(BARS), choices=list(BARS))
    options = parser.parse_args()
    if options.root:
        options.root = options.root.resolve()
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        torch.set_num_threads(1)
        measured = Measured(options, Path(name))
        print("\n" + front_ends(np.stack(measured.waves)), flush=True)
        torch.set_num_threads(options.threads)
        rows = []
        for mode in MODES:
            notebook = measured.notebook(mode)
            rows += [measured.row(mode, precision, notebook) for precision in options.precision]
        kind = "CPU" if options.threads == 1 else "wall"
        print(f"{measured.steps} steps of {BATCH} clips, {options.threads} thread(s), {kind} seconds, medians:\n")
        head = ("input", "precision of `fit`", "torchvision's bare steps", "own bare steps", "`fit`")
        head += ("`fit` / own bare (at most 1.05)", "`fit` / torchvision's bare", "notebook way", "notebook / `fit`")
        print(markdown(head, rows))
        print(measured.cache())
    print(machine())


if __name__ == "__main__":
    main()
