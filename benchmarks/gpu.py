"""What a GPU does here: clips a second of `fit` and of bare steps, the notebook way, encoders, DDP, a sweep.

python benchmarks/gpu.py [--folder DIR] [--seconds 300]     or benchmarks/gpu.sh, which also keeps the log

Synthetic voices, which it makes. Every section stands for itself: one that fails leaves its traceback, and the others
go on; one that would begin after --seconds is left out. The tables go to DIR/gpu.md as well. Without a CUDA device it
is a smoke test of a minute with tiny sizes, and what it would measure is "not measured".
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from common import (
    CLASSES,
    CONFIGS,
    LENGTH,
    MODES,
    REPOSITORY,
    EpochClock,
    Notebook,
    machine,
    make_table,
    markdown,
    shipped,
    stepper,
    wait,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader

import emolight.data.resident as resident
import emolight.models.classifier as classifier
from emolight.data.datamodule import EmotionDataModule
from emolight.models.augment import Gain, Noise, SpecAugment, TimeShift, mixup
from emolight.models.encoder import SpeechEncoder
from emolight.models.replay import Replay
from emolight.models.vision import ResNet18
from emolight.run import cli

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
BATCH = 32
PRECISIONS = ("32-true", "bf16-mixed")


def figure(value: float, digits: int = 0) -> str:
    """A figure that was measured on a GPU; a smoke test has none."""
    return f"{value:,.{digits}f}" if GPU else "not measured"


class Bench:
    """The corpus, and what the sections share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        links, self.epochs, seconds = (2, 4, 2.2) if GPU else (1, 1, 0.6)
        self.table = make_table(folder, links, repetitions=2 if GPU else 1, seconds=seconds)
        self.words = [
            f"--data.corpus={self.table}",
            f"--data.cache_dir={folder / 'cache'}",
            "--data.protocol=speakers5",
        ]
        self.words += [f"--data.splits_dir={folder / 'splits'}", f"--trainer.default_root_dir={folder}"]
        self.words += [f"--data.batch_size={BATCH}", f"--trainer.accelerator={'gpu' if GPU else 'cpu'}"]
        if not GPU:
            self.words += ["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--data.duration=0.6"]
        self.data = EmotionDataModule(
            str(self.table), cache_dir=str(folder / "cache"), protocol="speakers5", splits_dir=str(folder / "splits")
        )
        self.data.setup("fit")
        self.train = self.data.subset("train")
        self.steps = len(self.train) // BATCH if GPU else 2

    def images(self, mode: str) -> Tensor:
        """A batch of features on the device, of real sizes."""
        waves = torch.randn(BATCH, LENGTH if GPU else 9600, device=DEVICE)
        return shipped(mode).to(DEVICE)(waves)

    def bare(self, mode: str, precision: str, replay: bool = False) -> Callable[[], Any]:
        """As many bare steps as an epoch of `fit` has, of the same network on tensors on the device."""
        images, labels = self.images(mode), torch.arange(BATCH, device=DEVICE) % CLASSES
        network = ResNet18(1, CLASSES).to(DEVICE)
        step = stepper(Replay(network, replay), network.parameters(), precision)
        step(images, labels)
        return lambda: [step(images, labels) for _ in range(self.steps)]

    def fit(self, mode: str, precision: str, bare: Callable[[], Any] = lambda: None, *words: str) -> EpochClock:
        """`fit` by its command line; the first epoch does not count."""
        clock = EpochClock(bare)
        own = [f"--trainer.precision={precision}", f"--trainer.max_epochs={self.epochs}", f"--name=gpu_{mode}"]
        with (self.folder / "fit.log").open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
            words = (*self.words, *own, *words)
            cli.main(["fit", "--config", str(CONFIGS / f"{mode}.yaml"), *words], callbacks=[clock], pictures=False)
        if GPU:
            del clock.training[0], clock.bare[0], clock.whole[0]
        return clock


