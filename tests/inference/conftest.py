"""A small model that hears tones, as a checkpoint; nothing is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from emolight.data.audio import profile
from emolight.models.augment import Augment
from emolight.models.checkpoint import save_checkpoint
from emolight.models.classifier import EmotionClassifier
from emolight.models.frontend import Features

CLASSES = ["calm", "happy", "sad"]


def voice(seconds: float = 1.0, rate: int = 16000, pitch: float = 200.0, seed: int = 0) -> np.ndarray:
    """A buzz with harmonics and noise ``[T]``, loud in the middle."""
    time = np.arange(round(seconds * rate)) / rate
    buzz = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 12)) * np.sin(np.pi * time / seconds) ** 2
    return (0.1 * buzz + 0.002 * np.random.default_rng(seed).standard_normal(len(time))).astype(np.float32)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights whose answers differ from clip to clip."""
    torch.manual_seed(0)
    model = EmotionClassifier(
        features=Features(mode="mfcc", n_mels=40, n_mfcc=20),
        augment=Augment(),
        classes=CLASSES,
        duration=1.0,
        trim_db=30,
    )
    waves = torch.from_numpy(np.stack([voice(pitch=pitch) for pitch in (110.0, 150.0, 220.0, 300.0)]))
    model.normalise.fit([model.front_end(waves)])
    model.train()
    for _ in range(20):  # settles the batch norm's running statistics
        model(waves)
    model.temperature.fill_(0.7)
    low, high = (
        {name: f(profile(voice(s), 16000)[name] for s in (0.5, 2.0)) for name in ("duration", "level", "bandwidth")}
        for f in (min, max)
    )
    path = tmp_path_factory.mktemp("model") / "best.ckpt"
    save_checkpoint(
        {
            "state_dict": model.state_dict(),
            "hyper_parameters": dict(model.hparams),
            "training": {
                "corpus": "RAVDESS",
                "protocol": "emobox6 fold 1",
                "actors": [2, 3],
                "hashes": [],
                "ranges": {
                    name: [
                        low[name] * 0.9 if low[name] > 0 else low[name] - 5,
                        high[name] * 1.1 if high[name] > 0 else high[name] + 5,
                    ]
                    for name in low
                },
            },
            "pytorch-lightning_version": "2.6.6",
        },
        path,
    )
    return path
