"""``python -m emolight demo``: try a model with your own voice in the browser."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from emolight.data.corpora import Synthetic
from emolight.data.corpora.synthetic import make_corpus
from emolight.errors import EmolightError
from emolight.evaluation.style import BLUE, GREY, clean_axis, new_figure
from emolight.inference.prediction import Clip, Prediction, judged_piece
from emolight.inference.recognizer import Recognizer, load
from emolight.inference.timeline import draw_timeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SECONDS = 60
MAX_BYTES = 20 * 2**20
Drawing = Callable[[Any, Any], Any]
"""Draws on an axis the features of samples ``[T]``; returns what a colour bar needs, labelled."""


def judge(recognizer: Recognizer, path: str | Path, draw: Drawing | None = None) -> tuple[Prediction, Figure]:
    """What the page says and shows of an uploaded recording.

    Args:
        recognizer: the model.
        path: the recording.
        draw: see :func:`features_of`.

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
        clip = recognizer.load_clip(path)
    except EmolightError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise EmolightError(f"This recording cannot be used: {reason}.", "Give a WAV, FLAC, OGG or MP3 file.") from None
    _check_seconds(len(clip.waveform) / recognizer.contract.sample_rate)
    (prediction,) = recognizer.predict_clips([clip])
    return prediction, picture(recognizer, clip, prediction, draw)


def _check_seconds(seconds: float) -> None:
    if seconds > MAX_SECONDS:
        raise EmolightError(f"The recording takes {seconds:.1f} s.", f"Give one of at most {MAX_SECONDS} s.")


def picture(recognizer: Recognizer, clip: Clip, prediction: Prediction, draw: Drawing | None) -> Figure:
    """The waveform and the piece that is judged, its features, and a long recording's probabilities over time."""
    contract = recognizer.contract
    piece, start = judged_piece(contract, clip, prediction)
    rate, seconds = contract.sample_rate, len(clip.waveform) / contract.sample_rate
    end = start + len(piece) / rate if prediction.windows else min(start + contract.duration, clip.sound[1] / rate)
    heights = [1.0, *([1.5] if prediction.windows else []), *([1.5] if draw else [])]
    figure = new_figure(4.8, 1.0 + 1.9 * sum(heights))
    axes = list(np.atleast_1d(figure.subplots(len(heights), 1, height_ratios=heights)))
    top = axes[0]
    top.axvspan(start, end, color=BLUE, alpha=0.15, linewidth=0)
    top.plot(np.arange(len(clip.waveform)) / rate, clip.waveform, color=BLUE, linewidth=0.5)
    top.set(title="your recording; the shaded part is judged", ylabel="amplitude", xlim=(0, seconds))
    top.set_xlabel("time (s)" if not prediction.windows else "")
    clean_axis(top, "both")
    if prediction.windows:
        verdict = max(prediction.probabilities, key=prediction.probabilities.__getitem__)
        top.set_title(f"your recording; shaded: where it is most {verdict}")
        drawn = draw_timeline(axes[1], prediction, recognizer.classes)
        silent = any(one.silent for one in prediction.windows)
        axes[1].set_title("each moment; the verdict is the mean" + (" (grey: no sound)" if silent else ""))
        figure.colorbar(drawn, ax=axes[1], label="probability (%)", orientation="horizontal", aspect=40)
    if draw:
        drawn = draw(axes[-1], piece)
        axes[-1].set_title(f"what the network sees of the shaded part:\n{contract.title}")
        axes[-1].set_xlabel(f"time (s) from second {start:.2f} on")
        if end - start < contract.duration and not prediction.windows:
            axes[-1].axvline(end - start, color=GREY, linestyle="--")
            axes[-1].set_xlabel("time (s); zeros after the dashed line")
        figure.colorbar(drawn, ax=axes[-1], label=drawn.get_label(), orientation="horizontal", aspect=40)
    for axis in axes:
        axis.title.set_fontsize(10.5)
    return figure


def features_of(model: Path) -> Drawing | None:
    """Draws a checkpoint's own features; None for an exported model, and where the network takes raw samples."""
    if model.suffix == ".onnx":
        return None
    from emolight.evaluation.pictures import draw_features
    from emolight.inference.explain import feature_image
    from emolight.inference.torch_network import checkpoint_of
    from emolight.models.loading import load_classifier

    classifier = load_classifier(checkpoint_of(model.expanduser()))
    front_end = classifier.front_end

    def draw(axis: Any, wave: Any) -> Any:
        image, unit = feature_image(classifier, wave)
        drawn = draw_features(axis, image, front_end.sample_rate, front_end.hop_length, front_end.axis)
        drawn.set_label(unit)
        return drawn

    return draw if front_end.image else None


def main(argv: list[str]) -> int:
    """Serve the page until it is interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m emolight demo", description="Try a trained model with your own voice in the browser."
    )
    parser.add_argument("model", type=Path, help="a run folder, a checkpoint (.ckpt), or an exported model (.onnx)")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind; default: %(default)s, this machine alone")
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

        page = demo_page.build(recognizer, features_of(options.model), _examples(Path(folder) / "examples"))
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
        raise EmolightError(f"Cannot listen at {host}:{port}: {error}.", "Choose another --port or --host.") from None


def _examples(folder: Path) -> list[str]:
    """A synthetic clip of each emotion, named by it."""
    make_corpus(folder / "corpus", 2, repetitions=1)
    found = {}
    for path in sorted((folder / "corpus").rglob("*.wav")):
        clip = Synthetic().parse(path.stem) or {}
        if clip["emotion"] not in found:
            found[clip["emotion"]] = path.rename(folder / f"synthetic {clip['emotion']}.wav")
    return [str(path) for path in found.values()]
