"""The page of ``python -m emolight demo``, in Gradio."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from emolight.errors import EmolightError
from emolight.inference import demo
from emolight.inference.prediction import Clip
from emolight.inference.recognizer import FEW, KINDS, Recognizer

KEPT_SECONDS = 300  # after this time at most a recording is deleted; a new one and leaving the page delete it at once
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
"""Gradio's own theme asks a font server."""
ASK = "Record or upload a sentence."
FIRST = f"""The model can adapt to a voice. Record {FEW} sentences or more, one after the other; no labels are
needed. Say all of them in your ordinary voice, or as many of every {{told}}."""
SENTENCES = " The sentences by which the model adapts are in memory until you leave or start over."
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
ABOUT = """
**What this is.** A neural network that learned from recordings: {about}. It tells which {told} of {count} a
recording sounds like most.

**What it is not.** It knows no feelings, and nothing of languages, rooms and ways to speak that it did not learn
from. Where a recording is unlike its training, a warning says so. Nobody should be judged by it.

**Your voice** stays on the machine that runs this page. It is deleted when you record anew, when you leave, or
after five minutes.{kept}

**Licence** of those recordings: {licence}.
"""


@dataclass
class Visit:
    """What is kept of a person while their page is open: their upload, and the model with what it adapted by."""

    model: Recognizer
    upload: str | None = None
    sentences: list[Clip] = field(default_factory=list)

    def enrol(self, kind: str) -> str:
        """Adapt the model to all sentences so far, and tell of it."""
        count = len(self.sentences)
        self.model = self.model.enrol(self.sentences, kind)
        return f"{count} of {FEW} sentences" if count < FEW else f"{count} sentences. Now record below."


def build(recognizer: Recognizer, model: Any) -> Any:
    """The page, as Gradio's Blocks; ``model`` as for :func:`demo.judge`."""
    visits: dict[str, Visit] = {}

    def visit_of(request: gr.Request) -> Visit:
        return visits.setdefault(str(request.session_hash), Visit(recognizer))

    def delete(path: str | None) -> None:
        """Delete an upload, unless a page still shows it: Gradio keeps equal files of the same name as one."""
        if path and path not in [visit.upload for visit in list(visits.values())]:
            Path(path).unlink(missing_ok=True)

    def leave(request: gr.Request) -> None:
        delete(visits.pop(str(request.session_hash), Visit(recognizer)).upload)

    def answer(path: str | None, request: gr.Request) -> tuple[Any, ...]:
        visit = visit_of(request)
        hidden = [gr.update(visible=False)] * len(plots)
        old, visit.upload = visit.upload, path
        delete(old)
        if path is None:
            return ASK, None, *hidden
        try:
            prediction, figures = demo.judge(visit.model, path, model)
        except EmolightError as error:
            return warned(error), None, *hidden
        lines = [f"It sounds **{prediction}**.", *(f"- ⚠️ {text}" for text in prediction.warnings)]
        shown = [gr.update(value=figure, visible=True) for figure in figures]
        return "\n".join(lines), prediction.probabilities, *(shown + hidden)[: len(plots)]

    def learn(path: str | None, kind: str, request: gr.Request) -> Any:
        visit = visit_of(request)
        try:
            if path:
                visit.sentences.append(demo.read(recognizer, path))
            # Without a recording this is the clearing of the last one, or another kind: a new one may be on its way.
            return (None if path else gr.skip(), visit.enrol(kind)) if visit.sentences else gr.skip()
        except EmolightError as error:
            return None, warned(error)
        finally:
            delete(path)

    def start_over(request: gr.Request) -> str:
        visit = visit_of(request)
        visit.model, visit.sentences = recognizer, []
        return "No sentence is kept."

    training = recognizer.contract.training
    about, told = training.get("about") or "a corpus that it does not name", recognizer.contract.told
    licence = str(training.get("licence") or "unknown").rstrip(".")
    adapts = getattr(recognizer.network, "speakers", None) is not None
    audio: dict[str, Any] = {"sources": ["upload", "microphone"], "buttons": [], "editable": False, "type": "filepath"}
    with gr.Blocks(title="emolight", analytics_enabled=False, delete_cache=(60, KEPT_SECONDS)) as page:
        gr.Markdown(f"# emolight\nWhich {told} does a voice sound like?")
        with gr.Accordion(f"Record {FEW} sentences first", open=False, visible=adapts, elem_id="speaker"):
            gr.Markdown(FIRST.format(told=told))
            with gr.Row():
                with gr.Column(min_width=300):
                    sentence = gr.Audio(label="A sentence", elem_id="sentence", **audio)
                with gr.Column(min_width=300):
                    kinds = [(words.format(told), kind) for kind, words in KINDS.items()]
                    kind = gr.Radio(kinds, value=kinds[0][1], label="The sentences are")
                    learned = gr.Markdown("No sentence is kept.", elem_id="learned")
                    again = gr.Button("Start over")
        with gr.Row():
            with gr.Column(min_width=300):
                sound = gr.Audio(label="Your recording", elem_id="recording", **audio)
            with gr.Column(min_width=300):
                text = gr.Markdown(ASK, elem_id="answer")
                bars = gr.Label(label=f"Probability of every {told}", elem_id="bars", show_heading=False)
        plots = [gr.Plot(show_label=False, format="png", visible=False, elem_id=f"picture{n}") for n in (1, 2)]
        kept = SENTENCES if adapts else ""
        gr.Markdown(ABOUT.format(about=about, told=told, licence=licence, count=len(recognizer.classes), kept=kept))
        judged: dict[str, Any] = {"fn": answer, "inputs": sound, "outputs": [text, bars, *plots]}
        sound.change(**judged, **PRIVATE)
        for event in (sentence.change, kind.change):
            event(learn, [sentence, kind], [sentence, learned], **PRIVATE).then(**judged, **PRIVATE)
        again.click(start_over, None, learned, **PRIVATE).then(**judged, **PRIVATE)
        page.unload(leave)
    return page


def warned(error: EmolightError) -> str:
    """A problem as a line of Markdown."""
    return f"⚠️ {' '.join(str(error).splitlines())}"
