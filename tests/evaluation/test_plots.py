from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from emolight.evaluation.pictures import decibels, draw_spectrogram, features_figure
from emolight.evaluation.plots import (
    MOST_SPEAKERS,
    SEX_COLOURS,
    confusion_figure,
    curves_figure,
    recall_figure,
    reliability_figure,
    save_figure,
    speaker_figure,
)
from emolight.evaluation.predictions import confusion, scores, scores_by
from emolight.evaluation.statistics import bootstrap, calibration_error
from emolight.evaluation.style import new_figure

from .test_predictions import CLASSES, table_of

pytestmark = pytest.mark.drawn

EIGHT = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


class Axis(NamedTuple):
    name: str
    unit: str
    scale: str | None
    low: float
    high: float


MEL = Axis("frequency", "Hz", "mel", 20, 8000)


def random_table(classes: tuple[str, ...], speakers: int, clips_each: int, seed: int = 1) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    labels = list(classes) * (speakers * clips_each // len(classes))
    predicted = [name if generator.random() < 0.6 else str(generator.choice(classes)) for name in labels]
    return table_of(labels, predicted, classes, [1 + place // clips_each for place in range(len(labels))])


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return random_table(CLASSES, speakers=16, clips_each=20)


@pytest.fixture(scope="module")
def seeds() -> pd.DataFrame:
    tables = [random_table(CLASSES, 8, 20, seed).assign(seed=seed, fold=1) for seed in range(3)]
    return pd.concat(tables, ignore_index=True)


def metrics_of(epochs: int, shift: float = 0) -> pd.DataFrame:
    """As Lightning's CSVLogger writes it: a row an event, learning rates without an epoch."""
    rows: list[dict[str, float]] = []
    for epoch in range(epochs):
        score = 0.7 - 0.01 * abs(epoch - 3) + shift
        rows.append({"step": epoch, "lr-AdamW": 1e-3})
        rows.append({"epoch": epoch, "step": epoch, "val/loss": 1.0, "val/uar": score, "val/accuracy": score})
        rows.append({"epoch": epoch, "step": epoch, "train/loss": 2.0 / (1 + epoch)})
    return pd.DataFrame(rows)


def texts(figure: Figure) -> list[str]:
    """Every text of the figure that is not empty: titles, labels, ticks, legends, annotations."""
    import matplotlib.text

    figure.draw_without_rendering()
    found = figure.findobj(matplotlib.text.Text)
    return [text.get_text() for text in found if text.get_visible() and text.get_text()]


def clipped_texts(figure: Figure) -> list[str]:
    """Titles and legends that stick out of the page."""
    import matplotlib.text

    figure.draw_without_rendering()
    page = figure.bbox.padded(1)
    clipped = []
    for text in figure.findobj(matplotlib.text.Text):
        if text.get_visible() and text.get_text() and text.axes is None:
            box = text.get_window_extent()
            if box.x0 < page.x0 or box.x1 > page.x1 or box.y0 < page.y0 or box.y1 > page.y1:
                clipped.append(text.get_text())
    return clipped


def contrast(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """WCAG 2.1, written out."""

    def luminance(colour: tuple[float, ...]) -> float:
        parts = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("classes", [CLASSES, EIGHT])
def test_confusion_writes_percentages_and_clips_legibly(classes: tuple[str, ...]) -> None:
    table = random_table(classes, speakers=16, clips_each=24 if len(classes) == 8 else 20)
    figure = confusion_figure(table, "validation clips")
    counts, (axis,) = confusion(table), figure.axes
    percent = 100 * counts / counts.sum(axis=1, keepdims=True)
    expected = [f"{share:.1f}\n({clips:.0f})" for share, clips in zip(percent.ravel(), counts.ravel(), strict=True)]
    assert [text.get_text() for text in axis.texts] == expected
    assert figure.get_suptitle() == "validation clips"
    assert [label.get_text() for label in axis.get_yticklabels()] == list(classes)
    assert [label.get_text() for label in axis.get_xticklabels()] == list(classes)
    image = next(child for child in axis.get_children() if isinstance(child, AxesImage))
    for value in (0, 10, 50, 100):
        assert contrast(to_rgb(axis.texts[0].get_color()), image.cmap(image.norm(value))) >= 7  # WCAG's AAA
    assert contrast(image.cmap(image.norm(0)), image.cmap(image.norm(10))) > 1.1


def test_confusion_of_a_class_that_does_not_occur_has_no_percentages() -> None:
    figure = confusion_figure(table_of(["calm", "sad"], ["calm", "calm"], ("calm", "happy", "sad")), "")
    found = [text.get_text() for text in figure.axes[0].texts]
    assert found == ["100.0\n(1)", "0.0\n(0)", "0.0\n(0)", "–", "–", "–", "100.0\n(1)", "0.0\n(0)", "0.0\n(0)"]


@pytest.mark.parametrize("draw", [confusion_figure, recall_figure, speaker_figure])
def test_a_name_with_dollar_signs_is_no_formula(draw: Callable[..., Figure]) -> None:
    name = "$a_$"  # which cannot be read as one
    draw(table_of([name, "b"], ["b", "b"], (name, "b")).assign(speaker=name), "").draw_without_rendering()


def test_of_several_seeds_every_figure_shows_the_mean_over_them(seeds: pd.DataFrame) -> None:
    each = [one for _, one in seeds.groupby("seed")]
    uar = 100 * np.mean([scores(one)["uar"] for one in each])
    recall = recall_figure(seeds, "")
    assert f"UAR {uar:.1f} %" in texts(recall)
    assert "calm\nn = 32" in texts(recall)
    share = 100 * np.mean([scores(one)["recall"]["calm"] for one in each])
    assert recall.axes[0].patches[0].get_height() == pytest.approx(share)
    counts = np.mean([confusion(one) for one in each], axis=0)
    words = texts(confusion_figure(seeds, ""))
    assert f"{share:.1f}\n({counts[0, 0]:.1f})" in words
    assert "predicted: % of each true label (clips, mean)" in words
    bars = [bar.get_width() for bar in speaker_figure(seeds, "").axes[0].patches]
    assert bars == pytest.approx(100 * np.mean([scores_by(one, "speaker")["uar"] for one in each], axis=0))


def test_recall_bars_values_and_intervals_by_speaker(table: pd.DataFrame) -> None:
    figure = recall_figure(table, "test clips")
    (axis,) = figure.axes
    found, intervals = scores(table), bootstrap(table)
    expected = [100 * value for value in found["recall"].values()]
    assert [bar.get_height() for bar in axis.patches] == pytest.approx(expected)
    assert [text.get_text() for text in axis.texts] == [f"{value:.1f}" for value in expected]
    shown = texts(figure)
    assert {f"UAR {100 * found['uar']:.1f} %", "chance 20.0 %", "calm\nn = 64"} <= set(shown)
    assert axis.get_ylabel() == "recall (%), 95 % interval by speaker"
    segments = [lines.get_segments()[0][:, 1] for lines in axis.collections]
    assert segments[1] == pytest.approx([100 * end for end in intervals["recall calm"]])


def test_recall_intervals_of_few_speakers_are_wilsons_by_clip_and_say_so() -> None:
    figure = recall_figure(table_of(["calm"] * 20 + ["sad"] * 20, ["sad"] * 40, ("calm", "sad")), "")
    segments = [lines.get_segments()[0][:, 1] for lines in figure.axes[0].collections]
    assert len(segments) == 4  # an edge and a core for each class
    assert segments[0] == pytest.approx([0, 16.11], abs=0.01)  # 0 of 20, Newcombe 1998
    assert segments[3] == pytest.approx([100 - 16.11, 100], abs=0.01)
    assert figure.axes[0].get_ylabel() == "recall (%), 95 % interval by clip"


def test_speaker_bars_are_sorted_and_coloured_by_sex(table: pd.DataFrame) -> None:
    figure = speaker_figure(table, "validation clips")
    (axis,) = figure.axes
    rows = scores_by(table, "speaker")
    assert [label.get_text() for label in axis.get_yticklabels()] == [f"{speaker:02d}" for speaker in range(1, 17)]
    assert [bar.get_width() for bar in axis.patches] == pytest.approx(100 * rows["uar"])
    assert [text.get_text() for text in axis.texts] == [f"{100 * value:.1f}" for value in rows["uar"]]
    assert [bar.get_facecolor() for bar in axis.patches] == [
        to_rgba(SEX_COLOURS["male" if speaker % 2 else "female"]) for speaker in range(1, 17)
    ]
    shown = texts(figure)
    assert f"mean of speakers {100 * rows['uar'].mean():.1f} %" in shown
    assert f"female, mean {100 * rows['uar'].iloc[1::2].mean():.1f} %" in shown
    assert "speaker (20 clips each)" in shown


def test_speakers_of_other_counts_without_sex() -> None:
    labels, predicted = ["calm"] * 3 + ["sad"] * 2, ["calm", "calm", "sad", "sad", "calm"]
    table = table_of(labels, predicted, ("calm", "sad"), speakers=[7, 7, 7, 7, 12]).drop(columns="sex")
    (axis,) = speaker_figure(table, "").axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["07 (4)", "12 (1)"]
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([100 * 5 / 6, 0])


def test_of_very_many_speakers_the_lowest_and_highest_are_shown() -> None:
    figure = speaker_figure(random_table(CLASSES, 91, 10), "")
    assert len(figure.axes[0].patches) == MOST_SPEAKERS
    assert "the 24 lowest and the 24 highest of 91" in " ".join(texts(figure))
    assert figure.get_figheight() < 14


@pytest.mark.parametrize("speakers", [1, 4, 24])
def test_nothing_sticks_out_of_the_page_and_every_size_is_drawn(tmp_path: Path, speakers: int) -> None:
    table = random_table(EIGHT, speakers, clips_each=8)
    title = "test clips, random seed 0 (speaker-dependent: speakers are in training too, which flatters) of $me^2"
    for draw in (confusion_figure, recall_figure, speaker_figure, reliability_figure):
        figure = draw(table, title)
        assert clipped_texts(figure) == []
        assert figure.get_figwidth() <= 6.4  # 9 points are legible at 400 pixels
        save_figure(figure, tmp_path / "figure.png")
        assert (tmp_path / "figure.png").stat().st_size > 5000


def test_a_title_of_any_bytes_is_drawn() -> None:
    figure = new_figure(title=os.fsdecode(b"caf\xe9/version_0: validation clips"))
    figure.draw_without_rendering()
    assert figure.get_suptitle() == "caf?/version_0: validation clips"


def test_curves_join_the_events_of_an_epoch_and_mark_the_best() -> None:
    figure = curves_figure(metrics_of(8))
    loss, share = figure.axes
    training = loss.get_lines()[0]
    assert list(training.get_xdata()) == list(range(1, 9))
    assert list(training.get_ydata()) == pytest.approx([2.0 / (1 + epoch) for epoch in range(8)])
    assert list(share.get_lines()[0].get_ydata()) == pytest.approx([70 - abs(epoch - 3) for epoch in range(8)])
    assert {"training", "validation", "UAR", "accuracy", "highest UAR 70.0 %, epoch 4"} <= set(texts(figure))


@pytest.mark.parametrize("metrics", [metrics_of(8), [metrics_of(8), metrics_of(5)]])
def test_no_legend_covers_a_curve(metrics: pd.DataFrame | list[pd.DataFrame]) -> None:
    figure = curves_figure(metrics)
    figure.draw_without_rendering()
    for axis in figure.axes:
        assert axis.get_legend().get_window_extent().y0 >= axis.get_window_extent().y1 - 1


def test_curves_of_several_runs_are_thin_with_a_thick_mean_as_far_as_all_go() -> None:
    figure = curves_figure([metrics_of(8), metrics_of(5, shift=0.1)])
    lines = {line.get_label(): line for line in figure.axes[1].get_lines()}
    mean = lines["UAR, mean"]
    assert list(mean.get_xdata()) == [1, 2, 3, 4, 5]
    assert list(mean.get_ydata()) == pytest.approx([75 - abs(epoch - 3) for epoch in range(5)])
    assert mean.get_linewidth() > 2 > max(line.get_linewidth() for name, line in lines.items() if "mean" not in name)


def test_curves_of_one_epoch_show_points() -> None:
    figure = curves_figure(metrics_of(1))
    line = figure.axes[0].get_lines()[0]
    assert (list(line.get_xdata()), line.get_marker()) == ([1], "o")
    assert line.get_markersize() > 0
    assert "highest UAR 67.0 %, epoch 1" in texts(figure)


def test_curves_of_nothing_and_without_validation_say_so() -> None:
    figure = curves_figure(metrics_of(5)[["epoch", "step", "train/loss"]])
    assert [len(axis.get_lines()) for axis in figure.axes] == [1, 0]
    assert texts(figure).count("nothing logged") == 1
    for metrics in (pd.DataFrame(), pd.DataFrame({"step": [1], "lr-AdamW": [0.1]}), []):
        assert texts(curves_figure(metrics)).count("nothing logged") == 2


def test_curves_of_a_diverged_run_leave_out_what_is_not_finite() -> None:
    metrics = metrics_of(4)
    metrics.loc[metrics["epoch"] >= 2, ["train/loss", "val/loss"]] = np.inf
    assert list(curves_figure(metrics).axes[0].get_lines()[0].get_xdata()) == [1, 2]


def test_reliability_shows_the_bins_and_the_error(seeds: pd.DataFrame) -> None:
    figure, found = reliability_figure(seeds), calibration_error(seeds)
    measured = figure.axes[0].get_lines()[1]
    assert list(measured.get_xdata()) == pytest.approx([100 * one["confidence"] for one in found["bins"]])
    assert list(measured.get_ydata()) == pytest.approx([100 * one["accuracy"] for one in found["bins"]])
    assert f"gap, {100 * found['ece']:.1f} points in the mean (ECE)" in texts(figure)


def grid_of(figure: Figure) -> list[tuple[str, QuadMesh]]:
    axes = [axis for axis in figure.axes if axis.get_title()]
    return [(axis.get_title(), next(one for one in axis.collections if isinstance(one, QuadMesh))) for axis in axes]


@pytest.mark.parametrize(
    ("axis", "label", "low", "high"),
    [
        (Axis("frequency", "Hz", "linear", 0, 8000), "frequency (Hz)", 0, 8000),
        (MEL, "frequency (Hz, mel scale)", 20, 8000),
        (Axis("coefficient", "", None, 0, 39), "coefficient", -0.5, 39.5),
    ],
)
def test_features_have_the_units_of_their_rows_and_seconds(axis: Axis, label: str, low: float, high: float) -> None:
    generator = np.random.default_rng(2)
    images = {name: generator.normal(size=(40, 51)) - 10 * place for place, name in enumerate(CLASSES)}
    figure = features_figure(images, 16000, 512, axis, "dB", "training clips")
    found = grid_of(figure)
    assert [name for name, _ in found] == list(CLASSES)
    assert len({mesh.get_clim() for _, mesh in found}) == 1
    for (_, mesh), image in zip(found, images.values(), strict=True):
        np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(40, 51), image, rtol=1e-6)
    time = found[0][1].get_coordinates()[..., 0]
    assert (time.min(), time.max()) == pytest.approx((-0.016, 50.5 * 0.032))  # frame k is centred on k hops
    assert figure.axes[0].get_ylim() == pytest.approx((low, high))
    shown = texts(figure)
    assert {"time (s)", label, "training clips", "dB"} <= set(shown)
    ticks = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert {"linear": "2000", "mel": "512", None: "8"}[axis.scale] in ticks


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_features_grid_has_a_place_for_each_image(count: int) -> None:
    images = {f"clip {place}": np.full((4, 6), float(place)) for place in range(count)}
    figure = features_figure(images, 16000, 160, MEL, "dB", "")
    assert len([axis for axis in figure.axes if axis.get_visible()]) == count + 1
    assert clipped_texts(figure) == []


def test_silent_features_look_alike_and_warn_of_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    images = {"calm": np.zeros((4, 6)), "sad": np.full((4, 6), -np.inf)}
    figure = features_figure(images, 16000, 160, MEL, "dB", "")
    save_figure(figure, tmp_path / "features.png")
    assert [str(warning.message) for warning in recwarn] == []
    low, high = grid_of(figure)[0][1].get_clim()
    assert low < high


@pytest.mark.parametrize(("rate", "top"), [(16000, 8000), (48000, 8000), (8000, 4000)])
def test_a_tone_stands_where_it_sounds(rate: int, top: float) -> None:
    wave = np.sin(2 * np.pi * 1000 * np.arange(2 * rate) / rate).astype(np.float32)
    axis = new_figure().subplots()
    mesh = draw_spectrogram(axis, wave, rate)
    level = np.asarray(mesh.get_array())
    edges = mesh.get_coordinates()[:, 0, 1]
    row = int(level[:, level.shape[1] // 2].argmax())
    assert edges[row] <= 1000 <= edges[row + 1]
    assert level.max() - level.min() <= 80
    assert axis.get_ylim() == (0, top)
    assert mesh.get_coordinates()[..., 0].max() == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize(("samples", "size", "hop"), [(16000, 512, 128), (5003, 256, 64), (700, 1024, 256)])
def test_a_spectrogram_is_librosas(samples: int, size: int, hop: int) -> None:
    import librosa

    wave = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    wave *= np.linspace(0, 1, samples, dtype=np.float32) ** 8  # from silence on
    power = np.abs(librosa.stft(wave, n_fft=size, hop_length=hop, pad_mode="constant"))
    expected = librosa.amplitude_to_db(power, ref=np.max, top_db=80.0)
    assert expected.min() == -80 or samples < 1000
    np.testing.assert_allclose(decibels(wave, size, hop), expected, rtol=0, atol=0.05)
    assert not decibels(np.zeros(2 * size, np.float32), size, hop).any()


def test_a_long_or_empty_recording_is_drawn() -> None:
    axis = new_figure().subplots()
    assert np.asarray(draw_spectrogram(axis, np.zeros(16000 * 120, np.float32), 16000).get_array()).shape[1] < 1300
    assert draw_spectrogram(axis, np.zeros(3, np.float32), 16000) is not None


def test_saving_writes_a_whole_file_of_the_suffix_and_leaves_no_part(tmp_path: Path, table: pd.DataFrame) -> None:
    path = tmp_path / "plots" / "recall.png"
    save_figure(recall_figure(table, "validation clips"), path)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = (int.from_bytes(content[start : start + 4]) for start in (16, 20))
    assert (width, height) == (832, 546)  # 6.4 by 4.2 inches at 130 dpi
    assert [found.name for found in path.parent.iterdir()] == ["recall.png"]
    save_figure(recall_figure(table, "validation clips"), tmp_path / "recall.pdf")
    assert (tmp_path / "recall.pdf").read_bytes().startswith(b"%PDF")


def test_slow_libraries_are_imported_when_they_are_needed_and_pyplot_by_sound_alone(tmp_path: Path) -> None:
    code = (
        "import sys, pandas as pd; from emolight.evaluation.plots import curves_figure, save_figure;"
        "print({'matplotlib', 'torch', 'librosa', 'scipy', 'sklearn'} & set(sys.modules));"
        f"save_figure(curves_figure(pd.DataFrame()), {str(tmp_path / 'curves.png')!r});"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["set()", "False"]
