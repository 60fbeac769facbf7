"""``python -m emolight export``: a checkpoint as one ONNX file, waveform in, calibrated probabilities out."""

import hashlib
import json
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from emolight import __version__
from emolight.data.audio import Waveform
from emolight.errors import CommandParser, EmolightError
from emolight.files import atomic_write, write_text
from emolight.inference.onnx_network import FIELDS, SCORE, SPEAKERS, load_onnx, seal
from emolight.inference.prediction import Contract
from emolight.inference.torch_network import checkpoint_of, contract_of, load_torch
from emolight.models.classifier import EmotionClassifier
from emolight.models.loading import load_classifier
from emolight.models.networks import Embedder, head_inputs
from emolight.run.finish import CARD
from emolight.run.folder import Run

TOLERANCE = {"float32": 1e-4, "float16": 1e-2}  # how far a probability may differ from PyTorch's in float32
OPSET = 18  # what PyTorch's exporter writes without conversion, and ONNX Runtime reads since 1.14
EXAMPLE = '''"""python example.py voice.wav: what recordings sound like. Needs emolight[export], no PyTorch."""

import sys
from pathlib import Path

import emolight

model = emolight.load(Path(__file__).parent)
for path in sys.argv[1:]:
    said = model.predict_file(path)
    print(path, said, said.probabilities, *said.warnings, sep="\\n  ")
'''
USE = """
## Use

`python example.py voice.wav`, or `python -m emolight predict FOLDER voice.wav`; in Python `emolight.load(FOLDER)`. With
ONNX Runtime alone: `model.onnx` takes `waveform` ({input}) and gives `probabilities` ({output}) of {classes}.
{length_policy}{more}
"""


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
        raise EmolightError(f"The export needs {', '.join(missing)}.", 'Type: pip install "emolight[export]"')
    output = Path(output).expanduser()
    if output.suffix != ".onnx":
        raise EmolightError(f"--output is '{output}'; its name must end in .onnx.", "Type: --output model.onnx")
    checkpoint = checkpoint_of(Path(checkpoint))
    (contract, reference), precision = load_torch(checkpoint), "float16" if half else "float32"
    cut = "nothing is cut at its ends"
    if contract.trim_db is not None:
        cut = f"silence at both ends, {contract.trim_db:g} dB below the loudest frame, is cut"
    properties = {
        **{name: getattr(contract, name) for name in FIELDS},
        "input": f"mono, float32 [batch, time], full scale ±1, {contract.sample_rate} Hz",
        "output": "calibrated probabilities, float32 [batch, classes]",
        "length_policy": f"Any length runs. For the measured figures: {cut}; of longer clips the middle "
        f"{contract.duration:g} s are taken, shorter ones get zeros behind.",
        "data_licence": contract.training.get("licence") or "Unknown: see the training data.",
        "versions": {name: version(name) for name in ("torch", "onnx", "onnxruntime")} | {"emolight": __version__},
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "precision": precision,
        "opset": OPSET,
    }
    if speakers := reference.speakers:
        shape = list(speakers.centre.shape)
        properties |= {
            SPEAKERS: speakers.packed(),
            "offset": f"of the speaker, float32 {shape}; zeros: not enrolled",
            "statistic": f"of which a speaker's offset is made, float32 [batch, {', '.join(map(str, shape))}]",
        }
    model = load_classifier(checkpoint)
    if model.ood is not None:
        properties[SCORE] = "out-of-distribution score, float32 [batch]; above 1: unlike the training clips"
    with atomic_write(output) as part:
        write_onnx(model, properties, part, half)
        network, clips = load_onnx(part)[1], list(synthetic_batches(contract))
        difference = max(float(np.abs(network(clip)[0] - reference(clip)[0]).max()) for clip in clips)
        if speakers:
            ours, theirs = (one.enrol(clips[-2], ordinary=False) for one in (network, reference))
            enrolled = (float(np.abs(network(clip, ours)[0] - reference(clip, theirs)[0]).max()) for clip in clips)
            difference = max(difference, *enrolled)
        if not difference <= TOLERANCE[precision]:
            raise EmolightError(
                f"The exported model's probabilities differ from PyTorch's by {difference:.1e}; at most "
                f"{TOLERANCE[precision]:g} is allowed. Nothing was written.",
                "Predict with the checkpoint, or export with other versions of torch and onnxruntime.",
            )
    return {**properties, "largest_difference": difference}


class _Exported(nn.Module):
    """Waveforms ``[B, T]`` to calibrated probabilities ``[B, C]``; decibels need float32, also where ``half``.

    With a speaker's ``offset``, also to the statistics of which one is made; at the end the out-of-distribution scores.
    """

    def __init__(self, model: EmotionClassifier, half: bool) -> None:
        super().__init__()
        self.front_end, self.normalise = model.front_end.exportable(), model.normalise
        self.ood, self.temperature, self.dtype = model.ood, model.temperature, torch.float16 if half else torch.float32
        self.network: Any = model.network.exportable().to(self.dtype).to(memory_format=torch.contiguous_format)
        self.eval()

    def forward(self, waveform: Tensor, offset: Tensor | None = None) -> tuple[Tensor, ...]:
        seen = self.front_end(waveform)
        with head_inputs(self.network, self.ood is not None) as embedding:
            if isinstance(self.network, Embedder):
                statistic = self.network.embed(seen.squeeze(1))
                logits = self.network.classify(statistic if offset is None else statistic - offset)
            else:
                statistic = seen.mean(-1)
                features = self.normalise(seen if offset is None else seen - offset[..., None])
                logits = self.network(features.to(self.dtype))
        probabilities = (logits.float() / self.temperature).softmax(dim=1)
        scores = () if self.ood is None else (self.ood(embedding[0].flatten(1)),)
        return probabilities, *(() if offset is None else (statistic,)), *scores


