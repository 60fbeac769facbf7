"""The model card of a run: what the checkpoint was trained on, what it scores, and what it is not for.

Source: Mitchell et al., *Model Cards for Model Reporting*, 2019.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from emolight.data.splits import SUBSETS, describe_protocol
from emolight.evaluation.statistics import summarise
from emolight.files import write_text
from emolight.results import LAST_EPOCH, read_result
from emolight.runs import read_environment

CARD = "MODEL_CARD.md"
INPUTS = {
    "spectrogram": "the spectrogram in dB",
    "mel": "the mel spectrogram in dB",
    "mfcc": "mel-frequency cepstral coefficients",
    "waveform": "raw samples",
}
NAMES = {"uar": "UAR (unweighted average recall)", "wa": "accuracy (WA)", "macro_f1": "macro-F1"}


def write_model_card(run: Path) -> Path:
    """Write ``MODEL_CARD.md`` into a run folder, from the files that stand in it; returns its path.

    With test predictions it shows their figures, else those of the validation clips with a warning.

    Raises:
        EmolightError: as :func:`~emolight.results.read_result`.
    """
    result, environment = read_result(run), read_environment(run)
    config: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    data, model = config["data"], config["model"]
    split = pd.read_csv(run / "split.csv")
    subset, warning = "Test", ""
    if result.subset == "val":
        subset = "Validation"
        warning = (
            "They chose the epoch and the temperature, which flatters every figure below; `test` gives fair ones."
        )
        if result.protocol.startswith("random"):
            warning = "Their actors are in training: new voices will score lower."
    loader = Environment(
        loader=PackageLoader("emolight", "templates"), undefined=StrictUndefined, trim_blocks=True, autoescape=False
    )
    mode = model["features"]["mode"]
    text = loader.get_template("model_card.md.j2").render(
        name=result.name,
        network="five 1-D convolutions" if mode == "waveform" else "ResNet18 with a 1-channel stem",
        input=INPUTS[mode],
        names=NAMES,
        checkpoint="last.ckpt" if result.selection == LAST_EPOCH else "best.ckpt",
        versions=environment["versions"],
        emotions=data["emotions"],
        channels=data["channels"],
        duration=data["duration"],
        sample_rate=data["sample_rate"],
        trimming="" if data["trim_db"] is None else f", silence at the ends cut at {data['trim_db']:g} dB",
        synthetic=data["synthetic"],
        clips={name: int((split["subset"] == name).sum()) for name in SUBSETS},
        actors=", ".join(str(actor) for actor in sorted(split[split["subset"] == "train"]["actor"].unique())),
        protocol=result.protocol,
        meaning=describe_protocol(result.protocol),
        selection=result.selection,
        seed=environment["seed"],
        precision=environment["precision"],
        commit=environment["commit"],
        epochs=config["trainer"]["max_epochs"],
        learning_rate=model["learning_rate"],
        subset=subset,
        warning=warning,
        summary=summarise(result.table),
        openings=result.openings,
    )
    write_text(run / CARD, text)
    return run / CARD
