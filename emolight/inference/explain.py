"""Pictures of what a checkpoint saw: waveform, features, class activation map, probabilities."""

from __future__ import annotations

import textwrap
import warnings
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from emolight.data.audio import Waveform
from emolight.errors import EmolightError
from emolight.evaluation.pictures import draw_features
from emolight.evaluation.style import BLUE, GREY, INK, WIDTH, clean_axis, new_figure, save_figure
from emolight.inference.prediction import Clip, Prediction, judged_piece
from emolight.inference.timeline import said
from emolight.inference.torch_network import checkpoint_of, contract_of
from emolight.models.classifier import EmotionClassifier
from emolight.models.loading import load_classifier

Array = NDArray[np.floating[Any]]


def class_activation(model: EmotionClassifier, waveform: Waveform, emotion: str) -> Array:
    """Where a clip speaks for an emotion, by Grad-CAM.

    The mean gradient of the emotion's logit weighs each channel of the layer that the network names; negative sums
    count as 0. Source: Selvaraju et al., *Grad-CAM*, ICCV 2017.

    Args:
        model: in evaluation mode.
        waveform: samples ``[T]`` at the model's rate.
        emotion: one of the model's classes.

    Returns:
        One value a cell of ``network.cam_layer``, in units of the largest: ``[rows, columns]``, of raw
        samples ``[columns]``. All 0 when no cell speaks for the emotion.
    """
    kept: list[torch.Tensor] = []
    layer = model.network.cam_layer[0]
    hook = layer.register_forward_hook(lambda _layer, _inputs, output: kept.append(output))
    try:
        with torch.no_grad():
            features = model.features(torch.from_numpy(waveform)[None].to(model.device))
        with torch.enable_grad():
            logit = model.network(features.requires_grad_())[0, model.classes.index(emotion)]
            (gradient,) = torch.autograd.grad(logit, kept[0])
    finally:
        hook.remove()
    weights = gradient.flatten(2).mean(dim=2)
    cells = torch.einsum("bc,bc...->b...", weights, kept[0].detach())[0].clamp(min=0).cpu().numpy()
    top = float(cells.max())
    return cells / top if top > 0 else np.zeros_like(cells)


def spread(cells: Array, stride: float | None, offset: float, shape: tuple[int, ...]) -> Array:
    """Interpolate a map linearly between the input positions that its cells are centred on.

    Args:
        cells: a value a cell, of as many dimensions as ``shape``.
        stride: from one cell to the next, in positions of the input; None spreads them evenly.
        offset: position of cell 0.
        shape: of the result.
    """
    for axis, size in enumerate(shape):
        count = cells.shape[axis]
        each, first = (size / count, size / count / 2 - 0.5) if stride is None else (stride, offset)
        centres, places = first + each * np.arange(count), np.arange(size)
        cells = np.apply_along_axis(lambda row, at, to: np.interp(to, at, row), axis, cells, centres, places)
    return cells


def feature_image(model: EmotionClassifier, wave: Waveform) -> tuple[Array, str]:
    """The features ``[rows, N]`` of samples ``[T]`` as pictures show them, and their unit; of several channels 0."""
    with torch.no_grad():
        image, unit = model.front_end(torch.from_numpy(wave)[None].to(model.device)), model.front_end.unit
        if model.front_end.normalised_in_pictures:
            image, unit = model.normalise(image), "standard deviations"
    return image[0, 0].float().cpu().numpy(), unit


