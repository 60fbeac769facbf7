"""A small model of tones, as a checkpoint; nothing is trained."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from emolight.data.audio import profile
from emolight.models.checkpoint import save_checkpoint
from emolight.models.classifier import EmotionClassifier
from emolight.models.features import MFCC, Spectrogram, Waveform
from emolight.models.networks import Network, WaveCNN
from emolight.models.stems import Stacked

RATE = 16000
CLASSES = ["calm", "happy", "sad"]


def voice(seconds: float = 1.0, rate: int = 16000, pitch: float = 200.0, seed: int = 0) -> np.ndarray:
    """A buzz with harmonics and noise ``[T]``, loud in the middle."""
    time = np.arange(round(seconds * rate)) / rate
    buzz = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 12)) * np.sin(np.pi * time / seconds) ** 2
    return (0.1 * buzz + 0.002 * np.random.default_rng(seed).standard_normal(len(time))).astype(np.float32)


def settle(model: EmotionClassifier) -> EmotionClassifier:
    """A model with random weights whose answers differ from clip to clip."""
    waves = torch.from_numpy(np.stack([voice(pitch=pitch) for pitch in (110.0, 150.0, 220.0, 300.0)]))
    model.normalise.fit([model.front_end(waves)])
    model.train()
    with torch.no_grad():
        for _ in range(20):  # settles the batch norm's running statistics
            model(waves)
    model.temperature.fill_(0.7)
    return model.eval()


def training_facts() -> dict[str, object]:
    """Of a model that knows speakers 02 and 03, chosen on 04, and buzzes of 0.45 to 2.2 s."""
    values = [profile(voice(seconds), 16000) for seconds in (0.5, 2.0)]
    margins = {"duration": 0.2, "level": 5.0, "bandwidth": 500.0}
    return {
        "corpus": "RAVDESS",
        "about": "acted sentences of a test",
        "licence": "CC BY-NC-SA 4.0: name the authors",
        "citation": "nobody",
        "label": "emobox6 fold 1",
        "speakers": ["02", "03"],
        "val_speakers": ["04"],
        "hashes": [],
        "val_hashes": [],
        "ranges": {
            name: [min(one[name] for one in values) - margin, max(one[name] for one in values) + margin]
            for name, margin in margins.items()
        },
    }


def save(model: EmotionClassifier, path: Path) -> Path:
    """The model as a checkpoint."""
    content = {
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "training": training_facts(),
        "pytorch-lightning_version": "2.6.6",
    }
    save_checkpoint(content, path)
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a ResNet18 on MFCC."""
    torch.manual_seed(0)
    model = EmotionClassifier(partial(MFCC, n_mels=40, n_mfcc=20), augment=[], classes=CLASSES, duration=1.0)
    return save(settle(model), tmp_path_factory.mktemp("model") / "best.ckpt")


class Small(Network):
    """A small network in place of the ResNet18."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(in_channels, 8, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(8, num_classes),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image)


def small_model(features: type) -> EmotionClassifier:
    """Balanced so that its probabilities change from clip to clip."""
    torch.manual_seed(0)
    image = features is not Waveform
    made = partial(features, n_fft=400, hop_length=160) if image else features
    if features is Stacked:
        made = partial(Stacked, parts=[partial(MFCC, hop_length=160), partial(Spectrogram, hop_length=160)])
    model = EmotionClassifier(made, Small if image else WaveCNN, augment=[], classes=CLASSES, duration=0.5)
    waves = torch.from_numpy(np.stack([voice(pitch=pitch, seed=int(pitch)) for pitch in (100.0, 170.0, 400.0)]))
    settle(model)
    with torch.no_grad():
        logits = model(waves)
        list(model.network.modules())[-1].bias -= logits.mean(dim=0)
        model.temperature.copy_(logits.std(dim=0).max())
    return model


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that is quick to export."""
    return save(small_model(MFCC), tmp_path_factory.mktemp("small") / "best.ckpt")


@pytest.fixture(scope="session")
def small_onnx(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same exported; commands start with it in half a second."""
    for library in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(library)
    from emolight.inference.export import main

    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    assert main([str(small), "--output", str(path)]) == 0
    return path


def adapted(model: EmotionClassifier) -> EmotionClassifier:
    """The model after it met two speakers of four clips each, of whom one is ordinary."""
    waves = torch.from_numpy(np.stack([voice(pitch=100.0 + 30 * n, seed=n) for n in range(8)]))
    assert model.speakers is not None
    with torch.no_grad():
        model.speakers.fit(model.statistics({"waveform": waves}), torch.arange(8) // 4, torch.arange(8) % 4 == 0)
        model.speakers.strength.fill_(2.0)
        model.temperature.fill_(0.2)
    return model


@pytest.fixture(scope="session")
def enrollable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    made = partial(MFCC, n_fft=400, hop_length=160)
    model = EmotionClassifier(made, Small, augment=[], classes=CLASSES, duration=0.5, speaker_norm=True)
    return save(adapted(settle(model)), tmp_path_factory.mktemp("enrol") / "best.ckpt")


@pytest.fixture(scope="session")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speaker")
    for number in range(6):
        soundfile.write(folder / f"{number}.wav", voice(0.6, pitch=250 + 10 * number, seed=number), RATE)
    return folder
