from __future__ import annotations

import copy
import functools
import pickle
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, StochasticWeightAveraging
from torch import nn
from torch.utils.data import DataLoader

from emolight.errors import EmolightError
from emolight.evaluation.calibration import fit_temperature
from emolight.models.augment import Gain, Noise, TimeShift
from emolight.models.checkpoint import CheckpointFiles, save_checkpoint, weights_only_state
from emolight.models.classifier import EmotionClassifier
from emolight.models.features import MFCC, Features, MelSpectrogram, Spectrogram, Waveform
from emolight.models.loading import load_classifier
from emolight.models.networks import Network, WaveCNN
from emolight.models.normalise import Normalise
from emolight.models.schedule import one_cycle
from emolight.models.scores import Scores
from emolight.models.vision import MobileNetV3, ResNet18

CLASSES = ["calm", "happy", "sad"]
MEL = functools.partial(MelSpectrogram, n_mels=32, hop_length=200)


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
        self.facts: dict[str, Any] = {"corpus": "tones", "hashes": ["a", "b"]}
        self.contract: dict[str, Any] = {
            "classes": CLASSES,
            "sample_rate": 16000,
            "duration": 0.25,
            "trim_db": None,
        }

    def batches(self) -> DataLoader[Any]:
        rows = range(len(self.label))
        clips = [{"waveform": self.waveform[i], "label": self.label[i], "index": torch.tensor(i)} for i in rows]
        return DataLoader(clips, batch_size=4)  # type: ignore[arg-type]

    def training_facts(self) -> dict[str, Any]:
        return self.facts

    train_dataloader = val_dataloader = test_dataloader = statistics_dataloader = batches


