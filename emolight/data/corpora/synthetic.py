"""A synthetic corpus with RAVDESS names, for the demo and the tests: vowels from a source-filter model.

No human speaks in it, and no result on it says anything about people. Source: a glottal pulse train after Klatt and
Klatt 1990 (JASA 87, 820-857) with jitter and shimmer; filter: five resonators per vowel (formants of Peterson and
Barney 1952), scaled by the actor's vocal tract. An emotion moves pitch, pitch range, rate, loudness, spectral tilt
and jitter a little, and mostly the order in which a sentence's syllables are high and low, loud and soft: it rises,
falls, swells, sinks or trembles, as in speech. The steps are the same in every order, so that a clip's mean, deviation
and extremes tell little of it. Actors follow it to different degrees, so that emotions overlap.
"""

import json
import os
import shutil
import wave
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from emolight.data.corpora.ravdess import ARTICLE, EMOTIONS, FOLDERS, RAVDESS
from emolight.data.corpus import Task
from emolight.errors import EmolightError, check_choice, refusals
from emolight.files import write_text

VERSION = 2
MARKER = "synthetic.json"
README = (
    "This corpus is synthetic: vowels from a small voice model of emolight, named like RAVDESS clips.\n"
    "It holds no recording of anybody. Results on it say nothing about human speech.\n"
)

Array = NDArray[np.float64]


class Synthetic(RAVDESS):
    """Synthetic voices with RAVDESS names: speech only, made when they are asked for."""

    name = "synthetic voices"
    about = "synthetic vowels of a small voice model, which are no people's; figures on them say nothing about speech"
    licence = "none: no recording's licence applies"
    citation = "made by emolight"
    archives = ()
    tasks: Mapping[str, Task] = {"article": Task(ARTICLE), "full": Task(EMOTIONS)}
    groups = ("sex", "intensity", "statement")
    default_root = "data/synthetic"

    def prepare(self, root: str | Path) -> None:
        """Make the corpus; one that is there is kept at its size, and mended where it is not whole."""
        root = Path(root).expanduser()
        try:
            there = json.loads((root / MARKER).read_bytes())["parameters"]
            make_corpus(root, **{name: there[name] for name in there if name != "version"})
        except (OSError, ValueError, LookupError, TypeError):
            make_corpus(root)

    def expected(self) -> None:
        """Nothing was published."""


# Pitch level (semitones), log pitch range, log rate, loudness (dB), brightness, log jitter.
PROFILES = {
    "neutral": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "calm": (-1.5, -0.3, -0.08, -3.0, -0.5, -0.3),
    "happy": (3.5, 0.5, 0.05, 3.0, 0.4, 0.0),
    "sad": (-0.5, -0.5, -0.2, -5.0, -0.8, 0.4),
    "angry": (2.0, 0.3, 0.08, 6.5, 1.0, 0.3),
    "fearful": (5.0, -0.1, 0.2, 0.5, 0.1, 0.9),
    "disgust": (-1.0, 0.1, -0.12, 1.0, 0.3, 0.6),
    "surprised": (5.5, 0.8, 0.0, 2.0, 0.2, 0.1),
}
WEIGHT = 0.2
"""How much of its profile an emotion shows: what the mean over a clip can tell."""
SPREAD = np.array([1.0, 0.2, 0.06, 1.5, 0.22, 0.22])
"""Standard deviation of an actor's habits in each of these; a clip's own variation is half of it."""
VOWELS = {
    "i": (270, 2290, 3010),
    "e": (530, 1840, 2480),
    "a": (730, 1090, 2440),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
    "r": (490, 1350, 1690),
}
STATEMENTS = {1: "iraiaeo", 2: "oriieuo"}
CONTOURS = {
    "neutral": (0, -1, 1, 2, -2),
    "calm": (2, 0, -2, -1, 1),
    "happy": (-2, -1, 0, 1, 2),
    "sad": (2, 1, 0, -1, -2),
    "angry": (-2, 0, 2, 1, -1),
    "fearful": (-1, 2, -2, 1, 0),
    "disgust": (0, 1, 2, -2, -1),
    "surprised": (0, -1, -2, 1, 2),
}
"""Pitch and loudness of the five inner syllables: the same steps in another order; the first and last have 0."""
STEPS = (1.25, 4.0)
"""Semitones and dB of a step."""


