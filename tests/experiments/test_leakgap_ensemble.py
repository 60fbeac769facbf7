"""The leak gap and the ensemble, on predictions made up for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from emolight.__main__ import run
from emolight.errors import EmolightError
from emolight.evaluation.predictions import PREFIX, scores
from emolight.evaluation.statistics import Difference, Interval
from emolight.experiments import leakgap
from emolight.experiments.ensemble import mean_of
from emolight.experiments.leakgap import leak_gap, sentence
from emolight.experiments.results import read_result
from emolight.experiments.summary import write_crossval
from tests.small import CONFIGS, options

CLASSES = ["calm", "happy", "sad"]


def predictions(right: float, seed: int = 0, speakers: int = 12, clips: int = 12, **columns: Any) -> pd.DataFrame:
    """Predictions of which a share is right, at random."""
    random = np.random.default_rng(seed)
    rows = []
    for speaker in range(1, speakers + 1):
        for clip in range(clips):
            label = CLASSES[clip % 3]
            told = label if random.random() < right else CLASSES[(clip + 1) % 3]
            rows.append(
                {
                    "clip_id": f"{speaker:02d}-{clip:02d}",
                    "speaker": f"{speaker:02d}",
                    "sex": "male" if speaker % 2 else "female",
                    "label": label,
                    "prediction": told,
                    **{PREFIX + name: 0.8 if name == told else 0.1 for name in CLASSES},
                }
            )
    return pd.DataFrame(rows).assign(fold=1, seed=0, **columns)


def folder_of(folder: Path, table: pd.DataFrame, **changed: Any) -> Path:
    facts = {"commit": None, "precision": "32-true", "root": "nowhere", "speakers": 24, "meaning": "of a toy"}
    about = {
        "name": folder.name,
        "kind": "crossval",
        "subset": "test",
        "corpus": "toys",
        "protocol": "emobox6",
        "task": "toy",
        "emotions": CLASSES,
        "groups": ["sex"],
        "selection": "last epoch",
        "split": "0" * 64,
        "speaker_independent": True,
        "folds": [1],
        "seeds": [0],
        "runs": [],
        "facts": {"seconds": 60, "features": {"class_path": "a.features.MFCC"}, "network": "ResNet18", **facts},
        **changed,
    }
    write_crossval(folder, about, table, [])
    return folder


def test_leak_gap_is_the_difference_on_the_same_clips() -> None:
    held_out = predictions(0.5, seed=1)
    random = predictions(0.9, seed=2).sample(60, random_state=0)
    gap = leak_gap(random, held_out)
    same = held_out[held_out["clip_id"].isin(random["clip_id"])]
    assert gap.value == pytest.approx(scores(random)["uar"] - scores(same)["uar"])
    assert gap.interval.low < gap.value < gap.interval.high


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.02, 0.2, "flatters this recipe by 10.0 points"),
        (-0.1, 0.2, "No leak is seen"),
        (-0.3, -0.1, "seek a mistake"),
    ],
)
def test_the_sentence_says_what_the_interval_allows(low: float, high: float, text: str) -> None:
    value = 0.1 if high > 0 else -0.2
    assert text in sentence(Difference(value, Interval(low, high)), "emobox6", 320)


def test_leakgap_runs_both_protocols_and_writes_what_it_found(
    corpus: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def pretend(config: dict[str, Any], data: Any, folder: Path, *rest: Any, **more: Any) -> None:
        asked.append(data.split.protocol)
        random = asked[-1] == "random"
        folder_of(folder, predictions(0.9, 1).sample(80, random_state=1) if random else predictions(0.4, 2))

    monkeypatch.setattr(leakgap, "cross_validate", pretend)
    config = ["--config", str(CONFIGS / "mfcc.yaml"), *options(corpus)]
    assert run(["leakgap", *config, "--protocol", "luna5"]) == 0
    assert asked == ["random", "luna5"]
    place = here / "lightning_logs" / "mfcc"
    about = json.loads((place / "leakgap_luna5.json").read_text())
    rows = pd.read_csv(place / "leakgap_luna5.csv").set_index("split")
    assert rows["clips"].tolist()[:3] == [80, 144, 80]
    assert about["gap"]["uar"] == pytest.approx(rows["uar"]["random"] - rows["uar"]["luna5, same clips"], abs=1e-5)
    assert (place / "leakgap_luna5.png").is_file()
    printed = capsys.readouterr().out
    assert "The random split flatters this recipe" in about["sentence"]
    assert about["sentence"] in printed
    with pytest.raises(EmolightError, match="--protocol speakers5"):
        run(["leakgap", *config, "--data.speakers=unknown", "--data.splits_dir=others"])


def test_ensemble_is_the_mean_of_probabilities() -> None:
    one, other = predictions(0.6, 1), predictions(0.6, 2)
    both = mean_of([one, other])
    columns = [PREFIX + name for name in CLASSES]
    expected = (one[columns].to_numpy() + other[columns].to_numpy()) / 2
    assert np.allclose(both[columns], expected)
    assert (both["prediction"] == np.array(CLASSES)[expected.argmax(axis=1)]).all()
    assert (both["label"] == one["label"]).all()
    assert {"fold", "seed"} <= set(both)


def test_ensemble_command_writes_a_result(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [
        folder_of(here / "lightning_logs" / f"m{n}" / "crossval_emobox6", predictions(0.7, n), openings=6)
        for n in range(3)
    ]
    assert run(["ensemble", *map(str, folders)]) == 0
    result = read_result(here / "lightning_logs" / "ensemble" / "crossval_emobox6")
    assert result.kind == "ensemble"
    assert result.facts["features"] == "MFCC + MFCC + MFCC"
    assert [one["folder"] for one in result.facts["members"]] == [str(folder) for folder in folders]
    assert (result.speaker_independent, result.fingerprint["corpus"]) == (True, "toys")
    assert result.facts["seconds"] == 180
    assert result.openings == 18
    single = max(scores(read_result(folder).table)["uar"] for folder in folders)
    assert scores(result.table)["uar"] > single
    printed = capsys.readouterr().out
    assert "144 test clips of 12 speakers of 24" in printed
    assert "was scored 18 times in all" in printed


def test_ensemble_refuses_what_does_not_belong_together(here: Path) -> None:
    one = folder_of(here / "lightning_logs" / "a" / "c", predictions(0.7, 1))
    other = folder_of(here / "lightning_logs" / "b" / "c", predictions(0.7, 2), protocol="luna5")
    with pytest.raises(EmolightError, match="has protocol 'luna5'"):
        run(["ensemble", str(one), str(other)])
    with pytest.raises(EmolightError, match="needs two results"):
        run(["ensemble", str(one)])
    with pytest.raises(EmolightError, match="different clips or seeds"):
        mean_of([predictions(0.5), predictions(0.5, clips=9)])
