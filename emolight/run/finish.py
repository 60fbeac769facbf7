"""What happens when ``fit``, ``validate`` or ``test`` has scored its clips: plots, controls, card, closing table."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from emolight.data.datamodule import EmotionDataModule
from emolight.data.splits import ALL_TEST
from emolight.errors import EmolightError
from emolight.files import write_text
from emolight.models.classifier import EmotionClassifier
from emolight.run.card import write_model_card
from emolight.run.controls import control_tables, score_controls
from emolight.run.folder import CONFIG, SPLIT, Run
from emolight.run.recorder import Recorder
from emolight.run.summary import print_summary


def finish(
    run: Run,
    recorder: Recorder,
    data: EmotionDataModule,
    model: EmotionClassifier,
    command: str,
    checkpoint: str | None,
) -> None:
    """Write what belongs to the predictions that count, and say what came out; EmolightError where there are none."""
    # Lightning's loggers leave an empty one; config.yaml holds the parameters.
    (run.folder / "hparams.yaml").unlink(missing_ok=True)
    subset, table = "test" if command == "test" else "val", recorder.best.table
    if table is None:
        raise EmolightError(
            "The training ended before its first validation, so there is no result.",
            "Give it more time or steps." + (f" Go on: fit --resume {run.folder}" if run.last.is_file() else ""),
        )
    meaning = data.split.meaning
    if command != "fit":
        scored = np.flatnonzero(data.clips["clip_id"].isin(set(table["clip_id"])))
        meaning = independence(data, scored.tolist(), model.training_facts, subset)
        tested = run.split.clips("test") if (run.folder / SPLIT).is_file() else []
        if of_test := set(tested) & set(table["clip_id"]):
            run.count_test(checkpoint or "", len(of_test))
    note = f"{data.corpus_name}, {data.split.label} ({meaning})"
    recorder.draw(subset, note)
    controls: list[dict[str, Any]] = []
    with contextlib.suppress(EmolightError):  # where the split cannot train them
        if subset == "test":
            controls = score_controls(control_tables(data, "test"))
            text = pd.DataFrame(controls).to_csv(index=False, float_format="%.6f", lineterminator="\n")
            write_text(run.folder / f"controls_test{recorder.suffix}.csv", text)
    if not recorder.suffix and command != "validate" and (run.folder / CONFIG).is_file():
        write_model_card(run)
    print_summary(run, recorder, data, subset, note, command, controls)


def independence(data: EmotionDataModule, rows: Sequence[int], training: Mapping[str, Any], subset: str) -> str:
    """One sentence: whether a model knows the speakers and recordings that it is scored on.

    Args:
        data: the data, set up.
        rows: of ``data.clips`` that are scored.
        training: what the checkpoint tells of its training, see
            :meth:`~emolight.data.datamodule.EmotionDataModule.training_facts`.
        subset: ``val`` or ``test``. Validation clips chose the model by themselves; test clips must not have.
    """
    clips = data.clips.iloc[list(rows)]
    speakers, hashes = set(clips["speaker"]), {data.cache.hashes[clip_id] for clip_id in clips["clip_id"]} - {""}
    same, parts = data.corpus_name == training.get("corpus"), []
    for prefix, did in (("", "trained the model"), ("val_", "chose the epoch"))[: 1 + (subset == "test")]:
        known = hashes & set(training.get(f"{prefix}hashes", ()))
        shared = sorted(speakers & set(training.get(f"{prefix}speakers", ()))) if same else []
        what = [f"{len(known)} of the {len(clips)} clips"] if known else []
        what += [f"speaker{'s' if len(shared) > 1 else ''} {', '.join(shared[:8])}"] if shared else []
        parts += [f"{' and '.join(what)} {did}"] if what else []
    if parts:
        return f"not independent, which flatters the figures: {'; '.join(parts)}"
    if not training.get("hashes"):
        return "what the model was trained on is not known"
    if data.split.label == ALL_TEST and not same:
        return f"another corpus than the model was trained on ({training['corpus']}); no clip was in training"
    return data.split.meaning if same else "speaker-independent as far as the names tell"
