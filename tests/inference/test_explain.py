from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from emolight.errors import EmolightError
from emolight.inference.explain import class_activation, explain, layer_of, spread, write_explanations
from emolight.inference.recognizer import Clip, Prediction, Recognizer, load
from emolight.inference.torch_network import contract_of
from emolight.models.augment import Augment
from emolight.models.classifier import EmotionClassifier, load_classifier
from emolight.models.frontend import Features
from tests.inference.conftest import CLASSES, voice

MODES = ("spectrogram", "mel", "mfcc", "waveform")


def make_model(mode: str) -> EmotionClassifier:
    torch.manual_seed(0)
    model = EmotionClassifier(features=Features(mode=mode), augment=Augment(), classes=CLASSES, duration=1.0)
    waves = torch.from_numpy(np.stack([voice(pitch=pitch) for pitch in (110.0, 150.0, 220.0, 300.0)]))
    model.normalise.fit([model.front_end(waves)])
    with torch.no_grad():
        for _ in range(5):  # settles the batch norm's running statistics
            model(waves)
    return model.eval()


def draw(mode: str, clip: Clip, label: str | None = "happy", **changes: object):
    model = make_model(mode)
    recognizer = Recognizer(contract_of(model), lambda waves: np.full((len(waves), 3), 1 / 3, np.float32))
    prediction = Prediction(label, {"calm": 0.2, "happy": 0.5, "sad": 0.3}, clip.warnings)
    figure = explain(model, recognizer, clip, prediction, str(changes.get("title", "a clip")))
    figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize("mode", MODES)
def test_map_is_relative_to_its_largest_value_and_differs_by_emotion(mode: str) -> None:
    pytest.importorskip("captum")
    model = make_model(mode)
    maps = [class_activation(model, voice(), emotion) for emotion in CLASSES]
    for cells in maps:
        assert cells.ndim == (1 if mode == "waveform" else 2)
        assert cells.min() >= 0
        assert cells.max() in (0.0, pytest.approx(1.0))
    assert any(cells.any() for cells in maps)
    assert not np.allclose(maps[0], maps[1])


def test_map_is_grad_cam_as_defined() -> None:
    pytest.importorskip("captum")
    model = make_model("mel")
    kept = []
    hook = model.network.layer4.register_forward_hook(lambda _layer, _inputs, output: kept.append(output))
    logit = model(torch.from_numpy(voice())[None])[0, 1]
    hook.remove()
    weights = torch.autograd.grad(logit, kept[0])[0].mean(dim=(2, 3), keepdim=True)
    expected = (weights * kept[0]).sum(dim=1)[0].clamp(min=0).detach().numpy()
    np.testing.assert_allclose(class_activation(model, voice(), "happy"), expected / expected.max(), atol=1e-4)


@pytest.mark.parametrize("mode", ["mel", "waveform"])
def test_cells_lie_where_their_input_is(mode: str) -> None:
    """The gradient of a cell is symmetric about the place that ``layer_of`` tells, on average over many inputs."""
    network = make_model(mode).network
    layer, stride, offset = layer_of(network)
    size, cell = (20 * 4**4 * 12, 6) if mode == "waveform" else (32 * 20, 10)
    inputs = torch.randn(4, 1, *((size,) if mode == "waveform" else (64, size)), requires_grad=True)
    kept = []
    layer.register_forward_hook(lambda _layer, _inputs, output: kept.append(output))
    network(inputs)
    gradient = torch.autograd.grad(kept[0][..., cell].sum(), inputs)[0].square()
    weight = gradient.sum(dim=tuple(range(gradient.dim() - 1))).double().numpy()
    centre = float((weight * np.arange(size)).sum() / weight.sum())
    assert abs(centre - (offset + stride * cell)) < 0.25 * stride


def test_spread_is_linear_between_the_centres_and_flat_outside() -> None:
    image = spread(np.array([[0.0, 1.0], [1.0, 0.0]]), 4, 2.0, (9, 9))
    assert image.shape == (9, 9)
    np.testing.assert_allclose(image[0], [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1])
    np.testing.assert_allclose(image[:, 0], image[0])
    assert image[4, 4] == pytest.approx(0.5)


