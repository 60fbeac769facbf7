"""``python -m emolight predict``: what a model says of recordings, a row a recording and a row a window."""

import argparse
import contextlib
import io
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from emolight.data.audio import AudioError
from emolight.data.corpus import READ
from emolight.errors import CommandParser, EmolightError
from emolight.files import write_text
from emolight.inference.live import Microphone, listen
from emolight.inference.predict_writers import FORMATS, Result, print_result, shown, write_table
from emolight.inference.prediction import Clip
from emolight.inference.recognizer import KINDS, Recognizer, load
from emolight.inference.recordings import CONVERT, STDIN, count_suffixes, find_recordings

BATCH_BYTES = 2**24  # of sound files that are decoded together, the last one aside: an hour of speech takes no less


def predict_files(recognizer: Recognizer, paths: Sequence[str], **windows: Any) -> Iterator[Result | AudioError]:
    """Predict recordings in order, decoding the next batch while the network computes.

    ``-`` is standard input. Yields what the model says, or why a recording cannot be used.
    """

    def decode(path: str) -> Clip | AudioError:
        try:
            if path == STDIN:
                return recognizer.load_clip("standard input", sys.stdin.buffer.read())
            return recognizer.load_clip(path)
        except AudioError as error:
            return error

    told = recognizer.contract.told
    with ThreadPoolExecutor(2) as pool:
        batches = ([(path, pool.submit(decode, path)) for path in batch] for batch in _batches(paths))
        coming = next(batches, None)
        while coming:
            decoded = [(path, future.result()) for path, future in coming]
            coming = next(batches, None)
            usable = [clip for _, clip in decoded if isinstance(clip, Clip)]
            predictions = iter(recognizer.predict_clips(usable, **windows))
            for path, clip in decoded:
                yield clip if isinstance(clip, AudioError) else Result(path, clip, next(predictions), told)


def _batches(paths: Sequence[str]) -> list[list[str]]:
    """Of 32 recordings, or fewer large ones."""
    batches: list[list[str]] = []
    room = 0
    for path in paths:
        if room <= 0 or len(batches[-1]) == 32:
            batches.append([])
            room = BATCH_BYTES
        batches[-1].append(path)
        with contextlib.suppress(OSError, ValueError):  # of standard input; or decoding says what is wrong
            room -= Path(path).stat().st_size
    return batches


def _options(argv: list[str]) -> argparse.Namespace:
    about = (
        "Predict the emotion of recordings with a trained model. A recording that is clearly longer than those of the"
        " training is judged by windows."
    )
    parser = CommandParser("predict", about)
    add = parser.add_argument
    add("model", type=Path, help="a run, a checkpoint (.ckpt), an exported model, a cross-validation or an ensemble")
    add("paths", nargs="*", metavar="PATH", help="sound files, folders, globs; - is a WAV on standard input")
    add("--live", action="store_true", help="listen to the microphone, a line a window, until Ctrl-C")
    add("--format", choices=FORMATS, help="default: by the suffix of --output, else text")
    add("--output", type=Path, metavar="FILE", help="write there (.csv, .jsonl, .json, .txt) instead of printing")
    add("--window", type=float, metavar="S", help="windows of S seconds of every recording; default: as trained")
    add("--hop", type=float, metavar="S", help="seconds from one window to the next; default: half a window")
    add("--whole", action="store_true", help="judge only the middle of long recordings, too")
    add("--timeline", type=Path, metavar="PNG", help="draw the probabilities of one recording over time")
    add("--abstain-below", type=float, default=0.0, metavar="P", help="no label below this confidence")
    add("--explain", type=Path, metavar="DIR", help="draw there what the model saw in every recording")
    add("--enrol", type=Path, metavar="FOLDER", help="recordings of the speaker without labels, to adapt the model by")
    about = "they are in an ordinary voice, or mixed: of all emotions"
    add("--enrol-as", choices=KINDS, default=next(iter(KINDS)), help=about)
    add("--device", default="cpu", help="cpu, cuda, mps; default: %(default)s")
    options = parser.parse_intermixed_args(argv)  # RUN --whole FILE, too
    if options.model.suffix.lower() in READ:
        problem = f"'{options.model}' is a recording; the model comes first."
        raise EmolightError(problem, "Type: python -m emolight predict RUN FILE")
    if not options.paths and not options.live:
        raise EmolightError("No recordings are given.", "Name files or folders behind the model; or say --live.")
    if options.whole and (options.window or options.hop or options.timeline):
        raise EmolightError("--whole judges one piece of a recording, and no windows.", "Leave out --whole.")
    suffix = options.output.suffix.lower() if options.output else ".txt"
    options.format = options.format or {".txt": "text"}.get(suffix, suffix[1:])
    if options.format not in FORMATS:
        problem = f"--output is '{options.output}'; its suffix names no format."
        raise EmolightError(problem, "Valid suffixes: .csv, .jsonl, .json, .txt; or say --format.")
    apart = {"recordings": options.paths, "--output": options.output, "--whole": options.whole}
    apart |= {"--timeline": options.timeline, "--explain": options.explain}
    apart[f"--format {options.format}"] = options.format not in ("text", "jsonl")
    if options.live and (names := [name for name, given in apart.items() if given]):
        problem = f"--live listens to the microphone; it takes no {', '.join(names)}."
        raise EmolightError(problem, "Leave one out. Lines are kept by: predict RUN --live --format jsonl > FILE")
    return options


