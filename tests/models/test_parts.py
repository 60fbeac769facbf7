from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from emolight.errors import EmolightError
from emolight.models.augment import Augmentation, Gain, TimeShift
from emolight.models.classifier import EmotionClassifier
from emolight.models.features import MFCC, Features, MelSpectrogram
from emolight.models.networks import Network
from emolight.models.parts import build
from emolight.models.vision import ResNet18

MINE = """
from torch import nn
from emolight.models.features import MelSpectrogram
from emolight.models.networks import Network

class MyNet(Network):
    def __init__(self, in_channels, num_classes, widths=(4, 8), name="x"):
        super().__init__(in_channels, num_classes)
        self.last = nn.Linear(in_channels * widths[-1], num_classes)

class Wide(MelSpectrogram):
    def __init__(self, sample_rate, extra=1, **options):
        super().__init__(sample_rate, **options)

class Plain(nn.Module):
    def __init__(self, in_channels, num_classes, width):
        super().__init__()

class Loss:
    pass
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of a user, which nobody has imported."""
    (tmp_path / "my_parts.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "my_parts"
    sys.modules.pop("my_parts", None)


def test_a_part_remembers_all_of_its_arguments_but_what_the_classifier_gives() -> None:
    part = MFCC(16000, 13, hop_length=256)
    assert part.spec["class_path"] == "emolight.models.features.MFCC"
    arguments = part.spec["init_args"]
    assert (arguments["n_mfcc"], arguments["hop_length"], arguments["n_mels"]) == (13, 256, 64)
    assert "sample_rate" not in arguments
    assert ResNet18(1, 5).spec["init_args"] == {"pretrained": False}
    assert ResNet18(num_classes=5, in_channels=1).spec == ResNet18(1, 5).spec


@pytest.mark.parametrize("again", [copy.deepcopy, lambda part: pickle.loads(pickle.dumps(part))])
def test_copies_and_pickles_remember_too(again: Any) -> None:
    part = MFCC(16000, n_mfcc=13)
    other, wave = again(part), torch.randn(1, 4000)
    assert other.spec == part.spec
    assert torch.equal(other(wave), part(wave))


def test_a_specification_builds_the_same_again() -> None:
    for part, base, given in (
        (MFCC(16000, n_mfcc=13, deltas=1), Features, (16000,)),
        (ResNet18(2, 4), Network, (2, 4)),
        (TimeShift(0.3), Augmentation, ()),
    ):
        assert build(part.spec, base)(*given).spec == part.spec
    assert isinstance(build("MelSpectrogram", Features)(16000), MelSpectrogram)
    assert build({"class_path": "Gain"}, Augmentation)().spec == Gain().spec


def test_arguments_become_plain_values() -> None:
    class Kind(StrEnum):
        LOUD = "loud"

    class Shout(Augmentation):
        def __init__(self, kind: str, size: float, path: Path, parts: Any) -> None:
            super().__init__()

    spec = Shout(Kind.LOUD, np.float32(0.5), Path("a/b"), parts=({"a": np.int64(2)}, None, True)).spec
    assert spec["init_args"] == {"kind": "loud", "size": 0.5, "path": "a/b", "parts": [{"a": 2}, None, True]}
    kinds = [type(value) for value in spec["init_args"].values()]
    assert kinds == [str, float, str, list]
    with pytest.raises(EmolightError, match="'parts' is a Linear; a checkpoint holds plain values only"):
        _ = Shout("loud", 1.0, Path("a"), nn.Linear(1, 1)).spec


@pytest.mark.parametrize(
    ("spec", "base", "words"),
    [
        ("MFC", Features, ("Unknown features: 'MFC'", "Did you mean 'MFCC'? Valid: ", "MFCC, MelSpectrogram")),
        ("ResNet", Network, ("Unknown network", "MobileNetV3", "ResNet18, ResNet34", "WaveCNN")),
        ({"class_path": "MFCC", "init_args": {"n_mfc": 3}}, Features, ("no argument 'n_mfc'", "mean 'n_mfcc'")),
        ({"class_path": "MFCC", "init_args": {"sample_rate": 8000}}, Features, ("no argument 'sample_rate'",)),
        ("os.system", Features, ("no class 'os.system'",)),
        ("subprocess.Popen", Network, ("does not derive from Network",)),
        ("emolight.models.nothing.X", Network, ("cannot be imported",)),
        ("emolight.models.vision.ResNet19", Network, ("no class", "Did you mean 'ResNet18'")),
        ({"init_args": {}}, Network, ("A part of the model is",)),
        (3, Network, ("A part of the model is 3",)),
    ],
)
def test_what_cannot_be_built_is_named(spec: Any, base: type, words: tuple[str, ...]) -> None:
    with pytest.raises(EmolightError) as caught:
        build(spec, base)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "ForeignNetwork" not in str(caught.value)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"features": MFCC(16000)}, "features is one MFCC; expected what makes it for the data.\nGive the class, or f"),
        ({"network": nn.Linear(1, 2)}, "network is one Linear"),
    ],
)
def test_what_is_made_already_is_refused(parts: dict[str, Any], words: str) -> None:
    with pytest.raises(EmolightError, match=words):
        EmotionClassifier(**parts, classes=["calm", "sad"])


def test_a_module_is_imported_only_where_it_is_trusted(mine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EmolightError, match="Nothing of it was executed"):
        build(f"{mine}.MyNet", Network)
    assert mine not in sys.modules
    monkeypatch.setenv("EMOLIGHT_IMPORTS", f"other, {mine}")
    network = build({"class_path": f"{mine}.MyNet", "init_args": {"name": "y"}}, Network)(1, 5)
    assert network.spec == {"class_path": "my_parts.MyNet", "init_args": {"widths": [4, 8], "name": "y"}}
    assert build("MyNet", Network)(1, 5).spec["init_args"]["name"] == "x"
    wide = build({"class_path": "my_parts.Wide", "init_args": {"n_mels": 20, "f_max": 4000.0}}, Features)(16000)
    assert (wide.rows, wide.spec["init_args"]["extra"], wide.spec["init_args"]["n_mels"]) == (20, 1, 20)
    with pytest.raises(EmolightError, match="Plain needs width"):
        build(f"{mine}.Plain", Network)
    with pytest.raises(EmolightError, match="does not derive from Network"):
        build(f"{mine}.Loss", Network)
