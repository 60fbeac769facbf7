"""A trained model that hears recordings: the same preparation of the sound for a checkpoint and an ONNX file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emolight.data.audio import (
    Waveform,
    fix_length,
    prepare,
    profile,
    read_audio,
    read_bytes,
    to_mono,
    trim_silence,
)
from emolight.errors import EmolightError

Probabilities: TypeAlias = NDArray[np.float32]
Network: TypeAlias = Callable[[Waveform], Probabilities]
"""Waveforms ``[B, T]`` to calibrated probabilities ``[B, C]``."""


@dataclass(frozen=True)
class Contract:
    """What a model promises and expects; plain values, the same in a checkpoint and in an ONNX file.

    Attributes:
        classes: names of the emotions, in the order of the probabilities.
        sample_rate: Hz of the waveforms that the network takes.
        duration: seconds of a clip: longer ones are cropped in the middle, shorter ones get zeros behind.
        trim_db: silence at both ends, this many dB below the loudest frame, is cut; None cuts nothing.
        training: see :meth:`emolight.data.datamodule.EmotionDataModule.training_facts`.
    """

    classes: list[str]
    sample_rate: int
    duration: float
    trim_db: float | None
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Samples of a clip."""
        return round(self.duration * self.sample_rate)


@dataclass(frozen=True)
class Prediction:
    """What a model says of a clip.

    Attributes:
        label: the likeliest emotion, or None when the model abstains.
        probabilities: of every emotion, calibrated, in the order of the model's classes.
        warnings: why this clip's prediction may not be trusted, a sentence each.
        times: start and end in seconds, when it is a window of a longer recording.
    """

    label: str | None
    probabilities: dict[str, float]
    warnings: tuple[str, ...] = ()
    times: tuple[float, float] | None = None

    @property
    def confidence(self) -> float:
        """The probability of the likeliest emotion."""
        return max(self.probabilities.values())


@dataclass(frozen=True)
class Clip:
    """A recording, ready for the network: ``waveform`` [T] at the model's rate, and what is odd about it."""

    waveform: Waveform
    warnings: tuple[str, ...] = ()


class Recognizer:
    """A trained model for inference.

    Args:
        contract: what the model expects.
        network: see :data:`Network`.
        abstain_below: confidence below which a prediction has no label.
    """

    def __init__(self, contract: Contract, network: Network, abstain_below: float = 0.0) -> None:
        self.contract, self.network, self.abstain_below = contract, network, abstain_below

    @property
    def classes(self) -> list[str]:
        """Names of the emotions, in the order of the probabilities."""
        return self.contract.classes

    def predict(self, waveform: ArrayLike, sample_rate: int) -> Prediction:
        """The emotion of one recording.

        Args:
            waveform: samples ``[T]`` or ``[channels, T]``; float with full scale ±1, or integers.
            sample_rate: Hz.

        Raises:
            EmolightError: not one recording, or an unusable one (see :func:`emolight.data.audio.read_audio`).
        """
        return self.predict_batch([waveform], sample_rate)[0]

    def predict_batch(self, waveforms: Sequence[ArrayLike], sample_rate: int) -> list[Prediction]:
        """As :meth:`predict` for several recordings of any lengths, in one pass of the network."""
        clips = [self._from_array(waveform, sample_rate) for waveform in waveforms]
        return self.predict_clips(clips)

    def predict_file(self, path: str | Path) -> Prediction:
        """As :meth:`predict` for a sound file."""
        return self.predict_clips([self.load_clip(path)])[0]

    def load_clip(self, path: str | Path, content: bytes | None = None, trim: bool = True) -> Clip:
        """Decode and prepare a sound file.

        Args:
            path: WAV, FLAC, OGG, MP3 at any rate and with any number of channels.
            content: the bytes of the file, when they have been read already.
            trim: cut silence at both ends, as the model's training did; windows want the whole recording.

        Raises:
            AudioError: the file cannot be used.
        """
        content = read_bytes(path) if content is None else content
        wave, rate = read_audio(path, content)
        return self._prepare(wave, rate, path, content, trim)

    def predict_clips(self, clips: Sequence[Clip]) -> list[Prediction]:
        """Predictions of prepared clips, in one pass of the network."""
        if not clips:
            return []
        batch = np.stack([fix_length(clip.waveform, self.contract.length) for clip in clips])
        rows = self.network(batch)
        return [self._prediction(row, clip.warnings) for row, clip in zip(rows, clips, strict=True)]

    def predict_windows(self, clip: Clip, window: float, hop: float, batch_size: int = 32) -> list[Prediction]:
        """Predictions of windows of a long recording, from its start to its end.

        Args:
            clip: from :meth:`load_clip` with ``trim=False``.
            window: seconds of a window; the last one is filled with zeros.
            hop: seconds from one window to the next.
            batch_size: windows in one pass of the network.
        """
        rate = self.contract.sample_rate
        if not 0.05 <= window <= 60 or not 0 < hop <= window:
            raise EmolightError(
                f"Windows of {window:g} s every {hop:g} s cannot be made.",
                "Take a window from 0.05 to 60 s, and a hop above 0 and at most the window.",
            )
        length, step = round(window * rate), max(1, round(hop * rate))
        starts = range(0, max(1, len(clip.waveform) - length + step), step)
        found: list[Prediction] = []
        for first in range(0, len(starts), batch_size):
            part = starts[first : first + batch_size]
            batch = np.stack([fix_length(clip.waveform[start : start + length], length) for start in part])
            for start, row in zip(part, self.network(batch), strict=True):
                end = min(start + length, len(clip.waveform))
                found.append(self._prediction(row, (), (start / rate, end / rate)))
        return found

    def _prediction(
        self, row: NDArray[np.floating], warnings: tuple[str, ...], times: tuple[float, float] | None = None
    ) -> Prediction:
        probabilities = {name: float(value) for name, value in zip(self.classes, row, strict=True)}
        best = max(probabilities, key=probabilities.__getitem__)
        label = best if probabilities[best] >= self.abstain_below else None
        return Prediction(label, probabilities, warnings, times)

    def _from_array(self, waveform: ArrayLike, sample_rate: int) -> Clip:
        samples = np.asarray(waveform)
        if samples.dtype.kind == "i":
            samples = samples / -float(np.iinfo(samples.dtype).min)
        if samples.dtype.kind != "f" or samples.ndim not in (1, 2):
            raise EmolightError(
                f"A waveform is [T] or [channels, T] in floating point, received {samples.dtype} {samples.shape}.",
                "Pass one recording; predict_batch takes several.",
            )
        wave = to_mono(np.atleast_2d(samples).T.astype(np.float32), sample_rate, "waveform")
        return self._prepare(wave, sample_rate, "waveform", None, True)

    def _prepare(self, wave: Waveform, rate: int, path: str | Path, content: bytes | None, trim: bool) -> Clip:
        wave = prepare(wave, rate, self.contract.sample_rate, None, path)
        trimmed = wave if self.contract.trim_db is None else trim_silence(wave, self.contract.trim_db)
        warnings = _warnings(self.contract, trimmed, rate, str(path), content)
        return Clip(trimmed if trim else wave, warnings)