@pytest.mark.parametrize("mode", MODES)
def test_panels_share_one_time_axis(mode: str) -> None:
    pytest.importorskip("captum")
    figure = draw(mode, Clip(voice(0.7)))
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    panels = [axis for axis, title in zip(figure.axes, titles, strict=True) if title]
    assert len(panels) == (2 if mode == "waveform" else 3)
    boxes = [axis.get_window_extent() for axis in panels]
    assert {axis.get_xlim() for axis in panels} == {(0.0, 1.0)}
    assert len({(round(box.x0), round(box.x1)) for box in boxes}) == 1
    assert "zeros after the dashed line" in panels[0].get_title(loc="left")
    assert "happy" in panels[-1].get_title(loc="left")
    names = {"spectrogram": "frequency (Hz)", "mel": "mel bin", "mfcc": "coefficient", "waveform": ""}
    assert panels[-1].get_ylabel() == names[mode]
    top = {"spectrogram": 8000 + 0.5 * 16000 / 512, "mel": 63.5, "mfcc": 39.5, "waveform": 1.0}
    assert panels[-1].get_ylim()[1] == pytest.approx(top[mode])


def test_every_emotion_has_a_bar_with_its_probability() -> None:
    pytest.importorskip("captum")
    axis = draw("mfcc", Clip(voice())).axes[-1]
    assert [text.get_text() for text in axis.get_yticklabels()] == CLASSES
    assert [text.get_text() for text in axis.texts] == ["20.0", "50.0", "30.0"]
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([20, 50, 30])


def test_nothing_overlaps_under_a_long_title_and_warnings() -> None:
    pytest.importorskip("captum")
    notes = ("sample rate 8000 Hz; the model expects at least 16000 Hz",) * 3
    figure = draw("mel", Clip(voice(1.5), notes), title="$x_" + "a long name " * 12)
    boxes = [axis.get_tightbbox() for axis in figure.axes if axis.get_title(loc="left")]
    boxes += [figure.axes[-1].get_tightbbox(), figure._supxlabel.get_window_extent()]
    boxes = [figure._suptitle.get_window_extent(), *boxes]
    for upper, lower in pairwise(boxes):
        assert upper.y0 >= lower.y1 - 1
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 for box in boxes)
    assert any("the middle of 1.50 s" in axis.get_xlabel() for axis in figure.axes)


def test_a_picture_a_clip_and_none_overwritten(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("captum")
    monkeypatch.setattr("emolight.evaluation.plots.DPI", 40)  # faster
    recognizer = load(checkpoint)
    clip = Clip(voice(0.8))
    (prediction,) = recognizer.predict_clips([clip])
    names = ["hello", "Hello", "hello-2"]
    paths = write_explanations(checkpoint, [(name, clip, prediction) for name in names], tmp_path / "new")
    assert [path.name for path in paths] == ["hello.png", "Hello-2.png", "hello-2-2.png"]
    assert sorted((tmp_path / "new").iterdir()) == sorted(paths)
    assert imread(paths[0]).shape[1] > 300


def test_predictions_of_the_picture_are_not_changed_by_it(checkpoint: Path) -> None:
    pytest.importorskip("captum")
    model, recognizer = load_classifier(checkpoint), load(checkpoint)
    clip = Clip(voice())
    (before,) = recognizer.predict_clips([clip])
    explain(model, recognizer, clip, before, "a clip")
    logits = model(torch.from_numpy(clip.waveform)[None]) / model.temperature
    np.testing.assert_allclose(
        logits.softmax(dim=1)[0].detach().numpy(), list(before.probabilities.values()), atol=1e-6
    )


def test_exported_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmolightError, match=r"exported model(.|\n)*best\.ckpt"):
        write_explanations(Path("model.onnx"), [], tmp_path)


def test_missing_captum_is_a_sentence(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(EmolightError, match=r'pip install "emolight\[explain\]"'):
        write_explanations(checkpoint, [], tmp_path)


def test_folder_that_cannot_be_made_is_a_sentence(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    (tmp_path / "file").write_text("")
    clip = Clip(voice())
    (prediction,) = load(checkpoint).predict_clips([clip])
    with pytest.raises(EmolightError, match="--explain DIR"):
        write_explanations(checkpoint, [("a", clip, prediction)], tmp_path / "file")
