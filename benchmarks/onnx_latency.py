"""ONNX Runtime against PyTorch: latency of one clip on one thread, and CPU seconds of a cold start.

python benchmarks/onnx_latency.py [--checkpoint CKPT] [--repeats N]

Without --checkpoint it takes random weights with the features of configs/mfcc.yaml (an image of 40 × 71).
Repeats of the two are interleaved, so that both see the same machine; figures are medians.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import lightning
import numpy as np
import soundfile
import torch
import yaml

from emolight.data.audio import Waveform
from emolight.data.corpora.ravdess import ARTICLE
from emolight.inference.export import export
from emolight.inference.onnx_network import load_onnx
from emolight.inference.torch_network import load_torch
from emolight.models.checkpoint import save_checkpoint
from emolight.models.classifier import EmotionClassifier

MAX_RATIO, MAX_COLD = 0.8, 1.5
COLD = "import sys; from emolight import load; print(load(sys.argv[1]).predict_file(sys.argv[2]).label)"


def random_checkpoint(path: Path) -> Path:
    """A checkpoint of the shipped MFCC configuration that nothing was trained for."""
    config = yaml.safe_load((Path(__file__).resolve().parents[1] / "configs/mfcc.yaml").read_text(encoding="utf-8"))
    torch.manual_seed(0)
    model = EmotionClassifier(features=config["model"]["features"], classes=ARTICLE)
    state = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams), "training": {}}
    save_checkpoint({**state, "pytorch-lightning_version": lightning.__version__}, path)
    return path


def clip(samples: int, rate: int) -> Waveform:
    """A buzz in noise ``[T]``."""
    seconds = np.arange(samples) / rate
    noise = np.random.default_rng(0).standard_normal(samples)
    return (0.2 * np.sign(np.sin(2 * np.pi * 180 * seconds)) + 0.01 * noise).astype(np.float32)


def cold_start(model: Path, sound: Path) -> float:
    """CPU seconds, user and system, of a new process that predicts one file."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", COLD, str(model), str(sound)], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--starts", type=int, default=5, help="cold starts of each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = options.checkpoint or random_checkpoint(Path(folder) / "random.ckpt")
        model, sound = Path(folder) / "model.onnx", Path(folder) / "clip.wav"
        difference = export(checkpoint, model)["largest_difference"]
        (contract, eager), (_, onnx) = load_torch(checkpoint), load_onnx(model, threads=1)
        wave = clip(contract.length, contract.sample_rate)
        soundfile.write(sound, wave, contract.sample_rate)
        seconds: dict[str, list[float]] = {"PyTorch eager": [], "ONNX Runtime": []}
        for repeat in range(options.repeats + 10):
            for name, network in (("PyTorch eager", eager), ("ONNX Runtime", onnx)):
                start = time.perf_counter()
                network(wave[None])
                if repeat >= 10:
                    seconds[name].append(time.perf_counter() - start)
        cold: dict[str, list[float]] = {"ONNX Runtime": [], "PyTorch": []}
        for _ in range(options.starts):
            cold["ONNX Runtime"].append(cold_start(model, sound))
            cold["PyTorch"].append(cold_start(checkpoint, sound))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians["ONNX Runtime"] / medians["PyTorch eager"]
    print(f"largest difference of probabilities  {difference:.1e}")
    for name, values in seconds.items():
        low, high = np.percentile(values, [25, 75])
        print(f"one clip, 1 thread, {name:<16} {1e3 * medians[name]:6.2f} ms ({1e3 * low:.2f} to {1e3 * high:.2f})")
    print(f"ratio {ratio:.2f} (at most {MAX_RATIO}): {'ok' if ratio <= MAX_RATIO else 'TOO SLOW'}")
    for name, values in cold.items():
        spread = f"({min(values):.2f} to {max(values):.2f})"
        print(f"cold start, {name:<24} {statistics.median(values):6.2f} s of CPU {spread}")
    slow = statistics.median(cold["ONNX Runtime"]) > MAX_COLD
    print(f"cold start at most {MAX_COLD} s: {'TOO SLOW' if slow else 'ok'}")
    sys.exit(1 if slow or ratio > MAX_RATIO else 0)


if __name__ == "__main__":
    main()
