"""``python -m emolight export``: a checkpoint as one ONNX file, waveform in, calibrated probabilities out."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from emolight import __version__
from emolight.data.audio import Waveform
from emolight.errors import EmolightError
from emolight.files import atomic_write
from emolight.inference.onnx_network import FIELDS, INSTALL, load_onnx
from emolight.inference.recognizer import Contract, Network

TOLERANCE = {"float32": 1e-4, "float16": 1e-2}
"""How far a probability may differ from PyTorch's in float32."""


def export(checkpoint: str | Path, output: str | Path, half: bool = False) -> dict[str, Any]:
    """Export a checkpoint, and write the file only if its probabilities are PyTorch's.

    Args:
        checkpoint: a ``.ckpt`` file or a run folder.
        output: the ``.onnx`` file.
        half: weights in float16, half the size.

    Returns:
        The properties in the file, and ``largest_difference`` of a probability on 20 synthetic clips.

    Raises:
        EmolightError: no usable checkpoint, a library is missing, or a probability differs by more than 1e-4
            (``half``: 1e-2). Then nothing is written.

    Example:
        >>> export("lightning_logs/mfcc/version_0", "model.onnx")["largest_difference"]
        5e-06
    """
    if missing := [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]:
        raise EmolightError(f"The export needs {', '.join(missing)}.", INSTALL)
    output = Path(output).expanduser()
    if output.suffix != ".onnx":
        raise EmolightError(f"--output is '{output}'; its name must end in .onnx.", "Type: --output model.onnx")
    from emolight.inference.onnx_writer import OPSET, write_onnx  # here, because --help needs no PyTorch
    from emolight.inference.torch_network import checkpoint_of, load_torch
    from emolight.models.loading import load_classifier

    checkpoint = checkpoint_of(Path(checkpoint).expanduser())
    contract, reference = load_torch(checkpoint)
    precision = "float16" if half else "float32"
    properties = {**_properties(contract, checkpoint), "precision": precision, "opset": OPSET}
    with atomic_write(output) as part:
        write_onnx(load_classifier(checkpoint), properties, part, half)
        difference = largest_difference(load_onnx(part)[1], reference, synthetic_batches(contract))
        if not difference <= TOLERANCE[precision]:
            raise EmolightError(
                f"The exported model's probabilities differ from PyTorch's by {difference:.1e}; at most "
                f"{TOLERANCE[properties['precision']]:g} is allowed. Nothing was written.",
                "Predict with the checkpoint, or export with other versions of torch and onnxruntime.",
            )
    return {**properties, "largest_difference": difference}


def _properties(contract: Contract, checkpoint: Path) -> dict[str, Any]:
    cut = "nothing is cut at its ends"
    if contract.trim_db is not None:
        cut = f"silence at both ends, {contract.trim_db:g} dB below the loudest frame, is cut"
    return {
        **{name: getattr(contract, name) for name in FIELDS},
        "input": f"mono, float32 [batch, time], full scale ±1, {contract.sample_rate} Hz",
        "output": "calibrated probabilities, float32 [batch, classes]",
        "length_policy": f"Any length runs. For the measured figures: {cut}; of longer clips the middle "
        f"{contract.duration:g} s are taken, shorter ones get zeros behind.",
        "data_licence": contract.training.get("licence") or "Unknown: see the training data.",
        "versions": {name: version(name) for name in ("torch", "onnx", "onnxruntime")} | {"emolight": __version__},
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
    }


def synthetic_batches(contract: Contract) -> Iterator[Waveform]:
    """20 clips of tones in noise in batches of 1 to 5, from 50 ms to twice the model's length, ``[B, T]`` each.

    The tones lie where voices do, from 60 to 1000 Hz. Of a pure tone above ``f_max`` a spectrogram keeps only the
    leakage, where PyTorch's float32 transform is itself up to 0.7 dB off: that compares rounding, not models.
    """
    generator = np.random.default_rng(0)
    for size, share in ((1, 1.0), (2, 0.5), (3, 2.0), (4, 1.3), (5, 1.0), (5, 0.0)):
        length = max(round(share * contract.length), round(0.05 * contract.sample_rate))
        seconds = np.arange(length) / contract.sample_rate
        hertz = generator.uniform(60, 1000, (size, 1))
        tones = generator.uniform(0.01, 0.7, (size, 1)) * np.sin(2 * np.pi * hertz * seconds)
        noise = 10 ** generator.uniform(-5, -1, (size, 1)) * generator.standard_normal((size, length))
        yield (tones + noise).astype(np.float32)


def largest_difference(network: Network, reference: Network, batches: Iterable[Waveform]) -> float:
    """The largest absolute difference of two networks' probabilities."""
    return max(float(np.abs(network(batch) - reference(batch)).max()) for batch in batches)


def main(argv: Sequence[str]) -> int:
    """Run ``python -m emolight export``; returns 0.

    Raises:
        EmolightError: see :func:`export`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m emolight export",
        description="Export a checkpoint as ONNX: waveform in, calibrated probabilities out.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="RUN", help="a run folder or a checkpoint (.ckpt)")
    parser.add_argument("--output", type=Path, default=Path("model.onnx"), help="default: %(default)s")
    parser.add_argument("--half", action="store_true", help="weights in float16: half the size")
    options = parser.parse_args(argv)
    report = export(options.checkpoint, options.output, options.half)
    allowed = TOLERANCE[report["precision"]]
    rows = {
        "file": f"{options.output} ({options.output.stat().st_size / 1e6:.1f} MB, {report['precision']})",
        "opset": report["opset"],
        "versions": ", ".join(f"{name} {number}" for name, number in report["versions"].items()),
        "difference": f"{report['largest_difference']:.1e} from PyTorch (at most {allowed:g})",
        "licence": report["data_licence"],
    }
    for name, value in rows.items():
        print(f"{name:<12}{value}")
    print(f"\nnext:\n  python -m emolight predict {options.output} clip.wav")
    return 0
