"""Pictures of what a checkpoint saw: waveform, features, class activation map, probabilities."""

import textwrap
from itertools import count
from pathlib import Path, PurePath
from threading import get_ident
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from emolight.data.audio import Waveform
from emolight.errors import EmolightError
from emolight.evaluation.pictures import draw_features
from emolight.evaluation.style import BLUE, GREY, INK, WIDTH, clean_axis, new_figure, plain
from emolight.inference.prediction import Clip, Prediction, judged_piece
from emolight.inference.recognizer import onnx_file
from emolight.inference.timeline import write_picture
from emolight.inference.torch_network import checkpoint_of, contract_of
from emolight.models.classifier import EmotionClassifier
from emolight.models.loading import load_classifier

Array = NDArray[np.floating[Any]]


def class_activation(
    model: EmotionClassifier, waveform: Waveform, emotion: str, offset: torch.Tensor | float = 0.0
) -> Array:
    """Where a clip ``[T]`` speaks for an emotion, by Grad-CAM, a value a cell of ``network.cam_layer`` from 0 to 1.

    The mean gradient of the emotion's logit weighs each channel of the layer that the network names; negative sums
    count as 0. Source: Selvaraju et al., *Grad-CAM*, ICCV 2017. All 0 when no cell speaks for the emotion.
    """
    kept, own, layer = list[torch.Tensor](), get_ident(), model.network.cam_layer.layer  # others may draw, too
    with torch.no_grad():
        features = model.features(torch.from_numpy(waveform)[None].to(model.device), offset)
    hook = layer.register_forward_hook(lambda _, __, output: kept.extend([output] * (get_ident() == own)))
    with hook, torch.enable_grad():
        logit = model.network(features.requires_grad_())[0, model.classes.index(emotion)]
        (gradient,) = torch.autograd.grad(logit, kept[0])
    weights = gradient.flatten(2).mean(dim=2)
    cells = torch.einsum("bc,bc...->b...", weights, kept[0].detach())[0].clamp(min=0).cpu().numpy()
    return np.asarray(cells / (cells.max() or 1.0))


def spread(cells: Array, stride: float | None, offset: float, shape: tuple[int, ...]) -> Array:
    """Interpolate a map linearly to ``shape``: cell k is centred on position ``offset + k * stride``, None: evenly."""
    for axis, size in enumerate(shape):
        count = cells.shape[axis]
        each, first = (size / count, size / count / 2 - 0.5) if stride is None else (stride, offset)
        centres, places = first + each * np.arange(count), np.arange(size)
        cells = np.apply_along_axis(lambda row, at, to: np.interp(to, at, row), axis, cells, centres, places)
    return cells


