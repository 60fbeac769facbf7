"""What is said of the clips that a model is scored on: who of them trained it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile

from emolight.data.datamodule import EmotionDataModule
from emolight.run.finish import independence

LABELS = ("sad", "happy", "angry", "calm")


def write_corpus(name: str) -> None:
    """A recording of four speakers in turn, each with four clips of a second, and its table."""
    soundfile.write(f"{name}.wav", np.random.default_rng(len(name)).normal(0, 0.1, 16 * 16000), 16000)
    rows = [(f"{name}.wav", at, at + 1, LABELS[at % 4], f"{at // 4 + 1}", "ab"[at % 2]) for at in range(16)]
    columns = ["path", "start", "end", "emotion", "speaker", "take"]
    pd.DataFrame(rows, columns=columns).to_csv(f"{name}.csv", index=False)


def module(corpus: str | list[str], **changed: Any) -> EmotionDataModule:
    data = EmotionDataModule(corpus, **{"cache_dir": "cache", "splits_dir": "splits", "trim_db": None, **changed})
    data.setup()
    return data


def said(data: EmotionDataModule, subset: str, training: dict[str, Any]) -> str:
    return independence(data, data.clips.iloc[data.subset(subset)], training, "test")


def test_other_parts_of_a_recording_are_other_clips(here: Path) -> None:
    write_corpus("one")
    data = module("one.csv")
    facts = data.training_facts()
    assert said(data, "test", facts) == "speaker-independent: no speaker is in two subsets"
    told = said(data, "train", facts)
    assert told == "not independent, which flatters the figures: 8 of the 8 clips and speakers 3, 4 trained the model"


def test_speakers_are_known_again_in_one_of_several_corpora(here: Path) -> None:
    write_corpus("one")
    write_corpus("other")
    trained = module(["one.csv", "other.csv"], filter={"take": ["a"]})
    names = [name.partition("/")[2] for name in trained.split.speakers("train") if name.startswith("one/")]
    told = said(module("one.csv", protocol="test", filter={"take": ["b"]}), "test", trained.training_facts())
    assert told.startswith(
        f"not independent, which flatters the figures: speakers {', '.join(names)} trained the model"
    )