def main(argv: list[str]) -> int:
    """Run the command; returns 1 when a recording could not be used."""
    options = _options(argv)
    paths, unreadable = find_recordings(options.paths)
    microphone = Microphone() if options.live else None
    if options.timeline and len(paths) != 1:
        raise EmolightError(f"--timeline draws one recording; {len(paths)} are given.", "Name one of them.")
    recognizer = load(options.model, options.device, options.abstain_below)
    if options.enrol:
        recognizer = recognizer.enrol(options.enrol, options.enrol_as)
    warnings.showwarning = lambda message, *_: print(f"emolight: {message}", file=sys.stderr)
    if microphone:
        window, hop = recognizer.window_and_hop(options.window, options.hop)
        place = "; ".join(filter(None, (microphone.name, recognizer.about)))
        print(f"listening to {place}; windows of {window:g} s every {hop:g} s; Ctrl-C ends it", file=sys.stderr)
        listen(recognizer, microphone, window, hop, options.format)
        return 0
    if options.timeline and options.hop is None:
        options.hop = (options.window or recognizer.contract.duration) / 2  # of a short recording, too
    windows = {"window": options.window, "hop": options.hop, "whole": options.whole}
    if options.explain:
        from emolight.inference.explain import Explainer

        explainer = Explainer(options.model, options.explain, recognizer.offset)
    results: Iterable[Result | AudioError] = predict_files(recognizer, paths, **windows)
    if len(paths) > 1 and sys.stderr.isatty() and (options.output or not sys.stdout.isatty()):
        from rich.console import Console
        from rich.progress import track

        results = track(results, "recordings", total=len(paths), console=Console(stderr=True), transient=True)
    text, rows, agree = io.StringIO(), [], []
    out, bad = text if options.output else sys.stdout, 0
    for result in results:
        if isinstance(result, AudioError):
            print(f"emolight: {result}", file=sys.stderr)
            bad += 1
            continue
        if options.format == "text":
            agree.append(print_result(result, recognizer.classes, out))
        else:
            rows.append([*result.rows()])
        if options.explain:
            explainer.write(result.name, result.truth, result.clip, result.prediction)
        if options.timeline:
            from emolight.inference.timeline import timeline, write_picture

            write_picture(timeline(result.prediction, result.name), options.timeline)
    write_table(rows, options.format, recognizer.classes, out)
    if labelled := [right for right in agree if right is not None]:
        share = f"{sum(labelled)} of {len(labelled)} recordings with a label in their name"
        print(f"{share}: {sum(labelled) / len(labelled):.1%} right", file=out)
    if options.output:
        write_text(options.output, text.getvalue().encode("utf-8", "backslashreplace").decode())
        print(f"predictions of {len(paths) - bad} of {len(paths)} recordings, as {options.format}: {options.output}")
    if unreadable:
        names = ", ".join(map(shown, unreadable[:20])) + (" ..." if len(unreadable) > 20 else "")
        print(f"emolight: not read: {count_suffixes(unreadable)}: {names}\n{CONVERT}", file=sys.stderr)
    return 1 if bad or unreadable else 0
