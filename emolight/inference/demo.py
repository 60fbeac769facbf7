"""``python -m emolight demo``: try a model with your own voice in the browser."""

import contextlib
import os
import signal
import socket
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import soundfile
from matplotlib.figure import Figure

from emolight.errors import CommandParser, EmolightError, end_once
from emolight.inference.prediction import Clip, Prediction
from emolight.inference.recognizer import Recognizer, load
from emolight.inference.timeline import timeline

MAX_SECONDS = 60
MAX_BYTES = 20 * 2**20


def judge(recognizer: Recognizer, path: str | Path, model: Any = None) -> tuple[Prediction, list[Figure]]:
    """What the page says and shows of an uploaded recording; errors as of :func:`read`.

    The probabilities of a long one over time; and by ``model``, the recognizer's checkpoint, what the network saw.
    """
    clip = read(recognizer, path)
    (prediction,), told = recognizer.predict_clips([clip]), recognizer.contract.told
    figures = [timeline(prediction, f"probability of every {told} over time")] if prediction.windows else []
    if model:
        from emolight.inference.explain import explain

        figures.append(explain(model, clip, prediction, "what the network sees", recognizer.offset))
    return prediction, figures


def read(recognizer: Recognizer, path: str | Path) -> Clip:
    """An uploaded recording; EmolightError for a large, long or unusable one."""
    if not Path(path).is_file():
        raise EmolightError("The recording is not kept any more.", "Record or upload it again.")
    seconds = 0.0
    with contextlib.suppress(OSError, RuntimeError, TypeError, ValueError):  # load_clip says what is wrong
        if (size := Path(path).stat().st_size) > MAX_BYTES:
            raise EmolightError(f"The recording has {size / 2**20:.1f} MB.", "Give one of at most 20 MB.")
        seconds = soundfile.info(str(path)).duration  # first: 20 MB of OGG or MP3 may unpack to hours
    try:
        if seconds <= MAX_SECONDS:
            clip = recognizer.load_clip(path)
            seconds = len(clip.waveform) / recognizer.contract.sample_rate
    except EmolightError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise EmolightError(f"This recording cannot be used: {reason}.", "Give another: WAV, FLAC, OGG, MP3.") from None
    if seconds > MAX_SECONDS:
        raise EmolightError(f"The recording takes {seconds:.1f} s.", f"Give one of at most {MAX_SECONDS} s.")
    return clip


def pictured(path: Path) -> Any:
    """The classifier that :func:`judge` draws; None where a model has no class activation map, or is several."""
    from emolight.inference.explain import Explainer

    with contextlib.suppress(EmolightError):
        return Explainer(path, Path()).model
    return None


def main(argv: list[str]) -> int:
    """Serve the page until it is interrupted."""
    parser = CommandParser("demo", "Try a trained model with your own voice in the browser.")
    parser.add_argument("model", type=Path, help="as for predict: a run folder, a checkpoint, ...")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind; default: %(default)s, this machine alone")
    parser.add_argument("--port", type=int, default=7860, help="default: %(default)s")
    options = parser.parse_args(argv)
    # Only the command line decides: no variable of the environment opens the page, shares it or reports it.
    for name in [name for name in os.environ if name == "SYSTEM" or name.startswith(("GRADIO_", "SPACE_"))]:
        del os.environ[name]
    os.environ["no_proxy"] = "*"  # gradio asks itself whether it has started
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
    if find_spec("gradio") is None:
        raise EmolightError("The demo needs gradio.", 'Type: pip install "emolight[demo]"')
    recognizer, model, place = load(options.model), pictured(options.model), f"{options.host}:{options.port}"
    try:
        socket.create_server((options.host, options.port)).close()
    except (OSError, OverflowError) as error:
        raise EmolightError(f"Cannot listen at {place}: {error}.", "Choose another --port or --host.") from None
    signal.signal(signal.SIGTERM, end_once)  # so that the recordings go then, too
    # Uploads live here and nowhere else; everything goes when the command ends.
    with tempfile.TemporaryDirectory(prefix="emolight-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "uploads")
        from emolight.inference import demo_page  # reads the environment, so not before

        page = demo_page.build(recognizer, model)
        page.launch(
            server_name=options.host,
            server_port=options.port,
            share=False,
            max_file_size=MAX_BYTES,
            footer_links=[],
            ssr_mode=False,
            enable_monitoring=False,
            run_history=False,
            theme=demo_page.THEME,
            quiet=True,
            prevent_thread_lock=True,
        )
        print(f"Listening at http://{place} (Ctrl-C ends it)", flush=True)
        try:
            page.block_thread()
        finally:
            page.close()
    return 0
