from __future__ import annotations

import contextlib
import csv
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.image import imread

from emolight.__main__ import run as emolight
from emolight.data.ravdess import discover
from emolight.errors import EmolightError
from emolight.evaluation.predictions import read_predictions, scores
from emolight.evaluation.statistics import paired_difference
from emolight.inference.disturb import DISTURBANCES
from emolight.inference.recognizer import load
from emolight.inference.robustness import CLEAN, card, draw, hear_disturbed, main, read_held, spread
from tests.inference.conftest import CLASSES

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "mfcc.yaml"


@pytest.fixture(scope="module")
def fitted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that `fit` wrote; tests write nothing into it."""
    folder = tmp_path_factory.mktemp("fitted")
    small = ["--data.channels=[speech]", "--data.duration=0.6", "--data.batch_size=16", "--data.splits_dir=splits"]
    small += ["--trainer.max_epochs=1", "--trainer.limit_train_batches=4", "--trainer.accelerator=cpu"]
    small += ["--data.emotions=[calm,happy,sad]", "--model.features.n_mels=40", "--model.features.n_mfcc=20"]
    with contextlib.chdir(folder):
        emolight(["fit", "--config", str(CONFIG), f"--data.root={corpus}", "--data.cache_dir=cache", *small])
    return folder / "lightning_logs" / "mfcc" / "version_0"


@pytest.fixture
def run(corpus: Path, checkpoint: Path, tmp_path: Path) -> Path:
    """A run folder of a small model with 48 validation clips of 4 actors and 24 test clips of 2."""
    folder = tmp_path / "lightning_logs" / "demo" / "version_3"
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copy(checkpoint, folder / "checkpoints" / "best.ckpt")
    configure(folder, str(corpus))
    clips = discover(corpus).table
    clips = clips[clips["emotion"].isin(CLASSES) & (clips["actor"] <= 8)]
    subsets = clips["actor"].map(lambda actor: "val" if actor <= 4 else "test" if actor <= 6 else "train")
    table = clips[["clip_id", "emotion", "actor"]].assign(subset=subsets, protocol="emobox6 fold 1")
    table.to_csv(folder / "split.csv", index=False)
    return folder


def configure(folder: Path, root: str) -> None:
    values = {"name": "demo", "data": {"root": root, "synthetic": False, "trim_db": 30.0}}
    (folder / "config.yaml").write_text(yaml.safe_dump(values))


def best(run: Path) -> str:
    return str(run / "checkpoints" / "best.ckpt")


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_clean_is_what_the_run_wrote_itself(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([best(fitted), "--output", str(tmp_path)]) == 0
    told = read_predictions(fitted / "predictions_val.csv")
    clean, *rest = table_of(tmp_path / "robustness_val.csv")
    assert float(clean["uar"]) == pytest.approx(scores(told)["uar"], abs=1e-6)
    assert float(clean["wa"]) == pytest.approx(scores(told)["wa"], abs=1e-6)
    assert int(clean["clips"]) == len(told)
    assert {float(clean[f"uar_change{end}"]) for end in ("", "_low", "_high")} == {0.0}
    assert [clean["disturbance"], *(row["disturbance"] for row in rest)] == [one.name for one in DISTURBANCES]
    for row in rest:
        low, change, high = (float(row[f"uar_change{end}"]) for end in ("_low", "", "_high"))
        assert change == pytest.approx(float(row["uar"]) - float(clean["uar"]), abs=2e-6)
        assert low <= change <= high
    assert imread(tmp_path / "robustness_val.png").shape[1] > 800
    assert not (fitted / "robustness").exists()
    assert not list(fitted.glob("*opening*"))
    printed = capsys.readouterr().out
    assert printed.split()[-2:] == [str(tmp_path / f"robustness_val.{kind}") for kind in ("csv", "png")]
    assert "synthetic voices, emobox6 fold 1" in printed
    assert "reverberation, RT60 0.8 s" in printed


def test_clean_predictions_are_those_of_predict_and_disturbed_ones_are_not(run: Path) -> None:
    held = read_held(run, "val")
    held = held._replace(clips=spread(held.clips, 9))
    model = load(best(run))
    tables = hear_disturbed(model, held)
    for clip_id, path in zip(held.clips["clip_id"], held.clips["path"], strict=True):
        told = model.predict_file(held.root / path).probabilities
        row = tables[CLEAN].set_index("clip_id").loc[clip_id]
        assert [row[f"prob_{name}"] for name in CLASSES] == pytest.approx(list(told.values()), abs=1e-5)
    probabilities = {name: table.filter(like="prob_").to_numpy() for name, table in tables.items()}
    same = {name for name, values in probabilities.items() if np.abs(values - probabilities[CLEAN]).max() < 1e-4}
    assert same == {CLEAN, "only the middle second"}  # no clip is longer than a second


def test_change_is_the_paired_difference_by_actor(run: Path) -> None:
    held = read_held(run, "val")
    tables = hear_disturbed(load(best(run)), held._replace(clips=spread(held.clips, 12)))
    found = card(tables).set_index("disturbance")
    name = "white noise, SNR 0 dB"
    change = paired_difference(tables[name], tables[CLEAN])
    row = found.loc[name]
    assert (row["uar_change"], row["uar_change_low"], row["uar_change_high"]) == (change.value, *change.interval)
    assert row["uar"] == scores(tables[name])["uar"]


def test_the_card_is_the_same_every_time_and_lies_in_the_run(run: Path, tmp_path: Path) -> None:
    assert main([best(run), "--limit", "6"]) == 0
    assert main([best(run), "--limit", "6", "--output", str(tmp_path / "again")]) == 0
    first, second = run / "robustness" / "robustness_val.csv", tmp_path / "again" / "robustness_val.csv"
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in (run / "robustness").iterdir()) == [
        "robustness_val.csv",
        "robustness_val.png",
    ]


def test_a_clip_is_disturbed_alike_whatever_clips_are_beside_it(run: Path) -> None:
    held, model = read_held(run, "val"), load(best(run))
    alone, among = (
        hear_disturbed(model, held._replace(clips=clips)) for clips in (held.clips.iloc[2:3], held.clips.iloc[:3])
    )
    for name, table in alone.items():
        pd.testing.assert_frame_equal(table, among[name].iloc[2:].reset_index(drop=True))


def test_limit_is_spread_over_emotions_and_actors(run: Path) -> None:
    clips = read_held(run, "val").clips
    some = spread(clips, 12)
    assert list(some["emotion"].value_counts()) == [4, 4, 4]
    assert some["actor"].nunique() > 2
    assert list(some["clip_id"]) == sorted(set(some["clip_id"]))
    for limit in (len(clips), len(clips) + 5):
        pd.testing.assert_frame_equal(spread(clips, limit), clips)


def test_clips_of_one_actor_have_no_interval(run: Path) -> None:
    held = read_held(run, "val")
    held = held._replace(clips=held.clips[held.clips["actor"] == 1].iloc[::6])
    found = card(hear_disturbed(load(best(run)), held))
    assert found[["uar_change_low", "uar_change_high"]].isna().all(axis=None)
    draw(found, 3, "title").draw_without_rendering()


def test_test_clips_count_as_an_opening(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openings: list[tuple[Path, str, int]] = []
    monkeypatch.setattr("emolight.runs.record_opening", lambda *words: openings.append(words), raising=False)
    main([best(run), "--limit", "3", "--subset", "test"])
    assert openings == [(run, "best.ckpt", 3)]
    assert (run / "robustness" / "robustness_test.csv").is_file()


def test_picture_has_a_labelled_dot_for_each_disturbance(run: Path) -> None:
    rows = [(one.name, one.group, 0.5 - place / 50, 0.5) for place, one in enumerate(DISTURBANCES)]
    found = pd.DataFrame(rows, columns=["disturbance", "group", "uar", "wa"])
    found["uar_change"] = found["uar"] - 0.5
    found = found.assign(uar_change_low=found["uar_change"] - 0.1, uar_change_high=found["uar_change"] + 0.1)
    figure = draw(found, 5, "a run")
    (axis,) = figure.axes
    clean, chance, dots = axis.lines
    assert (set(clean.get_xdata()), clean.get_linestyle()) == ({50}, "--")
    assert (set(chance.get_xdata()), chance.get_linestyle()) == ({20}, ":")
    assert list(dots.get_xdata()) == pytest.approx(list(100 * found["uar"]))
    assert [label.get_text() for label in axis.get_yticklabels()] == list(found["disturbance"])
    segments = [segment[:, 0] for segment in axis.collections[0].get_segments()]
    np.testing.assert_allclose(segments, np.add.outer(100 * found["uar"].to_numpy(), [-10, 10]))
    figure.draw_without_rendering()
    texts = [*axis.texts, *axis.get_yticklabels()]
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 > 0
        assert box.x1 < figure.bbox.x1


def test_checkpoint_outside_a_run_folder(checkpoint: Path) -> None:
    with pytest.raises(EmolightError, match=r"No config\.yaml in the folders above"):
        main([str(checkpoint)])


def test_exported_model_and_missing_checkpoint(run: Path) -> None:
    with pytest.raises(EmolightError, match=r"exported model(.|\n)*best\.ckpt"):
        main([str(run / "model.onnx")])
    with pytest.raises(EmolightError, match="nothing"):
        main([str(run / "checkpoints" / "nothing.ckpt")])


def test_missing_recordings(run: Path, tmp_path: Path, corpus: Path) -> None:
    with pytest.raises(EmolightError, match=r"'nowhere'(.|\n)*--root"):
        main([best(run), "--root", "nowhere"])
    part = tmp_path / "part" / "Actor_01"
    part.mkdir(parents=True)
    for path in sorted(corpus.rglob("*-01.wav")):
        (part / path.name).symlink_to(path)
    with pytest.raises(EmolightError, match=r"36 of 48 recordings(.|\n)*-02(.|\n)*--root"):
        main([best(run), "--root", str(part.parent)])
    assert not (run / "robustness").exists()


def test_split_without_the_clips_is_no_opening(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = pd.read_csv(run / "split.csv")
    split[split["subset"] != "test"].to_csv(run / "split.csv", index=False)
    before = sorted(run.iterdir())
    with pytest.raises(EmolightError, match="has no test clips"):
        main([best(run), "--subset", "test"])
    assert sorted(run.iterdir()) == before


@pytest.mark.parametrize("limit", ["0", "-3"])
def test_limit_without_sense(run: Path, limit: str) -> None:
    with pytest.raises(EmolightError, match=f"--limit is {limit}"):
        main([best(run), "--limit", limit])


def test_damaged_split_and_foreign_emotion(run: Path) -> None:
    held = read_held(run, "val")
    foreign = held._replace(clips=held.clips.assign(emotion="angry"))
    with pytest.raises(EmolightError, match="does not know angry"):
        hear_disturbed(load(best(run)), foreign)
    (run / "split.csv").write_text("clip_id\n1\n")
    with pytest.raises(EmolightError, match="cannot be used"):
        main([best(run)])
