"""The precision that a device is fast at."""

from __future__ import annotations

import torch

BFLOAT16, FLOAT32 = "bf16-mixed", "32-true"
AMPERE = (8, 0)
"""The compute capability from which on CUDA devices multiply in bfloat16."""


def fast_precision(accelerator: object) -> str:
    """``trainer.precision`` where none is given: mixed bfloat16 on devices with units for it, else float32.

    Units for it have CUDA devices since Ampere, and CPUs with AMX or AVX-512-BF16. All others, Apple's GPUs among
    them, take float32.

    Args:
        accelerator: ``trainer.accelerator``, such as ``auto`` or ``cpu``.
    """
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return FLOAT32
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        slowest = min(torch.cuda.get_device_capability(number) for number in range(torch.cuda.device_count()))
        return BFLOAT16 if slowest >= AMPERE else FLOAT32
    return BFLOAT16 if accelerator in ("auto", "cpu") and _cpu_multiplies_bfloat16() else FLOAT32


def _cpu_multiplies_bfloat16() -> bool:
    """Whether oneDNN finds units for it; PyTorch knows the processor, and has no public name for the question."""
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return there and any(ask is not None and ask() for ask in asked)
