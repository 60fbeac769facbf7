"""The folder of a cross-validation or an ensemble is one model: the weighted mean of all of its runs' models."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from emolight.__main__ import run
from emolight.errors import EmolightError
from emolight.experiments.ensemble import about_ensemble
from emolight.experiments.results import Result
from emolight.inference.recognizer import load
from emolight.models.classifier import EmotionClassifier
from emolight.models.encoder import SpeechEncoder
from emolight.models.features import MFCC, MelSpectrogram, Waveform
from tests.encoders import make_whisper
from tests.inference.conftest import CLASSES, Small, save, settle, small_model, voice

RATE = 16000


def run_of(
    folder: Path,
    features: type = MFCC,
    duration: float = 0.5,
    bias: float = 0.0,
    model: EmotionClassifier | None = None,
) -> Path:
    """A run folder whose model differs by ``bias``."""
    model = model or small_model(features)
    if duration != 0.5:
        model = settle(EmotionClassifier(features, Small, augment=[], classes=CLASSES, duration=duration))
    with torch.no_grad():
        list(model.network.modules())[-1].bias += bias * torch.arange(len(CLASSES))
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text("name: a\n")
    save(model, folder / "checkpoints" / "best.ckpt")
    return folder


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a cross-validation of two runs on 0.5 s, and of a run on 0.8 s."""
    top = tmp_path_factory.mktemp("logs")
    for fold in (1, 2):
        run_of(top / "cv" / f"fold_{fold}", bias=fold)
    run_of(top / "one", MelSpectrogram, duration=0.8)
    runs = [{"folder": f"fold_{fold}"} for fold in (1, 2)]
    (top / "cv" / "crossval.json").write_text(json.dumps({"kind": "crossval", "runs": runs}))
    members = [{"folder": str(top / "cv"), "weight": 0.75}, {"folder": str(top / "one"), "weight": 0.25}]
    (top / "both").mkdir()
    (top / "both" / "crossval.json").write_text(json.dumps({"kind": "ensemble", "runs": [], "members": members}))
    return top / "both"


@pytest.mark.parametrize("seconds", [0.3, 0.7, 1.1])
def test_it_says_the_weighted_mean_of_what_its_models_say(ensemble: Path, seconds: float) -> None:
    top, wave = ensemble.parent, voice(seconds)
    each = [load(top / name).predict(wave, RATE) for name in ("cv/fold_1", "cv/fold_2", "one")]
    rows = np.array([list(one.probabilities.values()) for one in each])
    assert np.ptp(rows, axis=0).max() > 0.05
    said = load(ensemble).predict(wave, RATE)
    np.testing.assert_allclose(list(said.probabilities.values()), np.array([0.375, 0.375, 0.25]) @ rows, atol=2e-3)
    assert said.how == "mean of 3 models of both"
    assert load(top / "cv").predict(wave, RATE).how.endswith("mean of 2 models of cv")


def test_a_long_recording_is_judged_by_windows_too(ensemble: Path) -> None:
    said = load(ensemble).predict(np.concatenate([voice(1.0, pitch=pitch) for pitch in (100, 200, 300, 400)]), RATE)
    assert said.how == "mean of 9 windows of 0.8 s; mean of 3 models of both"
    assert sum(said.probabilities.values()) == pytest.approx(1, abs=1e-4)


def test_windows_above_the_trained_length_are_heard_whole(ensemble: Path) -> None:
    top, wave = ensemble.parent, np.concatenate([voice(0.7, pitch=pitch) for pitch in (100, 400)])
    each = [load(top / name).predict(wave, RATE, window=1.2) for name in ("cv/fold_1", "cv/fold_2", "one")]
    rows = np.array([list(one.probabilities.values()) for one in each])
    said = load(ensemble).predict(wave, RATE, window=1.2)
    np.testing.assert_allclose(list(said.probabilities.values()), np.array([0.375, 0.375, 0.25]) @ rows, atol=1e-5)


def test_a_gate_says_how_much_the_weights_of_each_of_its_classes_count(ensemble: Path, tmp_path: Path) -> None:
    """It hears more of a clip than the others do."""
    top, wave = ensemble.parent, np.concatenate([voice(0.3, pitch=100), voice(0.4, pitch=400), voice(0.3, pitch=100)])
    gate = run_of(tmp_path / "gate", duration=1.1, bias=0.5)
    names = load(gate).classes
    weights = np.linspace(0.2, 0.75, len(names))
    by = [dict(zip(names, map(float, own), strict=True)) for own in (weights, 1 - weights)]
    members = [
        {"folder": str(top / name), "weight": 0.5, "by": own} for name, own in zip(("cv", "one"), by, strict=True)
    ]
    about = {"kind": "ensemble", "runs": [], "members": members, "gate": {"folder": "gate"}}
    (tmp_path / "crossval.json").write_text(json.dumps(about))
    rows = [list(load(path).predict(wave, RATE).probabilities.values()) for path in (top / "cv", top / "one", gate)]
    cv, one, heard = map(np.array, rows)
    share = heard @ weights
    assert 0.15 < share < 0.85
    said = load(tmp_path).predict(wave, RATE)
    np.testing.assert_allclose(list(said.probabilities.values()), share * cv + (1 - share) * one, atol=2e-4)
    assert said.how == f"mean of 3 models of {tmp_path.name}"
    renamed = [{**one, "by": {f"not {name}": value for name, value in one["by"].items()}} for one in members]
    for wrong, message in (
        (renamed, "different classes"),
        ([members[0], {**members[1], "by": {"a": 1, "b": 1}}], "is damaged"),
    ):
        (tmp_path / "crossval.json").write_text(json.dumps({**about, "members": wrong}))
        with pytest.raises(EmolightError, match=message):
            load(tmp_path)


