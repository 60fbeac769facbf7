"""ONNX: the same probabilities as PyTorch, properties that travel with the file, and refusals."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from emolight.data.audio import fix_length  # noqa: E402
from emolight.errors import EmolightError  # noqa: E402
from emolight.inference import export  # noqa: E402
from emolight.inference.onnx_network import load_onnx, seal  # noqa: E402
from emolight.inference.recognizer import Contract, load  # noqa: E402
from emolight.inference.torch_network import load_torch  # noqa: E402
from emolight.models.checkpoint import save_checkpoint  # noqa: E402
from emolight.models.classifier import EmotionClassifier, load_classifier  # noqa: E402
from emolight.models.frontend import Features, FrontEnd  # noqa: E402
from tests.inference.conftest import voice  # noqa: E402

RATE = 16000


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    assert export.main([str(checkpoint), "--output", str(path)]) == 0
    return path


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    for path in (exported, exported.with_suffix(".json")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path / exported.name


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for n in range(24):
        pitch = (100 if n < 12 else 400) + 2 * n
        soundfile.write(folder / f"{n}.wav", voice(0.8 + 0.01 * n, pitch=pitch, seed=n), RATE)
    return folder


def small_network(mode: str, classes: list[str]) -> EmotionClassifier:
    """A small network in place of the ResNet18, balanced so that its probabilities change from clip to clip."""
    torch.manual_seed(0)
    features = Features(mode=mode, n_fft=400, hop_length=160, n_mels=20, n_mfcc=13)  # type: ignore[arg-type]
    model = EmotionClassifier(features=features, classes=classes, duration=0.5)
    if mode != "waveform":
        model.network = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(8, len(classes)),
        )
    waves = torch.from_numpy(
        np.stack([voice(pitch=pitch, seed=int(pitch)) for pitch in (100.0, 170.0, 300.0, 400.0)])
    )
    model.normalise.fit([model.front_end(waves)])
    with torch.no_grad():
        logits = model.eval()(waves)
        model.network[-1].bias -= logits.mean(dim=0)  # type: ignore[index, union-attr, operator]
        model.temperature.copy_(logits.std(dim=0).max())
    return model


@pytest.mark.parametrize("mode", ["spectrogram", "mel", "mfcc", "waveform"])
def test_parity_at_any_batch_size_and_length(mode: str, tmp_path: Path) -> None:
    model = small_network(mode, ["calm", "happy", "sad"])
    contract = Contract(model.classes, RATE, 0.5, None)
    properties = {
        name: getattr(contract, name) for name in ("classes", "sample_rate", "duration", "trim_db", "training")
    }
    with torch.no_grad():
        cases = []
        for batch in (1, 5):
            for length in (900, 8000, 20011):
                waves = np.stack([voice(2, pitch=100 + 70 * n, seed=n)[5000 : 5000 + length] for n in range(batch)])
                expected = (model(torch.from_numpy(waves)) / model.temperature).softmax(dim=1).numpy()
                cases.append((waves, expected))
    assert np.ptp(np.concatenate([expected for _, expected in cases]), axis=0).max() > 0.1
    export._write(export.Calibrated(model).eval(), contract, properties, tmp_path / "model.onnx")
    _, network = load_onnx(tmp_path / "model.onnx")
    for waves, expected in cases:
        np.testing.assert_allclose(network(waves), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("n_fft", [401, 512])
def test_the_convolution_gives_the_front_ends_features(n_fft: int) -> None:
    features = Features(mode="spectrogram", n_fft=n_fft, win_length=300, hop_length=200, f_min=100, f_max=5000)
    waves = torch.from_numpy(np.stack([voice(seed=n) for n in range(2)]))
    expected = FrontEnd(features, RATE)(waves)
    torch.testing.assert_close(export.ConvolutionFrontEnd(features, RATE)(waves), expected, atol=1e-2, rtol=0)


def test_the_contract_survives_the_file(checkpoint: Path, exported: Path) -> None:
    assert load_onnx(exported)[0] == load_torch(checkpoint)[0]


def test_the_file_stands_alone_and_names_no_folder(exported: Path, copy: Path) -> None:
    assert sorted(path.name for path in exported.parent.iterdir()) == ["model.json", "model.onnx"]
    copy.with_suffix(".json").unlink()
    assert load_onnx(copy)[0].sample_rate == RATE
    content = copy.read_bytes()
    assert str(Path(export.__file__).parent).encode() not in content
    assert str(Path(torch.__file__).parent).encode() not in content


def test_properties_in_the_file_and_in_the_json(exported: Path) -> None:
    properties = {prop.key: prop.value for prop in onnx.load(exported).metadata_props}
    inside = {name: value if name == "sha256" else json.loads(value) for name, value in properties.items()}
    beside = json.loads(exported.with_suffix(".json").read_text(encoding="utf-8"))
    assert inside.pop("sha256")
    assert inside.items() <= beside.items()
    assert beside["sha256"] == hashlib.sha256(exported.read_bytes()).hexdigest()
    assert "CC BY-NC-SA 4.0" in inside["data_licence"]
    assert "30 dB" in inside["length_policy"]
    assert "the middle 1 s" in inside["length_policy"]
    assert inside["versions"].keys() == {"torch", "onnx", "onnxruntime", "emolight"}
    assert {item.version for item in onnx.load(exported).opset_import if not item.domain} == {inside["opset"]}


def check_damage(whole: bytes, path: Path) -> None:
    """40 of 40 flipped bits and every cut are refused, with no JSON beside the file."""
    path.write_bytes(whole)
    load_onnx(path)
    random = np.random.default_rng(0)
    places = [*random.integers(len(whole), size=36), 0, len(whole) - 1, len(whole) - 70, len(whole) - 77]
    for place, bit in zip(places, random.integers(8, size=40), strict=True):
        with path.open("r+b") as stream:
            for byte in (whole[place] ^ 1 << int(bit), whole[place]):
                stream.seek(place)
                stream.write(bytes([byte]))
                stream.flush()
                if byte != whole[place]:
                    with pytest.raises(EmolightError, match=r"\.onnx (is damaged|has no checksum)"):
                        load_onnx(path)
    load_onnx(path)
    for length in (len(whole) - 1, len(whole) - 76, len(whole) // 2, 50, 0):
        os.truncate(path, length)
        with pytest.raises(EmolightError, match=r"\.onnx (is empty|has no checksum)"):
            load_onnx(path)


def test_40_of_40_flipped_bits_and_cut_files_are_refused(exported: Path, tmp_path: Path) -> None:
    check_damage(exported.read_bytes(), tmp_path / "alone.onnx")


def test_the_json_of_another_file_is_refused(copy: Path) -> None:
    beside = json.loads(copy.with_suffix(".json").read_text())
    copy.with_suffix(".json").write_text(json.dumps({**beside, "sha256": "0" * 64}))
    with pytest.raises(EmolightError, match=r"model\.json is of another file: model\.onnx has the SHA-256"):
        load_onnx(copy)


@pytest.mark.parametrize("text", ["{", "[]", '{"sha": 1}'])
def test_a_damaged_json_is_refused(copy: Path, text: str) -> None:
    copy.with_suffix(".json").write_text(text)
    with pytest.raises(EmolightError, match=r"model\.json does not tell the SHA-256"):
        load_onnx(copy)


def test_damaged_foreign_and_missing_files_are_refused(copy: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(copy.read_bytes()[:-1000])
    with pytest.raises(EmolightError, match=r"cut\.onnx"):
        load_onnx(cut)
    tensor = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([], "foreign", [tensor], [tensor])
    foreign = tmp_path / "foreign.onnx"
    onnx.save(
        onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 18)]), foreign
    )
    with pytest.raises(EmolightError, match="has no checksum at its end"):
        load_onnx(foreign)
    foreign.write_bytes(foreign.read_bytes() + seal(foreign.read_bytes()))
    with pytest.raises(EmolightError, match="is not a model of emolight: it does not tell classes"):
        load_onnx(foreign)
    with pytest.raises(EmolightError, match="cannot be read: No such file"):
        load_onnx(tmp_path / "none.onnx")


def test_checkpoint_and_onnx_agree_on_a_file(checkpoint: Path, exported: Path, recordings: Path) -> None:
    theirs, ours = (load(path).predict_file(recordings / "3.wav") for path in (checkpoint, exported))
    assert (ours.label, ours.warnings) == (theirs.label, theirs.warnings)
    assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-4)


def test_predicting_with_onnx_imports_nothing_slow(exported: Path, recordings: Path) -> None:
    code = f"""