def _warnings(contract: Contract, wave: Waveform, rate: int, path: str, content: bytes | None) -> tuple[str, ...]:
    """What makes a clip unlike the ones that the model's figures were measured on."""
    found = []
    training = contract.training
    if content is not None and hashlib.blake2b(content, digest_size=16).hexdigest() in training.get("hashes", ()):
        found.append("the model was trained on this very recording")
    elif (
        (actor := _actor(path)) is not None and training.get("corpus") == "RAVDESS" and actor in training["actors"]
    ):
        found.append(f"the model was trained on other recordings of actor {actor}")
    if rate < contract.sample_rate:
        found.append(f"sample rate {rate} Hz; the model expects at least {contract.sample_rate} Hz")
    units = {"duration": "s", "level": "dBFS", "bandwidth": "Hz"}
    for name, value in profile(wave, contract.sample_rate).items():
        if name in training.get("ranges", {}):
            low, high = training["ranges"][name]
            if not low <= value <= high:
                unit = units[name]
                found.append(f"{name} {value:.4g} {unit}; the model was trained on {low:.4g} to {high:.4g} {unit}")
    return tuple(found)


def _actor(path: str) -> int | None:
    """The actor that a RAVDESS file name tells."""
    from emolight.data.ravdess import parse_name

    clip = parse_name(PurePath(path).stem)
    return None if clip is None else int(str(clip["actor"]))


def load(path: str | Path, device: str = "cpu", abstain_below: float = 0.0) -> Recognizer:
    """Load a checkpoint (``.ckpt``) or an exported model (``.onnx``) for inference.

    Args:
        path: the file.
        device: where PyTorch computes: ``cpu``, ``cuda``, ``mps``; an ONNX file runs on the CPU.
        abstain_below: confidence below which a prediction has no label.

    Raises:
        EmolightError: the file is missing, damaged, or not a model of this project.
    """
    path = Path(path)
    if not 0 <= abstain_below <= 1:
        raise EmolightError(f"abstain_below is {abstain_below:g}; it must be from 0 to 1.", "0.5 is usual.")
    if path.suffix == ".onnx":
        from emolight.inference.onnx_network import load_onnx

        contract, network = load_onnx(path)
    else:
        from emolight.inference.torch_network import load_torch

        contract, network = load_torch(path, device)
    return Recognizer(contract, network, abstain_below)
