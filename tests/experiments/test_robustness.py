"""The robustness card of a run that `fit` made on a corpus with a damaged clip."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from emolight.__main__ import run as emolight
from emolight.errors import EmolightError
from emolight.evaluation.predictions import read_predictions, scores
from emolight.evaluation.statistics import paired_difference
from emolight.experiments import robustness
from emolight.experiments.disturb import DISTURBANCES
from emolight.experiments.robustness import CLEAN, card, card_figure, main, score_disturbed, spread
from emolight.inference.recognizer import Recognizer, load
from emolight.run.folder import Run
from tests.small import CONFIGS, options

DAMAGED = "03-01-03-01-01-01-04"
"""A validation clip of emobox6 fold 1."""


@pytest.fixture(scope="module")
def fitted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 79 validation clips; tests write nothing into it."""
    folder = tmp_path_factory.mktemp("fitted")
    shutil.copytree(corpus, folder / "clips")
    damaged = next((folder / "clips").rglob(f"{DAMAGED}.wav"))
    damaged.write_bytes(bytes(damaged.stat().st_size))
    task = {"data.corpus": "RAVDESS", "data.on_bad_clip": "skip", "data.emotions": "[calm, happy, sad]"}
    # The card is computed in float32; in bfloat16 a clip between two emotions may fall to the other side.
    task["trainer.precision"] = "32-true"
    words = options(folder / "clips", **task)
    with contextlib.chdir(folder):
        emolight(["fit", "--config", str(CONFIGS / "mfcc.yaml"), *words])
    return folder / "lightning_logs" / "mfcc" / "version_0"


@pytest.fixture
def run(fitted: Path, tmp_path: Path) -> Path:
    """A copy to write into."""
    return Path(shutil.copytree(fitted, tmp_path / "lightning_logs" / "mfcc" / "version_0"))


@pytest.fixture(scope="module")
def model(fitted: Path) -> Recognizer:
    return load(fitted)


@pytest.fixture(scope="module")
def clips(fitted: Path) -> pd.DataFrame:
    data = Run.open(fitted).data()
    data.setup()
    return data.clips.iloc[data.subset("val")].reset_index(drop=True)


def test_clean_is_what_the_run_wrote_itself(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "--output", str(tmp_path)]) == 0
    told = read_predictions(run / "predictions_val.csv")
    assert DAMAGED not in set(told["clip_id"])
    rows = pd.read_csv(tmp_path / "robustness_val.csv")
    clean = rows.iloc[0]
    assert clean["clips"] == len(told) == 47
    assert clean["uar"] == pytest.approx(scores(told)["uar"], abs=1e-6)
    assert clean["accuracy"] == pytest.approx(scores(told)["accuracy"], abs=1e-6)
    assert list(rows["disturbance"]) == [one.name for one in DISTURBANCES]
    assert np.allclose(rows["uar_change"], rows["uar"] - clean["uar"], atol=2e-6)
    assert (rows["uar_change_low"] <= rows["uar_change"] + 1e-6).all()
    assert imread(tmp_path / "robustness_val.png").shape[1] > 800
    assert not (run / "robustness").exists()
    assert Run.open(run).openings == 0
    printed = capsys.readouterr().out
    assert printed.split()[-2:] == [str(tmp_path / f"robustness_val.{kind}") for kind in ("csv", "png")]
    assert "emobox6 fold 1 (speaker-independent" in printed
    assert "From only 4 speakers" in printed


def test_predictions_are_those_of_predict_and_of_each_clip_alone(model: Recognizer, clips: pd.DataFrame) -> None:
    some = spread(clips, 6)
    tables = score_disturbed(model, some)
    for clip_id, path in zip(some["clip_id"], some["file"], strict=True):
        told = model.predict_file(path).probabilities
        row = tables[CLEAN].set_index("clip_id").loc[clip_id]
        assert [row[f"prob_{name}"] for name in model.classes] == pytest.approx(list(told.values()), abs=1e-5)
    values = {name: table.filter(like="prob_").to_numpy() for name, table in tables.items()}
    same = {name for name, rows in values.items() if np.abs(rows - values[CLEAN]).max() < 1e-5}
    assert same == {CLEAN, "only the middle second"}  # no clip is longer than a second
    for name, table in score_disturbed(model, some.iloc[2:3]).items():
        among = tables[name].iloc[2:3].reset_index(drop=True)
        pd.testing.assert_frame_equal(table, among, check_exact=False, atol=1e-5)
    rows = card(tables).set_index("disturbance")
    name = "white noise, SNR 0 dB"
    change, row = paired_difference(tables[name], tables[CLEAN]), rows.loc[name]
    assert (row["uar_change"], row["uar_change_low"], row["uar_change_high"]) == (change.value, *change.interval)