def explain(model: EmotionClassifier, clip: Clip, prediction: Prediction, title: str) -> Figure:
    """Draw what a model saw in a recording and why it said what it said.

    Waveform, features and class activation map (Grad-CAM of the likeliest emotion) share one time axis, in seconds
    of the recording; below stand the probabilities. Of a long recording the window is shown that speaks most for
    the verdict. Where the network takes raw samples, the map lies under the waveform.

    Args:
        model: the checkpoint, on any device, in evaluation mode.
        clip: prepared by a recognizer of the same checkpoint.
        prediction: the recognizer's, of this clip.
        title: above the figure; wrapped to its width.
    """
    contract, front_end = contract_of(model), model.front_end
    wave, start = judged_piece(contract, clip, prediction)
    emotion = max(prediction.probabilities, key=prediction.probabilities.__getitem__)
    cells = class_activation(model, wave, emotion)
    _, stride, offset = model.network.cam_layer
    heights = [1.1, 2.0, 2.0] if front_end.image else [1.3, 0.55]
    heights.append(0.3 * len(contract.classes) + 0.2)
    figure = new_figure(WIDTH, sum(heights) + 0.62 * len(heights) + 0.7, _plain(title))
    # Colour bars have a column of their own: taken out of the panels, they would shift the time axes.
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights, width_ratios=[42, 1])
    first = figure.add_subplot(grid[0, 0])
    panels = [first] + [figure.add_subplot(grid[row, 0], sharex=first) for row in range(1, len(heights) - 1)]
    _draw_waveform(first, wave, contract.sample_rate)
    if prediction.windows:
        first.set_title(f"waveform of the window that speaks most for {emotion}", loc="left", fontsize=11)
    drawn: Any
    bars = [figure.add_subplot(grid[row, 1]) for row in range(1, len(panels))]
    if front_end.image:
        (image, unit), axis = feature_image(model, wave), front_end.axis
        seen = draw_features(panels[1], image, contract.sample_rate, front_end.hop_length, axis)
        panels[1].set_title(front_end.title, loc="left", fontsize=11)
        figure.colorbar(seen, cax=bars[0], label=unit)
        below = draw_features(panels[2], image, contract.sample_rate, front_end.hop_length, axis)
        below.set_cmap("gray")
        across, up = np.moveaxis(below.get_coordinates(), -1, 0)
        heat = spread(cells, stride, offset, image.shape)
        drawn = panels[2].pcolormesh(across, up, heat, cmap="viridis", vmin=0, vmax=1, alpha=0.6, rasterized=True)
    else:
        heat = spread(cells, stride, offset, wave.shape)[None]
        extent = (0.0, len(wave) / contract.sample_rate, 0.0, 1.0)
        drawn = panels[1].imshow(heat, aspect="auto", extent=extent, cmap="viridis", vmin=0, vmax=1)
        panels[1].set_yticks([])
    size = " × ".join(str(count) for count in cells.shape)
    what = f"what speaks for {emotion}" if cells.any() else f"nothing speaks for {emotion}"
    panels[-1].set_title(f"{what}: class activation map, {size} cells", loc="left", fontsize=11)
    figure.colorbar(drawn, cax=bars[-1], ticks=[0, 0.5, 1], label="of the strongest" if front_end.image else "")
    sound = (clip.sound[1] - clip.sound[0]) / contract.sample_rate
    padded = not prediction.windows and sound < contract.duration
    for panel in panels:
        panel.tick_params(labelbottom=panel is panels[-1])
        panel.set_xlabel("")
        if padded:
            panel.axvline(sound, color=GREY, linewidth=1.2, linestyle="--")
            first.set_title("waveform, zeros after the dashed line", loc="left", fontsize=11)
    first.set_xlim(0, len(wave) / contract.sample_rate)
    whole = len(clip.waveform) / contract.sample_rate
    panels[-1].set_xlabel(f"time (s) from second {start:.2f} of {whole:.2f} on")
    _draw_bars(figure.add_subplot(grid[-1, 0]), prediction, emotion)
    if prediction.warnings:
        notes = [textwrap.fill(_plain(f"Warning: {text}."), 85) for text in prediction.warnings]
        figure.supxlabel("\n".join(notes), fontsize=9, color=INK, x=0.02, ha="left", parse_math=False)
    return figure


class Explainer:
    """Writes :func:`explain`'s pictures of a checkpoint's predictions.

    Args:
        source: the run folder or checkpoint that the predictions come from.
        folder: where the pictures go; made when it is missing.

    Raises:
        EmolightError: an exported model, or a network that names no layer to look at.
    """

    def __init__(self, source: Path, folder: Path) -> None:
        if source.suffix == ".onnx":
            raise EmolightError(
                f"{source} is an exported model; the class activation map needs its gradients.",
                "Give the checkpoint that it was exported from: RUN/checkpoints/best.ckpt.",
            )
        self.model, self.folder = load_classifier(checkpoint_of(source.expanduser())), folder.expanduser()
        self.taken: set[str] = set()

    def write(self, name: str, truth: str | None, clip: Clip, prediction: Prediction) -> Path:
        """Draw one recording.

        Args:
            name: of the recording; the picture is ``name.png``, for a name that came already ``name-2.png``.
            truth: its emotion, where that is known.
            clip: the recording.
            prediction: what the model says of it.

        Returns:
            The picture's path.

        Raises:
            EmolightError: the folder cannot be written.
        """
        name = PurePath(name).name or "clip"
        free, number = name, 1
        while free.casefold() in self.taken:  # also where the file system folds cases
            number += 1
            free = f"{name}-{number}"
        self.taken.add(free.casefold())
        path = self.folder / f"{free}.png"
        heading = f"{name}\n{said(prediction)}" + (f", labelled {truth}" if truth else "")
        figure = explain(self.model, clip, prediction, heading)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Glyph .* missing")  # of a file name
                save_figure(figure, path)
        except OSError as error:
            fix = "Give another folder by --explain DIR."
            raise EmolightError(f"Cannot write '{path}': {error.strerror}.", fix) from None
        return path


def _plain(text: str) -> str:
    """Text that a font can draw, whatever bytes a file name has."""
    return text.encode("utf-8", "replace").decode()


def _draw_waveform(axis: Any, wave: Waveform, sample_rate: int) -> None:
    axis.plot(np.arange(len(wave)) / sample_rate, wave, color=BLUE, linewidth=0.5)
    reach = 1.1 * float(np.abs(wave).max())
    axis.set_ylim(-reach, reach)
    axis.set_title("waveform", loc="left", fontsize=11)
    axis.set_ylabel("amplitude")
    clean_axis(axis, "both")


def _draw_bars(axis: Any, prediction: Prediction, emotion: str) -> None:
    names = list(prediction.probabilities)
    values = [100 * prediction.probabilities[name] for name in names]
    axis.barh(names, values, height=0.66, color=[BLUE if name == emotion else GREY for name in names])
    for row, value in enumerate(values):
        axis.text(value + 1, row, f"{value:.1f}", va="center", fontsize=10, color=INK)
    axis.invert_yaxis()
    axis.set_xlim(0, 108)
    axis.set_xticks(range(0, 101, 20))
    axis.set_xlabel("probability (%)")
    clean_axis(axis, "x")
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)