class Narrow(Network):
    """Enough to learn tones, in no time."""

    def __init__(self, in_channels: int, num_classes: int, width: int = 8) -> None:
        super().__init__(in_channels, num_classes)
        self.layers = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU())
        self.last = nn.Linear(32 * width, num_classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.last(self.layers(image).mean(dim=3).flatten(1))


def classifier(features: Any = MEL, network: Any = Narrow, **parameters: Any) -> EmotionClassifier:
    torch.manual_seed(0)
    return EmotionClassifier(features, network, **parameters)


def trainer(folder: Path, **options: Any) -> pl.Trainer:
    quiet = {
        "plugins": [CheckpointFiles()],
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "default_root_dir": folder,
        "max_epochs": 1,
        "num_sanity_val_steps": 0,
    }
    return pl.Trainer(**{**quiet, **options})


DEEP = (functools.partial(Spectrogram, hop_length=200), ResNet18)
SMALL = [(functools.partial(MFCC, hop_length=200, deltas=2), MobileNetV3), (Waveform, WaveCNN)]


@pytest.mark.parametrize(
    ("features", "network", "precision"),
    [
        *((*one, precision) for one in (DEEP, *SMALL) for precision in ("32-true", "bf16-mixed", "bf16-true")),
        *((*one, "16-true") for one in SMALL),  # float16 is slow on a CPU
    ],
)
def test_every_input_trains_in_every_precision_and_its_checkpoint_loads(
    features: Any, network: Any, precision: Any, tmp_path: Path
) -> None:
    """Without classes, which the data module gives; what is not the network stays float32."""
    model, data = classifier(features, network, learning_rate=1e-5), Tones()
    run = trainer(tmp_path, precision=precision)
    run.fit(model, data)
    run.save_checkpoint(tmp_path / "model.ckpt")
    content = torch.load(tmp_path / "model.ckpt", weights_only=True)
    assert content["hyper_parameters"]["classes"] == CLASSES
    assert content["training"] == data.facts
    loaded, model = load_classifier(tmp_path / "model.ckpt"), model.float().eval()
    torch.testing.assert_close(loaded(data.waveform), model(data.waveform))
    for name in ("mean", "std"):
        values = getattr(loaded.normalise, name)
        assert torch.equal(values, getattr(model.normalise, name))
        assert not torch.equal(values, values.bfloat16().float())
    assert float(loaded.temperature) == float(model.temperature) != 1
    assert loaded.embed(data.waveform).shape == (12, loaded.network.head.in_features)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_learns_tones_and_says_what_it_predicts(precision: Any, tmp_path: Path) -> None:
    """The predictions are uncalibrated, and the temperature fits them; the sanity check fits nothing."""
    model, data = classifier(learning_rate=0.01, mixup=0.0), Tones(24)
    seen: list[float] = []

    class Look(pl.Callback):
        def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            assert isinstance(pl_module, EmotionClassifier)
            seen.append(float(pl_module.temperature))
            assert len(pl_module.predictions["index"]) == (4 if trainer.sanity_checking else 24)

    run = trainer(tmp_path, max_epochs=8, precision=precision, num_sanity_val_steps=1, callbacks=[Look()])
    run.fit(model, data)
    assert run.callback_metrics["val/uar"] > 0.9
    assert {"val/loss", "val/accuracy", "val/f1", "val/recall_calm", "train/loss"} <= set(run.callback_metrics)
    found = model.predictions
    assert seen[0] == 1.0
    assert (
        seen[-1]
        == float(model.temperature)
        == pytest.approx(fit_temperature(found["probabilities"], data.label.numpy()), rel=1e-6)
    )
    assert found["index"].tolist() == list(range(24))
    assert found["index"].dtype == found["label"].dtype == np.int64
    assert found["probabilities"].dtype == np.float32
    own = model.float().eval()(data.waveform).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(found["probabilities"], own, atol=2e-2 if precision == "bf16-true" else 1e-5)
    temperature = float(model.temperature)
    run.test(model, data, verbose=False)
    assert run.callback_metrics["test/uar"] > 0.9
    assert float(model.temperature) == temperature


def test_averaged_weights_are_of_the_whole_model_and_calibrated(tmp_path: Path) -> None:
    """Also of a model that learns its classes from the data, after Lightning's callbacks have copied it."""
    model, data, average = classifier(learning_rate=0.03), Tones(24), EMAWeightAveraging(decay=0.5)
    kept, swa = ModelCheckpoint(tmp_path), StochasticWeightAveraging(0.01, swa_epoch_start=5)
    trainer(tmp_path, callbacks=[average, swa, kept], enable_checkpointing=True, max_epochs=2).fit(model, data)
    loaded, found = load_classifier(kept.best_model_path), model.predictions
    own = loaded(data.waveform).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(found["probabilities"], own, atol=1e-5)
    temperature = fit_temperature(found["probabilities"], data.label.numpy())
    assert float(loaded.temperature) == float(model.temperature) == pytest.approx(temperature, rel=1e-6) != 1
    assert swa._average_model is not None
    assert len(list(swa._average_model.parameters())) == len(list(model.parameters()))


def test_the_metrics_are_those_of_the_predictions() -> None:
    """Also where two logits differ by less than float32 can tell of probabilities: the table says the first of them."""
    scores, label = Scores(CLASSES, "val"), torch.tensor([1, 1, 0])
    part = scores.add({"index": torch.arange(3), "label": label}, torch.tensor([[0.0, 1e-9, 0.0]] * 3))
    right = part["probabilities"].numpy().argmax(axis=1) == label.numpy()
    assert float(scores.compute()["val/accuracy"]) == pytest.approx(right.mean())


def test_parts_may_be_names_specifications_classes_and_plain_modules(tmp_path: Path) -> None:
    class Plain(nn.Sequential):
        def __init__(self, in_channels: int, num_classes: int, size: int = 8) -> None:
            pool = nn.AdaptiveAvgPool2d(size)
            super().__init__(pool, nn.Flatten(), nn.Linear(in_channels * size**2, num_classes))

    known = {"classes": CLASSES, "duration": 0.25}
    mfcc = {"class_path": "MFCC", "init_args": {"n_mfcc": 13, "hop_length": 200}}
    for network in ("Narrow", {"class_path": f"{__name__}.Narrow"}, Narrow, functools.partial(Narrow, width=8)):
        model = classifier(mfcc, network, augment=[{"class_path": "Gain"}, TimeShift(0.2)], **known)
        assert model.hparams["features"]["init_args"]["n_mfcc"] == 13
        assert model.hparams["network"] == {"class_path": f"{__name__}.Narrow", "init_args": {"width": 8}}
        gain, shift = (one["init_args"] for one in model.hparams["augment"])
        assert (gain, shift) == ({"decibels": 3.0, "p": 1.0}, {"fraction": 0.2, "p": 1.0})
    model = classifier(MEL, functools.partial(Plain, size=2), **known)
    assert model(torch.randn(2, 4000)).shape == (2, 3)
    assert model.embed(torch.randn(2, 4000)).shape == (2, 4)
    assert model.hparams["network"]["init_args"] == {"size": 2}
    other = pickle.loads(pickle.dumps(copy.deepcopy(classifier(**known))))
    assert other.hparams == classifier(**known).hparams


def test_a_learning_front_end_learns_and_an_image_network_leaves_out_no_augmentation(tmp_path: Path) -> None:
    class Learnt(Features):
        rows, hop_length = 4, 200

        def __init__(self, sample_rate: int) -> None:
            super().__init__(sample_rate)
            self.filters = nn.Conv1d(1, 4, 200, stride=200)

        def compute(self, waveform: torch.Tensor) -> torch.Tensor:
            return self.filters(waveform[:, None])[:, None]

    class Flat(Network):
        def __init__(self, in_channels: int, num_classes: int) -> None:
            super().__init__(in_channels, num_classes)
            self.last = nn.Linear(4, num_classes)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.last(image.square().mean(dim=(1, 3)))

    model = classifier(Learnt, Flat, classes=CLASSES, duration=0.25)
    before = model.front_end.filters.weight.detach().clone()  # type: ignore[union-attr]
    trainer(tmp_path, precision="bf16-true").fit(model, Tones())
    after = model.front_end.filters.weight  # type: ignore[union-attr]
    assert after.dtype == torch.float32
    assert not torch.equal(before, after)


def test_a_checkpoint_of_a_plain_trainer_loads_and_says_that_it_has_no_checksum(tmp_path: Path) -> None:
    """So does one of the weights alone, by this project and by Lightning's own `test`."""
    model, data = classifier(), Tones()
    run = trainer(tmp_path, plugins=None)
    run.fit(model, data)
    run.save_checkpoint(tmp_path / "plain.ckpt")
    with pytest.warns(UserWarning, match=r"plain\.ckpt has no checksum"):
        loaded = load_classifier(tmp_path / "plain.ckpt")
    torch.testing.assert_close(loaded(data.waveform), model.eval()(data.waveform))
    assert loaded.training_facts == data.facts
    best = weights_only_state(torch.load(tmp_path / "plain.ckpt", weights_only=True))
    assert "optimizer_states" not in best
    save_checkpoint(best, tmp_path / "best.ckpt")
    expected = run.test(model, data, verbose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert load_classifier(tmp_path / "best.ckpt").hparams == model.hparams
    (again,) = trainer(tmp_path).test(classifier(), data, ckpt_path=str(tmp_path / "best.ckpt"), verbose=False)
    assert again == pytest.approx(expected[0])
    other = EmotionClassifier.load_from_checkpoint(tmp_path / "best.ckpt", weights_only=True)
    torch.testing.assert_close(other.eval()(data.waveform), model(data.waveform))
    model.network = torch.compile(model.network, backend="eager")  # type: ignore[assignment]
    save_checkpoint({**best, "state_dict": model.state_dict()}, tmp_path / "compiled.ckpt")
    torch.testing.assert_close(load_classifier(tmp_path / "compiled.ckpt")(data.waveform), other(data.waveform))


def test_further_training_keeps_what_the_model_knew(tmp_path: Path) -> None:
    """A model of one data set that is trained on another has heard both; its normalisation stays."""
    model, data = classifier(), Tones()
    trainer(tmp_path).fit(model, data)
    mean = model.normalise.mean.clone()
    other = Tones()
    other.waveform *= 2
    other.facts = {"corpus": "others", "hashes": ["b", "c"], "speakers": ["05"]}
    run = trainer(tmp_path)
    run.fit(model, other)
    assert model.training_facts == {"corpus": "others", "hashes": ["a", "b", "c"], "speakers": ["05"]}
    assert torch.equal(model.normalise.mean, mean)
    run.save_checkpoint(tmp_path / "last.ckpt")
    other.facts = {"corpus": "not asked when a run goes on"}
    resumed = classifier()
    trainer(tmp_path).fit(resumed, other, ckpt_path=str(tmp_path / "last.ckpt"))
    assert resumed.training_facts == model.training_facts


def test_divergence_is_an_error_but_not_of_the_sanity_check(tmp_path: Path) -> None:
    with pytest.raises(EmolightError, match=r"val/loss is (nan|inf) after .* diverged.*\n.*learning_rate"):
        trainer(tmp_path, max_epochs=3).fit(classifier(learning_rate=1e30), datamodule=Tones())
    model = classifier(classes=CLASSES, duration=0.25)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model.network.last.bias.fill_(float("nan"))  # type: ignore[union-attr, operator]

    class Mend(pl.Callback):
        def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            pl_module.load_state_dict(before)

    trainer(tmp_path, num_sanity_val_steps=2, callbacks=[Mend()]).fit(model, datamodule=Tones())


def test_normalisation_is_fitted_on_training_clips_and_not_augmented(tmp_path: Path) -> None:
    model, data = classifier(augment=[Gain(40.0), Noise(0.0)]), Tones()
    trainer(tmp_path).fit(model, data)
    images = model.front_end(data.waveform)[:, 0].double()
    torch.testing.assert_close(model.normalise.mean[0, :, 0].double(), images.mean(dim=(0, 2)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        model.normalise.std[0, :, 0].double(), images.std(dim=(0, 2), correction=0), rtol=1e-4, atol=1e-4
    )


def test_a_row_that_never_changes_is_left_alone_and_channels_are_kept_apart() -> None:
    normalise = Normalise(2, 2)
    still, moving = torch.full((5,), -3.0), torch.arange(5.0)
    image = torch.stack([torch.stack([still, moving]), torch.stack([moving * 2, moving + 1])])[None]
    normalise.fit([image])
    assert torch.equal(normalise(image)[0, 0, 0], torch.zeros(5))
    torch.testing.assert_close(normalise(image)[0, 0, 1], normalise(image)[0, 1, 0])
    samples = Normalise(1, 1)
    samples.fit([moving[None, None]])
    assert samples(moving[None, None]).shape == (1, 1, 5)


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
        weights.append(model.network.last.weight.detach().clone())  # type: ignore[union-attr, operator]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("warmup", [0.2, 0.5, 0.999])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 10])
def test_the_schedule_works_with_any_number_of_steps(steps: int, warmup: float) -> None:
    """Also where PyTorch's own divides by zero: 5 steps and a warm-up of 0.2."""
    made: Any = one_cycle([([nn.Parameter(torch.zeros(1))], 1.0)], 0.01, 0.0, warmup, steps, fused=True)
    rates = []
    for _ in range(steps):
        rates += made["lr_scheduler"]["scheduler"].get_last_lr()
        made["optimizer"].step()
        if len(rates) < steps:
            made["lr_scheduler"]["scheduler"].step()
    assert all(0 < rate <= 0.0101 for rate in rates)


def test_a_training_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmolightError, match=r"needs an end.*\n.*max_epochs"):
        trainer(tmp_path, max_epochs=-1).fit(classifier(), Tones())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"learning_rate": -1.0}, r"model\.learning_rate is -1; it must be above 0"),
        ({"label_smoothing": 1.5}, "label_smoothing is 1.5"),
        ({"weight_decay": float("nan")}, "weight_decay is nan"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"mixup": -1.0}, "mixup is -1"),
        ({"warmup": 0.0}, "warmup is 0"),
        ({"classes": ["calm"]}, "at least two"),
        ({"duration": 0.01}, r"hop_length is 200; it must be at most a clip's length, 160 samples"),
        ({"features": Waveform}, "Narrow takes images; Waveform gives none.*\n.*WaveCNN"),
        ({"network": WaveCNN}, "WaveCNN takes samples"),
        ({"network": "Narow"}, "Did you mean 'Narrow'"),
        ({"augment": [{"class_path": "Pan"}]}, "Unknown augmentation: 'Pan'"),
    ],
)
def test_bad_parameters_are_named(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(EmolightError, match=message):
        classifier(**{"classes": CLASSES, "duration": 0.25, **parameters})


def test_data_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    data = Tones()
    data.contract = {**data.contract, "classes": ["calm", "sad", "happy"]}
    with pytest.raises(EmolightError, match=r"made for data\.classes \['calm', 'happy', 'sad'\]; the data has"):
        trainer(tmp_path).fit(classifier(classes=CLASSES, duration=0.25), data)
    with pytest.raises(EmolightError, match="does not know its classes"):
        trainer(tmp_path).fit(classifier(), Tones().batches(), Tones().batches())
    with pytest.raises(EmolightError, match=r"statistics_dataloader\(\)"):
        trainer(tmp_path).fit(classifier(classes=CLASSES, duration=0.25), Tones().batches(), Tones().batches())
