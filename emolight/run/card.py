"""The model card of a run: what the checkpoint was trained on, what it scores, and what it is not for.

Source: Mitchell et al., *Model Cards for Model Reporting*, 2019.
"""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from emolight.data.splits import SUBSETS
from emolight.evaluation.statistics import few_speakers, summarise
from emolight.files import write_text
from emolight.run.folder import Run

NAMES = {"uar": "UAR (unweighted average recall)", "accuracy": "accuracy", "macro_f1": "macro-F1"}


def write_model_card(run: Run) -> None:
    """Write ``MODEL_CARD.md`` into a run folder, from the files that stand in it.

    With test predictions it shows their figures, else those of the validation clips with a warning.
    """
    data, model, split = run.config["data"], run.config["model"], run.split
    table = run.predictions(run.subset)
    warning = "Their speakers are in training: new voices will score lower."
    if split.selects_epoch:
        warning = "They chose the epoch and the temperature, which flatters every figure below; `test` gives fair ones."
    pages = Environment(loader=PackageLoader("emolight.run", "templates"), undefined=StrictUndefined, trim_blocks=True)
    text = pages.get_template("model_card.md.j2").render(
        run=run,
        about=run.environment,
        network=_name(model["network"]),
        input=_name(model["features"]),
        names=NAMES,
        checkpoint=run.best.name,
        classes=[column.removeprefix("prob_") for column in table.columns if column.startswith("prob_")],
        data=data,
        trimming="" if data["trim_db"] is None else f", silence at the ends cut at {data['trim_db']:g} dB",
        clips={name: len(split.clips(name)) for name in SUBSETS},
        speakers={name: split.speakers(name) for name in SUBSETS},
        split=split,
        epochs=run.config["trainer"].get("max_epochs"),
        learning_rate=model["learning_rate"],
        subset="Validation" if run.subset == "val" else "Test",
        warning=warning if run.subset == "val" else "",
        few=few_speakers(table["speaker"].nunique()),
        summary=summarise(table),
    )
    write_text(run.folder / "MODEL_CARD.md", text)


def _name(spec: Any) -> str:
    """A part of the model, as ``MFCC (n_mels 64, n_mfcc 40)``."""
    if not isinstance(spec, dict):
        return str(spec).rpartition(".")[2]
    given = [f"{name} {value}" for name, value in (spec.get("init_args") or {}).items() if value is not None]
    return str(spec["class_path"]).rpartition(".")[2] + (f" ({', '.join(given)})" if given else "")
