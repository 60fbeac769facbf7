"""``python -m emolight export``: a checkpoint as one ONNX file, waveform in, calibrated probabilities out."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emolight import __version__
from emolight.data.audio import AudioError, Waveform, fix_length
from emolight.errors import EmolightError
from emolight.files import atomic_write
from emolight.inference.onnx_network import FIELDS, INSTALL, SEAL, load_onnx, seal
from emolight.inference.predict import find_recordings
from emolight.inference.recognizer import Contract, Network, Recognizer
from emolight.inference.torch_network import load_torch
from emolight.models.classifier import EmotionClassifier, load_classifier
from emolight.models.frontend import Features, FrontEnd

OPSET = 18
"""What PyTorch's exporter writes without conversion, and ONNX Runtime reads since 1.14."""
TOLERANCE = 1e-4
AGREEMENT = 0.95
MAX_CLIPS = 200
LICENCES = {
    "RAVDESS": "RAVDESS: CC BY-NC-SA 4.0. Non-commercial use only; name the authors (Livingstone and Russo, 2018).",
    "synthetic": "Synthetic voices: no recording's licence applies.",
}


class ConvolutionFrontEnd(FrontEnd):
    """The same features, with the Fourier transform as a convolution.

    ONNX Runtime's DFT took 3 times as long at 512 points and 28 times at 400, and PyTorch cannot export a complex
    spectrum of which all bins are kept. A strided convolution with the windowed cosines and sines is framing and
    matrix product in one, and computes the bins in use only.
    """

    basis: Tensor

    def __init__(self, features: Features, sample_rate: int) -> None:
        super().__init__(features, sample_rate)
        if features.mode != "waveform":
            bins = np.arange(self.first_bin, self.last_bin)[:, None]
            turns = bins * np.arange(features.n_fft) % features.n_fft / features.n_fft
            basis = np.concatenate([np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)])
            windowed = torch.from_numpy(basis) * self.window.double()
            self.register_buffer("basis", windowed.float().unsqueeze(1), persistent=False)

    def _power(self, waveform: Tensor) -> Tensor:
        n_fft = self.features.n_fft
        padded = nn.functional.pad(waveform, (n_fft // 2, n_fft // 2)).unsqueeze(1)
        spectrum = nn.functional.conv1d(padded, self.basis, stride=self.features.hop_length)
        real, imaginary = spectrum.transpose(1, 2).chunk(2, dim=2)
        return real * real + imaginary * imaginary


class Calibrated(nn.Module):
    """What is exported: waveforms ``[B, T]`` to calibrated probabilities ``[B, C]``."""

    def __init__(self, model: EmotionClassifier) -> None:
        super().__init__()
        self.front_end = ConvolutionFrontEnd(model.front_end.features, int(model.hparams["sample_rate"]))
        self.normalise, self.temperature = model.normalise, model.temperature
        self.network = model.network.to(memory_format=torch.contiguous_format)

    def forward(self, waveform: Tensor) -> Tensor:
        """Probabilities; see the class."""
        logits = self.network(self.normalise(self.front_end(waveform)))
        probabilities: Tensor = (logits / self.temperature).softmax(dim=1)
        return probabilities


def export(checkpoint: Path, output: Path, int8: bool = False, clips: Path | None = None) -> dict[str, Any]:
    """Export a checkpoint, check it against PyTorch, then write ``output`` and the JSON beside it.

    Args:
        checkpoint: a ``.ckpt`` file.
        output: the ``.onnx`` file.
        int8: quantise the network's weights and activations, calibrated on every second clip of ``clips``.
        clips: folder of recordings for the check, beside 20 synthetic ones; at most 200 of them are used.

    Returns:
        Properties (those of the file, and ``sha256``), ``largest_difference`` of probabilities, and with ``int8``
        ``label_agreement`` (0 to 1) and ``int8_difference``, over the clips that did not calibrate.

    Raises:
        EmolightError: no usable checkpoint or clips, a library is missing, or the exported model differs from
            PyTorch by more than 1e-4 in a probability (``int8``: in more than 5 % of the labels). Then nothing is
            written.
    """
    if missing := [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]:
        raise EmolightError(f"The export needs {', '.join(missing)}.", INSTALL)
    if output.suffix != ".onnx":
        raise EmolightError(f"--output is '{output}'; its name must end in .onnx.", "Type: --output model.onnx")
    if int8 and clips is None:
        raise EmolightError("--int8 needs recordings to set and check its scales by.", "Give --clips DIR.")
    contract, reference = load_torch(checkpoint)
    recordings = _recordings(Recognizer(contract, reference), clips) if clips else []
    if int8 and len(recordings) < 20:
        raise EmolightError(f"--int8 needs 20 usable recordings, {clips} has {len(recordings)}.", "Add some.")
    properties = _properties(contract, checkpoint, int8)
    with atomic_write(output) as part, atomic_write(output.with_suffix(".json")) as beside:
        _write(Calibrated(load_classifier(checkpoint)).eval(), contract, properties, part)
        difference, _ = compare(
            load_onnx(part)[1], reference, [*synthetic_batches(contract), *_batches(recordings)]
        )
        if not difference <= TOLERANCE:
            raise EmolightError(
                f"The exported model's probabilities differ from PyTorch's by {difference:.1e}; at most "
                f"{TOLERANCE:g} is allowed. Nothing was written.",
                "Predict with the checkpoint, or export with other versions of torch and onnxruntime.",
            )
        report = {**properties, "largest_difference": difference}
        if int8:
            _quantise(part, _batches(recordings[::2]))
            difference, agreement = compare(load_onnx(part)[1], reference, _batches(recordings[1::2]))
            if agreement < AGREEMENT:
                raise EmolightError(
                    f"Only {100 * agreement:.1f} % of the labels survive 8 bits; at least {100 * AGREEMENT:.0f} % "
                    "must. Nothing was written.",
                    "Export without --int8, or give --clips with more recordings like the ones to predict.",
                )
            report |= {"int8_difference": difference, "label_agreement": agreement}
        report["sha256"] = hashlib.sha256(part.read_bytes()).hexdigest()
        beside.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def _properties(contract: Contract, checkpoint: Path, int8: bool) -> dict[str, Any]:
    cut = "nothing is cut at its ends"
    if contract.trim_db is not None:
        cut = f"silence at both ends, {contract.trim_db:g} dB below the loudest frame, is cut"
    corpus = contract.training.get("corpus")
    return {
        **{name: getattr(contract, name) for name in FIELDS},
        "input": f"mono, float32 [batch, time], full scale ±1, {contract.sample_rate} Hz",
        "output": "calibrated probabilities, float32 [batch, classes]",
        "length_policy": f"Any length runs. For the measured figures: {cut}; of longer clips the middle "
        f"{contract.duration:g} s are taken, shorter ones get zeros behind.",
        "data_licence": LICENCES.get(str(corpus), "Unknown: see the training data."),
        "precision": "int8" if int8 else "float32",
        "opset": OPSET,
        "versions": {name: version(name) for name in ("torch", "onnx", "onnxruntime")} | {"emolight": __version__},
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
    }


def _write(model: Calibrated, contract: Contract, properties: dict[str, Any], path: Path) -> None:
    """Save the model as one ONNX file, with its checksum."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            (torch.zeros(2, contract.length),),
            input_names=["waveform"],
            output_names=["probabilities"],
            dynamic_shapes={"waveform": {0: "batch", 1: "time"}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # PyTorch notes a stack trace there, with the folders of whoever exports
    program.model.graph.metadata_props.clear()
    program.model.metadata_props.update({name: json.dumps(value) for name, value in properties.items()})
    program.save(str(path), external_data=False)
    _seal(path)


def _seal(path: Path) -> None:
    digest = seal(path.read_bytes())
    with path.open("ab") as stream:
        stream.write(digest)


def _quantise(path: Path, batches: Iterable[Waveform]) -> None:
    """Replace the network in an ONNX file by one in 8 bits; the front-end's decibels need all of float32."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feed = ({"waveform": row[None]} for batch in batches for row in batch)

        def get_next(self) -> dict[str, Waveform] | None:
            return next(self.feed, None)

    path.write_bytes(path.read_bytes()[:-SEAL])  # of the file in 32 bits
    nodes = onnx.load(path).graph.node
    first = next(n for n, node in enumerate(nodes) if node.op_type == "Conv" and "basis" not in node.input[1])
    logging.disable(logging.WARNING)  # onnxruntime recommends a preparation that PyTorch's exporter has done
    try:
        quantize_static(
            str(path),
            str(path),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,  # without VNNI, products of 8 bits overflow the 16-bit sums of AVX2
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Gemm"],
            nodes_to_exclude=[node.name for node in nodes[:first]],
        )
    finally:
        logging.disable(logging.NOTSET)
    _seal(path)


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


def _recordings(recognizer: Recognizer, folder: Path) -> list[Waveform]:
    """Prepared recordings of a folder, evenly spread over it; files that cannot be used are passed over."""
    paths = find_recordings([str(folder)])
    found = []
    for path in paths[:: -(-len(paths) // MAX_CLIPS)]:
        try:
            wave = recognizer.load_clip(path).waveform
        except AudioError:
            continue
        found.append(fix_length(wave, recognizer.contract.length))
    return found


def _batches(waves: Sequence[Waveform], size: int = 8) -> Iterator[Waveform]:
    return (np.stack(waves[first : first + size]) for first in range(0, len(waves), size))


def compare(network: Network, reference: Network, batches: Iterable[Waveform]) -> tuple[float, float]:
    """Largest absolute difference of two networks' probabilities, and the share of clips with the same label."""
    pairs = [(network(batch), reference(batch)) for batch in batches]
    ours, theirs = (np.concatenate(rows) for rows in zip(*pairs, strict=True))
    return float(np.abs(ours - theirs).max()), float(np.mean(ours.argmax(axis=1) == theirs.argmax(axis=1)))


def main(argv: Sequence[str]) -> int:
    """Run ``python -m emolight export``; returns 0.

    Raises:
        EmolightError: see :func:`export`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m emolight export",
        description="Export a checkpoint as ONNX: waveform in, calibrated probabilities out.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="RUN/checkpoints/best.ckpt")
    parser.add_argument("--output", type=Path, default=Path("model.onnx"), help="default: %(default)s")
    parser.add_argument("--int8", action="store_true", help="quantise to 8 bits; needs --clips")
    parser.add_argument(
        "--clips", type=Path, metavar="DIR", help=f"recordings to check by too; at most {MAX_CLIPS} are used"
    )
    options = parser.parse_args(argv)
    report = export(options.checkpoint, options.output, options.int8, options.clips)
    rows = {
        "file": f"{options.output} ({options.output.stat().st_size / 1e6:.1f} MB, {report['precision']})",
        "properties": f"{options.output.with_suffix('.json')} (also inside the file)",
        "opset": report["opset"],
        "versions": ", ".join(f"{name} {number}" for name, number in report["versions"].items()),
        "difference": f"{report['largest_difference']:.1e} from PyTorch (at most {TOLERANCE:g})",
    }
    if options.int8:
        rows["in 8 bits"] = (
            f"{100 * report['label_agreement']:.1f} % of labels agree, difference {report['int8_difference']:.2g}"
        )
    for name, value in rows.items():
        print(f"{name:<12}{value}")
    print(f"\nnext:\n  python -m emolight predict {options.output} clip.wav")
    return 0
