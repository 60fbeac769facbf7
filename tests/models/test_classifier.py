from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from emolight.errors import EmolightError
from emolight.models.augment import Augment
from emolight.models.checkpoint import CheckpointFiles
from emolight.models.classifier import (
    EmotionClassifier,
    Normalise,
    load_classifier,
)
from emolight.models.frontend import Features

CLASSES = ["calm", "happy", "sad"]


class Tones(pl.LightningDataModule):
    """Three classes of tones with noise: the interface that the classifier needs of its data."""

    def __init__(self, clips: int = 12) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        time = torch.arange(4000) / 16000
        self.label = torch.arange(clips) % 3
        pitch = torch.tensor([200.0, 600.0, 1800.0])[self.label]
        self.waveform = 0.1 * torch.sin(2 * torch.pi * pitch[:, None] * time)
        self.waveform += 0.01 * torch.randn(clips, 4000, generator=generator)

    def batches(self) -> DataLoader[Any]:
        rows = range(len(self.label))
        clips = [{"waveform": self.waveform[i], "label": self.label[i], "index": torch.tensor(i)} for i in rows]
        return DataLoader(clips, batch_size=4)  # type: ignore[arg-type]

    def training_facts(self) -> dict[str, Any]:
        return {"corpus": "tones"}

    train_dataloader = val_dataloader = test_dataloader = statistics_dataloader = batches


def classifier(mode: str = "mel", **parameters: Any) -> EmotionClassifier:
    torch.manual_seed(0)
    features = Features(mode=mode, hop_length=200, n_mels=32, n_mfcc=20)  # type: ignore[arg-type]
    return EmotionClassifier(features=features, classes=CLASSES, **parameters)


def trainer(tmp_path: Path, **options: Any) -> pl.Trainer:
    quiet = {
        "plugins": [CheckpointFiles()],
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    return pl.Trainer(
        **{**quiet, "default_root_dir": tmp_path, "max_epochs": 1, "num_sanity_val_steps": 0, **options}
    )


@pytest.mark.parametrize("mode", ["spectrogram", "mel", "mfcc", "waveform"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_every_mode_trains_in_both_precisions_and_its_checkpoint_loads(
    mode: str, precision: Any, tmp_path: Path
) -> None:
    model, data = classifier(mode), Tones()
    run = trainer(tmp_path, precision=precision)
    run.fit(model, data)
    run.save_checkpoint(tmp_path / "model.ckpt")
    assert torch.load(tmp_path / "model.ckpt", weights_only=True)["hyper_parameters"]["classes"] == CLASSES
    loaded = load_classifier(tmp_path / "model.ckpt")
    model.eval()
    torch.testing.assert_close(loaded(data.waveform), model(data.waveform))
    assert torch.equal(loaded.normalise.mean, model.normalise.mean)


def test_learns_tones(tmp_path: Path) -> None:
    model, data = classifier(learning_rate=3e-3), Tones(24)
    run = trainer(tmp_path, max_epochs=8)
    run.fit(model, data)
    assert run.callback_metrics["val/uar"] > 0.9


def test_divergence_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EmolightError, match=r"val/loss is (nan|inf) after .* diverged.*\n.*learning_rate"):
        trainer(tmp_path, max_epochs=2).fit(classifier(learning_rate=1e30), datamodule=Tones())


def test_normalisation_is_fitted_on_training_clips_and_not_augmented(tmp_path: Path) -> None:
    model, data = classifier("mel", augment=Augment(gain_db=40.0, noise_db=0.0)), Tones()
    trainer(tmp_path).fit(model, data)
    images = model.front_end(data.waveform)[:, 0].double()
    torch.testing.assert_close(model.normalise.mean[:, 0].double(), images.mean(dim=(0, 2)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        model.normalise.std[:, 0].double(), images.std(dim=(0, 2), correction=0), rtol=1e-4, atol=1e-4
    )


def test_a_row_that_never_changes_is_left_alone() -> None:
    normalise = Normalise(2)
    normalise.fit([torch.stack([torch.full((5,), -3.0), torch.arange(5.0)])[None, None]])
    image = normalise(torch.full((1, 1, 2, 4), -3.0))
    assert torch.equal(image[0, 0, 0], torch.zeros(4))


def test_class_weights_follow_the_training_clips(tmp_path: Path) -> None:
    data = Tones()
    data.label[:] = torch.tensor([0] * 6 + [1] * 3 + [2] * 3)
    model = classifier(class_weights=True)
    trainer(tmp_path).fit(model, data)
    torch.testing.assert_close(model.class_weight, torch.tensor([12 / 18, 12 / 9, 12 / 9]))


def test_same_seed_gives_the_same_weights_to_the_bit(tmp_path: Path) -> None:
    weights = []
    for seed in (1, 1, 2):
        model = classifier(seed=seed)
        trainer(tmp_path).fit(model, Tones())
        weights.append(model.network.conv1.weight.detach().clone())  # type: ignore[union-attr, operator]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"learning_rate": -1.0}, "learning_rate is -1"),
        ({"label_smoothing": 1.5}, "label_smoothing is 1.5"),
        ({"warmup": 0.0}, "warmup is 0"),
        ({"mode": "waveform", "pretrained": True}, "no published weights"),
    ],
)
def test_bad_parameters_are_named(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(EmolightError, match=message):
        classifier(**parameters)
