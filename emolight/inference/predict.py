"""``python -m emolight predict``: what a model says of recordings, a line a clip."""

from __future__ import annotations

import argparse
import csv
import glob
import io
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any, TextIO

from tqdm import tqdm

from emolight.data.audio import AudioError, load_waveform
from emolight.data.ravdess import parse_name
from emolight.errors import EmolightError
from emolight.files import write_text
from emolight.inference.recognizer import Clip, Prediction, Recognizer, load

SUFFIXES = {".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".w64", ".wav"}
STDIN = "-"
BAR = 20
"""Characters of a bar that stands for probability 1."""


@dataclass(frozen=True)
class Heard:
    """A recording and what was said of it: one prediction, or one a window."""

    path: str
    clip: Clip
    predictions: list[Prediction]

    @property
    def truth(self) -> str | None:
        """The emotion that a RAVDESS file name tells."""
        fields = parse_name(PurePath(self.path).stem)
        return None if fields is None else str(fields["emotion"])


def find_recordings(words: Sequence[str]) -> list[str]:
    """Files that the words of a command line mean: files, folders (searched for sound files), globs, ``-``.

    Raises:
        EmolightError: a word means nothing that exists.
    """
    found: list[str] = []
    for word in words:
        place = Path(word)
        if word == STDIN or place.is_file():
            found.append(word)
            continue
        if place.is_dir():
            inside = sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES)
            some = [str(path) for path in inside if path.is_file() and not path.name.startswith("._")]
        else:
            some = sorted(path for path in glob.glob(word, recursive=True) if Path(path).is_file())
        if not some:
            kind = "No sound file is in the folder" if place.is_dir() else "There is no file"
            raise EmolightError(
                f"{kind} '{word}'.", "Give sound files, folders, globs, or - for a WAV on standard input."
            )
        found += some
    return list(dict.fromkeys(found))


def hear(
    recognizer: Recognizer,
    paths: Sequence[str],
    window: float | None = None,
    hop: float | None = None,
    batch_size: int = 32,
) -> Iterator[Heard | AudioError]:
    """Predict recordings in order, decoding the next batch while the network computes.

    Args:
        recognizer: the model.
        paths: files; ``-`` is standard input.
        window: seconds of a window; None makes one prediction of each recording.
        hop: seconds from one window to the next; None is half the window.
        batch_size: clips in one pass of the network.

    Yields:
        In the order of ``paths``: what was heard, or why a recording cannot be used.
    """
    decode = partial(_decode, recognizer, trim=window is None)
    batches = [paths[start : start + batch_size] for start in range(0, len(paths), batch_size)]
    with ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(2) as pool:
        coming = ahead.submit(lambda: list(pool.map(decode, batches[0]))) if batches else None
        for number, batch in enumerate(batches):
            assert coming is not None
            clips = coming.result()
            if number + 1 < len(batches):
                coming = ahead.submit(lambda some=batches[number + 1]: list(pool.map(decode, some)))  # type: ignore[misc]
            usable = [clip for clip in clips if isinstance(clip, Clip)]
            if window is None:
                answers = iter([[prediction] for prediction in recognizer.predict_clips(usable)])
            else:
                step = window / 2 if hop is None else hop
                answers = iter([recognizer.predict_windows(clip, window, step, batch_size) for clip in usable])
            for path, clip in zip(batch, clips, strict=True):
                yield clip if isinstance(clip, AudioError) else Heard(path, clip, next(answers))


def _decode(recognizer: Recognizer, path: str, trim: bool) -> Clip | AudioError:
    try:
        if path == STDIN:
            return recognizer.load_clip("standard input", sys.stdin.buffer.read(), trim)
        return recognizer.load_clip(path, trim=trim)
    except AudioError as error:
        return error