def steps(bench: Bench) -> str:
    """`fit` and bare steps."""
    rows, clips = [], bench.steps * BATCH
    for mode in MODES:
        for precision in PRECISIONS if GPU else PRECISIONS[-1:]:
            clock = bench.fit(mode, precision, bench.bare(mode, precision))
            fit, bare = (statistics.median(seconds) for seconds in (clock.training, clock.bare))
            recorded = bench.bare(mode, precision, replay=True)
            recorded()
            wait()
            start = time.perf_counter()
            recorded()
            wait()
            graph = time.perf_counter() - start
            shape = "×".join(map(str, bench.images(mode).shape[2:]))
            whole = statistics.median(clock.whole or [0])
            rows.append(
                (
                    f"{mode}, {shape}",
                    precision,
                    figure(clips / bare),
                    figure(clips / graph),
                    figure(clips / fit),
                    figure(fit / bare, 2),
                    figure(whole, 2),
                    figure(clock.losses[-1], 3),
                )
            )
    head = (
        "input",
        "precision",
        "bare steps, clips/s",
        "bare, recorded as a CUDA graph, clips/s",
        "`fit`, clips/s",
        "epoch / bare (at most 1.2)",
        "epoch with validation, tables and checkpoints, s",
        "last val/loss",
    )
    return (
        f"{bench.steps} steps of {BATCH} clips an epoch, median of {bench.epochs - 1} epochs.\n\n{markdown(head, rows)}"
    )


@contextlib.contextmanager
def without(*what: str) -> Iterator[None]:
    """Let waveforms stay on the host, or the pass unrecorded."""
    share, record = resident.SHARE, classifier.Replay
    try:
        if "resident" in what:
            resident.SHARE = -1.0
        if "recorded" in what:
            classifier.Replay = lambda network, allowed=False: Replay(network)  # type: ignore[assignment,misc]
        yield
    finally:
        resident.SHARE, classifier.Replay = share, record  # type: ignore[misc]


def ways(bench: Bench) -> str:
    """What the parts of `fit` are worth: waveforms on the device, the recorded pass."""
    rows = []
    for label, what in (
        ("as it is", ()),
        ("not recorded", ("recorded",)),
        ("waveforms on the host", ("resident",)),
        ("neither", ("resident", "recorded")),
    )[0 if GPU else 3 :]:
        with without(*what):
            clock = bench.fit("mfcc", "bf16-mixed", bench.bare("mfcc", "bf16-mixed"))
        fit, bare = (statistics.median(seconds) for seconds in (clock.training, clock.bare))
        losses = ", ".join(figure(loss, 4) for loss in clock.losses[-2:])
        rows.append((label, figure(bench.steps * BATCH / fit), figure(fit / bare, 2), losses))
    return markdown(("`fit`, mfcc, bf16-mixed", "clips/s", "epoch / bare", "last two val/loss"), rows)


def residence(bench: Bench) -> str:
    """How long the waveforms take to the device, and how much of it."""
    every = bench.data.clips["clip_id"].tolist()
    wait()
    start = time.perf_counter()
    clips = resident.ResidentClips(bench.data.cache, every, DEVICE)
    wait()
    seconds = time.perf_counter() - start
    row = (
        len(every),
        figure(clips.samples.nbytes / 2**20),
        figure(seconds, 2),
        resident.fits(bench.data.cache, every, DEVICE) if GPU else "not measured",
    )
    return markdown(("clips", "MB on the device", "seconds to move them", "stay there by themselves"), [row])


def notebook(bench: Bench) -> str:
    """librosa in `__getitem__`, a DataLoader with 8 workers, a plain loop in float32."""
    rows, files = [], bench.data.clips["file"].iloc[bench.train].tolist()
    files = files[: (32 if GPU else 2) * BATCH]
    workers = min(8, os.cpu_count() or 1) if GPU else 0
    labels = [number % CLASSES for number in range(len(files))]
    for mode in MODES:
        dataset = Notebook(files, labels, shipped(mode))
        dataset[0]  # librosa compiles
        loader = DataLoader(
            dataset,
            BATCH,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            pin_memory=GPU,
            persistent_workers=workers > 0,
        )
        network = ResNet18(1, CLASSES).to(DEVICE)
        step, seconds = stepper(network, network.parameters(), "32-true", fused=False), []
        for _ in range(2):  # in the first the workers start
            start = time.perf_counter()
            for images, targets in loader:
                step(images.to(DEVICE, non_blocking=True), targets.to(DEVICE, non_blocking=True))
            wait()
            seconds.append(time.perf_counter() - start)
        del loader
        rows.append((mode, workers, figure(len(files) / seconds[1])))
    return markdown(("input", "workers", "the notebook way, clips/s"), rows)


