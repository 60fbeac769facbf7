"""A trained model for recordings: files, arrays, windows, ONNX and the demo get the same preparation and checks."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emolight.data import audio
from emolight.data.audio import Waveform
from emolight.data.corpora import recognise
from emolight.data.corpus import UNKNOWN
from emolight.errors import EmolightError, counted
from emolight.inference.network import BATCH, Array, Probabilities
from emolight.inference.prediction import Clip, Contract, Prediction
from emolight.inference.recordings import CONVERT, count_suffixes, find_recordings

__all__ = ["Clip", "Contract", "Prediction", "Recognizer", "load"]

SILENT = 1e-3
"""A window this much below the level of the loudest one is silent: 16 bits of quiet room noise beside a voice."""
MIN_WINDOW, MAX_WINDOW = 0.05, 60.0
KINDS: dict[str, str] = {"ordinary": "in an ordinary voice", "mixed": "of every {}"}
"""What recordings that enrol a speaker may hold; {} is what the model tells."""
FEW = 5
UNFAMILIAR = "out-of-distribution score {:.2f}: unlike the training clips; 95 % of the validation clips have at most 1"
UNITS = {"duration": "s", "level": "dBFS", "bandwidth": "Hz"}  # of the values of emolight.data.audio.profile


class Recognizer:
    """A trained model for inference.

    The methods that predict take ``window`` and ``hop``, in seconds, and ``whole``. Without them a recording that
    is clearly longer than what the model was trained on (:attr:`Contract.longest`) is judged by windows of the
    trained length, each half of it after the one before: its probabilities are the mean over the windows with
    sound. ``window`` or ``hop`` does so with every recording; ``whole`` judges the middle also of long ones.

    Args:
        contract: what the model expects.
        network: see :class:`~emolight.inference.network.Network`; a plain function cannot be adapted to a speaker.
        abstain_below: confidence below which a prediction has no label.

    Example:
        >>> model = emolight.load("lightning_logs/mfcc/version_0")
        >>> model.predict_file("voice.wav").label
        'happy'
    """

    def __init__(
        self, contract: Contract, network: Callable[..., tuple[Probabilities, Array]], abstain_below: float = 0.0
    ) -> None:
        self.contract, self.network, self.abstain_below = contract, network, abstain_below
        self.classes = contract.classes
        """Names of the emotions, in the order of the probabilities."""
        self.offset: Any = None
        """Of the enrolled speaker."""
        self.enrolled: set[str] = set()
        """Hashes of the recordings that enrolled the speaker."""
        self.about: str = getattr(network, "about", "")

    def enrol(
        self, recordings: str | Path | Sequence[Any], kind: str = "ordinary", sample_rate: int | None = None
    ) -> Self:
        """This model adapted to a speaker by some recordings of theirs, which need no labels.

        Recordings that are much longer than the model's clips count as several.

        Args:
            recordings: a folder, paths, arrays as for :meth:`predict`, or clips; of one speaker. 5 to 20 are good; the
                fewer there are, the smaller is the change.
            kind: ``ordinary``: all in the speaker's ordinary voice, neutral or calm; ``mixed``: of all emotions alike.
            sample_rate: of arrays, Hz.

        Raises:
            EmolightError: the model was trained without ``speaker_norm``, or for ``ordinary`` without neutral and calm
                clips; or a recording is unusable.

        Example:
            >>> model.enrol("recordings/of/anna").predict_file("anna.wav").label
            'happy'
        """
        if kind not in KINDS:
            raise EmolightError(f"Recordings of the kind '{kind}' are unknown.", f"Valid: {', '.join(KINDS)}.")
        if getattr(self.network, "speakers", None) is None:
            problem = "This model cannot be adapted to a speaker: it was trained without speaker_norm."
            raise EmolightError(problem, "Train one that can: python -m emolight fit --model.speaker_norm true")
        rate, length, pieces = self.contract.sample_rate, self.contract.length, []
        for clip in (clips := self._clips(recordings, sample_rate)):
            sound = clip.trimmed
            if len(sound) <= self.contract.longest * rate:
                pieces.append(audio.fix_length(sound, length))
                continue
            parts = [sound[start : start + length] for start in window_starts(len(sound), length, length)]
            pieces += [part for part, heard in zip(parts, sounding(parts), strict=True) if heard]
        network: Any = self.network
        adapted, told = copy.copy(self), self.contract.told
        adapted.offset = network.enrol(np.stack(pieces), kind == "ordinary")
        adapted.enrolled = {clip.content for clip in clips if clip.content}
        several = f"{counted(len(clips), 'recording')} {KINDS[kind].format(told)}"
        few = f", few: {FEW} or more are better" if len(pieces) < FEW else ""
        adapted.about = "; ".join(filter(None, (network.about, f"speaker enrolled with {several}{few}")))
        return adapted

    def _clips(self, recordings: str | Path | Sequence[Any], sample_rate: int | None) -> list[Clip]:
        """Recordings of any form, one at least."""
        recordings = [recordings] if isinstance(recordings, (str, Path)) else list(recordings)
        words = [str(one) for one in recordings if isinstance(one, (str, Path))]
        paths, unreadable = find_recordings(words)
        if unreadable:
            problem = f"Among the recordings are {count_suffixes(unreadable)}, which cannot be read."
            raise EmolightError(problem, CONVERT)
        arrays = [one for one in recordings if not isinstance(one, (str, Path, Clip))]
        if not recordings or (arrays and sample_rate is None):
            raise EmolightError("Recordings are needed, and of arrays the sample_rate.", "Give both.")
        clips = [one for one in recordings if isinstance(one, Clip)] + [self.load_clip(path) for path in paths]
        return clips + [self._of_array(one, sample_rate or 0) for one in arrays]

    def predict(self, waveform: ArrayLike, sample_rate: int, **windows: Any) -> Prediction:
        """The emotion of one recording.

        Args:
            waveform: as for :func:`emolight.data.audio.from_array`: ``[T]``, ``[T, channels]`` or ``[channels, T]``.
            sample_rate: Hz.
            windows: ``window``, ``hop``, ``whole``; see the class.

        Raises:
            EmolightError: not one recording, an unusable one, or impossible windows.
        """
        return self.predict_batch([waveform], sample_rate, **windows)[0]

    def predict_batch(self, waveforms: Sequence[ArrayLike], sample_rate: int, **windows: Any) -> list[Prediction]:
        """As :meth:`predict` for several recordings of any lengths; the short ones are one pass of the network."""
        return self.predict_clips([self._of_array(one, sample_rate) for one in waveforms], **windows)

    def _of_array(self, waveform: ArrayLike, sample_rate: int) -> Clip:
        if sample_rate % 1:
            raise EmolightError(f"sample_rate is {sample_rate}; it must be a whole number of Hz.", "Round it.")
        sample_rate = int(sample_rate)
        wave = audio.to_mono(audio.from_array(waveform), sample_rate, "waveform", self.contract.sample_rate)
        return self._clip(wave, sample_rate)

    def predict_file(self, path: str | Path, **windows: Any) -> Prediction:
        """As :meth:`predict` for a sound file."""
        return self.predict_clips([self.load_clip(path)], **windows)[0]

    def load_clip(self, path: str | Path, content: bytes | None = None) -> Clip:
        """Decode a sound file, all of it, at any rate and with any number of channels; AudioError for an unusable one.

        Its warnings say whether the model was trained, or its epoch chosen, on this very recording (by content) or
        on its speaker (by the file name's grammar), whether the speaker was enrolled with it, and whether its sample
        rate is below the model's. ``content`` are the bytes of the file, when they have been read already.
        """
        wave, rate = audio.read_audio(path, content, self.contract.sample_rate)
        training, own = self.contract.training, audio.content_hash(path, content)
        looked_up = [("this very recording", "hashes", own)]
        corpus, told = known if (known := recognise(path)) else (None, {"speaker": UNKNOWN})
        corpora, speaker = str(training.get("corpus", "")).split(" + "), str(told["speaker"])
        if corpus and corpus.name in corpora and speaker != UNKNOWN:
            name = speaker if len(corpora) == 1 else f"{corpus.name}/{speaker}"
            looked_up.append((f"other recordings of speaker {speaker}", "speakers", name))
        warnings = [
            f"the model was {verb} on {what}"
            for what, key, value in looked_up
            for verb, subset in (("trained", ""), ("chosen", "val_"))
            if any(one == value or one.startswith(f"{value} from ") for one in training.get(subset + key, ()))
        ]
        warnings = warnings[:1] + ["the speaker was enrolled with this very recording"] * (own in self.enrolled)
        return replace(self._clip(wave, rate, *warnings), content=own)

    def _clip(self, wave: Waveform, rate: int, *warnings: str) -> Clip:
        contract = self.contract
        if rate < contract.sample_rate:
            warnings += (f"sample rate {rate} Hz; the model expects at least {contract.sample_rate} Hz",)
        sound = (0, len(wave)) if contract.trim_db is None else audio.sound_range(wave, contract.trim_db)
        return Clip(wave, sound, warnings)

    def predict_clips(
        self, clips: Sequence[Clip], window: float | None = None, hop: float | None = None, whole: bool = False
    ) -> list[Prediction]:
        """Predictions of prepared clips; the short ones are one pass of the network."""
        contract, asked = self.contract, window is not None or hop is not None
        window, hop = self.window_and_hop(window, hop)
        rate, longest = contract.sample_rate, np.inf if whole else contract.longest
        cut = [asked or len(clip.trimmed) > longest * rate for clip in clips]
        short = [clip for clip, by_windows in zip(clips, cut, strict=True) if not by_windows]
        pieces = [audio.fix_length(clip.trimmed, contract.length) for clip in short]
        rows = zip(*self._judge(np.stack(pieces)), strict=True) if pieces else iter(())
        found = []
        for clip, by_windows in zip(clips, cut, strict=True):
            if by_windows:
                found.append(self._by_windows(clip, window, hop))
                continue
            length = len(clip.trimmed) / rate
            how = f"the middle {contract.duration:g} s of {length:.2f} s" if length > 2 * contract.duration else ""
            odd = self._odd(audio.profile(clip.trimmed, rate))
            found.append(self._prediction(*next(rows), clip.warnings + odd, how))
        return found

    def window_and_hop(self, window: float | None, hop: float | None) -> tuple[float, float]:
        """Both in seconds; by default the trained length and half of the window. EmolightError: impossible ones."""
        window = self.contract.duration if window is None else window
        hop = window / 2 if hop is None else hop
        if not MIN_WINDOW <= window <= MAX_WINDOW or not 0 < hop <= window:
            fix = f"Take a window from {MIN_WINDOW:g} to {MAX_WINDOW:g} s, and a hop above 0 and at most the window."
            raise EmolightError(f"Windows of {window:g} s every {hop:g} s cannot be made.", fix)
        return window, hop

    def _by_windows(self, clip: Clip, window: float, hop: float) -> Prediction:
        """The mean over the windows with sound; each has the warnings of its own sound."""
        wave, rate, trained = clip.waveform, self.contract.sample_rate, self.contract.duration
        length, size = round(window * rate), max(1, int(BATCH * min(1.0, trained / window)))
        starts = window_starts(len(wave), length, max(1, round(hop * rate)))
        parts = [wave[start : start + length] for start in starts]
        sound = sounding(parts)
        batches = (parts[first : first + size] for first in range(0, len(parts), size))
        pieces = (np.stack([audio.fix_length(part, length) for part in batch]) for batch in batches)
        rows, scores = map(np.concatenate, zip(*map(self._judge, pieces), strict=True))
        windows, values = [], []
        for start, part, row, score, heard in zip(starts, parts, rows, scores, sound, strict=True):
            times = (start / rate, (start + len(part)) / rate)
            if heard:
                found = audio.profile(part, rate)
                values.append({name: found[name] for name in ("level", "bandwidth")})  # all last a window
                windows.append(self._prediction(row, score, clip.warnings + self._odd(values[-1]), times=times))
            else:
                windows.append(Prediction(None, {}, ("silent",), times=times))
        usual = {name: float(np.median([one[name] for one in values])) for name in values[0]}
        warnings = clip.warnings + self._odd(usual)
        if not np.isclose(window, trained):
            warnings += (f"windows of {window:g} s; the model was trained on {trained:g} s",)
        how = f"mean of {counted(len(values), 'window')} of {window:g} s"
        how += f", {len(rows) - len(values)} silent left out" if len(values) < len(rows) else ""
        means = rows[sound].mean(axis=0), scores[sound].mean()
        return self._prediction(*means, warnings, how, windows=tuple(windows))

    def _judge(self, pieces: Waveform) -> tuple[Probabilities, Array]:
        return self.network(pieces) if self.offset is None else self.network(pieces, self.offset)

    def _odd(self, values: dict[str, float]) -> tuple[str, ...]:
        """In which values of :func:`audio.profile` a recording is unlike the ones that the model was trained on."""
        found, ranges = [], self.contract.training.get("ranges", {})
        for name, value in values.items():
            low, high = ranges.get(name, (-np.inf, np.inf))
            if not low <= value <= high:
                unit = UNITS[name]
                found.append(f"{name} {value:.4g} {unit}; the model was trained on {low:.4g} to {high:.4g} {unit}")
        return tuple(found)

    def _prediction(
        self, row: Probabilities, score: float, warnings: tuple[str, ...], how: str = "", **rest: Any
    ) -> Prediction:
        warnings += (UNFAMILIAR.format(score),) if score > 1 else ()
        rest["ood_score"] = None if np.isnan(score) else float(score)
        probabilities = dict(zip(self.classes, map(float, row), strict=True))
        how = "; ".join(filter(None, (how, "" if "times" in rest else self.about)))
        label = self.classes[int(row.argmax())] if row.max() >= self.abstain_below else None
        return Prediction(label, probabilities, warnings, how, **rest)


def window_starts(samples: int, length: int, step: int) -> list[int]:
    """First samples of the windows that cover a recording; the last one ends where it ends, so (11, 4, 3): 0 3 6 7."""
    starts = list(range(0, max(1, samples - length + 1), step))
    return starts + ([samples - length] if starts[-1] + length < samples else [])


def sounding(parts: Sequence[Waveform]) -> NDArray[np.bool_]:
    """Which windows of a recording hold sound."""
    levels = np.array([part.std() for part in parts])  # a constant offset aside
    return np.asarray(levels > levels.max() * SILENT)


def onnx_file(path: str | Path) -> Path | None:
    """The exported model that is meant, a file or a bundle's; None for a checkpoint and a run folder."""
    path = Path(path).expanduser()
    inside = path / "model.onnx"
    return path if path.suffix == ".onnx" else inside if inside.is_file() else None


def load(path: str | Path, device: str = "cpu", abstain_below: float = 0.0) -> Recognizer:
    """Load a trained model for inference.

    Args:
        path: a checkpoint (``.ckpt``), a run folder (its best checkpoint), an exported model (``.onnx``, or a folder
            of ``export --bundle``), or the folder of a cross-validation or ensemble: the mean of all of its models.
        device: where PyTorch computes: ``cpu``, ``cuda``, ``mps``; an ONNX file runs on the CPU alone.
        abstain_below: confidence below which a prediction has no label.

    Raises:
        EmolightError: the file is missing, damaged, or not a model of this project.
    """
    if not 0 <= abstain_below <= 1:
        raise EmolightError(f"abstain_below is {abstain_below:g}; it must be from 0 to 1.", "0.5 is usual.")
    if exported := onnx_file(path):
        from emolight.inference.onnx_network import load_onnx

        if device != "cpu":
            raise EmolightError(f"An exported model runs on the CPU; the device is '{device}'.", "Leave device out.")
        contract, network = load_onnx(exported)
    else:
        from emolight.inference.ensemble import load_ensemble
        from emolight.inference.torch_network import CROSSVAL, load_torch

        path = Path(path).expanduser()
        contract, network = (load_ensemble if (path / CROSSVAL).is_file() else load_torch)(path, device)
    return Recognizer(contract, network, abstain_below)