import sys
from emolight.inference.recognizer import load
assert load({str(exported)!r}).predict_file({str(recordings / "3.wav")!r}).label
slow = {{"torch", "lightning", "pandas", "matplotlib", "scipy", "onnx"}} & set(sys.modules)
sys.exit(f"imported: {{slow}}" if slow else 0)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_onnxruntime_the_extra_is_named(exported: Path) -> None:
    code = f"""
import sys
from pathlib import Path
sys.modules["onnxruntime"] = None
from emolight.inference.onnx_network import load_onnx
load_onnx(Path({str(exported)!r}))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (
        'EmolightError: Predicting with an ONNX file needs onnxruntime.\nType: pip install "emolight[export]"'
        in (done.stderr)
    )


@pytest.fixture(scope="module")
def two_kinds(recordings: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint with a last layer that tells low voices from high ones by a wide margin."""
    model = load_classifier(checkpoint)
    recognizer = load(checkpoint)
    clips = [recognizer.load_clip(recordings / f"{n}.wav").waveform for n in range(24)]
    seen: list[torch.Tensor] = []
    handle = model.network.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # type: ignore[union-attr, operator]
    with torch.no_grad():
        model(torch.from_numpy(np.stack([fix_length(clip, 16000) for clip in clips])))
    handle.remove()
    low, high = seen[0][:12].mean(dim=0), seen[0][12:].mean(dim=0)
    way = 4 * (low - high) / (low - high).square().sum()
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["network.fc.weight"] = torch.stack([way, -way, 0 * way])
    middle = way @ (low + high) / 2
    content["state_dict"]["network.fc.bias"] = torch.stack([-middle, middle, torch.tensor(-9.0)])
    path = tmp_path_factory.mktemp("kinds") / "best.ckpt"
    save_checkpoint(content, path)
    return path