def test_limit_is_spread_over_emotions_and_speakers_and_the_card_is_the_same_every_time(
    run: Path, tmp_path: Path, clips: pd.DataFrame
) -> None:
    some = spread(clips, 12)
    assert list(some["emotion"].value_counts()) == [4, 4, 4]
    assert some["speaker"].nunique() > 2
    pd.testing.assert_frame_equal(spread(clips, len(clips) + 5), clips)
    checkpoint = str(run / "checkpoints" / "best.ckpt")
    assert main([checkpoint, "--limit", "6"]) == 0
    assert main([checkpoint, "--limit", "6", "--output", str(tmp_path / "again")]) == 0
    first, second = run / "robustness" / "robustness_val.csv", tmp_path / "again" / "robustness_val.csv"
    assert first.read_bytes() == second.read_bytes()


def test_test_clips_are_counted_when_they_were_scored(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: object) -> None:
        raise EmolightError("A recording cannot be used.")

    with monkeypatch.context() as patch:
        patch.setattr(robustness, "score_disturbed", damaged)
        with pytest.raises(EmolightError, match="cannot be used"):
            main([str(run), "--limit", "3", "--subset", "test"])
    assert Run.open(run).openings == 0
    main([str(run), "--limit", "3", "--subset", "test"])
    assert Run.open(run).openings == 1
    assert (run / "robustness" / "robustness_test.csv").is_file()


@pytest.mark.drawn
def test_picture_has_a_labelled_dot_for_each_disturbance(model: Recognizer, clips: pd.DataFrame) -> None:
    rows = [(one.name, one.group, 0.5 - place / 50, 0.5) for place, one in enumerate(DISTURBANCES)]
    found = pd.DataFrame(rows, columns=["disturbance", "group", "uar", "accuracy"])
    found["uar_change"] = found["uar"] - 0.5
    found = found.assign(uar_change_low=found["uar_change"] - 0.1, uar_change_high=found["uar_change"] + 0.1)
    figure = card_figure(found, 5, "a run")
    (axis,) = figure.axes
    clean, chance, dots = axis.lines
    assert (set(clean.get_xdata()), set(chance.get_xdata())) == ({50}, {20})
    assert list(dots.get_xdata()) == pytest.approx(list(100 * found["uar"]))
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels[:2] == [found["disturbance"][0], f"{found['disturbance'][1]}  -2.0"]
    segments = [segment[:, 0] for segment in axis.collections[0].get_segments()]
    np.testing.assert_allclose(segments, np.add.outer(100 * found["uar"].to_numpy(), [-10, 10]))
    figure.draw_without_rendering()
    for text in axis.get_yticklabels():
        box = text.get_window_extent()
        assert box.x0 > 0
        assert box.x1 < figure.bbox.x1
    single = card(score_disturbed(model, clips[clips["speaker"] == "04"].iloc[::4]))
    assert single[["uar_change_low", "uar_change_high"]].isna().all(axis=None)
    card_figure(single, 3, "title").draw_without_rendering()


def test_mistakes(run: Path, tmp_path: Path, model: Recognizer, clips: pd.DataFrame) -> None:
    alone = tmp_path / "alone.ckpt"
    shutil.copy(run / "checkpoints" / "best.ckpt", alone)
    for words, message in (
        ([str(alone)], r"No config\.yaml"),
        ([str(run / "model.onnx")], "model.onnx"),
        ([str(run / "checkpoints" / "nothing.ckpt")], "nothing"),
        ([str(run), "--root", "nowhere"], "nowhere"),
        ([str(run), "--limit", "0"], "--limit is 0"),
    ):
        with pytest.raises(EmolightError, match=message):
            main(words)
    with pytest.raises(EmolightError, match="does not know angry"):
        score_disturbed(model, clips.assign(emotion="angry"))
    split = pd.read_csv(run / "split.csv", dtype=str)
    split[split["subset"] != "test"].to_csv(run / "split.csv", index=False)
    with pytest.raises(EmolightError, match="has no test clips"):
        main([str(run), "--subset", "test"])
    assert not (run / "robustness").exists()
    assert Run.open(run).openings == 0