def make_corpus(
    root: str | Path,
    actors: int = 24,
    repetitions: int = 2,
    seed: int = 0,
    duration: float = 1.6,
    sample_rate: int = 16000,
    emotions: Sequence[str] = ARTICLE,
) -> int:
    """Write the synthetic corpus, unless it stands there already with the same parameters.

    Speech only, two statements, both intensities (neutral: normal), in the published folders. The same
    parameters give the same bytes. Whatever stops it, ``root`` holds a whole corpus or none of it.

    Args:
        root: folder to write; it must be missing, empty, or hold a synthetic corpus.
        actors: 1 to 24; odd ones have male voices, even ones female.
        repetitions: takes of each sentence, 1 or 2.
        seed: 0 or more.
        duration: mean length of a clip in seconds.
        sample_rate: Hz, 8000 or more.
        emotions: names of RAVDESS emotions.

    Returns:
        Number of clips in the corpus.

    Raises:
        EmolightError: a parameter out of range, a folder with other files, or one that cannot be written.
    """
    for name in emotions:
        check_choice("emotion", name, EMOTIONS)
    for what, value, least, most in (
        ("actors", actors, 1, 24),
        ("repetitions", repetitions, 1, 2),
        ("seed", seed, 0, 2**32 - 1),
        ("duration", duration, 0.5, 10),
        ("sample_rate", sample_rate, 8000, 48000),
    ):
        if not least <= value <= most:
            raise EmolightError(f"{what} of the synthetic corpus is {value}.", f"Take {least} to {most}.")
    root = Path(root).expanduser()
    parameters: dict[str, Any] = {
        **{"version": VERSION, "actors": actors, "repetitions": repetitions, "seed": seed},
        **{"duration": float(duration), "sample_rate": sample_rate, "emotions": sorted(set(emotions))},
    }
    fix = "Free space there, or choose another folder: --data.root DIR."
    with refusals(f"The synthetic corpus cannot be written to '{root}'", fix):
        if count := _standing(root, parameters):
            return count
        root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(root.with_name(f".{root.name}.lock")):
            return _standing(root, parameters) or _write(root, parameters)