@pytest.fixture(scope="module")
def wave_checkpoint(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 1-D network, which exports fastest."""
    model = small_network("waveform", ["calm", "happy", "sad"])
    content = torch.load(checkpoint, weights_only=True)
    content |= {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    path = tmp_path_factory.mktemp("wave") / "best.ckpt"
    save_checkpoint(content, path)
    return path


@pytest.mark.parametrize(
    ("name", "bar", "int8", "message"),
    [
        ("TOLERANCE", -1.0, False, "differ from PyTorch's by"),
        ("AGREEMENT", 1.1, True, "of the labels survive 8 bits"),
    ],
)
def test_a_model_that_misses_a_bar_is_not_written(
    wave_checkpoint: Path,
    recordings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    bar: float,
    int8: bool,
    message: str,
) -> None:
    monkeypatch.setattr(export, name, bar)
    with pytest.raises(EmolightError, match=message):
        export.export(wave_checkpoint, tmp_path / "model.onnx", int8, recordings)
    assert not list(tmp_path.iterdir())


def test_int8_is_smaller_and_keeps_the_labels(
    two_kinds: Path, exported: Path, recordings: Path, tmp_path: Path
) -> None:
    output = tmp_path / "small.onnx"
    report = export.export(two_kinds, output, int8=True, clips=recordings)
    assert report["label_agreement"] >= 0.95
    assert 0 < report["int8_difference"] < 0.2
    assert output.stat().st_size < 0.4 * exported.stat().st_size
    onnx.checker.check_model(onnx.load(output))
    check_damage(output.read_bytes(), tmp_path / "alone.onnx")
    labels = [load(output).predict_file(recordings / f"{n}.wav").label for n in (0, 23)]
    assert labels == ["calm", "happy"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "model.pt"], "must end in .onnx"),
        (["--int8"], "--int8 needs recordings"),
        (["--clips", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_on_the_command_line(checkpoint: Path, options: list[str], message: str) -> None:
    with pytest.raises(EmolightError, match=message):
        export.main([str(checkpoint), *options])
