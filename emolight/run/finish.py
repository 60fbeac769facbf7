"""What happens when ``fit``, ``validate`` or ``test`` has scored its clips: plots, controls, card, closing table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from emolight.data.datamodule import EmotionDataModule
from emolight.errors import EmolightError
from emolight.files import atomic_write
from emolight.models.classifier import EmotionClassifier
from emolight.run.card import write_model_card
from emolight.run.controls import control_tables, score_controls
from emolight.run.folder import CONFIG, SPLIT, Run
from emolight.run.recorder import Recorder
from emolight.run.scoring import independence
from emolight.run.summary import print_summary

FEW = 1000
"""Clips of a corpus for which ``fit`` shows the controls, too."""


def finish(
    run: Run,
    recorder: Recorder,
    data: EmotionDataModule,
    model: EmotionClassifier,
    command: str,
    checkpoint: str | None,
) -> None:
    """Write what belongs to the predictions that count, and say what came out.

    Raises:
        EmolightError: there are none.
    """
    subset = "test" if command == "test" else "val"
    # Lightning's loggers leave an empty one; config.yaml holds the parameters.
    (run.folder / "hparams.yaml").unlink(missing_ok=True)
    table = recorder.best.table
    if table is None:
        raise EmolightError(
            "The training ended before its first validation, so there is no result.",
            "Give it more time or steps." + (f" Go on: fit --resume {run.folder}" if run.last.is_file() else ""),
        )
    meaning = data.split.meaning
    controls: list[dict[str, Any]] = []
    if command != "fit":
        scored = np.flatnonzero(data.clips["clip_id"].isin(set(table["clip_id"])))
        meaning = independence(data, scored.tolist(), model.training_facts, subset)
        tested = run.split.clips("test") if (run.folder / SPLIT).is_file() else []
        if of_test := set(tested) & set(table["clip_id"]):
            run.count_test(checkpoint or "", len(of_test))
    note = f"{data.corpus_name}, {data.split.label} ({meaning})"
    recorder.draw(subset, note)
    if subset == "test" or (command == "fit" and _few(run, data)):
        controls = _controls(run, recorder, data, subset)
    if not recorder.suffix and command != "validate" and (run.folder / CONFIG).is_file():
        write_model_card(run)
    print_summary(run, recorder, data, subset, note, command, controls)
    for text in data.selection.notes if command != "fit" else ():
        print(f"note:  {text}")


def _few(run: Run, data: EmotionDataModule) -> bool:
    """Whether the controls cost a fit seconds only, and the fit was no mere try."""
    return len(data.clips) <= FEW and run.config["trainer"].get("limit_train_batches") is None


def _controls(run: Run, recorder: Recorder, data: EmotionDataModule, subset: str) -> list[dict[str, Any]]:
    """What simple predictors score on the same clips; none where the split cannot train them."""
    try:
        scored = score_controls(control_tables(data, subset))
    except EmolightError:
        return []
    with atomic_write(run.folder / f"controls_{subset}{recorder.suffix}.csv") as part:
        pd.DataFrame(scored).to_csv(part, index=False, float_format="%.6f", lineterminator="\n")
    return scored
