"""Pictures of what a checkpoint heard: waveform, features, class activation map, probabilities."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn

from emolight.data.audio import Waveform, fix_length
from emolight.data.ravdess import parse_name
from emolight.errors import EmolightError
from emolight.evaluation.plots import BLUE, DPI, GREY, GRID, INK, save_figure
from emolight.inference.recognizer import Clip, Contract, Prediction, Recognizer, load
from emolight.models.classifier import EmotionClassifier, load_classifier

Array = NDArray[np.floating[Any]]

WIDTH = 8.4
AXES = {
    "spectrogram": ("frequency (Hz)", "dB"),
    "mel": ("mel bin", "dB"),
    "mfcc": ("coefficient", "standard deviations"),
}


def layer_of(network: nn.Module) -> tuple[nn.Module, int, float]:
    """The layer that the map is taken from: the rectified output of the last convolutions.

    Returns:
        The layer; how many input samples (or pixels) lie between two of its cells; the input position that cell 0
        is centred on. Both follow from the strides and paddings of :func:`emolight.models.resnet.resnet18` and
        :class:`emolight.models.wave_cnn.WaveCNN`.
    """
    if isinstance(layer := getattr(network, "layer4", None), nn.Module):
        return layer, 32, 0.0
    # Four poolings by 4, each centred 1.5 of its inputs to the right, after a convolution of stride 20.
    return [layer for layer in network.modules() if isinstance(layer, nn.ReLU)][-1], 20 * 4**4, 20 * 127.5 - 0.5


def class_activation(model: EmotionClassifier, waveform: Waveform, emotion: str) -> Array:
    """Where a clip speaks for an emotion, by Grad-CAM.

    The mean gradient of the emotion's logit weighs each channel of the layer; negative sums count as 0.
    Source: Selvaraju et al., *Grad-CAM*, ICCV 2017; the implementation is captum's ``LayerGradCam``.

    Args:
        model: in evaluation mode.
        waveform: samples ``[T]`` at the model's rate.
        emotion: one of the model's classes.

    Returns:
        One value a cell of :func:`layer_of`'s layer, in units of the largest: ``[rows, columns]``, or ``[columns]``
        for mode ``waveform``. All 0 when no cell speaks for the emotion.

    Raises:
        EmolightError: captum is not installed.
    """
    with torch.no_grad():
        features = model.features(torch.from_numpy(waveform)[None].to(model.class_weight.device))
    layer, _, _ = layer_of(model.network)
    with torch.enable_grad():
        cells = _grad_cam()(model.network, layer).attribute(
            features, target=model.classes.index(emotion), relu_attributions=True
        )
    found: Array = cells.detach().cpu().numpy()[0, 0]
    top = float(found.max())
    return found / top if top > 0 else np.zeros_like(found)


def spread(cells: Array, stride: int, offset: float, shape: tuple[int, ...]) -> Array:
    """Interpolate a map linearly between the input positions that its cells are centred on.

    Args:
        cells: a value a cell, of as many dimensions as ``shape``.
        stride: from one cell to the next, in positions of the input.
        offset: position of cell 0.
        shape: of the result.
    """
    for axis, size in enumerate(shape):
        centres = offset + stride * np.arange(cells.shape[axis])
        places = np.arange(size)
        cells = np.apply_along_axis(lambda row, at, to: np.interp(to, at, row), axis, cells, centres, places)
    return cells


def explain(
    model: EmotionClassifier, recognizer: Recognizer, clip: Clip, prediction: Prediction, title: str
) -> Figure:
    """Draw what a model heard in a clip and why it said what it said.

    Waveform, feature image and class activation map (Grad-CAM of the likeliest emotion) share one time axis, in
    seconds of the piece that the network hears; below stand the probabilities. For mode ``waveform`` the map lies
    under the waveform.

    Args:
        model: the checkpoint, on any device, in evaluation mode.
        recognizer: made from the same checkpoint.
        clip: prepared by the recognizer.
        prediction: the recognizer's, of this clip.
        title: above the figure; wrapped to its width.

    Raises:
        EmolightError: captum is not installed.
    """
    contract, mode = recognizer.contract, model.front_end.features.mode
    wave = fix_length(clip.waveform, contract.length)
    emotion = max(prediction.probabilities, key=prediction.probabilities.__getitem__)
    cells = class_activation(model, wave, emotion)
    _, stride, offset = layer_of(model.network)

    heights = [1.3, 0.55] if mode == "waveform" else [1.1, 2.0, 2.0]
    heights.append(0.32 * len(contract.classes) + 0.2)
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.62 * len(heights) + 0.7), dpi=DPI, layout="constrained")
    figure.suptitle(_plain(title, 78), fontsize=12, parse_math=False)
    # Colour bars have a column of their own: taken out of the panels, they would shift the time axes.
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights, width_ratios=[42, 1])
    first = figure.add_subplot(grid[0, 0])
    _draw_waveform(first, wave, len(clip.waveform), contract)
    stacked = [first] + [figure.add_subplot(grid[row, 0], sharex=first) for row in range(1, len(heights) - 1)]
    size = " × ".join(str(count) for count in cells.shape)
    what = f"what speaks for {emotion}" if cells.any() else f"nothing speaks for {emotion}"
    if mode == "waveform":
        image, extent = spread(cells, stride, offset, wave.shape)[None], (0.0, contract.duration, 0.0, 1.0)
        drawn = stacked[1].imshow(image, aspect="auto", extent=extent, cmap="viridis", vmin=0, vmax=1)
        stacked[1].set_yticks([])
    else:
        features, extent, names = feature_image(model, wave)
        low, high = (float(end) for end in np.percentile(features, (1, 99)))
        limits: dict[str, Any] = {"origin": "lower", "aspect": "auto", "extent": extent}
        limits |= {"vmin": low, "vmax": max(high, low + 1e-6)}
        seen = stacked[1].imshow(features, cmap="magma", **limits)
        stacked[1].set_title(f"{mode} features", loc="left", fontsize=11)
        figure.colorbar(seen, cax=figure.add_subplot(grid[1, 1]), label=names[1], extend="both")
        stacked[2].imshow(features, cmap="gray", **limits)
        heat = spread(cells, stride, offset, features.shape)
        drawn = stacked[2].imshow(heat, **(limits | {"cmap": "viridis", "vmin": 0, "vmax": 1, "alpha": 0.6}))
        if cells.any():  # lines can be read where the features below change the colour
            lines = stacked[2].contour(heat, (0.25, 0.5, 0.75), colors="white", linewidths=1, extent=extent)
            stacked[2].clabel(lines, fmt="%.2f", fontsize=9)
        for axis in stacked[1:]:
            axis.set_ylabel(names[0])
    stacked[-1].set_title(f"class activation map ({size} cells): {what}", loc="left", fontsize=11)
    bar = figure.colorbar(drawn, cax=figure.add_subplot(grid[len(stacked) - 1, 1]), ticks=[0, 0.5, 1])
    bar.set_label("of the strongest" if mode != "waveform" else "")
    spare = len(clip.waveform) - contract.length
    for axis in stacked:
        axis.tick_params(labelbottom=axis is stacked[-1])
        if spare < 0:
            axis.axvline(len(clip.waveform) / contract.sample_rate, color=GREY, linewidth=1.2, linestyle="--")
    first.set_xlim(0, contract.duration)
    whole = f", the middle of {len(clip.waveform) / contract.sample_rate:.2f} s" if spare > 0 else ""
    stacked[-1].set_xlabel(f"time (s) in what the network hears{whole}")
    _draw_bars(figure.add_subplot(grid[-1, 0]), prediction, emotion)
    if prediction.warnings:
        notes = [_plain(f"Warning: {text}.", 100) for text in prediction.warnings]
        figure.supxlabel("\n".join(notes), fontsize=9, color=INK, x=0.02, ha="left", parse_math=False)
    return figure


def write_explanations(checkpoint: Path, items: Iterable[tuple[str, Clip, Prediction]], folder: Path) -> list[Path]:
    """Write :func:`explain`'s picture of each clip as PNG.

    Args:
        checkpoint: the ``.ckpt`` that the predictions come from.
        items: for each clip a name, the clip and its prediction. The picture is ``name.png``, for a name that came
            already ``name-2.png`` and so on. A RAVDESS name tells the label.
        folder: made when it is missing.

    Returns:
        The paths, in the order of ``items``.

    Raises:
        EmolightError: an exported model, captum is not installed, or the folder cannot be written.
    """
    if checkpoint.suffix == ".onnx":
        raise EmolightError(
            f"{checkpoint} is an exported model; the class activation map needs its gradients.",
            "Give the checkpoint that it was exported from: RUN/checkpoints/best.ckpt.",
        )
    _grad_cam()
    model, recognizer = load_classifier(checkpoint), load(checkpoint)
    written: list[Path] = []
    taken: set[str] = set()
    for name, clip, prediction in items:
        path = folder / f"{_free_name(PurePath(name).name or 'clip', taken)}.png"
        figure = explain(model, recognizer, clip, prediction, _title(name, prediction))
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Glyph .* missing")  # of a file name
                save_figure(figure, path)
        except OSError as error:
            raise EmolightError(
                f"Cannot write '{path}': {error.strerror}.", "Give another folder by --explain DIR."
            ) from None
        written.append(path)
    return written


def _grad_cam() -> Any:
    """captum's ``LayerGradCam``; EmolightError when it is not installed."""
    try:
        from captum.attr import LayerGradCam
    except ImportError:
        raise EmolightError(
            "The class activation map needs captum, which is not installed.",
            'Type: pip install "emolight[explain]"',
        ) from None
    grad_cam: type[LayerGradCam] = LayerGradCam
    return grad_cam