def timed(work: Callable[[], Any], times: int) -> float:
    """Milliseconds of a call, by wall clock until the device is done; after some that do not count."""
    times = times if GPU else 1
    for _ in range(max(1, times // 5)):
        work()
    wait()
    start = time.perf_counter()
    for _ in range(times):
        work()
    wait()
    return 1e3 * (time.perf_counter() - start) / times


def parts(bench: Bench) -> str:
    """Where a step's time goes: milliseconds of each part alone."""
    waves = 0.1 * torch.randn(BATCH, LENGTH if GPU else 9600, device=DEVICE)
    front, images = shipped("mfcc").to(DEVICE), bench.images("mfcc")
    labels = torch.arange(BATCH, device=DEVICE) % CLASSES
    targets = nn.functional.one_hot(labels, CLASSES).float()
    shift, noise, gain, masks = TimeShift(), Noise(), Gain(), SpecAugment()
    network = ResNet18(1, CLASSES).to(DEVICE)
    eager = stepper(network, network.parameters(), "bf16-mixed")
    recorded = stepper(Replay(network, True), network.parameters(), "bf16-mixed")
    dataset = bench.data.dataset(bench.train, 0)
    clips = resident.ResidentClips(bench.data.cache, bench.data.clips["clip_id"].tolist(), DEVICE)
    loader = resident.ResidentLoader(clips, dataset, list(range(len(dataset))), BATCH, True)
    weights = list(network.parameters())
    eager(images, labels)
    rows = []
    for name, work in (
        ("batch made on the host", lambda: dataset.__getitems__(range(BATCH))),
        ("front-end", lambda: front(waves)),
        ("time shift, noise, gain", lambda: gain(noise(shift(waves)))),
        ("SpecAugment", lambda: masks(images)),
        ("mixup", lambda: mixup(images, targets, 0.2)),
        ("seed", lambda: torch.manual_seed(1)),
        ("bare step", lambda: eager(images, labels)),
        ("bare step, recorded", lambda: recorded(images, labels)),
        ("gradient clipping", lambda: nn.utils.clip_grad_norm_(weights, 1.0)),
    ):
        with torch.no_grad() if "step" not in name else contextlib.nullcontext():
            rows.append((name, figure(timed(work, 100), 3)))
    epoch = timed(lambda: list(loader), 5) / max(1, len(loader))
    return markdown(("mfcc, bf16-mixed", "ms a batch"), [("batch cut on the device", figure(epoch, 3)), *rows])


class Product(nn.Module):
    """A 3×3 convolution as one matrix product, as on a CPU for small maps."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer, self.weight = layer, layer.weight

    def forward(self, image: Tensor) -> Tensor:
        step = self.layer.stride[0]
        rows, columns = ((side - 1) // step + 1 for side in image.shape[2:])
        dtype = torch.bfloat16 if torch.is_autocast_enabled("cuda") else image.dtype
        cells = nn.functional.pad(image.to(dtype).permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        down, right = step * (rows - 1) + 1, step * (columns - 1) + 1
        near = torch.cat([cells[:, i : i + down : step, j : j + right : step] for i in range(3) for j in range(3)], 3)
        return nn.functional.linear(near, self.weight.permute(0, 2, 3, 1).flatten(1)).permute(0, 3, 1, 2)


def small_maps(bench: Bench) -> str:
    """Layers of ResNet18 on small maps, forward and backward, as kernels one after another (a CUDA graph of ten)."""
    rows = []
    for inputs, outputs, stride, size in (
        (256, 256, 1, (3, 5)),
        (256, 512, 2, (3, 5)),
        (512, 512, 1, (2, 3)),
        (128, 128, 1, (5, 9)),
    ):
        layer = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False).to(DEVICE, memory_format=torch.channels_last)
        image = torch.randn(BATCH, inputs, *size, device=DEVICE).contiguous(memory_format=torch.channels_last)
        image.requires_grad_()
        for precision in PRECISIONS:
            found, results = [], []
            for module in (layer, Product(layer)):

                def both(module: nn.Module = module, precision: str = precision, image: Tensor = image) -> Any:
                    cast = precision == "bf16-mixed"
                    with torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=cast, cache_enabled=False):
                        result = module(image)
                    return result, *torch.autograd.grad(result, (image, module.weight), torch.ones_like(result))

                results.append([value.detach().float() for value in both()])
                if GPU:
                    graph = torch.cuda.CUDAGraph()
                    for _ in range(3):
                        both()
                    wait()
                    with torch.cuda.graph(graph):
                        for _ in range(10):
                            both()
                    found.append(1e2 * timed(graph.replay, 50))
                else:
                    found.append(timed(both, 1))
            far = max(float((one - two).norm() / one.norm()) for one, two in zip(*results, strict=True))
            cells = f"{inputs} → {outputs} channels, {size[0]}×{size[1]}" + (", stride 2" if stride == 2 else "")
            rows.append(
                (
                    cells,
                    precision,
                    figure(found[0], 1),
                    figure(found[1], 1),
                    figure(found[0] / found[1], 2),
                    f"{far:.0e}",
                )
            )
    head = ("3×3 layer", "precision", "convolution, µs", "product, µs", "times faster", "largest difference")
    return (
        markdown(head, rows) + "\nIn 32-true cuDNN's convolutions take TF32, PyTorch's default, and products do not.\n"
    )


def precisions(bench: Bench) -> str:
    """Every precision trains, by the command line."""
    rows = []
    for precision in ("16-mixed", "bf16-true"):
        clock = bench.fit("mfcc", precision, lambda: None, "--trainer.max_epochs=2")
        run = max((bench.folder / "lightning_logs/gpu_mfcc").iterdir(), key=lambda path: path.stat().st_mtime)
        uar = pd.read_csv(run / "metrics.csv")["val/uar"].dropna()
        told = json.loads((run / "environment.json").read_text(encoding="utf-8"))
        rows.append(
            (
                precision,
                told["precision"],
                told["device_name"] if GPU else "not measured",
                figure(clock.losses[-1], 3),
                figure(100 * uar.iloc[-1], 1),
            )
        )
    return markdown(
        ("precision", "in environment.json", "device", "val/loss of epoch 2", "val/uar of epoch 2, %"), rows
    )


def encoders(bench: Bench) -> str:
    """A speech encoder of Whisper base's size: frozen, where embeddings are kept, and its two upper layers trained."""
    import transformers

    width, layers = (512, 6) if GPU else (32, 2)
    whisper = transformers.WhisperConfig(
        d_model=width, encoder_layers=layers, encoder_attention_heads=8, encoder_ffn_dim=4 * width,
        decoder_layers=1, decoder_attention_heads=8, decoder_ffn_dim=width, vocab_size=100,
        pad_token_id=1, bos_token_id=1, eos_token_id=1, decoder_start_token_id=1,
    )  # fmt: skip
    folder = bench.folder / "whisper"
    transformers.WhisperForConditionalGeneration(whisper).save_pretrained(folder)
    transformers.WhisperFeatureExtractor().save_pretrained(folder)
    waves, rows = 0.1 * torch.randn(16, LENGTH if GPU else 9600, device=DEVICE), []
    with torch.inference_mode():
        network = SpeechEncoder(1, CLASSES, path=str(folder)).to(DEVICE).eval()
        milliseconds = timed(lambda: network.embed(waves), 30)
    rows.append(("frozen, embeddings", "32-true", figure(1e3 * len(waves) / milliseconds)))
    tune = [
        f"--config={CONFIGS / 'overlays' / 'finetune.yaml'}",
        f"--model.network.path={folder}",
        f"--trainer.max_epochs={bench.epochs}",
    ]
    clock = bench.fit("encoder", PRECISIONS[-1], lambda: None, *tune, f"--trainer.precision={PRECISIONS[-1]}")
    trained = len(bench.train) // 16 * 16  # batches of 16, as the overlay says
    rows.append(("two layers trained", PRECISIONS[-1], figure(trained / statistics.median(clock.training))))
    return markdown(("Whisper base's size, random weights", "precision", "clips/s"), rows)


def command(name: str, *words: str, limit: float = 150) -> tuple[float, str]:
    """Seconds and last lines of a command in a process of its own."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=limit, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} exits with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return time.perf_counter() - start, done.stdout


def tests(bench: Bench) -> str:
    """The tests of precision and of the recorded pass."""
    which = ["tests/models/test_replay.py"]
    seconds, text = command("pytest", "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", *which)
    return f"`pytest {' '.join(which)}`: {text.strip().splitlines()[-1]} ({seconds:.0f} s)\n"


def ddp(bench: Bench) -> str:
    """Two processes where there are two GPUs, else one by the same strategy."""
    devices = max(1, min(2, torch.cuda.device_count()))
    words = ["--trainer.strategy=ddp", f"--trainer.devices={devices}", "--trainer.max_epochs=2", "--name=ddp"]
    config = str(CONFIGS / "mfcc.yaml")
    seconds, _ = command("ddp", "-m", "emolight", "fit", "--config", config, *bench.words, *words)
    uar = pd.read_csv(bench.folder / "lightning_logs/ddp/version_0/metrics.csv")["val/uar"].dropna()
    head = ("DDP processes", "seconds for 2 epochs, with start and end", "val/uar of epoch 2, %")
    return markdown(head, [(devices, figure(seconds, 1), figure(100 * uar.iloc[-1], 1))])


def sweep(bench: Bench) -> str:
    """A trial a GPU."""
    workers, trials = max(1, torch.cuda.device_count()), 3 if GPU else 1
    path = bench.folder / "sweep.yaml"
    path.write_text(
        f"name: gpu_sweep\nconfig: {CONFIGS / 'mfcc.yaml'}\nfolds: [1]\n"
        "space: {model.learning_rate: {low: 3.0e-4, high: 5.0e-3, log: true}}\n"
        f"trials: {trials}\nepochs: {3 if GPU else 1}\npruner: none\n",
        encoding="utf-8",
    )
    words = ["sweep", "--config", str(path), "--workers", str(workers), *bench.words]
    seconds, _ = command("sweep", "-m", "emolight", *words)
    trained = sum(
        json.loads(path.read_text(encoding="utf-8"))["seconds"]
        for path in (bench.folder / "lightning_logs/gpu_sweep").rglob("environment.json")
    )
    head = ("trials", "workers, a GPU each", "seconds of the sweep", "sum of the trials' training, s")
    return markdown(head, [(trials, workers, figure(seconds, 1), figure(trained, 1))])


SECTIONS = {
    "Where a step's time goes": parts,
    "Small maps both ways": small_maps,
    "Waveforms on the device": residence,
    "`fit` and bare steps": steps,
    "What keeps `fit` fast": ways,
    "The notebook way": notebook,
    "Other precisions": precisions,
    "Sweep": sweep,
    "DDP": ddp,
    "Speech encoders": encoders,
    "Tests": tests,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where gpu.md goes")
    parser.add_argument("--seconds", type=float, default=300, help="no section begins after this")
    parser.add_argument("--only", nargs="+", choices=[one.__name__ for one in SECTIONS.values()], help="sections")
    options = parser.parse_args()
    began, texts = time.perf_counter(), [f"# GPU\n\n{machine()}\n"]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    failed = []
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        for title, section in SECTIONS.items():
            if options.only and section.__name__ not in options.only:
                continue
            start = time.perf_counter()
            if start - began > options.seconds:
                text = "not measured: out of time\n"
            else:
                try:
                    text = section(bench)
                except Exception:
                    failed.append(title)
                    text = f"failed:\n\n```\n{traceback.format_exc()}```\n"
            texts.append(f"## {title}\n\n{text}\n({time.perf_counter() - start:.0f} s)\n")
            print(f"\n{texts[-1]}", flush=True)
            if options.folder:
                options.folder.mkdir(parents=True, exist_ok=True)
                (options.folder / "gpu.md").write_text("\n".join(texts), encoding="utf-8")
            shutil.rmtree(bench.folder / "lightning_logs", ignore_errors=True)
    print("\n" + "=" * 40 + "\n" + "\n".join(texts))
    print(f"{time.perf_counter() - began:.0f} s; {len(failed)} sections failed: {', '.join(failed) or 'none'}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
