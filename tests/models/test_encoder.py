"""Speech encoders: their inputs, masks, heads, checkpoints; on two-layer encoders made here."""

import shutil
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torchaudio
from sklearn.linear_model import LogisticRegression

from emolight import EmotionClassifier, EmotionDataModule
from emolight.data.audio import fix_length
from emolight.errors import EmolightError
from emolight.models.encoder import SpeechEncoder
from emolight.models.encoder_inputs import load_encoder
from emolight.models.features import Waveform
from emolight.models.fitting import fit_linear, fit_speakers
from emolight.models.loading import load_classifier
from tests.encoders import make_data2vec, make_wav2vec, make_whisper

transformers = pytest.importorskip("transformers")
RATE = 16000


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whisper(tmp_path_factory.mktemp("whisper"))


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    sound = np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32)
    return 0.1 * sound * np.hanning(len(sound)).astype(np.float32)[::-1].clip(0.01)


def batch_of(*waves: np.ndarray) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.from_numpy(wave.copy()) for wave in waves], batch_first=True)


def data_of(corpus: Path, folder: Path, duration: float) -> EmotionDataModule:
    places = {"root": str(corpus), "cache_dir": str(corpus.parent / "cache"), "splits_dir": str(folder)}
    return EmotionDataModule("Synthetic", **places, duration=duration)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [0.5, 1.0, 1.3337])
def test_whisper_gets_what_its_own_extractor_makes(whisper: Path, seconds: float) -> None:
    wave = voice(seconds)
    network = SpeechEncoder(1, 3, path=str(whisper))
    ours, frames = network.front(batch_of(wave, voice(2.0))[:1], torch.tensor([len(wave)]))
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(whisper)
    theirs = extractor(wave, sampling_rate=RATE, padding=False, return_tensors="np").input_features[0]
    assert frames.item() == theirs.shape[1]
    assert np.abs(ours[0, :, : theirs.shape[1]].numpy() - theirs).max() < 1e-4


def test_the_licence_is_that_of_the_card(whisper: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whisper, tmp_path / "copy"))
    assert load_encoder(str(folder), None)[2]["licence"].startswith("unknown")
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n")
    assert load_encoder(str(folder), None)[2]["licence"] == "apache-2.0"


def test_wav2vec_gets_what_its_own_extractor_makes(tmp_path: Path) -> None:
    wave = voice(1.0)
    network = SpeechEncoder(1, 3, path=str(make_wav2vec(tmp_path)))
    ours, _ = network.front(batch_of(wave, voice(2.0))[:1], torch.tensor([len(wave)]))
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(tmp_path)
    assert np.abs(ours[0, : len(wave)].numpy() - extractor(wave, sampling_rate=RATE).input_values[0]).max() < 1e-4


@pytest.mark.parametrize("kind", ["whisper", "layer", "group", "data2vec"])
def test_an_embedding_depends_neither_on_the_batch_nor_on_padding(tmp_path: Path, kind: str) -> None:
    make = {"whisper": make_whisper, "data2vec": make_data2vec}.get(kind, partial(make_wav2vec, norm=kind))
    folder = make(tmp_path)
    network = SpeechEncoder(1, 3, path=str(folder)).eval()
    waves = [voice(0.7, 1), voice(1.5, 2), voice(1.11, 3)]
    with torch.no_grad():
        together = network.embed(batch_of(*waves))
        for wave, embedding in zip(waves, together, strict=True):
            alone = network.embed(batch_of(wave))[0]
            padded = network.embed(torch.nn.functional.pad(batch_of(wave), (0, 7000)))[0]
            assert torch.allclose(embedding, alone, atol=1e-4)
            assert torch.allclose(padded, alone, atol=1e-4)
        spoken = SpeechEncoder(1, 3, path=str(folder), head="logistic", speeds=[0.9, 1.07]).eval()
        for of_copy in spoken.copies.values():
            for wave, embedding in zip(waves, of_copy(batch_of(*waves).numpy()), strict=True):
                assert np.allclose(embedding, of_copy(wave[None])[0], atol=1e-4)
    assert together.shape == (3, 2, 64)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_whisper_of_30_s_is_the_librarys_own(whisper: Path) -> None:
    network = SpeechEncoder(1, 3, path=str(whisper)).eval()
    wave = voice(30.0)
    with torch.no_grad():
        states, mask = network._states(batch_of(wave), torch.tensor([len(wave)]))
        mel, _ = network.front(batch_of(wave), torch.tensor([len(wave)]))
        assert mask.all()
        assert torch.allclose(states[-1], network.encoder(mel).last_hidden_state, atol=1e-4)


