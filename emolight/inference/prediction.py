"""What a model expects and says, in plain values that need no library of networks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from emolight.data.audio import Waveform, fix_length


@dataclass(frozen=True)
class Contract:
    """What a model expects: plain values, the same in a checkpoint and in an ONNX file.

    A recording at ``sample_rate`` Hz loses what is ``trim_db`` below its loudest frame at both ends (None: nothing).
    Of longer ones than ``duration`` seconds the network gets the middle, shorter ones get zeros behind. ``training``
    is :meth:`emolight.data.datamodule.EmotionDataModule.training_facts`, ``title`` what the network sees of the sound.
    """

    classes: list[str]
    sample_rate: int
    duration: float
    trim_db: float | None
    training: dict[str, Any] = field(default_factory=dict)
    title: str = ""

    @property
    def length(self) -> int:
        """Samples of a clip."""
        return round(self.duration * self.sample_rate)

    @property
    def told(self) -> str:
        """What the model tells: emotion, or the column of the table whose labels it learnt."""
        return str(self.training.get("column", "emotion"))

    @property
    def longest(self) -> float:
        """Seconds up to which the middle stands for a recording, as in training; longer ones get windows."""
        trained: float = self.training.get("ranges", {}).get("duration", (0.0, 0.0))[1]
        return max(2 * self.duration, trained)


@dataclass(frozen=True)
class Prediction:
    """What a model says of a recording, or of a window of it.

    Attributes:
        label: the likeliest emotion; None when the model abstains or there is no sound.
        probabilities: of every emotion, calibrated, in the order of the model's classes; empty without sound.
        warnings: why this prediction may not be trusted, a sentence each.
        how: how it was made, where that is not plain: "mean of 23 windows of 2.25 s".
        times: start and end in seconds, of a window.
        ood_score: the out-of-distribution score, above 1 of a recording unlike the training; None: the model has none.
        windows: the predictions of a long recording's windows, from its start to its end.
    """

    label: str | None
    probabilities: dict[str, float]
    warnings: tuple[str, ...] = ()
    how: str = ""
    times: tuple[float, float] = (0.0, 0.0)
    ood_score: float | None = None
    windows: tuple[Prediction, ...] = ()

    @property
    def likeliest(self) -> str:
        """The likeliest emotion, also where the model abstains."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    @property
    def confidence(self) -> float:
        """The probability of the likeliest emotion; 0 without sound."""
        return max(self.probabilities.values(), default=0.0)

    @property
    def silent(self) -> bool:
        """Whether it is a window without sound."""
        return not self.probabilities

    def __str__(self) -> str:
        """Such as "happy 63%, mean of 23 windows of 2.25 s"."""
        words = "silent" if self.silent else f"{self.label or 'no answer'} {self.confidence:.0%}"
        return f"{words}, {self.how}" if self.how else words


@dataclass(frozen=True)
class Clip:
    """A recording ``[T]`` at the model's rate; ``sound`` is where it begins and ends between silent ends.

    ``content`` is :func:`emolight.data.audio.content_hash` of its file.
    """

    waveform: Waveform
    sound: tuple[int, int]
    warnings: tuple[str, ...] = ()
    content: str = ""

    @property
    def trimmed(self) -> Waveform:
        """The waveform without silence at both ends."""
        return self.waveform[slice(*self.sound)]


def judged_piece(contract: Contract, clip: Clip, prediction: Prediction) -> tuple[Waveform, float]:
    """The samples ``[T]`` behind a prediction, for pictures, and the second at which they start.

    The middle as the network gets it, or of a long recording the window that speaks most for the verdict.
    """
    rate = contract.sample_rate
    if not prediction.windows:
        start = clip.sound[0] + max(0, len(clip.trimmed) - contract.length) // 2
        return fix_length(clip.trimmed, contract.length), start / rate
    best = max(prediction.windows, key=lambda one: one.probabilities.get(prediction.likeliest, -1.0))
    start, end = (round(time * rate) for time in best.times)
    return clip.waveform[start:end], start / rate
