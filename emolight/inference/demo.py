"""``python -m emolight demo``: try a model with your own voice in the browser."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from emolight.data.audio import fix_length
from emolight.data.synthetic import make_corpus
from emolight.errors import EmolightError
from emolight.evaluation.plots import BLUE, DPI, GREEN, GRID, INK, ORANGE, VERMILLION
from emolight.inference.examples import spectrogram
from emolight.inference.recognizer import Clip, Prediction, Recognizer, load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SECONDS = 60
MAX_BYTES = 20 * 2**20
WINDOW, HOP = 1.0, 0.25
COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, "#CC79A7", "#56B4E9", "#F0E442", "#000000")
"""Okabe and Ito's, one an emotion."""


def read_clip(recognizer: Recognizer, path: str | Path) -> Clip:
    """Prepare an uploaded recording, whole.

    Raises:
        EmolightError: it is larger than 20 MB, longer than 60 s, or cannot be used.
    """
    with contextlib.suppress(OSError, RuntimeError, TypeError, ValueError):  # load_clip says what is wrong
        if (size := Path(path).stat().st_size) > MAX_BYTES:
            raise EmolightError(
                f"The recording has {size / 2**20:.1f} MB.", f"Give one of at most {MAX_BYTES / 2**20:.0f} MB."
            )
        # By its header first: 20 MB of OGG or MP3 may unpack to hours.
        _check_seconds(soundfile.info(str(path)).duration)
    try:
        clip = recognizer.load_clip(path, trim=False)
    except EmolightError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise EmolightError(
            f"This recording cannot be used: {reason}.", "Give a WAV, FLAC, OGG or MP3 file."
        ) from None
    _check_seconds(len(clip.waveform) / recognizer.contract.sample_rate)
    return clip


def _check_seconds(seconds: float) -> None:
    if seconds > MAX_SECONDS:
        raise EmolightError(f"The recording takes {seconds:.1f} s.", f"Give one of at most {MAX_SECONDS} s.")


def hear(recognizer: Recognizer, path: str | Path) -> Prediction:
    """What the page says of a recording; errors as :func:`read_clip`."""
    read_clip(recognizer, path)
    return recognizer.predict_file(path)


def picture(recognizer: Recognizer, features: Any, path: str | Path) -> Figure:
    """Waveform and probabilities over time of the whole recording, and the features of the piece that counts.

    Args:
        recognizer: the model.
        features: from a waveform ``[T]`` to an image, its extent and the names of its rows and colours.
        path: the recording.
    """
    from matplotlib.figure import Figure

    whole, rate = read_clip(recognizer, path).waveform, recognizer.contract.sample_rate
    piece = fix_length(recognizer.load_clip(path).waveform, recognizer.contract.length)
    figure = Figure(figsize=(4.8, 8.4), dpi=DPI, layout="constrained", facecolor="white")
    top, middle, bottom = figure.subplots(3, 1, height_ratios=[1, 1.5, 1.5])
    top.plot(np.arange(len(whole)) / rate, whole, color=INK, linewidth=0.5)
    top.set(title="waveform", ylabel="amplitude", xlim=(0, len(whole) / rate))
    windows = recognizer.predict_windows(Clip(whole), WINDOW, HOP)
    centres = [sum(one.times or (0, 0)) / 2 for one in windows]
    for name, colour in zip(recognizer.classes, COLOURS, strict=False):
        values = [100 * one.probabilities[name] for one in windows]
        middle.plot(centres, values, color=colour, label=name, marker="o", markersize=3)
    title = f"probability over time, each from {WINDOW:g} s alone:\nless sure than the whole"
    middle.set(title=title, ylabel="%", xlabel="time (s)", xlim=(0, len(whole) / rate), ylim=(0, 102))
    middle.legend(ncols=3, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.25))  # off the curves
    image, extent, (rows, unit) = features(piece)
    drawn = bottom.imshow(image, origin="lower", aspect="auto", extent=extent, cmap="magma")
    bottom.set(title="what the network sees,\nsilence at the ends cut", ylabel=rows, xlabel="time (s)")
    figure.colorbar(drawn, ax=bottom, label=unit, orientation="horizontal", aspect=40)
    for axis in (top, middle):
        axis.grid(color=GRID, linewidth=0.8)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in (top, middle, bottom):
        axis.title.set_fontsize(11)
    return figure


def features_of(model: Path, recognizer: Recognizer) -> Any:
    """The feature image of a checkpoint; of an exported model, which holds it inside, a plain spectrogram."""
    if model.suffix != ".onnx":
        from emolight.inference.explain import feature_image
        from emolight.models.classifier import load_classifier

        classifier = load_classifier(model)
        if classifier.front_end.features.mode != "waveform":
            return lambda wave: feature_image(classifier, wave)
    rate = recognizer.contract.sample_rate

    def plain(wave: Any) -> Any:
        names = ("frequency (Hz), a plain spectrogram", "dB")
        return spectrogram(wave), (0, len(wave) / rate, 0, rate / 2), names

    return plain


def main(argv: list[str]) -> int:
    """Serve the page until it is interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m emolight demo", description="Try a trained model with your own voice in the browser."
    )
    parser.add_argument("model", type=Path, help="a checkpoint (.ckpt) or an exported model (.onnx)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to bind; default: %(default)s, this machine alone"
    )
    parser.add_argument("--port", type=int, default=7860, help="default: %(default)s")
    options = parser.parse_args(argv)
    _quiet_gradio()
    if find_spec("gradio") is None:
        raise EmolightError("The demo needs gradio.", 'Type: pip install "emolight[demo]"')
    recognizer = load(options.model)
    _check_port(options.host, options.port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the recordings go then, too
    # Uploads live here and nowhere else; everything goes when the command ends.
    with tempfile.TemporaryDirectory(prefix="emolight-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "uploads")
        from emolight.inference import demo_page  # reads the environment, so not before

        examples = _examples(Path(folder) / "examples")
        page = demo_page.build(recognizer, features_of(options.model, recognizer), examples)
        page.launch(
            server_name=options.host,
            server_port=options.port,
            share=False,
            max_file_size=MAX_BYTES,
            footer_links=[],
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            run_history=False,
            pwa=False,
            theme=demo_page.THEME,
            quiet=True,
            prevent_thread_lock=True,
        )
        print(f"Listening at http://{options.host}:{options.port} (Ctrl-C ends it)", flush=True)
        try:
            page.block_thread()
        finally:
            page.close()
    return 0


def _quiet_gradio() -> None:
    """Only the command line decides: no variable of the environment opens the page, shares it or reports it."""
    for name in [name for name in os.environ if name == "SYSTEM" or name.startswith(("GRADIO_", "SPACE_"))]:
        del os.environ[name]
    os.environ["no_proxy"] = "*"  # gradio asks itself whether it has started
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}


def _check_port(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            pass
    except (OSError, OverflowError) as error:
        raise EmolightError(
            f"Cannot listen at {host}:{port}: {error}.", "Choose another --port or --host."
        ) from None


def _examples(folder: Path) -> list[str]:
    """A synthetic clip of each emotion, named by it."""
    make_corpus(folder / "corpus", actors=2, repetitions=1)
    found = []
    for path in sorted((folder / "corpus").rglob("*-01-01-01-0[12].wav"))[::2]:
        from emolight.data.ravdess import parse_name

        fields = parse_name(path.stem)
        assert fields is not None
        found.append(path.rename(folder / f"synthetic {fields['emotion']}.wav"))
    return [str(path) for path in found]