@pytest.mark.parametrize("head", ["linear", "mlp", "logistic"])
def test_frozen_it_trains_on_kept_embeddings(whisper: Path, corpus: Path, tmp_path: Path, head: str) -> None:
    data = data_of(corpus, tmp_path, 1.5)
    network = partial(SpeechEncoder, path=str(whisper), head=head, hidden=16)
    model = EmotionClassifier(features=Waveform, network=network, augment=[], mixup=0.0, speaker_norm=True)
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False,
                         enable_model_summary=False, enable_checkpointing=False)  # fmt: skip
    trainer.fit(model, datamodule=data)
    assert data.embedded is not None
    assert data.embedded.shape == (len(data.clips), 2, 64)
    assert model.network.top.training  # so that it has dropped out
    assert not model.network.encoder.training
    path = tmp_path / "model.ckpt"
    trainer.save_checkpoint(path)
    assert path.stat().st_size < 400_000  # frozen weights are named, not held
    again = load_classifier(path)
    wave = torch.from_numpy(voice(1.5))[None]
    with torch.no_grad():
        assert torch.allclose(again(wave), model.eval()(wave), atol=1e-5)
        data_batch = next(iter(data.val_dataloader()))
        direct = data.dataset(data_batch["index"].numpy()).__getitems__(range(len(data_batch["index"])))["waveform"]
        assert torch.allclose(model.logits(data_batch), model(direct), atol=1e-3)
    found = []
    for one in (model, again):  # the training speakers' shifts are of the rows of the fit
        trainer.test(one, dataloaders=data.train_dataloader(), verbose=False)
        found.append(one.predictions["probabilities"])
    assert np.allclose(*found, atol=1e-5)


@pytest.mark.parametrize("norm", [False, True])
def test_a_logistic_head_learns_from_other_speeds_too(whisper: Path, corpus: Path, tmp_path: Path, norm: bool) -> None:
    data = data_of(corpus, tmp_path, 1.5)
    network = partial(SpeechEncoder, path=str(whisper), head="logistic", speeds=[0.9])
    # Nothing is trained by batches, so that the usual augmentation stands in nobody's way.
    model = EmotionClassifier(features=Waveform, network=network, mixup=0.0, speaker_norm=norm)
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False,
                         enable_model_summary=False, enable_checkpointing=False)  # fmt: skip
    trainer.fit(model, datamodule=data)
    rows, count, embedded = data.subset("train"), len(data.clips), data.embedded
    assert isinstance(model.network, SpeechEncoder)
    assert embedded is not None
    assert len(embedded) == 2 * count
    wave = data.cache.waveform(data.clips["clip_id"][rows[0]])
    wave = fix_length(wave, min(len(wave), data.length))
    slower = torchaudio.functional.resample(torch.from_numpy(wave), 9, 10)
    with torch.no_grad():
        assert np.allclose(model.network.embed(slower[None])[0], embedded[count + rows[0]], atol=1e-3)
    index = np.concatenate([rows, rows + count])
    values = embedded[index] - np.asarray(model.offset({"index": torch.from_numpy(index)}))
    if norm:  # each voice at each speed is somebody's own
        speakers = data.clips["speaker"].to_numpy()[index % count] + (index // count).astype(str)
        means = [values[speakers == speaker].mean(0) for speaker in set(speakers)]
        assert np.allclose(means, means[0], atol=1e-4)
    labels = np.tile(data.clips["emotion"].map(data.classes.index).to_numpy()[rows], 2)
    values = ((values - values.mean(0)) / values.std(0)).reshape(len(values), -1)
    expected = LogisticRegression(C=0.005, max_iter=2000).fit(values, labels).predict_proba(values)
    with torch.no_grad():
        found = model.network.classify(torch.from_numpy(embedded[index]) - model.offset({"index": torch.tensor(index)}))
    assert np.allclose(found.softmax(1), expected, atol=1e-2)
    trainer.validate(model, datamodule=data, verbose=False)
    assert len(model.predictions["index"]) == len(data.subset("val"))


def test_the_embeddings_of_one_model_are_not_the_next_ones(whisper: Path, corpus: Path, tmp_path: Path) -> None:
    """A network that is trained itself would be given what stands still, and an image network nothing at all."""
    data, of = data_of(corpus, tmp_path, 1.5), {"augment": [], "mixup": 0.0}
    for own in ({"head": "logistic", "speeds": [0.9]}, {"trainable_layers": 1}):
        model = EmotionClassifier(features=Waveform, network=partial(SpeechEncoder, path=str(whisper), **own), **of)
        trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False,
                             enable_model_summary=False, enable_checkpointing=False, limit_train_batches=1)  # fmt: skip
        trainer.fit(model, datamodule=data)
    trainer.strategy.configure_ddp = None  # type: ignore[method-assign]
    trainer.fit(model, datamodule=data)
    assert "configure_ddp" not in vars(trainer.strategy)  # a network that learns is wrapped, whatever came before
    assert "waveform" in next(iter(data.train_dataloader()))
    assert data.copies == 0