def _standing(root: Path, parameters: dict[str, Any]) -> int:
    """Number of clips of a whole corpus with these parameters, else 0; refuses to touch other files."""
    if not root.exists():
        return 0
    sizes = {path.relative_to(root).as_posix(): path.stat().st_size for path in _files(root)}
    try:
        marker = json.loads((root / MARKER).read_bytes())
        files = dict(marker["files"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        marker, files = {}, {}
    foreign = sorted(set(sizes) - set(files) - ({MARKER} if marker else set()))
    if foreign:
        problem = f"'{root}' holds files that are no part of a synthetic corpus, such as '{foreign[0]}'."
        raise EmolightError(problem, "Choose an empty folder: --data.root DIR.")
    sizes.pop(MARKER, None)
    same = marker.get("parameters") == parameters and files == sizes
    return sum(name.endswith(".wav") for name in files) if same else 0


def _files(root: Path) -> list[Path]:
    if not root.is_dir():
        raise EmolightError(f"'{root}' is a file.", "Choose a folder: --data.root DIR.")
    return [path for path in root.rglob("*") if not path.is_dir()]


def _write(root: Path, parameters: dict[str, Any]) -> int:
    for leftover in root.parent.glob(f".{root.name}.*.part"):  # of killed processes: we hold the lock
        shutil.rmtree(leftover, ignore_errors=True)
    part = root.with_name(f".{root.name}.{os.getpid()}.part")
    codes = [EMOTIONS.index(name) + 1 for name in parameters["emotions"]]
    takes = range(1, parameters["repetitions"] + 1)
    try:
        for actor in range(1, parameters["actors"] + 1):
            folder = part / FOLDERS["speech"] / f"Actor_{actor:02d}"
            folder.mkdir(parents=True)
            for fields in product((1,), codes, (1, 2), (1, 2), takes, (actor,)):
                name = "03-" + "-".join(f"{field:02d}" for field in fields)
                if RAVDESS().parse(name) is not None:  # neutral is never strong
                    with wave.open(str(folder / f"{name}.wav"), "wb") as stream:
                        stream.setparams((1, 2, parameters["sample_rate"], 0, "NONE", ""))
                        stream.writeframes(_clip(fields[1:], parameters).astype("<i2").tobytes())
        write_text(part / "README.txt", README)
        files = {path.relative_to(part).as_posix(): path.stat().st_size for path in sorted(_files(part))}
        write_text(part / MARKER, json.dumps({"synthetic": True, "parameters": parameters, "files": files}))
        if root.exists():
            shutil.rmtree(root)
        part.rename(root)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return len(files) - 1


def _clip(fields: tuple[int, ...], parameters: dict[str, Any]) -> NDArray[np.int16]:
    """One sentence as 16-bit samples [T]; ``fields`` are emotion, intensity, statement, repetition, actor."""
    from scipy.signal import sosfilt  # slow to import, and needed by those alone who make voices

    emotion, intensity, statement, _, actor = fields
    seed, rate = parameters["seed"], parameters["sample_rate"]
    person = np.random.default_rng((seed, 1, actor))
    acting = np.random.default_rng((seed, 2, actor, emotion))
    take = np.random.default_rng((seed, 3, *fields))
    sex = actor % 2
    pitch = (115.0 if sex else 205.0) * 2 ** (person.normal(0, 2.0) / 12)
    tract = (1.0 if sex else 1.15) * np.exp(person.normal(0, 0.05))
    habits = person.normal(0, SPREAD)
    strength = (0.75 if intensity == 1 else 1.25) * acting.normal(1.0, 0.35, len(SPREAD))
    profile = WEIGHT * np.array(PROFILES[EMOTIONS[emotion - 1]])
    level, spread, speed, loudness, bright, rough = profile * strength + habits + take.normal(0, SPREAD / 2)
    shape = np.array([0, *CONTOURS[EMOTIONS[emotion - 1]], 0])
    heights, swells = (
        step * (max(force, 0.3) * shape + take.normal(0, 0.4, len(shape)))
        for step, force in zip(STEPS, strength, strict=False)
    )

    vowels = STATEMENTS[statement]
    syllable = 0.78 * parameters["duration"] / len(vowels) * np.exp(-speed)
    lengths = (rate * syllable * np.exp(take.normal(0, 0.12, len(vowels)))).astype(int)
    size = int(lengths.sum())
    accents = np.interp(np.arange(size), np.cumsum(lengths) - lengths / 2, heights)
    semitones = level + np.exp(spread) * accents
    source = _glottis(pitch * 2 ** (semitones / 12), rate, 0.008 * np.exp(rough), bright, take)

    voice = np.zeros(size)
    start = 0
    for vowel, length, swell in zip(vowels, lengths, swells, strict=True):
        formants = np.array([*VOWELS[vowel], 3500.0, 4500.0]) * tract * np.exp(take.normal(0, 0.03, 5))
        piece = source[start : start + length] * np.sqrt(np.sin(np.pi * np.arange(length) / length))
        voice[start : start + length] += 10 ** (swell / 20) * sosfilt(_resonators(formants, rate), piece)
        start += length
    voice *= 0.03 * 10 ** (loudness / 20) / (np.sqrt(np.mean(voice**2)) + 1e-12)
    before, after = (rate * take.uniform(0.05, 0.17, 2) * parameters["duration"]).astype(int)
    clip = np.concatenate([np.zeros(before), voice, np.zeros(after)])
    clip += take.normal(0, 1e-5, len(clip))
    samples: NDArray[np.int16] = np.round(32767 * np.tanh(clip)).astype(np.int16)
    return samples


def _glottis(pitch: Array, rate: int, jitter: float, bright: float, rng: np.random.Generator) -> Array:
    """Derivative of the glottal flow [T] for a pitch contour [T] in Hz, with some breath."""
    from scipy.signal import lfilter

    cycles = np.cumsum(pitch / rate)
    number = cycles.astype(int)
    count = number[-1] + 1
    cycles = np.cumsum(pitch / rate * (1 + rng.normal(0, jitter, count)[number]))
    number = np.minimum(cycles.astype(int), count - 1)
    phase = (cycles % 1.0) / 0.6  # the glottis is open for 60 % of a cycle
    pulse = np.where(phase < 1, 2 * phase - 3 * phase**2, 0.0)
    pulse *= 1 + rng.normal(0, 3 * jitter, count)[number]
    pulse += rng.normal(0, 0.03, len(pulse))
    pole = 0.8 / (1 + np.exp(2 * bright))
    tilted: Array = lfilter([1 - pole], [1, -pole], pulse)
    return tilted


def _resonators(formants: Array, rate: int) -> Array:
    """Second-order sections [formants, 6] with unit gain at 0 Hz, after Klatt 1980 (JASA 67, 971-995)."""
    formants = formants[formants < 0.47 * rate]
    radius = np.exp(-np.pi * (50 + 0.04 * formants) / rate)
    second = -2 * radius * np.cos(2 * np.pi * formants / rate)
    third = radius**2
    gain, zero, one = 1 + second + third, np.zeros_like(radius), np.ones_like(radius)
    return np.stack([gain, zero, zero, one, second, third], axis=1)
