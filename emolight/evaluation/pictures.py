"""Pictures of sound: the features of clips, and plain spectrograms, with hertz, mel or coefficients and seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emolight.evaluation.style import WIDTH, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOP_HERTZ = 8000
COLUMNS = 1200
"""Frames of a spectrogram, about; more cannot be seen."""
Image = NDArray[Any]
LOOK: dict[str, Any] = {"x_axis": "s", "cmap": "magma", "rasterized": True}


def draw_features(axis_mpl: Any, image: Image, sample_rate: int, hop_length: int, axis: Any, **colours: Any) -> Any:
    """Draw features ``[F, N]`` with the units of their rows, and seconds; frame k is centred on k hops.

    ``axis`` tells what the F rows are, as ``models.features.FeatureAxis``: ``name``, ``unit``, ``low``, ``high``, and
    ``scale``, ``linear`` or ``mel`` with ends in hertz, or None for rows that only have numbers. ``colours`` may be
    ``vmin`` and ``vmax``. Returns what a colour bar takes.
    """
    import librosa
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    places = np.linspace(axis.low, axis.high, len(image))
    if axis.scale == "mel":
        places = librosa.mel_frequencies(n_mels=len(image), fmin=axis.low, fmax=axis.high)
    image = np.asarray(image, dtype=np.float32)
    finite = np.isfinite(image)
    image = np.where(finite, image, image[finite].min() if finite.any() else 0)
    look: dict[str, Any] = {"sr": sample_rate, "hop_length": hop_length, **LOOK, **colours}
    drawn = librosa.display.specshow(image, ax=axis_mpl, y_axis=axis.scale, y_coords=places, **look)
    if axis.scale is None:
        axis_mpl.yaxis.set(major_locator=MaxNLocator(integer=True), major_formatter=ScalarFormatter())
    elif axis.high > axis.low:
        axis_mpl.set_ylim(axis.low, axis.high)
    unit = axis.unit + ", mel scale" * (axis.scale == "mel")
    axis_mpl.set(xlabel="time (s)", ylabel=axis.name + f" ({unit})" * bool(unit))
    return drawn


def decibels(wave: Image, size: int, hop: int) -> Image:
    """Power spectra in dB below the highest, ``[size / 2 + 1, N]``: Hann windows centred on every hop, 80 dB deep.

    They are librosa's with zeros outside. librosa's own take longer to import, by numba, than a page of them to draw.
    """
    import torch
    from torchaudio import functional as audio

    samples, window = torch.tensor(wave, dtype=torch.float32), torch.hann_window(size)
    power = audio.spectrogram(samples, 0, window, size, hop, size, 1.0, False, pad_mode="constant")
    level: Image = audio.amplitude_to_DB(power, 20.0, 1e-5, float(power.max().clamp(min=1e-5).log10()), 80.0).numpy()
    return level


def draw_spectrogram(axis_mpl: Any, wave: Image, sample_rate: int) -> Any:
    """Draw the power spectra in dB of samples ``[T]``: 32 ms windows, at least 8 ms apart, 80 dB deep, to 8 kHz."""
    import librosa

    size = 2 ** round(np.log2(0.032 * sample_rate))
    hop = max(size // 4, len(wave) // COLUMNS)
    wave = np.pad(np.asarray(wave, dtype=np.float32), (0, max(0, size - len(wave))))
    look: dict[str, Any] = {"sr": sample_rate, "hop_length": hop, "n_fft": size, **LOOK}
    drawn = librosa.display.specshow(decibels(wave, size, hop), ax=axis_mpl, y_axis="linear", **look)
    axis_mpl.set(xlabel="time (s)", ylabel="frequency (Hz)", ylim=(0, min(TOP_HERTZ, sample_rate / 2)))
    return drawn


def features_figure(
    images: Mapping[str, Image], sample_rate: int, hop_length: int, axis: Any, unit: str, title: str
) -> Figure:
    """Feature images in a grid with one colour bar in ``unit``: heading to ``[F, N]``; see :func:`draw_features`."""
    columns = min(2, len(images))
    rows = -(-len(images) // columns)
    finite = np.concatenate([image[np.isfinite(image)].ravel() for image in images.values()])
    # One loud coefficient, as the first of an MFCC, must not take the whole range of colours.
    low, high = (float(end) for end in np.percentile(finite, (1, 99))) if finite.size else (0.0, 0.0)
    high = high if high > low else low + 1
    figure = new_figure(WIDTH, 1.0 + (3.2 if columns == 1 else 2.1 * rows), title)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for place, (name, image) in enumerate(images.items()):
        here = axes.flat[place]
        drawn = draw_features(here, image, sample_rate, hop_length, axis, vmin=low, vmax=high)
        here.set_title(name, fontsize=11, parse_math=False)
        if place % columns:
            here.set_ylabel("")
        if place + columns < len(images):  # only the lowest of each column names the time
            here.set_xlabel("")
        else:
            here.tick_params(labelbottom=True)
    for empty in axes.flat[len(images) :]:
        empty.set_visible(False)
    figure.colorbar(drawn, ax=axes, label=unit, extend="both", fraction=0.05, pad=0.02, aspect=30)
    return figure
