"""The classical row: statistics, padding, heads as scikit-learn fits them, export."""

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from scipy.stats import kurtosis, skew
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from emolight import EmotionClassifier, EmotionDataModule
from emolight.errors import EmolightError
from emolight.models import classical
from emolight.models.augment import Gain
from emolight.models.classical import SIZES, Classical
from emolight.models.features import MFCC, Waveform
from emolight.models.fitting import fit_linear, fit_scale
from emolight.models.loading import load_classifier

RATE = 16000
KINDS = ("mfcc", "eGeMAPSv02", "ComParE_2016")


def network_of(kind: str, **options: object) -> Classical:
    if kind != "mfcc":
        pytest.importorskip("opensmile")
    return Classical(1, 3, statistics=kind, **options).eval()  # type: ignore[arg-type]


def voice(seconds: float, seed: int = 0) -> torch.Tensor:
    time = torch.arange(round(seconds * RATE)) / RATE
    tone = sum(torch.sin(2 * torch.pi * (120 + 30 * seed) * k * time) / k for k in range(1, 9))
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(seed))
    return 0.1 * (tone + 0.1 * noise) * (1.2 + torch.sin(2 * torch.pi * 3 * time))


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_depend_neither_on_the_batch_nor_on_padding(kind: str) -> None:
    network = network_of(kind)
    clips = [voice(0.7, 1), voice(1.5, 2), voice(0.05, 3)]
    together = network.embed(torch.nn.utils.rnn.pad_sequence(clips, batch_first=True))
    assert together.shape == (3, SIZES[kind])
    assert together.dtype == torch.float32
    assert together.isfinite().all()
    for clip, embedding in zip(clips, together, strict=True):
        alone = network.embed(clip[None])[0]
        assert torch.allclose(embedding, alone, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(together[0], together[1], rtol=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_silence_has_finite_statistics(kind: str) -> None:
    assert network_of(kind).embed(torch.zeros(1, RATE)).isfinite().all()


def test_mfcc_statistics_are_scipys() -> None:
    clip = voice(1.0)
    image = MFCC(RATE, n_mfcc=classical.N_MFCC, hop_length=256)(clip[None])[0, 0].numpy().astype(np.float64)
    found = network_of("mfcc").embed(clip[None])[0].numpy().reshape(classical.FUNCTIONALS, 2, classical.N_MFCC)
    trend = np.polyfit(np.linspace(-1, 1, image.shape[1]), image.T, 1)[0]
    wanted = [image.mean(1), image.std(1), skew(image, axis=1), kurtosis(image, axis=1, fisher=False), trend]
    wanted += [np.quantile(image, share, axis=1) for share in (0, 1, *classical.PERCENTILES)]
    assert np.allclose(found[:, 0], wanted, rtol=1e-3, atol=1e-3)
    assert np.abs(found[0, 1]).max() < found[1, 0].max()


def test_opensmile_gets_samples_at_full_scale_without_wrapping() -> None:
    network = network_of("eGeMAPSv02")
    clip = voice(1.0)
    loud = clip / clip.abs().max()
    assert torch.allclose(network.embed(loud[None]), network.embed(0.9999 * loud[None]), rtol=0.02, atol=0.5)


@pytest.mark.parametrize("kind", ["logistic", "svm"])
@pytest.mark.parametrize("classes", [[0, 1, 3], [0, 2]])
def test_the_layer_answers_as_scikit_learn(kind: str, classes: list[int]) -> None:
    random = np.random.default_rng(0)
    labels = random.choice(classes, 90)
    values = (random.standard_normal((90, 5)) + labels[:, None] * np.arange(5)).astype(np.float32)
    layer = torch.nn.Linear(5, 4)
    fit_linear(layer, torch.from_numpy(values), torch.from_numpy(labels), kind, 0.1)  # type: ignore[arg-type]
    logits = layer(torch.from_numpy(values)).detach()
    theirs = LogisticRegression(C=0.1, max_iter=2000) if kind == "logistic" else LinearSVC(C=0.1, random_state=0)
    theirs.fit(values, labels)
    assert (logits.argmax(1).numpy() == theirs.predict(values)).all()
    if kind == "logistic":
        assert np.allclose(logits.softmax(1)[:, classes].numpy(), theirs.predict_proba(values), atol=1e-3)
    else:
        own = logits[:, classes] if len(classes) > 2 else logits[:, 2] - logits[:, 0]
        assert np.allclose(own.numpy(), theirs.decision_function(values), atol=1e-3)


def test_one_emotion_alone_is_refused() -> None:
    with pytest.raises(EmolightError, match="one emotion"):
        fit_linear(torch.nn.Linear(2, 2), torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64), "svm", 1.0)


def test_values_are_standardised_however_small_and_constants_stay() -> None:
    values = torch.stack([1e-7 * torch.randn(50), 1e6 + torch.randn(50) * 1e4, torch.full((50,), 0.1)], dim=1)
    mean, std = torch.zeros(3), torch.zeros(3)
    standard = fit_scale(values, mean, std)
    assert torch.allclose(standard.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-2)
    assert std[2] == 1


@pytest.mark.parametrize("head", ["logistic", "svm"])
def test_a_statistic_far_outside_of_training_does_not_decide_alone(head: str) -> None:
    torch.manual_seed(0)
    network = network_of("mfcc", head=head)
    labels = torch.arange(90) % 3
    embeddings = 2 * torch.randn(90, 960) + torch.nn.functional.one_hot(labels, 960)
    embeddings[0, 7] = 1e6  # neither in training
    network.fit(embeddings, labels)
    clip, broken = (network.standard_mean + step * network.standard_std for step in (0, 10))
    broken = torch.where(torch.arange(960) == 500, 1e9, clip)
    at_the_limit = torch.where(torch.arange(960) == 500, clip + 10 * network.standard_std, clip)
    assert torch.allclose(network.classify(broken[None]), network.classify(at_the_limit[None]), atol=1e-3)
    assert network.last.weight[:, 7].abs().max() < 1


@pytest.mark.parametrize("kind", ["mfcc", "eGeMAPSv02"])
def test_it_is_fitted_saved_loaded_and_exported(
    kind: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network_of(kind)
    places = {"root": str(corpus), "cache_dir": str(corpus.parent / "cache"), "splits_dir": str(tmp_path)}
    data = EmotionDataModule("Synthetic", **places, duration=1.5)  # type: ignore[arg-type]
    network = partial(Classical, statistics=kind, head="svm", inverse_penalty=0.001)
    model = EmotionClassifier(features=Waveform, network=network, augment=[Gain], mixup=0.0, speaker_norm=True)
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False,
                         enable_model_summary=False, enable_checkpointing=False)  # fmt: skip
    trainer.fit(model, datamodule=data)
    assert "note:   model.augment is not used: the head is fitted to the clips as they are" in capsys.readouterr().out
    assert data.embedded is not None
    assert data.embedded.shape == (len(data.clips), SIZES[kind])
    assert 0 < float(model.temperature) != 1
    path = tmp_path / "model.ckpt"
    trainer.save_checkpoint(path)
    again, clip = load_classifier(path), voice(1.5)[None]
    with torch.no_grad():
        assert torch.allclose(again(clip), model.eval()(clip), atol=1e-5)
    pytest.importorskip("onnxscript")
    from emolight.inference.export import export

    if kind == "mfcc":
        assert export(path, tmp_path / "model.onnx")["largest_difference"] < 1e-4
    else:
        with pytest.raises(EmolightError, match="openSMILE"):
            export(path, tmp_path / "model.onnx")
        assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("level", ["keep", "rms"])
def test_clips_are_embedded_at_the_level_of_the_front_end(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, Any] = {}
    contract = {"classes": ["calm", "sad"], "sample_rate": RATE, "duration": 0.5, "trim_db": None}
    model, wave = EmotionClassifier(partial(Waveform, level=level), Classical), voice(0.5)[None]
    data = SimpleNamespace(contract=contract, embed=lambda key, compute, _: kept.update(key=key, compute=compute))
    monkeypatch.setattr(model, "_data", lambda: data)
    model.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    model.setup("fit")
    assert np.allclose(kept["compute"](wave.numpy()), model.statistics({"waveform": wave}), atol=1e-3)
    assert (kept["key"] == Classical(1, 2).key) == (level == "keep")


def test_without_opensmile_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    classical._smile.cache_clear()
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(EmolightError, match=r"emolight\[opensmile\]"):
        Classical(1, 3, statistics="ComParE_2016")
