from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from emolight.errors import EmolightError
from emolight.inference.explain import Explainer, class_activation, explain, spread
from emolight.inference.prediction import Clip, Prediction
from emolight.inference.recognizer import load
from emolight.inference.timeline import timeline
from emolight.models.classifier import EmotionClassifier
from emolight.models.features import MFCC, MelSpectrogram, Spectrogram, Waveform
from emolight.models.networks import WaveCNN
from emolight.models.stems import MultiStemResNet18, Stacked
from emolight.models.vision import ResNet18

from .conftest import CLASSES, save, settle, voice

pytestmark = pytest.mark.drawn

FEATURES = {kind.mode: kind for kind in (Spectrogram, MelSpectrogram, MFCC, Stacked, Waveform)}
NETWORKS = {"stacked": MultiStemResNet18, "waveform": WaveCNN}


@pytest.fixture(scope="module", params=list(FEATURES))
def model(request: pytest.FixtureRequest) -> EmotionClassifier:
    torch.manual_seed(0)
    features = FEATURES[request.param]
    network = NETWORKS.get(request.param, ResNet18)
    return settle(EmotionClassifier(features, network, augment=[], classes=CLASSES, duration=1.0))


def clip_of(wave: np.ndarray, *warnings: str) -> Clip:
    return Clip(wave, (0, len(wave)), warnings)


def draw(model: EmotionClassifier, clip: Clip, title: str = "a clip"):
    prediction = Prediction("happy", {"calm": 0.2, "happy": 0.5, "sad": 0.3}, clip.warnings)
    figure = explain(model, clip, prediction, title)
    figure.draw_without_rendering()
    return figure


def test_the_map_is_grad_cam_as_defined(model: EmotionClassifier) -> None:
    kept: list[torch.Tensor] = []
    hook = model.network.cam_layer[0].register_forward_hook(lambda _layer, _inputs, output: kept.append(output))
    logit = model(torch.from_numpy(voice())[None])[0, 1]
    hook.remove()
    (gradient,) = torch.autograd.grad(logit, kept[0])
    space = tuple(range(2, gradient.dim()))
    expected = (gradient.mean(dim=space, keepdim=True) * kept[0]).sum(dim=1)[0].clamp(min=0).detach().numpy()
    cells = class_activation(model, voice(), "happy")
    assert cells.max() == pytest.approx(1.0)
    np.testing.assert_allclose(cells, expected / expected.max(), atol=1e-4)
    assert not np.allclose(cells, class_activation(model, voice(), "sad"))

    def interrupt(*_: object) -> None:
        hook.remove()
        with ThreadPoolExecutor(1) as another:
            another.submit(class_activation, model, voice(pitch=100), "sad").result()

    hook = model.network.register_forward_pre_hook(interrupt)
    np.testing.assert_allclose(class_activation(model, voice(), "happy"), cells, atol=1e-6)


@pytest.mark.parametrize("kind", [ResNet18, MultiStemResNet18, WaveCNN])
def test_cells_lie_where_their_input_is(kind: type) -> None:
    """The gradient of a cell is symmetric about the place that the network tells, on average over many inputs."""
    torch.manual_seed(0)
    network = kind(1, 3).eval()
    layer, stride, offset = network.cam_layer
    size, cell = (32 * 20, 10) if network.image else (20 * 4**4 * 12, 6)
    inputs = torch.randn(4, 1, *((64, size) if network.image else (size,)), requires_grad=True)
    kept = []
    layer.register_forward_hook(lambda _layer, _inputs, output: kept.append(output))
    network(inputs)
    gradient = torch.autograd.grad(kept[0][..., cell].sum(), inputs)[0].square()
    weight = gradient.sum(dim=tuple(range(gradient.dim() - 1))).double().numpy()
    centre = float((weight * np.arange(size)).sum() / weight.sum())
    assert abs(centre - (offset + stride * cell)) < 0.25 * stride


