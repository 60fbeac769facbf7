"""``python -m emolight predict``: what a model says of recordings, a row a recording and a row a window."""

from __future__ import annotations

import argparse
import contextlib
import glob
import io
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from emolight.data.audio import AudioError
from emolight.data.corpora import recognise
from emolight.data.corpus import OTHER_MEDIA, READ, walk
from emolight.errors import EmolightError
from emolight.files import write_text
from emolight.inference.predict_writers import WRITERS, shown
from emolight.inference.prediction import Clip, Prediction
from emolight.inference.recognizer import Recognizer, load

STDIN = "-"
CONVERT = "Convert them first: ffmpeg -i FILE FILE.wav"
BATCH_BYTES = 2**24
"""Of sound files that are decoded together, the last one aside: an hour of speech takes no less."""


@dataclass(frozen=True)
class Result:
    """A recording and what the model says of it."""

    path: str
    clip: Clip
    prediction: Prediction

    @property
    def name(self) -> str:
        """The recording's name without folder and suffix."""
        return "standard input" if self.path == STDIN else PurePath(self.path).stem

    @property
    def truth(self) -> str | None:
        """The emotion, where the file name follows the grammar of a published corpus."""
        known = recognise(self.path)
        return str(known[1]["emotion"]) if known else None


def find_recordings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Files that the words of a command line mean: files, folders (searched for sound files), globs, ``-``.

    Returns:
        Paths to read; and the sound and video files in folders that are of formats which cannot be read.

    Raises:
        EmolightError: a word means nothing that exists, or a folder has nothing to read.
    """
    found: list[str] = []
    unreadable: list[str] = []
    for word in words:
        place = Path(word).expanduser()
        if word == STDIN or place.is_file():
            found.append(word if word == STDIN else str(place))
            continue
        inside: list[str] = []
        if place.is_dir():
            files = sorted(place / path for path in walk(place, Counter()) if not path.name.startswith("._"))
            inside = [str(path) for path in files if path.suffix.lower() in READ and path.is_file()]
            unreadable += [str(path) for path in files if path.suffix.lower() in OTHER_MEDIA]
        else:
            inside = sorted(path for path in glob.glob(str(place), recursive=True) if Path(path).is_file())
        if not inside:
            fix = "Give sound files, folders, globs, or - for a WAV on standard input."
            problem = f"There is no file '{word}'."
            if place.is_dir():
                has = f": it has {_count(unreadable)}" if unreadable else ""
                problem = f"No sound file that can be read is in the folder '{word}'{has}."
            raise EmolightError(problem, CONVERT if place.is_dir() and unreadable else fix)
        found += inside
    return list(dict.fromkeys(found)), unreadable


def _count(paths: Iterable[str]) -> str:
    """``3 × .m4a, 1 × .mp4``."""
    suffixes = Counter(PurePath(path).suffix.lower() for path in paths)
    return ", ".join(f"{number} × {suffix}" for suffix, number in sorted(suffixes.items()))


def predict_files(
    recognizer: Recognizer, paths: Sequence[str], batch_size: int = 32, **windows: Any
) -> Iterator[Result | AudioError]:
    """Predict recordings in order, decoding the next batch while the network computes.

    Args:
        recognizer: the model.
        paths: files; ``-`` is standard input.
        batch_size: recordings in one pass of the network; large ones come in smaller batches.
        windows: see :class:`Recognizer`.

    Yields:
        In the order of ``paths``: what the model says, or why a recording cannot be used.
    """
    batches = _batches(paths, batch_size)
    with ThreadPoolExecutor(2) as pool:

        def start(batch: list[str]) -> list[Future[Clip | AudioError]]:
            return [pool.submit(_decode, recognizer, path) for path in batch]

        coming = start(batches[0]) if batches else []
        for batch, following in zip(batches, [*batches[1:], []], strict=True):
            clips = [future.result() for future in coming]
            coming = start(following)
            usable = [clip for clip in clips if isinstance(clip, Clip)]
            predictions = iter(recognizer.predict_clips(usable, **windows))
            for path, clip in zip(batch, clips, strict=True):
                yield clip if isinstance(clip, AudioError) else Result(path, clip, next(predictions))


def _batches(paths: Sequence[str], most: int) -> list[list[str]]:
    batches: list[list[str]] = []
    room = 0
    for path in paths:
        if room <= 0 or len(batches[-1]) == most:
            batches.append([])
            room = BATCH_BYTES
        batches[-1].append(path)
        with contextlib.suppress(OSError, ValueError):  # decoding says what is wrong
            room -= 0 if path == STDIN else Path(path).stat().st_size
    return batches


def _decode(recognizer: Recognizer, path: str) -> Clip | AudioError:
    try:
        if path == STDIN:
            return recognizer.load_clip("standard input", sys.stdin.buffer.read())
        return recognizer.load_clip(path)
    except AudioError as error:
        return error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m emolight predict",
        description="Predict the emotion of recordings with a trained model. A recording that is clearly longer "
        "than those of the training is judged by windows.",
    )
    add = parser.add_argument
    add("model", type=Path, help="a run folder, a checkpoint (.ckpt), or an exported model (.onnx)")
    add("paths", nargs="+", metavar="PATH", help="sound files, folders, globs; - is a WAV on standard input")
    add("--format", choices=list(WRITERS), help="default: by the suffix of --output, else text")
    add("--output", type=Path, metavar="FILE", help="write there (.csv, .jsonl, .json, .txt) instead of printing")
    add("--window", type=float, metavar="S", help="windows of S seconds of every recording; default: as trained")
    add("--hop", type=float, metavar="S", help="seconds from one window to the next; default: half a window")
    add("--whole", action="store_true", help="judge only the middle of long recordings, too")
    add("--timeline", type=Path, metavar="PNG", help="draw the probabilities of one recording over time")
    add("--abstain-below", type=float, default=0.0, metavar="P", help="no label below this confidence")
    add("--explain", type=Path, metavar="DIR", help="draw there what the model saw in every recording")
    add("--device", default="cpu", help="cpu, cuda, mps; default: %(default)s")
    add("--batch-size", type=int, default=32, help="recordings at once; default: %(default)s")
    return parser


def main(argv: list[str]) -> int:
    """Run the command; returns 1 when a recording could not be used."""
    options = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    form = _check(options)
    paths, unreadable = find_recordings(options.paths)
    if options.timeline and len(paths) != 1:
        raise EmolightError(f"--timeline draws one recording; {len(paths)} are given.", "Name one of them.")
    recognizer = load(options.model, options.device, options.abstain_below)
    warnings.showwarning = lambda message, *_: print(f"emolight: {message}", file=sys.stderr)
    windows = {"window": options.window, "hop": options.hop, "whole": options.whole}
    if options.timeline and options.hop is None:
        windows["hop"] = (options.window or recognizer.contract.duration) / 2  # of a short recording, too
    text = io.StringIO()
    writer = WRITERS[form](text if options.output else sys.stdout, recognizer.classes)
    draw = _pictures(options, recognizer)
    bad = 0
    try:
        results = predict_files(recognizer, paths, options.batch_size, **windows)
        for result in _progress(results, len(paths), bool(options.output) or not sys.stdout.isatty()):
            if isinstance(result, AudioError):
                print(f"emolight: {result}", file=sys.stderr)
                bad += 1
                continue
            writer.write(result.path, result.truth, result.prediction)
            draw(result)
        writer.close()
        sys.stdout.flush()
    except BrokenPipeError:  # as of `| head`: whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if options.output:
        write_text(options.output, text.getvalue().encode("utf-8", "backslashreplace").decode())
        print(f"predictions of {len(paths) - bad} of {len(paths)} recordings, as {form}: {options.output}")
    if unreadable:
        names = ", ".join(shown(path) for path in unreadable[:20])
        names += f" and {len(unreadable) - 20} more" if len(unreadable) > 20 else ""
        print(f"emolight: not read: {_count(unreadable)}: {names}\n{CONVERT}", file=sys.stderr)
    return 1 if bad or unreadable else 0


def _check(options: argparse.Namespace) -> str:
    """The format; EmolightError for options that contradict each other, before anything is loaded."""
    if options.batch_size < 1:
        raise EmolightError(f"--batch-size is {options.batch_size}; it must be at least 1.", "32 is usual.")
    if options.whole and (options.window or options.hop or options.timeline):
        raise EmolightError("--whole judges one piece of a recording, and no windows.", "Leave out --whole.")
    suffix = options.output.suffix.lower() if options.output else ".txt"
    form = options.format or {".txt": "text"}.get(suffix, suffix[1:])
    if form not in WRITERS:
        raise EmolightError(
            f"--output is '{options.output}'; its suffix names no format.",
            "Valid suffixes: .csv, .jsonl, .json, .txt; or say --format.",
        )
    return str(form)


def _pictures(options: argparse.Namespace, recognizer: Recognizer) -> Callable[[Result], None]:
    """Draws the pictures of a result that were asked for."""
    if options.explain:
        from emolight.inference.explain import Explainer

        explainer = Explainer(options.model, options.explain)
    if options.timeline:
        from emolight.inference.timeline import write_timeline

    def draw(result: Result) -> None:
        if options.explain:
            explainer.write(result.name, result.truth, result.clip, result.prediction)
        if options.timeline:
            write_timeline(result.prediction, recognizer.classes, result.name, options.timeline)

    return draw


def _progress(results: Iterable[Result | AudioError], count: int, wanted: bool) -> Iterator[Result | AudioError]:
    """A bar on the terminal while the rows go elsewhere."""
    if count < 2 or not wanted or not sys.stderr.isatty():
        yield from results
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(results, "recordings", total=count, console=Console(stderr=True), transient=True)
