"""The precision that a device is fast at."""

import platform
import re
from pathlib import Path

import torch

BFLOAT16, FLOAT32 = "bf16-mixed", "32-true"
AMPERE = (8, 0)
"""The compute capability from which on CUDA devices multiply in bfloat16."""


def fast_precision(accelerator: object) -> str:
    """``trainer.precision`` for a ``trainer.accelerator``: mixed bfloat16 on devices with units for it, else float32.

    Units for it have CUDA devices since Ampere, and CPUs with AMX or AVX-512-BF16. All others, Apple's GPUs among
    them, take float32.
    """
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return FLOAT32
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        slowest = min(torch.cuda.get_device_capability(number) for number in range(torch.cuda.device_count()))
        return BFLOAT16 if slowest >= AMPERE else FLOAT32
    return BFLOAT16 if accelerator in ("auto", "cpu") and bfloat16_units() else FLOAT32


def bfloat16_units() -> list[str]:
    """The CPU's units for bfloat16 that oneDNN uses; PyTorch knows the CPU, and has no public name for the question."""
    asks = {"amx_bf16": "_is_amx_tile_supported", "avx512_bf16": "_is_avx512_bf16_supported"}
    there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return [name for name, ask in asks.items() if there and getattr(torch.cpu, ask, bool)()]


def processor() -> str:
    """Model of the CPU and its units for bfloat16, such as ``AMD EPYC (bfloat16: avx512_bf16)``."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text(encoding="utf-8")) if info.is_file() else None
    return f"{found[1] if found else platform.processor()} (bfloat16: {', '.join(bfloat16_units()) or 'none'})"