@pytest.mark.parametrize("columns", [1500, 60])
def test_rounding_moves_no_probability_of_a_logistic_head(columns: int) -> None:
    generator, found = np.random.default_rng(0), []
    voices = generator.standard_normal((200, 20)) * np.logspace(1, -1, 20)  # few directions hold most of the variance
    values = voices @ generator.standard_normal((20, columns)) + 0.3 * generator.standard_normal((200, columns))
    values, labels = (values - values.mean(0)) / values.std(0), torch.from_numpy(generator.integers(0, 5, 200))
    for rounding in (0, 1e-6):
        seen = torch.from_numpy(values + rounding * generator.standard_normal(values.shape)).float()
        layer = torch.nn.Linear(columns, 5).requires_grad_(False)
        fit_linear(layer, seen, labels, "logistic", 0.01)
        found.append(layer(torch.from_numpy(values).float()).softmax(1).numpy())
    assert np.abs(found[0] - found[1]).max() < 3e-5
    exact = LogisticRegression(C=0.01, max_iter=10000, tol=1e-8).fit(values, labels).predict_proba(values)
    assert np.abs(found[0] - exact).max() < 3e-5


def test_speeds_are_of_a_logistic_head_and_speeds(whisper: Path) -> None:
    with pytest.raises(EmolightError, match="speeds is of head logistic; the head is linear"):
        SpeechEncoder(1, 3, path=str(whisper), speeds=[0.9])
    for speed in (0.0, 1.004, float("nan")):
        with pytest.raises(EmolightError, match="to 2 in hundredths"):
            SpeechEncoder(1, 3, path=str(whisper), head="logistic", speeds=[speed])


def test_other_weights_than_the_checkpoints_are_refused(whisper: Path, tmp_path: Path) -> None:
    network = SpeechEncoder(1, 3, path=str(whisper))
    state = network.state_dict()
    network.load_state_dict(state)
    state["digest"] = state["digest"].flip(0)
    with pytest.raises(EmolightError, match="SHA-256"):
        network.load_state_dict(state)


def test_fine_tuned_it_holds_its_weights_and_learns(whisper: Path) -> None:
    network = SpeechEncoder(1, 3, path=str(whisper), trainable_layers=1, gradient_checkpointing=True).train()
    assert not network.frozen
    samples = batch_of(voice(0.7, 1), voice(1.0, 2))[:, None]
    network(samples).logsumexp(1).sum().backward()
    top, below = network.trained[-1], network.encoder.layers[0]
    assert all(weights.grad is not None for weights in top.parameters() if weights.requires_grad)
    assert all(weights.grad is None for weights in below.parameters())
    groups = list(network.rates())
    assert [share for _, share in groups] == [1.0, 0.1]
    assert any(name.startswith("encoder.") for name in network.state_dict())


def test_speakers_are_told_apart_by_the_encoder_as_it_is_after_training(
    whisper: Path, corpus: Path, tmp_path: Path
) -> None:
    data = data_of(corpus, tmp_path, 0.6)
    network = partial(SpeechEncoder, path=str(whisper), trainable_layers=1, encoder_rate=1.0)
    model = EmotionClassifier(Waveform, network, augment=[], speaker_norm=True, learning_rate=0.01)
    trainer = pl.Trainer(max_epochs=1, limit_train_batches=3, limit_val_batches=1, accelerator="cpu", logger=False,
                         enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)  # fmt: skip
    trainer.fit(model, datamodule=data)
    assert model.speakers is not None
    kept = model.speakers.centre.clone()
    fit_speakers(model.eval(), model.speakers, data)
    assert torch.allclose(model.speakers.centre, kept, atol=1e-5)


def test_its_weights_stay_float32_whatever_the_precision_around_it(whisper: Path) -> None:
    network, wave = partial(SpeechEncoder, path=str(whisper), trainable_layers=1), torch.from_numpy(voice(0.7))[None]
    model = EmotionClassifier(Waveform, network, augment=[], classes=["calm", "happy", "sad"], duration=0.7)
    with torch.no_grad():
        expected = model(wave)
        assert torch.equal(model.to(torch.bfloat16)(wave), expected)


