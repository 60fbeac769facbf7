"""Clips to hear: right and wrong ones of every emotion, and the ones that a result gets most wrong."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import soundfile
from numpy.typing import NDArray

from emolight.data.audio import Waveform, load_waveform
from emolight.errors import EmolightError
from emolight.evaluation.predictions import PREFIX, class_names
from emolight.evaluation.statistics import mean_over_seeds
from emolight.report.pages import data_uri

RATE = 16_000
N_FFT, HOP, TOP_DB = 512, 128, 80.0
Sounds = dict[str, Waveform]
LONGEST = 8
"""Seconds of a sound, at most, so that the page stays small; of a longer clip these are its first ones."""


class Card(NamedTuple):
    """A prediction for the page. ``probability`` is the prediction's; ``bars`` has every emotion's.

    ``seeds_right`` counts the seeds that predict the label. ``image`` and ``sound`` are data URIs, empty where the
    recording is not at hand; ``seconds`` is the length of the recording.
    """

    clip_id: str
    label: str
    prediction: str
    probability: float
    seeds_right: int
    about: str
    bars: list[tuple[str, float]]
    image: str
    sound: str
    seconds: float


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """One row a clip, the surest first, with what the cards need.

    Args:
        table: predictions table; with several seeds a clip is judged by the mean of its probabilities.

    Returns:
        The columns of the table, ``right`` (bool), ``probability`` (of the prediction) and ``seeds_right``.
    """
    hits = (table["label"] == table["prediction"]).groupby(table["clip_id"]).sum()
    clips = mean_over_seeds(table)
    columns = [PREFIX + name for name in class_names(table)]
    clips["probability"] = clips[columns].max(axis=1)
    clips["right"] = clips["label"] == clips["prediction"]
    clips["seeds_right"] = clips["clip_id"].map(hits)
    return clips.sort_values("probability", ascending=False, kind="stable", ignore_index=True)


def examples(clips: pd.DataFrame, count: int) -> pd.DataFrame:
    """The surest ``count`` right and ``count`` wrong ones of each emotion, of :func:`judged` clips."""
    return clips.groupby(["label", "right"], sort=False).head(count)


def most_wrong(clips: pd.DataFrame, count: int) -> pd.DataFrame:
    """The surest ``count`` wrong ones, of :func:`judged` clips."""
    return clips[~clips["right"]].head(count)


def load_sounds(chosen: Iterable[str], clips: pd.DataFrame, trim_db: float | None) -> tuple[Sounds, str]:
    """The recordings of chosen clips, and why some are lacking, in a sentence; empty where none is.

    Args:
        chosen: clip ids.
        clips: clip table with ``file``, and ``start`` and ``end`` where a recording holds several clips.
        trim_db: silence that is cut, as in :func:`~emolight.data.audio.load_waveform`.

    Returns:
        Clip id to samples [T] at 16 kHz, and the sentence.
    """
    wanted = set(chosen)
    found = clips[clips["clip_id"].isin(wanted)]
    sounds: Sounds = {}
    reasons = []
    for _, row in found.iterrows():
        start, end = (None if pd.isna(at) else float(at) for at in (row.get("start"), row.get("end")))
        try:
            sounds[row["clip_id"]] = load_waveform(row["file"], RATE, trim_db, start=start, end=end)
        except EmolightError as error:
            reasons.append(first_line(error))
    if absent := sorted(wanted - set(found["clip_id"])):
        reasons.insert(0, f"{len(absent)} of {len(wanted)} recordings are not there, such as {absent[0]}.")
    return sounds, reasons[0] if reasons else ""


def first_line(error: EmolightError) -> str:
    """The problem, without what to do."""
    return str(error).splitlines()[0]


def make_cards(chosen: pd.DataFrame, groups: Sequence[str], sounds: Mapping[str, Waveform]) -> list[Card]:
    """The cards of chosen clips; of one without a sound all but picture and sound. ``groups``: columns to tell."""
    names = class_names(chosen)
    cards = []
    for _, row in chosen.iterrows():
        wave = sounds.get(row["clip_id"])
        heard = None if wave is None else wave[: LONGEST * RATE]
        about = [f"speaker {row['speaker']}", *(_value(name, row[name]) for name in groups)]
        cards.append(
            Card(
                clip_id=row["clip_id"],
                label=row["label"],
                prediction=row["prediction"],
                probability=row["probability"],
                seeds_right=row["seeds_right"],
                about=", ".join(about),
                bars=[(name, row[PREFIX + name]) for name in names],
                image="" if heard is None else data_uri("image/png", thumbnail(heard)),
                sound="" if heard is None else data_uri("audio/flac", flac(heard)),
                seconds=0.0 if wave is None else len(wave) / RATE,
            )
        )
    return cards


def _value(column: str, value: object) -> str:
    """``female``, ``strong``; of a number also what it counts: ``statement 2``."""
    words = str(value)
    return f"{column} {words}" if words.replace(".", "").isdigit() else words


def flac(wave: Waveform) -> bytes:
    """Samples [T] at 16 kHz as a FLAC file of 16 bits: half of a WAV, and every browser since 2017 plays it."""
    stream = io.BytesIO()
    soundfile.write(stream, wave.clip(-1, 1), RATE, format="FLAC", subtype="PCM_16")
    return stream.getvalue()


def spectrogram(wave: Waveform) -> NDArray[np.floating]:
    """Power spectra in dB, ``[257, N]``: 32 ms Hann windows every 8 ms, 80 dB deep."""
    padded = np.pad(wave, N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP] * np.hanning(N_FFT)
    level = 20 * np.log10(np.maximum(np.abs(np.fft.rfft(frames)), 1e-5)).T
    image: NDArray[np.floating] = np.maximum(level, level.max() - TOP_DB)
    return image


def thumbnail(wave: Waveform) -> bytes:
    """A spectrogram as PNG of 96 rows and at most 200 columns, in 32 colours."""
    from matplotlib import colormaps
    from PIL import Image

    image = spectrogram(wave)[::-1]
    level = np.round((image - image.max() + TOP_DB) / TOP_DB * 31).clip(0, 31)
    small = Image.fromarray(level.astype(np.float32)).resize((min(200, image.shape[1]), 96), Image.Resampling.BOX)
    indexed = Image.fromarray(np.round(np.asarray(small)).astype(np.uint8))
    colours = colormaps["magma"](np.linspace(0, 1, 32), bytes=True)[:, :3]
    indexed.putpalette(colours.ravel().tolist())
    stream = io.BytesIO()
    indexed.save(stream, format="PNG", optimize=True)
    return stream.getvalue()
