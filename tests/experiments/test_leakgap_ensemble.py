"""The leak gap and the ensemble, on predictions made up for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from emolight.__main__ import run
from emolight.data.corpora import Synthetic
from emolight.errors import EmolightError
from emolight.evaluation.predictions import (
    PREFIX,
    class_names,
    predictions_table,
    read_predictions,
    scores,
)
from emolight.evaluation.statistics import Difference, Interval
from emolight.experiments import leakgap
from emolight.experiments.ensemble import best_weights, gates, mean_of, member_text
from emolight.experiments.leakgap import sentence
from emolight.experiments.results import Result, read_result
from emolight.experiments.summary import write_crossval
from emolight.files import write_table
from emolight.run.folder import Run
from tests.report.made import make_crossval
from tests.small import CONFIGS, options

CLASSES = ["calm", "happy", "sad"]
SURE_OF_THE_FIRST = [0.8, 0.05, 0.05, 0.05, 0.05]


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


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.02, 0.2, "flatters this recipe, so its figure says little about new voices: +10.0 points of UAR"),
        (-0.1, 0.2, "No leak is seen"),
        (-0.3, -0.1, "Seek a mistake"),
    ],
)
def test_the_sentence_says_what_the_interval_allows(low: float, high: float, text: str) -> None:
    value = 0.1 if high > 0 else -0.2
    assert text in sentence(Difference(value, Interval(low, high)), "emobox6", 320)


def test_leakgap_runs_both_protocols_and_writes_what_it_found(
    corpus: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def pretend(config: dict[str, Any], data: Any, folder: Path, *rest: Any, **more: Any) -> Result:
        asked.append(data.split.protocol)
        random = asked[-1] == "random"
        table = predictions(0.9, 1).sample(80, random_state=1) if random else predictions(0.4, 2)
        return read_result(folder_of(folder, table))

    monkeypatch.setattr(leakgap, "cross_validate", pretend)
    config = ["--config", str(CONFIGS / "mfcc.yaml"), *options(corpus)]
    assert run(["leakgap", *config, "--protocol", "luna5"]) == 0
    assert asked == ["random", "luna5"]
    place = here / "lightning_logs" / "mfcc"
    about = json.loads((place / "leakgap_luna5.json").read_text())
    rows = pd.read_csv(place / "leakgap_luna5.csv").set_index("split")
    assert rows["clips"].tolist()[:3] == [80, 144, 80]
    same = predictions(0.4, 2)[
        lambda table: table["clip_id"].isin(predictions(0.9, 1).sample(80, random_state=1)["clip_id"])
    ]
    assert rows["uar"]["luna5, same clips"] == pytest.approx(scores(same)["uar"], abs=1e-5)
    assert about["gap"]["low"] < about["gap"]["uar"] < about["gap"]["high"]
    assert about["gap"]["uar"] == pytest.approx(rows["uar"]["random"] - rows["uar"]["luna5, same clips"], abs=1e-5)
    assert (place / "leakgap_luna5.png").is_file()
    printed = capsys.readouterr().out
    assert "The random split flatters this recipe" in about["sentence"]
    assert about["sentence"] in printed
    with pytest.raises(EmolightError, match="--protocol speakers5"):
        run(["leakgap", *config, "--data.speakers=unknown", "--data.splits_dir=others"])
    few = SimpleNamespace(table=predictions(0.5, speakers=3))
    monkeypatch.setattr(leakgap, "cross_validate", lambda *_, **__: few)
    assert run(["leakgap", *config, "--name", "few"]) == 0
    assert "note: From only 3 speakers" in capsys.readouterr().out


def test_leakgap_refuses_test_clips_of_which_the_random_split_holds_out_none(corpus: Path, here: Path) -> None:
    clips = Synthetic().find(corpus).table[["clip_id", "path", "emotion", "speaker"]]
    clips["subset"] = np.where(clips["speaker"] == "02", "val", "train")
    drawn = np.random.default_rng(0).permutation(len(clips))[len(clips) // 5 :]  # for training
    clips.loc[drawn[0], ["speaker", "subset"]] = ["another", "test"]
    clips.to_csv("mine.csv", index=False)
    mine = options(corpus, **{"data.corpus": "mine.csv", "data.task": "null"})
    with pytest.raises(EmolightError, match="No test clip of protocol 'subset'"):
        run(["leakgap", "--config", str(CONFIGS / "mfcc.yaml"), *mine])


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
    assert [one["folder"] for one in result.facts["members"]] == [f"../../m{n}/crossval_emobox6" for n in range(3)]
    assert (result.speaker_independent, result.fingerprint["corpus"]) == (True, "toys")
    assert result.facts["seconds"] == 180
    assert result.openings == 18
    single = max(scores(read_result(folder).table)["uar"] for folder in folders)
    assert scores(result.table)["uar"] > single
    printed = capsys.readouterr().out
    assert "144 test clips of 12 speakers of 24" in printed
    assert "was scored 18 times in all" in printed
    before = (folders[0] / "crossval.json").read_bytes()
    for name in ("m0", "m2"):  # a member, and another result
        with pytest.raises(EmolightError, match=r"is a result already, which the ensemble would replace\."):
            run(["ensemble", str(folders[0]), str(folders[1]), "--name", name])
    assert (folders[0] / "crossval.json").read_bytes() == before
    assert run(["ensemble", *map(str, folders)]) == 0  # the same one again
    assert run(["ensemble", str(result.folder), str(folders[0]), "--name", "of_it"]) == 0
    upper = here / "lightning_logs" / "of_it" / "crossval_emobox6"
    assert read_result(upper).openings == 18  # the first is in it twice
    for weights in ("equal", "best"):
        with pytest.raises(EmolightError, match=f"received --weights {weights}"):
            run(["ensemble", *map(str, folders), "--by", str(result.folder), "--weights", weights])
    for words in ([upper, folders[1]], [*folders, "--by", result.folder]):  # it would be a part of itself
        with pytest.raises(EmolightError, match=r"is a result already, which the ensemble would replace\."):
            run(["ensemble", *map(str, words)])
    (folders[0] / "summary.json").write_text("{")
    with pytest.raises(EmolightError, match=r"summary\.json is damaged\.\nThe command that made it writes it again"):
        run(["ensemble", *map(str, folders)])


def test_ensemble_refuses_what_does_not_belong_together(here: Path) -> None:
    one = folder_of(here / "lightning_logs" / "a" / "c", predictions(0.7, 1))
    other = folder_of(here / "lightning_logs" / "b" / "c", predictions(0.7, 2), protocol="luna5")
    with pytest.raises(EmolightError, match="has protocol 'luna5'"):
        run(["ensemble", str(one), str(other)])
    with pytest.raises(EmolightError, match="needs two results"):
        run(["ensemble", str(one)])
    short = folder_of(here / "lightning_logs" / "s" / "c", predictions(0.7, 3, clips=9))
    with pytest.raises(EmolightError, match=r"different classes, clips, folds or seeds(.|\n)*one task and protocol"):
        run(["ensemble", str(one), str(short)])
    again = folder_of(here / "lightning_logs" / "again" / "c", predictions(0.7, 1))
    with pytest.raises(EmolightError, match="no validation clips beside those that are scored, or no runs"):
        run(["ensemble", str(one), str(again), "--weights", "validation"])
    with pytest.raises(EmolightError, match="is named twice"):
        run(["ensemble", str(one), f"{one}/../c"])
    with pytest.raises(EmolightError, match="of member 3"):
        mean_of([predictions(0.5), predictions(0.5), predictions(0.5).assign(fold=2)])


def test_a_member_of_one_seed_joins_every_seed_of_the_others() -> None:
    seeds = pd.concat([predictions(0.6, 1), predictions(0.6, 2).assign(seed=1)], ignore_index=True)
    both = mean_of([seeds, predictions(0.6, 3)])
    columns = [PREFIX + name for name in CLASSES]
    for seed in (0, 1):
        own = seeds[seeds["seed"] == seed].sort_values("clip_id")
        expected = (own[columns].to_numpy() + predictions(0.6, 3)[columns].to_numpy()) / 2
        assert np.allclose(both[both["seed"] == seed][columns], expected)


def mixed(share: float, seed: int, number: int = 3000) -> list[pd.DataFrame]:
    """Two members that say random things, and labels drawn by their mean, in which the first has a ``share``."""
    random = np.random.default_rng(seed)
    said = random.dirichlet(np.ones(3) * 0.5, (2, number))
    chances = (share * said[0] + (1 - share) * said[1]).cumsum(axis=1)
    labels = np.array(CLASSES)[(random.random((number, 1)) > chances).sum(axis=1).clip(max=2)]
    clips = pd.DataFrame({"clip_id": [f"{n:04d}" for n in range(number)], "speaker": "1", "emotion": labels})
    return [predictions_table(clips, CLASSES, one) for one in said]


@pytest.mark.parametrize("share", [0.8, 0.5, 0.0])
def test_the_best_weights_are_those_that_made_the_labels(share: float) -> None:
    ((one, other),) = best_weights(mixed(share, 1), prior=0)
    assert one == pytest.approx(share, abs=0.06)
    assert min(one, other) >= 0
    assert one + other == pytest.approx(1)
    (drawn,) = best_weights(mixed(share, 1))
    assert abs(drawn[0] - 0.5) <= abs(one - 0.5)  # towards equal weights


def gate_of(table: pd.DataFrame, sung: np.ndarray, sure: float = 0.97) -> pd.DataFrame:
    """What a network says that hears whether clips are sung."""
    clips = table[["clip_id", "speaker"]].assign(emotion=np.where(sung, "song", "speech"))
    told = np.where(sung, sure, 1 - sure)
    return predictions_table(clips, ["song", "speech"], np.stack([told, 1 - told], axis=1))


def test_weights_by_what_another_network_hears_are_found_for_each_of_its_labels() -> None:
    """Of sung clips the first member made the labels, of spoken ones the second: for all together they are equal."""
    song, speech = mixed(0.9, 1), mixed(0.1, 2)
    tables = [
        pd.concat([one, two.assign(clip_id="s" + two["clip_id"])], ignore_index=True)
        for one, two in zip(song, speech, strict=True)
    ]
    sung = ~tables[0]["clip_id"].str.startswith("s").to_numpy()
    gate = gate_of(tables[0], sung).assign(fold=0)
    joint = [table.assign(fold=0, seed=0) for table in tables]
    weights = best_weights(joint, gate, prior=0)
    assert weights == pytest.approx(np.array([[0.9, 0.1], [0.1, 0.9]]), abs=0.08)
    assert best_weights(joint, prior=0) == pytest.approx(np.array([[0.5, 0.5]]), abs=0.05)
    mean = mean_of(joint, {0: weights}, gate)
    columns = [PREFIX + name for name in CLASSES]
    for clip in ("0007", "s0007"):
        one, two = (table.set_index("clip_id").loc[clip, columns].to_numpy(float) for table in joint)
        own = (0.97, 0.03) @ weights if clip == "0007" else (0.03, 0.97) @ weights
        assert mean.set_index("clip_id").loc[clip, columns].to_numpy(float) == pytest.approx(
            own[0] * one + own[1] * two
        )
    seeds = [gate, gate_of(tables[0], sung, 0.57).assign(fold=0)]  # of which a model is the mean
    told = gates(pd.concat([one.assign(seed=seed) for seed, one in enumerate(seeds)]), joint[0])
    assert told[sung] == pytest.approx(np.tile([0.77, 0.23], (sung.sum(), 1)))
    with pytest.raises(EmolightError, match=r"of other clips or folds(.|\n)*data\.split_csv"):
        mean_of(joint, {0: weights}, gate.iloc[1:])


def test_weights_come_from_each_folds_validation_clips_and_are_named(
    here: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In fold 1 the first member is good on validation speakers and bad on test speakers; in fold 2 the reverse."""
    folders = [
        make_crossval(here / "lightning_logs" / name / "crossval_emobox6", corpus, (1, 2), (0, 1)) for name in "ab"
    ]
    for place, folder in enumerate(folders):
        for path in folder.glob("*/predictions_*.csv"):
            fold = int(path.parent.name.split("_")[1])
            good = (place == fold - 1) == (path.stem == "predictions_val")
            table = read_predictions(path)
            told = np.eye(5)[pd.Categorical(table["label"], class_names(table)).codes]
            table[[PREFIX + name for name in class_names(table)]] = 0.6 * told + 0.08 if good else SURE_OF_THE_FIRST
            write_table(path, table.assign(prediction=table["label"] if good else class_names(table)[0]))
        keys = [(fold, seed) for fold in (1, 2) for seed in (0, 1)]
        parts = [Run.open(folder / f"fold_{f}_seed_{s}").predictions("test").assign(fold=f, seed=s) for f, s in keys]
        write_table(folder / "predictions.csv", pd.concat(parts))
    assert run(["ensemble", *map(str, folders), "--weights", "validation", "--name", "fused"]) == 0
    folder = here / "lightning_logs" / "fused" / "crossval_emobox6"
    result = read_result(folder)
    weights = {one["name"]: {fold: own for fold, (own,) in one["folds"].items()} for one in result.facts["members"]}
    assert weights["a emobox6"] == pytest.approx({"1": 0.89, "2": 0.11}, abs=0.01)
    assert weights["b emobox6"] == pytest.approx({"1": 0.11, "2": 0.89}, abs=0.01)
    # Test clips had no say: with weights of theirs every clip would be right.
    assert scores(result.table)["uar"] == pytest.approx(0.2)
    assert pd.read_csv(folder / "tables" / "members.csv")["weight"].tolist() == pytest.approx([0.5, 0.5], abs=0.01)
    assert run(["ensemble", *map(str, folders), "--weights", "best", "--name", "one"]) == 0
    one = read_result(here / "lightning_logs" / "one" / "crossval_emobox6")
    assert [member["folds"] for member in one.facts["members"]] == [{"1": [1], "2": [0]}, {"1": [0], "2": [1]}]
    assert scores(one.table)["uar"] == pytest.approx(0.2)
    printed = capsys.readouterr().out
    assert "a emobox6, weight 0.50 (fold 1 0.89, fold 2 0.11)" in printed
    assert "chosen on each fold's validation clips" in printed
    assert run(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    member = result.facts["members"][0]
    assert member_text(member) == member_text({**member, "folds": weights["a emobox6"]})  # as it once was written
    assert "a emobox6, weight 0.50 (fold 1 0.89, fold 2 0.11); b emobox6" in page
    assert "Weights: chosen on each fold&#39;s validation clips." in page
    for path in folders[0].glob("fold_2_*"):
        shutil.rmtree(path)
    with pytest.raises(EmolightError, match="a emobox6 lacks the runs of fold 2, whose validation clips weigh it"):
        run(["ensemble", *map(str, folders), "--weights", "validation", "--name", "fused"])
