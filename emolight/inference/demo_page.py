"""The page of ``python -m emolight demo``, in Gradio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from emolight.errors import EmolightError
from emolight.inference import demo
from emolight.inference.recognizer import Recognizer

KEPT_SECONDS = 300  # after this time at most a recording is deleted; a new one and leaving the page delete it at once
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
"""Gradio's own theme asks a font server."""
ASK = "Record or upload a sentence."
ABOUT = """
**What this is.** A neural network that learned from recordings: {about}. It tells which of {count} emotions a
recording sounds like most.

**What it is not.** It knows no feelings, and nothing of languages, rooms and ways to speak that it did not learn
from. Where a recording is unlike its training, a warning says so. Nobody should be judged by it.

**Your voice** stays on the machine that runs this page. It is deleted when you record anew, when you leave, or
after five minutes.

**Licence** of those recordings: {licence}.
"""


def build(recognizer: Recognizer, model: Any) -> Any:
    """The page, as Gradio's Blocks; ``model`` as for :func:`demo.judge`."""
    uploads: dict[str, str] = {}

    def forget(request: gr.Request) -> None:
        if path := uploads.pop(str(request.session_hash), None):
            Path(path).unlink(missing_ok=True)

    def answer(path: str | None, request: gr.Request) -> tuple[Any, ...]:
        if path != uploads.get(str(request.session_hash)):
            forget(request)
        hidden = [gr.update(visible=False)] * len(plots)
        if path is None:
            return ASK, None, *hidden
        uploads[str(request.session_hash)] = path
        try:
            prediction, figures = demo.judge(recognizer, path, model)
        except EmolightError as error:
            return f"⚠️ {' '.join(str(error).splitlines())}", None, *hidden
        lines = [f"It sounds **{prediction}**.", *(f"- ⚠️ {text}" for text in prediction.warnings)]
        shown = [gr.update(value=figure, visible=True) for figure in figures]
        return "\n".join(lines), prediction.probabilities, *(shown + hidden)[: len(plots)]

    training = recognizer.contract.training
    about = training.get("about") or "a corpus that it does not name"
    licence = str(training.get("licence") or "unknown").rstrip(".")
    with gr.Blocks(title="emolight", analytics_enabled=False, delete_cache=(60, KEPT_SECONDS)) as page:
        gr.Markdown("# emolight\nWhich emotion does a voice sound like?")
        with gr.Row():
            with gr.Column(min_width=300):
                sound = gr.Audio(
                    type="filepath",
                    sources=["upload", "microphone"],
                    label="Your recording",
                    buttons=[],
                    editable=False,
                )
            with gr.Column(min_width=300):
                text = gr.Markdown(ASK, elem_id="answer")
                bars = gr.Label(label="Probability of every emotion", elem_id="bars", show_heading=False)
        plots = [gr.Plot(show_label=False, format="png", visible=False, elem_id=f"picture{n}") for n in (1, 2)]
        gr.Markdown(ABOUT.format(about=about, licence=licence, count=len(recognizer.classes)))
        sound.change(answer, sound, [text, bars, *plots], api_visibility="private")
        page.unload(forget)
    return page
