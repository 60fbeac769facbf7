"""What the clips that are scored have to do with those that a model was trained on and chosen by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emolight.data.datamodule import EmotionDataModule
from emolight.data.splits import ALL_TEST


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
    same = data.corpus_name == training.get("corpus")
    parts = []
    # Validation clips are what chooses the epoch; only test clips must not have.
    for prefix, did in (("", "trained the model"), ("val_", "chose the epoch"))[: 1 + (subset == "test")]:
        known = hashes & set(training.get(f"{prefix}hashes", ()))
        shared = sorted(speakers & set(training.get(f"{prefix}speakers", ()))) if same else []
        if known or shared:
            what = [f"{len(known)} of the {len(clips)} clips"] if known else []
            what += [f"speaker{'s' if len(shared) > 1 else ''} {', '.join(shared[:8])}"] if shared else []
            parts.append(f"{' and '.join(what)} {did}")
    if parts:
        return f"not independent, which flatters the figures: {'; '.join(parts)}"
    if not training.get("hashes"):
        return "what the model was trained on is not known"
    if data.split.label == ALL_TEST and not same:
        return f"another corpus than the model was trained on ({training['corpus']}); no clip was in training"
    return data.split.meaning if same else "speaker-independent as far as the names tell"
