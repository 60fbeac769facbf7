"""``predict --live``: what a model says of a microphone, a line a window."""

import queue
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from emolight.data.audio import Waveform
from emolight.errors import EmolightError
from emolight.inference.predict_writers import Result, window_line, write_table
from emolight.inference.prediction import Clip, Prediction
from emolight.inference.recognizer import Recognizer

FRAME = 0.02
MEMORY = 30.0
ABOVE, FLOOR = 15.0, -70.0
"""In dB and dBFS: the loud parts of RAVDESS's and nEMO's sentences lie 20 dB or more above their background, and above
-54 dBFS; what comes before a sentence of nEMO stays within 10 dB."""


class Source(Protocol):
    """Sound that goes on: blocks ``[N]`` of any length, float32 of full scale ±1, at ``rate`` Hz."""

    rate: int

    def __iter__(self) -> Iterator[Waveform]: ...


class Microphone:
    """The system's own, as a :class:`Source` that gives what has come since the block before.

    EmolightError where sounddevice is missing, or no microphone is there or can be opened.
    """

    def __init__(self) -> None:
        try:
            self.library: Any = import_module("sounddevice")
        except ImportError:
            raise EmolightError("--live needs sounddevice.", 'Type: pip install "emolight[live]"') from None
        except OSError:
            raise EmolightError("sounddevice needs PortAudio.", "On Debian: apt install libportaudio2") from None
        with self._usable():
            device = self.library.query_devices(kind="input")
        self.name, self.rate = str(device["name"]), round(device["default_samplerate"])

    def __iter__(self) -> Iterator[Waveform]:
        heard: queue.SimpleQueue[Waveform] = queue.SimpleQueue()
        settings: dict[str, Any] = {"samplerate": self.rate, "channels": 1, "dtype": "float32"}
        settings["callback"] = lambda block, *_: heard.put(block[:, 0].copy())
        with self._usable(), self.library.InputStream(**settings) as now:
            while now.active or not heard.empty():
                with suppress(queue.Empty):  # wait no longer, so that Ctrl-C is heard and a lost device noticed
                    blocks = [heard.get(timeout=0.5)]
                    blocks += [heard.get() for _ in range(heard.qsize())]
                    yield np.concatenate(blocks)
        raise EmolightError(f"The microphone '{self.name}' has stopped.", "Connect it again.")

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except self.library.PortAudioError as error:
            problem = f"No microphone can be used: {' '.join(str(error).split())}."
            raise EmolightError(problem, "Connect one, or choose it in the system's settings.") from None


class Voice:
    """Tells windows with a voice from windows without, whatever the microphone's gain.

    The loudest twentieth of a window is compared with the quietest tenth of what was heard in the last half minute.
    So many windows as ``overlap`` hold the same sample.
    """

    def __init__(self, rate: int, overlap: float) -> None:
        self.frame, self.levels = round(FRAME * rate), deque[float](maxlen=round(overlap * MEMORY / FRAME))

    def __call__(self, wave: Waveform) -> bool:
        """Whether the next window ``[T]`` has one."""
        frames = wave[: len(wave) // self.frame * self.frame].reshape(-1, self.frame)
        with np.errstate(invalid="ignore", over="ignore"):  # what is no number is no voice
            levels = 20 * np.log10(frames.std(axis=1) + 1e-9)
        self.levels.extend(levels[levels > -150])  # drivers begin with zeros, and headsets put them between words
        background = np.percentile(self.levels, 10) if self.levels else 0.0
        return bool(np.percentile(levels, 95) > max(background + ABOVE, FLOOR))


def newest_windows(blocks: Iterable[Waveform], length: int, step: int) -> Iterator[tuple[int, Waveform]]:
    """First sample, and samples ``[length]``, of a window every ``step`` samples.

    Of those that are complete when a block comes only the newest: a slow computer leaves some out, and is not late.
    """
    held, start = np.empty(0, dtype=np.float32), 0
    for block in blocks:
        held = np.concatenate([held, block])
        if len(held) >= length:
            late = (len(held) - length) // step * step
            yield start + late, held[late : late + length]
            held, start = held[late + step :], start + late + step


def predict_live(
    recognizer: Recognizer, source: Source, window: float | None = None, hop: float | None = None
) -> Iterator[Result]:
    """What a model says of windows of a sound that goes on, with their times; ``window`` and ``hop`` as for a file."""
    window, hop = recognizer.window_and_hop(window, hop)
    has_voice = Voice(source.rate, window / hop)
    for start, wave in newest_windows(source, round(window * source.rate), max(1, round(hop * source.rate))):
        times = (start / source.rate, (start + len(wave)) / source.rate)
        said = Prediction(None, {}, ("silent",))
        if has_voice(wave):
            said = recognizer.predict(wave, source.rate, window=window, hop=window)
        yield Result("microphone", Clip(wave, (0, len(wave))), replace(said, how="", windows=(), times=times))


def listen(
    recognizer: Recognizer, source: Source, window: float | None = None, hop: float | None = None, form: str = "text"
) -> None:
    """Print a line a window, as ``text`` or ``jsonl``, until Ctrl-C; as text a warning once for each kind."""
    told: set[str] = set()
    with suppress(KeyboardInterrupt):
        for result in predict_live(recognizer, source, window, hop):
            said = result.prediction
            if form == "jsonl":
                write_table([[*result.rows()]], form, recognizer.classes, sys.stdout)
            else:
                new = [text for text in said.warnings if not said.silent and text.split()[0] not in told]
                told |= {text.split()[0] for text in new}
                print("\n".join([window_line(said), *(f"  warning: {text}" for text in new)]))
            sys.stdout.flush()