def _free_name(name: str, taken: set[str]) -> str:
    """A name that none of ``taken`` has, also where the file system folds cases."""
    free, number = name, 1
    while free.casefold() in taken:
        number += 1
        free = f"{name}-{number}"
    taken.add(free.casefold())
    return free


def _title(name: str, prediction: Prediction) -> str:
    fields = parse_name(name)
    heard = f"heard as {prediction.label} ({prediction.confidence:.0%})" if prediction.label else "no answer"
    return f"{name}\n{heard}" + (f", labelled {fields['emotion']}" if fields else "")


def _plain(text: str, width: int) -> str:
    """Wrapped text that a font can draw, whatever bytes a file name has."""
    lines = text.encode("utf-8", "replace").decode().splitlines()
    return "\n".join(textwrap.fill(line, width) for line in lines)


def feature_image(
    model: EmotionClassifier, wave: Waveform
) -> tuple[Array, tuple[float, float, float, float], tuple[str, str]]:
    """The features of a clip, ready for ``imshow``; not for mode ``waveform``.

    Args:
        model: the checkpoint.
        wave: samples ``[T]`` at the model's rate.

    Returns:
        ``[F, N]`` in dB, for MFCC in standard deviations of the training clips; left, right, bottom, top in seconds
        and Hz, mel bins or coefficients; the names of the rows and of the values.
    """
    features, rate = model.front_end.features, int(model.hparams["sample_rate"])
    with torch.no_grad():
        image = model.front_end(torch.from_numpy(wave)[None].to(model.class_weight.device))
        if features.mode == "mfcc":  # the first coefficient's size would hide the others
            image = model.normalise(image)
    rows, frames = image.shape[-2:]
    hop = features.hop_length / rate
    below, each = (model.front_end.first_bin, rate / features.n_fft) if features.mode == "spectrogram" else (0, 1)
    # Frame k is centred on k hops.
    extent = (-0.5 * hop, (frames - 0.5) * hop, (below - 0.5) * each, (below + rows - 0.5) * each)
    return image[0, 0].cpu().numpy(), extent, AXES[features.mode]


def _draw_waveform(axis: Any, wave: Waveform, sound: int, contract: Contract) -> None:
    seconds = np.arange(len(wave)) / contract.sample_rate
    axis.plot(seconds, wave, color=BLUE, linewidth=0.5)
    reach = 1.1 * float(np.abs(wave).max())
    axis.set_ylim(-reach, reach)
    padded = ", zeros after the dashed line" if sound < contract.length else ""
    axis.set_title(f"waveform{padded}", loc="left", fontsize=11)
    axis.set_ylabel("amplitude")
    axis.grid(color=GRID, linewidth=0.8)
    axis.spines[["top", "right"]].set_visible(False)


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
    axis.grid(axis="x", color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