def test_what_takes_one_model_says_so_and_members_must_agree(ensemble: Path, tmp_path: Path) -> None:
    with pytest.raises(EmolightError, match="holds several models; this takes one"):
        run(["export", str(ensemble), "--output", str(tmp_path / "model.onnx")])
    with pytest.raises(EmolightError, match="cannot be adapted to a speaker"):
        load(ensemble).enrol([voice()], sample_rate=RATE)
    (tmp_path / "crossval.json").write_text('{"runs": [{}]}')
    with pytest.raises(EmolightError, match=r"crossval\.json is damaged"):
        load(tmp_path)
    other = small_model(Waveform)
    other.hparams["trim_db"] = None
    (run_of(tmp_path / "a") / "checkpoints" / "best.ckpt").unlink()
    save(other, tmp_path / "a" / "checkpoints" / "best.ckpt")
    folders = [str(tmp_path / "a"), str(ensemble.parent / "one")]
    members = [{"folder": folder, "weight": 0.5} for folder in folders]
    (tmp_path / "crossval.json").write_text(json.dumps({"runs": [], "members": members}))
    with pytest.raises(EmolightError, match="different trim_db"):
        load(tmp_path)


def test_frozen_encoders_of_the_same_weights_are_in_memory_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of five members two have the same folder, one a copy of it, one other weights, and one trains its own."""
    transformers = pytest.importorskip("transformers")
    first, other = make_whisper(tmp_path / "first"), tmp_path / "other"
    copy = shutil.copytree(first, tmp_path / "copy")
    weights = transformers.WhisperForConditionalGeneration.from_pretrained(first)
    torch.nn.init.normal_(weights.model.encoder.conv1.weight)
    weights.save_pretrained(other)
    transformers.WhisperFeatureExtractor().save_pretrained(other)
    members = []
    for place, (path, trained) in enumerate([(first, 0), (first, 0), (copy, 0), (other, 0), (first, 1)]):
        torch.manual_seed(place)
        network = partial(SpeechEncoder, path=str(path), trainable_layers=trained)
        model = EmotionClassifier(Waveform, network, augment=[], classes=CLASSES, duration=0.5)
        folder = run_of(tmp_path / f"run_{place}", bias=place, model=settle(model))
        members.append({"folder": str(folder), "weight": 0.2})
    (tmp_path / "crossval.json").write_text(json.dumps({"runs": [], "members": members}))
    each = [list(load(member["folder"]).predict(voice(), RATE).probabilities.values()) for member in members]
    read, load_it = list[str](), transformers.AutoModel.from_pretrained
    monkeypatch.setattr(
        transformers.AutoModel, "from_pretrained", lambda path, **words: read.append(path) or load_it(path, **words)
    )
    together = load(tmp_path)
    assert [Path(path).name for path in read] == ["first", "copy", "other", "first"]
    encoders = [id(network.model.network.encoder) for _, network in together.network.parts]
    assert [encoders.index(one) for one in encoders] == [0, 0, 0, 3, 4]
    mean = list(together.predict(voice(), RATE).probabilities.values())
    np.testing.assert_allclose(mean, np.mean(each, axis=0), atol=1e-4)
    alone = [load(members[0]["folder"]).network.model.network.encoder for _ in range(2)]
    assert alone[0] is not alone[1]


def test_an_ensemble_is_found_from_any_working_folder_and_may_move(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wave, logs = voice(), Path("lightning_logs")
    for name in ("a", "b"):
        run_of(logs / name / "version_0", bias=len(name))
    results = [Result(logs / name / "version_0", *[""] * 10, 0, True, {}) for name in ("a", "b")]  # type: ignore[arg-type]
    about = about_ensemble(logs / "both" / "crossval_x", "both", results)
    assert [one["folder"] for one in about["members"]] == ["../../a/version_0", "../../b/version_0"]
    (logs / "both" / "crossval_x").mkdir(parents=True)
    (logs / "both" / "crossval_x" / "crossval.json").write_text(json.dumps(about))
    said = load(logs / "both" / "crossval_x").predict(wave, RATE).probabilities
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert load(Path("..") / logs / "both" / "crossval_x").predict(wave, RATE).probabilities == said
    (here / "lightning_logs").rename(here / "moved")
    assert load(here / "moved" / "both" / "crossval_x").predict(wave, RATE).probabilities == said