@pytest.mark.parametrize("kind", ["whisper", "layer"])
def test_the_layers_that_are_trained_are_among_those_that_count(tmp_path: Path, kind: str) -> None:
    folder = make_whisper(tmp_path) if kind == "whisper" else make_wav2vec(tmp_path, kind)
    network = SpeechEncoder(1, 3, path=str(folder), layers=[1], trainable_layers=1)
    network(batch_of(voice(0.7))[:, None]).logsumexp(1).sum().backward()
    assert all(weights.grad is not None for weights in network.trained[0].parameters() if weights.requires_grad)


@pytest.mark.parametrize("kind", ["whisper", "layer"])
def test_adapters_alone_are_trained_kept_and_merged(corpus: Path, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("peft")
    folder = make_whisper(tmp_path / "encoder") if kind == "whisper" else make_wav2vec(tmp_path / "encoder")
    data = data_of(corpus, tmp_path, 0.6)
    network = partial(SpeechEncoder, path=str(folder), lora=4)
    model = EmotionClassifier(features=Waveform, network=network, augment=[], learning_rate=0.01)
    trainer = pl.Trainer(max_epochs=1, limit_train_batches=3, limit_val_batches=1, accelerator="cpu", logger=False,
                         enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)  # fmt: skip
    trainer.fit(model, datamodule=data)
    assert data.embedded is None
    own, plain = dict(model.network.named_parameters()), SpeechEncoder(1, 3, path=str(folder)).encoder.state_dict()
    trained = [name for name, weights in own.items() if weights.requires_grad]
    assert {name.partition(".")[0] for name in trained if ".lora_" not in name} == {"top"}
    assert sum(".lora_B." in name for name in trained) == 4  # two layers of each block
    assert all(own[name].abs().max() > 0 for name in trained if ".lora_B." in name)  # they begin at zero
    for name, weights in own.items():
        if name.startswith("encoder.") and ".lora_" not in name:
            assert torch.equal(weights, plain[name.removeprefix("encoder.").replace(".base_layer", "")])
    path = tmp_path / "model.ckpt"
    trainer.save_checkpoint(path, weights_only=True)
    kept = torch.load(path, weights_only=True)["state_dict"]
    assert {name for name in kept if name.startswith("network.encoder.")} == {
        f"network.{name}" for name in trained if ".lora_" in name
    }
    again, wave = load_classifier(path), torch.from_numpy(voice(0.6))[None]
    with torch.no_grad():
        said = model.eval()(wave)
        assert torch.allclose(again(wave), said, atol=1e-5)
        merged = model.network.exportable()
        assert not any(".lora_" in name for name, _ in merged.named_parameters())
        assert torch.allclose(merged(model.features(wave)), said, atol=1e-4)
        unadapted = SpeechEncoder(1, 3, path=str(folder)).eval().embed(wave)
        assert not torch.allclose(merged.embed(wave), unadapted, atol=1e-3)
        assert torch.equal(model(wave), said)  # the export changed a copy
    if kind == "whisper":
        pytest.importorskip("onnxscript")
        from emolight.inference.export import export

        assert export(path, tmp_path / "model.onnx")["largest_difference"] < 1e-4


def test_ways_to_train_exclude_each_other(whisper: Path) -> None:
    for words in ({"lora": 2, "trainable_layers": 1}, {"lora": 2, "head": "logistic"},
                  {"trainable_layers": 1, "head": "logistic"}):  # fmt: skip
        with pytest.raises(EmolightError, match="one way to train"):
            SpeechEncoder(1, 3, path=str(whisper), **words)


def test_weights_of_layers_are_learnt_by_batches_alone(whisper: Path) -> None:
    with pytest.raises(EmolightError, match="weighted is learnt by batches; head logistic"):
        SpeechEncoder(1, 3, path=str(whisper), head="logistic", pooling="weighted")


def test_a_folder_that_is_not_seen_from_here_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no connection")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", fail)
    with pytest.raises(EmolightError, match="'enc': no connection\nIt is no folder seen from "):
        load_encoder("enc", None)


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(EmolightError, match="no usable speech encoder"):
        load_encoder(str(tmp_path), None)
    with pytest.raises(EmolightError, match="layers 1 to 2"):
        SpeechEncoder(1, 3, path=str(make_whisper(tmp_path)), layers=[3])