def test_spread_is_linear_between_the_centres_and_flat_outside() -> None:
    image = spread(np.array([[0.0, 1.0], [1.0, 0.0]]), 4, 2.0, (9, 9))
    np.testing.assert_allclose(image[0], [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1])
    np.testing.assert_allclose(image[:, 0], image[0])
    assert image[4, 4] == pytest.approx(0.5)
    even = spread(np.array([0.0, 1.0]), None, 0.0, (6,))
    np.testing.assert_allclose(even, [0, 0, 1 / 3, 2 / 3, 1, 1], atol=1e-12)


def test_panels_share_one_time_axis(model: EmotionClassifier) -> None:
    figure = draw(model, clip_of(voice(0.7)))
    panels = [axis for axis in figure.axes if axis.get_title(loc="left")]
    assert len(panels) == (3 if model.front_end.image else 2)
    boxes = [axis.get_window_extent() for axis in panels]
    assert {axis.get_xlim() for axis in panels} == {(0.0, 1.0)}
    assert len({(round(box.x0), round(box.x1)) for box in boxes}) == 1
    assert "zeros after the dashed line" in panels[0].get_title(loc="left")
    assert "speaks for happy" in panels[-1].get_title(loc="left")
    if model.front_end.image:
        low, high = panels[1].get_ylim()
        axis = model.front_end.axis
        assert axis.name in panels[1].get_ylabel()
        assert panels[1].get_title(loc="left") == model.front_end.pictured
        assert (model.front_end.mode, axis.name) != ("stacked", "row")
        assert low <= axis.low + 20
        assert high >= 0.9 * axis.high
    bars = figure.axes[-1]
    assert [text.get_text() for text in bars.texts] == ["20.0", "50.0", "30.0"]


def test_nothing_overlaps_under_a_long_title_and_warnings() -> None:
    torch.manual_seed(0)
    model = settle(EmotionClassifier(partial(MFCC, n_mfcc=20), augment=[], classes=CLASSES, duration=1.0))
    notes = ("sample rate 8000 Hz; the model expects at least 16000 Hz",) * 3
    figure = draw(model, clip_of(voice(1.5), *notes), title="$x_" + "a long name " * 12)
    boxes = [axis.get_tightbbox() for axis in figure.axes if axis.get_title(loc="left")]
    boxes += [figure.axes[-1].get_tightbbox(), figure._supxlabel.get_window_extent()]
    boxes = [figure._suptitle.get_window_extent(), *boxes]
    for upper, lower in pairwise(boxes):
        assert upper.y0 >= lower.y1 - 1
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 for box in boxes)
    assert any("from 0.25 s of 1.50 s on" in axis.get_xlabel() for axis in figure.axes)


def test_an_emotion_with_dollar_signs_is_no_formula(tmp_path: Path) -> None:
    names = ["$a_$", "$b_$", "$c_$"]
    torch.manual_seed(0)
    model = settle(EmotionClassifier(partial(MFCC, n_mfcc=20), augment=[], classes=names, duration=1.0))
    said = load(save(model, tmp_path / "best.ckpt")).predict(voice(3.0), 16000, window=1.0)
    timeline(said, "a clip").draw_without_rendering()
    explain(model, clip_of(voice(3.0)), said, "a clip").draw_without_rendering()


def test_a_picture_a_recording_and_none_overwritten(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emolight.evaluation.style.DPI", 40)  # faster
    recognizer, explainer = load(checkpoint), Explainer(checkpoint, tmp_path / "new")
    clip = clip_of(voice(9.0))
    (prediction,) = recognizer.predict_clips([clip])
    names = ["hello", "Hello", "hello-2"]
    paths = [explainer.write(name, "calm", clip, prediction) for name in names]
    assert [path.name for path in paths] == ["hello.png", "Hello-2.png", "hello-2-2.png"]
    assert sorted((tmp_path / "new").iterdir()) == sorted(paths)
    assert imread(paths[0]).shape[1] > 200
    (again,) = recognizer.predict_clips([clip])
    assert again == prediction
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="file"):  # of which the command line makes two lines
        Explainer(checkpoint, tmp_path / "file").write("a", None, clip, prediction)


def test_an_exported_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmolightError, match=r"exported model(.|\n)*best\.ckpt"):
        Explainer(Path("model.onnx"), tmp_path)