def write_onnx(model: EmotionClassifier, properties: dict[str, Any], path: Path, half: bool = False) -> None:
    """Save a classifier as one ONNX file, with its properties as JSON and its checksum; the model is used up."""
    if half and isinstance(model.network, Embedder):
        raise EmolightError(f"{type(model.network).__name__} in float16 cannot be exported.", "Take float32.")
    waves, shift = torch.zeros(2, contract_of(model).length), getattr(model.speakers, "centre", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Exported(model, half),
            (waves,) if shift is None else (waves, shift),
            input_names=["waveform", "offset"][: 1 if shift is None else 2],
            output_names=["probabilities", *["statistic"] * (shift is not None), *[SCORE] * (model.ood is not None)],
            dynamic_shapes={"waveform": {0: "batch", 1: "time"}} | ({} if shift is None else {"offset": {}}),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    for place in (*program.model.graph, program.model.graph):
        place.metadata_props.clear()  # PyTorch notes stack traces there, with the folders of whoever exports
    program.model.metadata_props.update({name: json.dumps(value) for name, value in properties.items()})
    program.save(str(path), external_data=False)
    content = path.read_bytes()
    path.write_bytes(content + seal(content))


def write_bundle(source: str | Path, folder: str | Path, half: bool = False) -> dict[str, Any]:
    """Export a run or checkpoint as ``model.onnx`` with ``config.json``, ``README.md`` and ``example.py``.

    ``README.md`` is the run's model card, below the metadata that hubs read: licence, task, and the run's figures. See
    :func:`~emolight.inference.export.export` for the arguments and the result.
    """
    source, folder = Path(source).expanduser(), Path(folder).expanduser()
    made = export(source, folder / "model.onnx", half)
    training = {name: value for name, value in made["training"].items() if not name.endswith("hashes")}
    made.pop(SPEAKERS, None)
    write_text(folder / "config.json", json.dumps({**made, "training": training}, indent=1) + "\n")
    run = Run.around(source) if checkpoint_of(source).name == "best.ckpt" else None  # of which the figures are
    card, told = run.folder / CARD if run else None, made["training"].get("column", "emotion")
    text = card.read_text(encoding="utf-8") if card and card.is_file() else f"# A classifier of {told} from speech\n"
    more = "".join(f"\n- `{name}`: {made[name]}" for name in ("offset", "statistic", SCORE) if name in made)
    more = f"\n\nIt takes and gives, too:\n{more}" if more else ""
    use = USE.format(**{**made, "classes": ", ".join(made["classes"]), "more": more})
    head = yaml.safe_dump(_metadata(made, run), sort_keys=False, allow_unicode=True)
    write_text(folder / "README.md", f"---\n{head}---\n\n{text}{use}")
    write_text(folder / "example.py", EXAMPLE)
    return made


def _metadata(made: dict[str, Any], run: Run | None) -> dict[str, Any]:
    """What stands at the head of a hub's model card."""
    tags = [f"speech-{made['training'].get('column', 'emotion')}-recognition", "emolight", "onnx"]
    task = {"type": "audio-classification"}
    found = {"license": "other", "license_name": made["data_licence"], "pipeline_tag": task["type"], "tags": tags}
    if run is None:
        return found
    split = f"{run.split.label}, {run.subset} clips"
    data = {"name": made["training"].get("corpus", ""), "type": "audio", "split": split}
    kinds = {"uar": "recall", "accuracy": "accuracy", "macro_f1": "f1"}
    figures = [{"type": kind, "name": key, "value": round(run.metrics[key], 4)} for key, kind in kinds.items()]
    result = {"task": task, "dataset": data, "metrics": figures}
    return {**found, "model-index": [{"name": run.name, "results": [result]}]}


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
        ends = length - length * np.arange(size)[:, None] // 16  # zeros behind, as behind short recordings
        yield np.where(np.arange(length) < ends, tones + noise, 0).astype(np.float32)


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = CommandParser("export", "Export a checkpoint as ONNX: waveform in, calibrated probabilities out.")
    parser.add_argument("checkpoint", type=Path, metavar="RUN", help="a run folder or a checkpoint (.ckpt)")
    parser.add_argument("--output", type=Path, default=Path("model.onnx"), help="default: %(default)s")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="instead a folder for a model hub, with a card")
    parser.add_argument("--half", action="store_true", help="weights in float16: half the size")
    options = parser.parse_args(argv)
    place = options.bundle or options.output
    if options.bundle:
        made, options.output = write_bundle(options.checkpoint, place, options.half), place / "model.onnx"
    else:
        made = export(options.checkpoint, place, options.half)
    print(f"file        {options.output} ({options.output.stat().st_size / 1e6:.1f} MB, {made['precision']})")
    print(f"difference  {made['largest_difference']:.1e} from PyTorch (at most {TOLERANCE[made['precision']]:g})")
    print(f"licence     {made['data_licence']}\n\nnext:\n  python -m emolight predict {place} clip.wav")
    return 0
