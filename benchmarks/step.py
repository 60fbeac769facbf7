"""Clips a second of a training step: torchvision's ResNet18 against the one here, whose small maps go another way.

python benchmarks/step.py [--steps 12] [--batch 32] [--json FILE]        about 2 minutes

Forward, backward and AdamW on tensors in memory, one thread, in float32 and in bfloat16 (autocast, as in
configs/overlays/bf16.yaml). Steps of the networks take turns, so that all see the same machine; figures are medians
of CPU time, which other processes disturb less than wall time. torchvision's network has the same one-channel stem,
and comes as PyTorch makes it and in channels_last, which the one here has too: the last column is the layer's part.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import nn

from emolight.models.vision import ResNet18

INPUTS = ((40, 71), (64, 71), (81, 57))
CLASSES = 5


def theirs() -> nn.Module:
    """torchvision's network with a stem for one channel."""
    network: nn.Module = torchvision.models.resnet18(num_classes=CLASSES)
    network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return network


NETWORKS: dict[str, tuple[Callable[[], nn.Module], torch.memory_format]] = {
    "torchvision": (theirs, torch.contiguous_format),
    "the same, channels_last": (theirs, torch.channels_last),
    "emolight": (lambda: ResNet18(1, CLASSES), torch.channels_last),
}


def stepper(name: str, images: torch.Tensor, labels: torch.Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """One optimiser step of a new network with the same weights as the others."""
    make, form = NETWORKS[name]
    torch.manual_seed(0)
    network = make().to(memory_format=form)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    images = images.contiguous(memory_format=form)

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            logits = network(images)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def clips_a_second(size: tuple[int, int], dtype: torch.dtype, batch: int, steps: int) -> dict[str, float]:
    """Of each network, from the median of its steps; the first two steps do not count."""
    images, labels = torch.randn(batch, 1, *size), torch.arange(batch) % CLASSES
    work = {name: stepper(name, images, labels, dtype) for name in NETWORKS}
    seconds: dict[str, list[float]] = {name: [] for name in NETWORKS}
    for number in range(steps + 2):
        for name, step in work.items():
            start = time.process_time()
            step()
            if number >= 2:
                seconds[name].append(time.process_time() - start)
    return {name: batch / statistics.median(values) for name, values in seconds.items()}


def cpu() -> str:
    """Model and the flags that decide which code oneDNN takes, where Linux tells them."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.is_file() else ""
    model = re.search(r"model name\s*: (.*)", text)
    flags = sorted(set(re.findall(r"\b(?:avx2|avx512f|avx512_bf16|avx512_fp16|amx_\w+)\b", text)))
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return f"{model[1] if model else platform.processor()}: {' '.join(flags)}; torch {torch.__version__}; load {load}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--json", type=Path, help="write the clips a second there too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(cpu())
    print(f"training step of {options.batch} clips, one thread, clips a second\n")
    head = ("input", "precision", *NETWORKS, "against the first", "against the second")
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}", flush=True)
    found = {}
    for size in INPUTS:
        for dtype in (torch.float32, torch.bfloat16):
            rates = clips_a_second(size, dtype, options.batch, options.steps)
            plain, last, ours = rates.values()
            what = f"{size[0]}×{size[1]}", str(dtype).removeprefix("torch.")
            shown = (*(f"{rate:.1f}" for rate in rates.values()), f"× {ours / plain:.2f}", f"× {ours / last:.2f}")
            print(f"| {' | '.join((*what, *shown))} |", flush=True)
            found[" ".join(what)] = rates
    print(cpu())
    if options.json:
        options.json.write_text(json.dumps(found, indent=2, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