def main(argv: list[str]) -> int:
    """Run the command; returns 1 when a recording could not be used."""
    parser = argparse.ArgumentParser(
        prog="python -m emolight predict", description="Predict the emotion of recordings with a trained model."
    )
    parser.add_argument("model", type=Path, help="a checkpoint (.ckpt) or an exported model (.onnx)")
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="sound files, folders, globs; - is a WAV on standard input"
    )
    parser.add_argument(
        "--format", choices=("text", "csv", "jsonl"), help="default: by the suffix of --output, else text"
    )
    parser.add_argument("--output", type=Path, help="write there instead of printing")
    parser.add_argument("--window", type=float, metavar="S", help="predict windows of S seconds of long recordings")
    parser.add_argument("--hop", type=float, metavar="S", help="seconds from one window to the next; default: half")
    parser.add_argument(
        "--abstain-below", type=float, default=0.0, metavar="P", help="no label below this confidence"
    )
    parser.add_argument("--explain", type=Path, metavar="DIR", help="draw a picture of every clip there")
    parser.add_argument(
        "--draw", type=Path, metavar="PNG", help="draw a table of the clips, label against prediction"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps; default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=32, help="clips at once; default: %(default)s")
    options = parser.parse_args(argv)
    if options.batch_size < 1:
        raise EmolightError(f"--batch-size is {options.batch_size}; it must be at least 1.", "32 is usual.")
    if options.hop is not None and options.window is None:
        raise EmolightError("--hop is given without --window.", "Add --window, for example --window 2.5.")
    if (options.explain or options.draw) and options.window is not None:
        raise EmolightError("--explain and --draw show whole clips, not windows.", "Leave out --window.")
    suffix = options.output.suffix.lower() if options.output else ""
    form = options.format or {".csv": "csv", ".jsonl": "jsonl"}.get(suffix, "text")
    paths = find_recordings(options.paths)
    recognizer = load(options.model, options.device, options.abstain_below)
    if options.explain:
        from emolight.inference.explain import write_explanations

        write_explanations(options.model, [], options.explain)  # refuses now what it would refuse in the end
    warnings.showwarning = lambda message, *_: print(f"emolight: {message}", file=sys.stderr)

    out = io.StringIO() if options.output else sys.stdout
    kinds: dict[str, type[_Text] | type[_Csv] | type[_Json]] = {"text": _Text, "csv": _Csv, "jsonl": _Json}
    writer = kinds[form](out, recognizer.classes)
    heard, bad = [], 0
    keep = bool(options.explain or options.draw)
    shown = len(paths) > options.batch_size and sys.stderr.isatty()
    answers = hear(recognizer, paths, options.window, options.hop, options.batch_size)
    for answer in tqdm(answers, total=len(paths), unit="clip", disable=not shown):
        with tqdm.external_write_mode():  # lines go above the bar
            if isinstance(answer, AudioError):
                print(f"emolight: {answer}", file=sys.stderr)
                bad += 1
                continue
            writer.write(answer)
        if keep:
            heard.append(answer)
    writer.close()
    if options.output:
        write_text(options.output, out.getvalue())  # type: ignore[union-attr]
    if options.draw:
        _draw(heard, recognizer, options.draw)
    if options.explain:
        names = ["standard input" if one.path == STDIN else PurePath(one.path).stem for one in heard]
        items = [(name, one.clip, one.predictions[0]) for name, one in zip(names, heard, strict=True)]
        write_explanations(options.model, items, options.explain)
    return 1 if bad else 0