def explain(model: EmotionClassifier, clip: Clip, prediction: Prediction, title: str, enrolled: Any = None) -> Figure:
    """Draw what a model in evaluation mode saw in a recording and why it said what it said.

    Waveform, features and class activation map (Grad-CAM of the likeliest emotion) share one time axis, in seconds
    of the recording; below stand the probabilities. Of a long recording the window is shown that speaks most for
    the verdict. Where the network takes raw samples, the map lies under the waveform. ``enrolled`` is the offset of an
    enrolled speaker.
    """
    contract, front_end, emotion = contract_of(model), model.front_end, prediction.likeliest
    wave, start = judged_piece(contract, clip, prediction)
    rate, seconds = contract.sample_rate, len(wave) / contract.sample_rate
    shift = (torch.zeros(1, 1) if enrolled is None else torch.from_numpy(enrolled)).to(model.device)
    cells = class_activation(model, wave, emotion, shift)
    heights = [1.1, 2.0, 2.0] if front_end.image else [1.3, 0.55]
    heights.append(0.3 * len(contract.classes) + 0.2)
    figure = new_figure(WIDTH, sum(heights) + 0.62 * len(heights) + 0.7, title)
    # Colour bars have a column of their own: taken out of the panels, they would shift the time axes.
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights, width_ratios=[42, 1])
    panels = [figure.add_subplot(grid[0, 0])]
    panels += [figure.add_subplot(grid[row, 0], sharex=panels[0]) for row in range(1, len(heights) - 1)]
    bars = [figure.add_subplot(grid[row, 1]) for row in range(1, len(panels))]
    drawn: Any
    _, stride, offset = model.network.cam_layer
    if front_end.image:
        with torch.no_grad():
            features, unit = front_end(torch.from_numpy(wave)[None].to(model.device)), front_end.unit
            if front_end.normalised_in_pictures:
                features, unit = model.normalise(features - shift[..., None]), "standard deviations"
        image = features[0, 0].float().cpu().numpy()
        seen, below = (draw_features(panel, image, rate, front_end.hop_length, front_end.axis) for panel in panels[1:])
        figure.colorbar(seen, cax=bars[0], label=unit)
        panels[1].set_title(front_end.pictured, loc="left", fontsize=11)
        below.set_cmap("gray")
        across, up = np.moveaxis(below.get_coordinates(), -1, 0)
        heat = spread(cells, stride, offset, image.shape)
        drawn = panels[2].pcolormesh(across, up, heat, cmap="viridis", vmin=0, vmax=1, alpha=0.6, rasterized=True)
    else:
        heat = spread(cells, stride, offset, wave.shape)[None]
        drawn = panels[1].imshow(heat, aspect="auto", extent=(0.0, seconds, 0.0, 1.0), cmap="viridis", vmin=0, vmax=1)
        panels[1].set_yticks([])
    figure.colorbar(drawn, cax=bars[-1], ticks=[0, 0.5, 1], label="relative to the highest" if front_end.image else "")
    what = f"{'what' if cells.any() else 'nothing'} speaks for {emotion}"
    size = " × ".join(map(str, cells.shape))
    as_it_is: dict[str, Any] = {"loc": "left", "fontsize": 11, "parse_math": False}
    panels[-1].set_title(f"{what}: class activation map, {size} cells", **as_it_is)
    title = "waveform" + (f" of the window that speaks most for {emotion}" if prediction.windows else "")
    sound = len(clip.trimmed) / rate
    padded = not prediction.windows and sound < contract.duration
    for panel in panels:
        panel.tick_params(labelbottom=panel is panels[-1])
        panel.set_xlabel("")
        if padded:
            panel.axvline(sound, color=GREY, linewidth=1.2, linestyle="--")
    panels[0].plot(np.arange(len(wave)) / rate, wave, color=BLUE, linewidth=0.5)
    reach = 1.1 * float(np.abs(wave).max())
    panels[0].set(xlim=(0, seconds), ylim=(-reach, reach), ylabel="amplitude")
    panels[0].set_title(f"{title}, zeros after the dashed line" if padded else title, **as_it_is)
    clean_axis(panels[0], "both")
    panels[-1].set_xlabel(f"time (s), from {start:.2f} s of {len(clip.waveform) / rate:.2f} s on")
    _draw_bars(figure.add_subplot(grid[-1, 0]), prediction)
    if prediction.warnings:
        notes = [textwrap.fill(plain(f"Warning: {text}."), 85) for text in prediction.warnings]
        figure.supxlabel("\n".join(notes), fontsize=9, color=INK, x=0.02, ha="left", parse_math=False)
    return figure


def _draw_bars(axis: Any, prediction: Prediction) -> None:
    names, values = list(prediction.probabilities), [100 * value for value in prediction.probabilities.values()]
    colours = [BLUE if name == prediction.likeliest else GREY for name in names]
    drawn = axis.barh(range(len(names)), values, height=0.66, color=colours)
    axis.set_yticks(range(len(names)), names, parse_math=False)
    axis.bar_label(drawn, fmt="%.1f", padding=3, fontsize=10, color=INK)
    axis.invert_yaxis()
    axis.set(xlim=(0, 108), xticks=range(0, 101, 20), xlabel="probability (%)")
    clean_axis(axis, "x")
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)


class Explainer:
    """Writes :func:`explain`'s pictures of the predictions of a checkpoint or run into a folder."""

    def __init__(self, source: Path, folder: Path, enrolled: Any = None) -> None:
        if onnx_file(source):
            problem = f"{source} is an exported model; the class activation map needs its gradients."
            raise EmolightError(problem, "Give the checkpoint that it was exported from: RUN/checkpoints/best.ckpt.")
        self.model, self.folder = load_classifier(checkpoint_of(source)), folder.expanduser()
        self.taken: set[str] = set()
        self.enrolled = enrolled
        assert self.model.network.cam_layer  # or an error, before anything is written

    def write(self, name: str, truth: str | None, clip: Clip, prediction: Prediction) -> Path:
        """Draw a recording as ``name.png``, for a name that came already ``name-2.png``; returns the path."""
        name = PurePath(name).name or "clip"
        names = (name if number == 1 else f"{name}-{number}" for number in count(1))
        free = next(one for one in names if one.casefold() not in self.taken)  # also where a file system folds cases
        self.taken.add(free.casefold())
        path = self.folder / f"{free}.png"
        heading = f"{name}\n{prediction}" + (f", labelled {truth}" if truth else "")
        write_picture(explain(self.model, clip, prediction, heading, self.enrolled), path)
        return path
