"""Clips to hear: right and wrong ones of every emotion, and the ones that a result gets most wrong."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from matplotlib import colormaps
from PIL import Image

from emolight.data.audio import Waveform, load_waveform
from emolight.errors import EmolightError
from emolight.evaluation.pictures import decibels
from emolight.evaluation.predictions import PREFIX, class_names
from emolight.evaluation.statistics import mean_over_seeds
from emolight.report.pages import data_uri

RATE, TOP_DB = 16_000, 80.0
Sounds = dict[str, Waveform]
ADDED = ("probability", "right", "seeds_right", "image", "sound", "seconds")  # to a row; no card has a column so called
LONGEST = 8
"""Seconds of a sound, at most, so that the page stays small; of a longer clip these are its first ones."""


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """A predictions table with one row a clip, by the mean of its seeds' probabilities; the surest first.

    It gains ``right`` (bool), ``probability`` (of the prediction) and ``seeds_right`` (how many predict the label).
    """
    hits = (table["label"] == table["prediction"]).groupby(table["clip_id"]).sum()
    clips = mean_over_seeds(table).drop(columns=[*ADDED], errors="ignore")
    clips["probability"] = clips[[PREFIX + name for name in class_names(table)]].max(axis=1)
    clips["right"] = clips["label"] == clips["prediction"]
    clips["seeds_right"] = clips["clip_id"].map(hits)
    return clips.sort_values("probability", ascending=False, kind="stable", ignore_index=True)


def load_sounds(chosen: set[str], clips: pd.DataFrame, trim_db: float | None) -> tuple[Sounds, str]:
    """Clip id to recording at 16 kHz, of the ``chosen`` ones of a clip table, and why some are lacking, or nothing."""
    sounds: Sounds = {}
    found = clips[clips["clip_id"].isin(chosen)]
    absent = sorted(chosen - set(found["clip_id"]))
    reasons = [f"{len(absent)} of {len(chosen)} recordings are not there, such as {absent[0]}."] if absent else []
    for _, row in found.iterrows():
        start, end = (None if pd.isna(at) else float(at) for at in (row.get("start"), row.get("end")))
        try:
            sounds[row["clip_id"]] = load_waveform(row["file"], RATE, trim_db, start=start, end=end)
        except EmolightError as error:
            reasons.append(str(error).splitlines()[0])
    return sounds, reasons[0] if reasons else ""


def make_cards(chosen: pd.DataFrame, sounds: Mapping[str, Waveform]) -> list[dict[Any, Any]]:
    """The chosen rows with ``seconds``, and ``image`` and ``sound`` as data URIs, where the recording is at hand."""
    cards = []
    for row in chosen.to_dict("records"):
        if (wave := sounds.get(row["clip_id"])) is not None:
            row["image"] = data_uri("image/png", thumbnail(wave[: LONGEST * RATE]))
            row["sound"] = data_uri("audio/flac", flac(wave[: LONGEST * RATE]))
            row["seconds"] = len(wave) / RATE
        cards.append(row)
    return cards


def flac(wave: Waveform) -> bytes:
    """Samples [T] at 16 kHz as a FLAC file of 16 bits: half of a WAV, and every browser since 2017 plays it."""
    stream = io.BytesIO()
    soundfile.write(stream, wave.clip(-1, 1), RATE, format="FLAC", subtype="PCM_16")
    return stream.getvalue()


def thumbnail(wave: Waveform) -> bytes:
    """A spectrogram, of 32 ms windows every 8 ms, as PNG of 96 rows and at most 200 columns, in 32 colours."""
    level = Image.fromarray((1 + decibels(wave, 512, 128)[::-1] / TOP_DB).astype(np.float32))
    small = np.asarray(level.resize((min(200, level.width), 96), Image.Resampling.BOX))
    stream = io.BytesIO()
    Image.fromarray(colormaps["magma"](small, bytes=True)[..., :3]).quantize(32).save(stream, "PNG", optimize=True)
    return stream.getvalue()
