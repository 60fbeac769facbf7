"""ONNX: the same probabilities as PyTorch, properties that travel with the file, and refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from emolight.__main__ import run  # noqa: E402
from emolight.errors import EmolightError  # noqa: E402
from emolight.inference import export  # noqa: E402
from emolight.inference.export import write_onnx  # noqa: E402
from emolight.inference.onnx_network import load_onnx, seal  # noqa: E402
from emolight.inference.recognizer import Contract, load  # noqa: E402
from emolight.inference.torch_network import load_torch  # noqa: E402
from emolight.models.features import MFCC, MelSpectrogram, Spectrogram, Waveform  # noqa: E402
from emolight.models.stems import Stacked  # noqa: E402
from tests.inference import conftest  # noqa: E402
from tests.inference.conftest import CLASSES, save, small_model, voice  # noqa: E402

RATE = 16000


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "03-01-02-01-01-01-02.wav"
    soundfile.write(path, voice(0.9), RATE)
    return path


@pytest.mark.parametrize("features", [Spectrogram, MelSpectrogram, MFCC, Stacked, Waveform])
def test_parity_at_any_batch_size_and_length(features: type, tmp_path: Path) -> None:
    model = small_model(features)
    with torch.no_grad():
        cases = []
        for batch in (1, 5):
            for length in (900, 8000, 20011):
                waves = np.stack([voice(2, pitch=100 + 70 * n, seed=n)[5000 : 5000 + length] for n in range(batch)])
                expected = (model(torch.from_numpy(waves)) / model.temperature).softmax(dim=1).numpy()
                cases.append((waves, expected))
    assert np.ptp(np.concatenate([expected for _, expected in cases]), axis=0).max() > 0.1
    contract = Contract(CLASSES, RATE, 0.5, None)
    write_onnx(model, vars(contract), tmp_path / "model.onnx")
    _, network = load_onnx(tmp_path / "model.onnx")
    for waves, expected in cases:
        np.testing.assert_allclose(network(waves)[0], expected, atol=1e-5, rtol=0)


def test_a_bundle_is_a_model_with_a_card_and_an_example(small: Path, recording: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    assert run(["export", str(small), "--bundle", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "example.py", "model.onnx"]
    config = json.loads((folder / "config.json").read_text())
    assert (config["classes"], config["sample_rate"], "hashes" in config["training"]) == (CLASSES, RATE, False)
    head, card = (folder / "README.md").read_text(encoding="utf-8").removeprefix("---\n").split("---\n", 1)
    assert yaml.safe_load(head)["license_name"] == "CC BY-NC-SA 4.0: name the authors"
    assert "calm, happy, sad" in card
    expected = load(folder).predict_file(recording)
    assert expected.probabilities == pytest.approx(load(small).predict_file(recording).probabilities, abs=1e-4)
    done = subprocess.run([sys.executable, folder / "example.py", recording], capture_output=True, text=True)
    assert f"{recording}\n  {expected}\n" in done.stdout, done.stderr
    assert run(["predict", str(folder), str(recording)]) == 0


def test_a_bundle_has_the_figures_of_its_own_checkpoint_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("name: a\n")
    (tmp_path / "run" / "MODEL_CARD.md").write_text("# UAR of the best epoch\n")
    facts = {**conftest.training_facts(), "column": "sex"}
    monkeypatch.setattr(conftest, "training_facts", lambda: facts)
    last = save(small_model(MFCC), tmp_path / "run" / "checkpoints" / "last.ckpt")
    export.write_bundle(last, tmp_path / "bundle")
    card = (tmp_path / "bundle" / "README.md").read_text(encoding="utf-8")
    assert "best epoch" not in card
    assert "# A classifier of sex from speech" in card
    assert "emotion" not in card


def test_half_is_half_the_size_and_nearly_the_same(tmp_path: Path) -> None:
    checkpoint = save(small_model(Waveform), tmp_path / "best.ckpt")
    whole = export.export(checkpoint, tmp_path / "whole.onnx")
    report = export.export(checkpoint, tmp_path / "half.onnx", half=True)
    assert (whole["precision"], report["precision"]) == ("float32", "float16")
    assert whole["largest_difference"] < report["largest_difference"] < 1e-2
    sizes = [(tmp_path / name).stat().st_size for name in ("half.onnx", "whole.onnx")]
    assert sizes[0] < 0.7 * sizes[1]
    half, whole = load_onnx(tmp_path / "half.onnx")[1], load_torch(checkpoint)[1]
    np.testing.assert_allclose(half(voice()[None])[0], whole(voice()[None])[0], atol=1e-2)


def test_contract_and_properties_are_in_the_file_which_stands_alone(small: Path, small_onnx: Path) -> None:
    assert load_onnx(small_onnx)[0] == load_torch(small)[0]
    assert load_onnx(small_onnx)[0].title.startswith("40 MFCC")
    assert list(small_onnx.parent.iterdir()) == [small_onnx]
    content = small_onnx.read_bytes()
    assert str(Path(export.__file__).parent).encode() not in content
    assert str(Path(torch.__file__).parent).encode() not in content
    properties = {prop.key: prop.value for prop in onnx.load(small_onnx).metadata_props}
    assert properties.pop("sha256")
    inside = {name: json.loads(value) for name, value in properties.items()}
    assert inside["data_licence"] == "CC BY-NC-SA 4.0: name the authors"
    assert "30 dB" in inside["length_policy"]
    assert "the middle 0.5 s" in inside["length_policy"]
    assert inside["versions"].keys() == {"torch", "onnx", "onnxruntime", "emolight"}
    assert {item.version for item in onnx.load(small_onnx).opset_import if not item.domain} == {inside["opset"]}


def test_40_of_40_flipped_bits_and_cut_files_are_refused(small_onnx: Path, tmp_path: Path) -> None:
    whole, path = small_onnx.read_bytes(), tmp_path / "alone.onnx"
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


def test_foreign_and_missing_files_are_refused(tmp_path: Path) -> None:
    tensor = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([], "foreign", [tensor], [tensor])
    foreign = tmp_path / "foreign.onnx"
    onnx.save(onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 18)]), foreign)
    with pytest.raises(EmolightError, match="has no checksum at its end"):
        load(foreign)
    foreign.write_bytes(foreign.read_bytes() + seal(foreign.read_bytes()))
    with pytest.raises(EmolightError, match="is not a model of emolight, and lacks the property 'classes'"):
        load(foreign)
    with pytest.raises(EmolightError, match="cannot be read: No such file"):
        load(tmp_path / "none.onnx")


def test_onnx_predicts_with_the_same_warnings_and_imports_nothing_slow(
    small: Path, small_onnx: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(small_onnx), str(recording), "--format", "jsonl"]
    code = f"""
