"""A classifier as an ONNX graph, with its properties and a checksum."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emolight.inference.onnx_network import seal
from emolight.inference.torch_network import contract_of
from emolight.models.classifier import EmotionClassifier

OPSET = 18
"""What PyTorch's exporter writes without conversion, and ONNX Runtime reads since 1.14."""


class Exported(nn.Module):
    """What is exported: waveforms ``[B, T]`` to calibrated probabilities ``[B, C]``.

    Args:
        model: the classifier, which is changed.
        half: the network's weights and activations in float16; decibels need all of float32.
    """

    def __init__(self, model: EmotionClassifier, half: bool = False) -> None:
        super().__init__()
        self.front_end, self.normalise = model.front_end.exportable(), model.normalise
        self.temperature, self.dtype = model.temperature, torch.float16 if half else torch.float32
        self.network = model.network.to(self.dtype).to(memory_format=torch.contiguous_format)
        self.eval()

    def forward(self, waveform: Tensor) -> Tensor:
        """Probabilities; see the class."""
        features = self.normalise(self.front_end(waveform)).to(self.dtype)
        probabilities: Tensor = (self.network(features).float() / self.temperature).softmax(dim=1)
        return probabilities


def write_onnx(model: EmotionClassifier, properties: dict[str, Any], path: Path, half: bool = False) -> None:
    """Save a classifier as one ONNX file, with its properties as JSON and its checksum; the model is used up."""
    example = torch.zeros(2, contract_of(model).length)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Exported(model, half),
            (example,),
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
    digest = seal(path.read_bytes())
    with path.open("ab") as stream:
        stream.write(digest)