def _draw(heard: Sequence[Heard], recognizer: Recognizer, path: Path) -> None:
    """The grid of right and wrong predictions of each emotion, of the clips whose names tell their label."""
    from emolight.evaluation.plots import save_figure
    from emolight.inference.examples import RATE, Example, Row, draw

    labelled = [one for one in heard if one.truth in recognizer.classes and one.path != STDIN]
    if not labelled:
        raise EmolightError(
            "--draw compares labels, but no clip has one of the model's emotions in its name.",
            "Give RAVDESS recordings, such as 03-01-05-01-01-01-12.wav.",
        )

    def example(one: Heard) -> Example:
        told, label = one.predictions[0], str(one.truth)
        wave = load_waveform(one.path, RATE, recognizer.contract.trim_db)
        said = told.label or "no answer"
        return Example(one.path, label, said, told.confidence, told.probabilities[label], "", wave)

    labelled.sort(key=lambda one: -one.predictions[0].confidence)
    rows = []
    for emotion in recognizer.classes:
        of_emotion = [one for one in labelled if one.truth == emotion]
        right = [one for one in of_emotion if one.predictions[0].label == emotion]
        wrong = [one for one in of_emotion if one.predictions[0].label != emotion]
        if of_emotion:
            shown = ([example(one) for one in kind[:2]] for kind in (right, wrong))
            rows.append(Row(emotion, len(of_emotion), len(right), *shown))
    save_figure(draw(rows, 2, "label → prediction, the most confident of each kind"), path)


class _Csv:
    """Rows as CSV, a probability a column."""

    def __init__(self, out: TextIO, classes: list[str]) -> None:
        columns = ["path", "start", "end", "prediction", "confidence", "label"]
        self.table = csv.writer(out, lineterminator="\n")
        self.table.writerow([*columns, *(f"prob_{name}" for name in classes), "warnings"])

    def write(self, heard: Heard) -> None:
        """Write a row a prediction."""
        for one in heard.predictions:
            start, end = one.times or ("", "")
            values = [f"{value:.6f}" for value in one.probabilities.values()]
            row = [heard.path, start, end, one.label or "", f"{one.confidence:.6f}", heard.truth or ""]
            self.table.writerow([*row, *values, "; ".join(one.warnings)])

    def close(self) -> None:
        """Nothing follows the rows."""


class _Json:
    """One JSON object a line."""

    def __init__(self, out: TextIO, classes: list[str]) -> None:
        self.out = out

    def write(self, heard: Heard) -> None:
        """Write an object a prediction."""
        for one in heard.predictions:
            row: dict[str, Any] = {"path": heard.path}
            if one.times:
                row |= {"start": one.times[0], "end": one.times[1]}
            row |= {"prediction": one.label, "confidence": round(one.confidence, 6), "label": heard.truth}
            row["probabilities"] = {name: round(value, 6) for name, value in one.probabilities.items()}
            print(json.dumps({**row, "warnings": one.warnings}), file=self.out)

    def close(self) -> None:
        """Nothing follows the objects."""


class _Text:
    """Lines for people; with bars for every emotion on a terminal."""

    def __init__(self, out: TextIO, classes: list[str]) -> None:
        self.out, self.bars = out, out.isatty()
        self.width = max(len(name) for name in classes)
        self.right = self.labelled = 0

    def write(self, heard: Heard) -> None:
        """Write a line a prediction, and what warns of it."""
        for one in heard.predictions:
            when = f"  {one.times[0]:.2f}-{one.times[1]:.2f} s" if one.times else ""
            mark = ""
            if heard.truth is not None and heard.truth not in one.probabilities:
                mark = f"  it is {heard.truth}, which the model does not know"
            elif heard.truth is not None and one.label is not None and not one.times:
                right = heard.truth == one.label
                self.labelled += 1
                self.right += right
                mark = "  right" if right else f"  wrong: it is {heard.truth}"
            label = one.label or "no answer"
            print(f"{heard.path}{when}  {label} {one.confidence:.0%}{mark}", file=self.out)
            for name, value in one.probabilities.items() if self.bars else ():
                print(f"  {name:<{self.width}} {'█' * round(BAR * value):<{BAR}} {value:4.0%}", file=self.out)
            for text in one.warnings:
                print(f"  warning: {text}", file=self.out)

    def close(self) -> None:
        """How many of the labelled clips were right."""
        if self.labelled:
            share = self.right / self.labelled
            print(
                f"{self.right} of {self.labelled} clips with a label in their name: {share:.1%} right",
                file=self.out,
            )