import sys
from emolight.__main__ import run
code = run({words!r})
slow = {{"torch", "lightning", "pandas", "matplotlib", "scipy", "onnx", "librosa", "rich"}} & set(sys.modules)
sys.exit(f"imported: {{slow}}" if slow else code)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    row, expected = json.loads(done.stdout), load(small).predict_file(recording)
    assert row["probabilities"] == pytest.approx(expected.probabilities, abs=1e-4)
    assert tuple(row["warnings"]) == expected.warnings
    assert len(expected.warnings) == 1


def test_without_onnxruntime_the_extra_is_named(small_onnx: Path) -> None:
    code = f"""
import sys
from pathlib import Path
sys.modules["onnxruntime"] = None
from emolight.inference.onnx_network import load_onnx
load_onnx(Path({str(small_onnx)!r}))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'needs onnxruntime.\nType: pip install "emolight[export]"' in done.stderr


def test_a_model_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = save(small_model(Waveform), tmp_path / "best.ckpt")
    monkeypatch.setattr(export, "TOLERANCE", {"float32": -1.0})
    with pytest.raises(EmolightError, match="differ from PyTorch's by"):
        run(["export", str(checkpoint), "--output", str(tmp_path / "model.onnx")])
    assert list(tmp_path.iterdir()) == [checkpoint]
    with pytest.raises(EmolightError, match=r"must end in \.onnx"):
        run(["export", str(checkpoint), "--output", "model.pt"])
