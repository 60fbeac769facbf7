"""A trained model for recordings: files, arrays, windows, ONNX and the demo get the same preparation and checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emolight.data.audio import (
    Waveform,
    content_hash,
    fix_length,
    from_array,
    prepare,
    profile,
    read_audio,
    sound_range,
    to_mono,
)
from emolight.data.corpora import recognise
from emolight.data.corpus import UNKNOWN
from emolight.errors import EmolightError
from emolight.inference.prediction import Clip, Contract, Prediction
from emolight.inference.windows import check_windows, silent_windows, window_starts

__all__ = ["Clip", "Contract", "Network", "Prediction", "Probabilities", "Recognizer", "load"]

Probabilities: TypeAlias = NDArray[np.float32]
Network: TypeAlias = Callable[[Waveform], Probabilities]
"""Waveforms ``[B, T]`` to calibrated probabilities ``[B, C]``."""
BATCH = 32
"""Windows of the trained length in one pass of the network."""
UNITS = {"duration": "s", "level": "dBFS", "bandwidth": "Hz"}
"""Of the values of :func:`emolight.data.audio.profile`."""


class Recognizer:
    """A trained model for inference.

    The methods that predict take ``window`` and ``hop``, in seconds, and ``whole``. Without them a recording that
    is clearly longer than what the model was trained on (:attr:`Contract.longest`) is judged by windows of the
    trained length, each half of it after the one before: its probabilities are the mean over the windows with
    sound. ``window`` or ``hop`` does so with every recording; ``whole`` judges the middle also of long ones.

    Args:
        contract: what the model expects.
        network: see :data:`Network`.
        abstain_below: confidence below which a prediction has no label.

    Example:
        >>> model = emolight.load("lightning_logs/mfcc/version_0")
        >>> model.predict_file("voice.wav").label
        'happy'
    """

    def __init__(self, contract: Contract, network: Network, abstain_below: float = 0.0) -> None:
        self.contract, self.network, self.abstain_below = contract, network, abstain_below

    @property
    def classes(self) -> list[str]:
        """Names of the emotions, in the order of the probabilities."""
        return self.contract.classes

    def predict(self, waveform: ArrayLike, sample_rate: int, **windows: Any) -> Prediction:
        """The emotion of one recording.

        Args:
            waveform: see :func:`emolight.data.audio.from_array`: ``[T]``, ``[T, channels]`` or ``[channels, T]``.
            sample_rate: Hz.
            windows: ``window``, ``hop``, ``whole``; see the class.

        Raises:
            EmolightError: not one recording, an unusable one, or impossible windows.
        """
        return self.predict_batch([waveform], sample_rate, **windows)[0]

    def predict_batch(self, waveforms: Sequence[ArrayLike], sample_rate: int, **windows: Any) -> list[Prediction]:
        """As :meth:`predict` for several recordings of any lengths; the short ones are one pass of the network."""
        clips = []
        for waveform in waveforms:
            wave = to_mono(from_array(waveform), sample_rate, "waveform")
            wave = prepare(wave, sample_rate, self.contract.sample_rate, None, "waveform")
            clips.append(self._clip(wave, sample_rate, ()))
        return self.predict_clips(clips, **windows)

    def predict_file(self, path: str | Path, **windows: Any) -> Prediction:
        """As :meth:`predict` for a sound file."""
        return self.predict_clips([self.load_clip(path)], **windows)[0]

    def load_clip(self, path: str | Path, content: bytes | None = None) -> Clip:
        """Decode a sound file, all of it, and look up where it comes from.

        Its warnings say whether the model was trained, or its epoch chosen, on this very recording (by content) or
        on its speaker (by the file name's grammar), and whether its sample rate is below the model's.

        Args:
            path: WAV, FLAC, OGG, MP3 at any rate and with any number of channels.
            content: the bytes of the file, when they have been read already.

        Raises:
            AudioError: the file cannot be used.
        """
        wave, rate = read_audio(path, content, self.contract.sample_rate)
        digest, training, warnings = content_hash(path, content), self.contract.training, []
        if digest in training.get("hashes", ()):
            warnings.append("the model was trained on this very recording")
        elif digest in training.get("val_hashes", ()):
            warnings.append("the model was chosen on this very recording: it was a validation clip")
        elif who := self._speaker(path):
            warnings.append(f"the model was {who}")
        return self._clip(wave, rate, tuple(warnings))

    def _speaker(self, path: str | Path) -> str:
        """How the training knew the speaker that a file name tells, or an empty string."""
        training = self.contract.training
        if (known := recognise(path)) is None or known[1]["speaker"] == UNKNOWN:
            return ""
        corpus, speaker = known[0].name, str(known[1]["speaker"])
        corpora = str(training.get("corpus", "")).split(" + ")
        name = speaker if len(corpora) == 1 else f"{corpus}/{speaker}"
        for role, names in (("trained", "speakers"), ("chosen", "val_speakers")):
            if corpus in corpora and name in training.get(names, ()):
                return f"{role} on other recordings of speaker {speaker}"
        return ""

    def _clip(self, wave: Waveform, rate: int, warnings: tuple[str, ...]) -> Clip:
        if rate < self.contract.sample_rate:
            expected = self.contract.sample_rate
            warnings += (f"sample rate {rate} Hz; the model expects at least {expected} Hz",)
        sound = (0, len(wave)) if self.contract.trim_db is None else sound_range(wave, self.contract.trim_db)
        return Clip(wave, sound, warnings)

    def predict_clips(
        self,
        clips: Sequence[Clip],
        window: float | None = None,
        hop: float | None = None,
        whole: bool = False,
    ) -> list[Prediction]:
        """Predictions of prepared clips; the short ones are one pass of the network.

        Raises:
            EmolightError: impossible windows.
        """
        contract, asked = self.contract, window is not None or hop is not None
        window = contract.duration if window is None else window
        hop = window / 2 if hop is None else hop
        check_windows(window, hop)
        seconds = [len(clip.trimmed) / contract.sample_rate for clip in clips]
        cut = [asked or (not whole and length > contract.longest) for length in seconds]
        pieces = [fix_length(clip.trimmed, contract.length) for clip, by in zip(clips, cut, strict=True) if not by]
        rows = iter(self.network(np.stack(pieces)) if pieces else ())
        found = []
        for clip, length, by_windows in zip(clips, seconds, cut, strict=True):
            if by_windows:
                found.append(self._by_windows(clip, window, hop))
                continue
            how = f"the middle {contract.duration:g} s of {length:.2f} s" if length > 2 * contract.duration else ""
            odd = self._odd(profile(clip.trimmed, contract.sample_rate))
            found.append(self._prediction(next(rows), clip.warnings + odd, how))
        return found

    def _by_windows(self, clip: Clip, window: float, hop: float) -> Prediction:
        """The mean over the windows with sound; each has the warnings of its own sound."""
        wave, rate, trained = clip.waveform, self.contract.sample_rate, self.contract.duration
        length, step = round(window * rate), max(1, round(hop * rate))
        starts = window_starts(len(wave), length, step)
        silent = silent_windows(wave, starts, length)
        with_sound = [start for start, nothing in zip(starts, silent, strict=True) if not nothing]
        size = max(1, int(BATCH * min(1.0, trained / window)))
        rows, values = [], []
        for first in range(0, len(with_sound), size):
            parts = [wave[start : start + length] for start in with_sound[first : first + size]]
            rows += list(self.network(np.stack([fix_length(part, length) for part in parts])))
            values += [profile(part, rate) for part in parts]
        values = [{name: one[name] for name in ("level", "bandwidth")} for one in values]  # all last a window
        each = iter(zip(rows, values, strict=True))
        windows = []
        for start, nothing in zip(starts, silent, strict=True):
            times = (start / rate, min(start + length, len(wave)) / rate)
            if nothing:
                windows.append(Prediction(None, {}, ("silent",), times=times))
            else:
                row, own = next(each)
                windows.append(self._prediction(row, clip.warnings + self._odd(own), times=times))
        usual = {name: float(np.median([one[name] for one in values])) for name in values[0]}
        warnings = clip.warnings + self._odd(usual)
        if not np.isclose(window, trained):
            warnings += (f"windows of {window:g} s; the model was trained on {trained:g} s",)
        how = f"mean of {len(rows)} window{'' if len(rows) == 1 else 's'} of {window:g} s"
        how += f", {silent.sum()} silent left out" if silent.any() else ""
        return self._prediction(np.mean(rows, axis=0), warnings, how, windows=tuple(windows))

    def _odd(self, values: dict[str, float]) -> tuple[str, ...]:
        """In which values of :func:`profile` a recording is unlike the ones that the model was trained on."""
        found = []
        for name, value in values.items():
            low, high = self.contract.training.get("ranges", {}).get(name, (-np.inf, np.inf))
            if not low <= value <= high:
                unit = UNITS[name]
                found.append(f"{name} {value:.4g} {unit}; the model was trained on {low:.4g} to {high:.4g} {unit}")
        return tuple(found)

    def _prediction(self, row: Probabilities, warnings: tuple[str, ...], how: str = "", **rest: Any) -> Prediction:
        probabilities = {name: float(value) for name, value in zip(self.classes, row, strict=True)}
        best = max(probabilities, key=probabilities.__getitem__)
        label = best if probabilities[best] >= self.abstain_below else None
        return Prediction(label, probabilities, warnings, how, **rest)


def load(path: str | Path, device: str = "cpu", abstain_below: float = 0.0) -> Recognizer:
    """Load a trained model for inference.

    Args:
        path: a checkpoint (``.ckpt``), a run folder (its best checkpoint), or an exported model (``.onnx``).
        device: where PyTorch computes: ``cpu``, ``cuda``, ``mps``; an ONNX file runs on the CPU.
        abstain_below: confidence below which a prediction has no label.

    Raises:
        EmolightError: the file is missing, damaged, or not a model of this project.
    """
    path = Path(path).expanduser()
    if not 0 <= abstain_below <= 1:
        raise EmolightError(f"abstain_below is {abstain_below:g}; it must be from 0 to 1.", "0.5 is usual.")
    if path.suffix == ".onnx":
        from emolight.inference.onnx_network import load_onnx

        contract, network = load_onnx(path)
    else:
        from emolight.inference.torch_network import load_torch

        contract, network = load_torch(path, device)
    return Recognizer(contract, network, abstain_below)
