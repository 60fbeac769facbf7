"""Every place that shows a run's result shows the same model, and says what its figures mean."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from emolight.__main__ import run
from emolight.errors import EmolightError
from emolight.evaluation.predictions import read_predictions, scores
from emolight.run.folder import Run
from emolight.run.recorder import Best, Recorder
from tests.small import CONFIGS, options

EMA = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.5}}
SWA = {"class_path": "StochasticWeightAveraging", "init_args": {"swa_lrs": 0.01, "swa_epoch_start": 2}}
WAYS: dict[str, dict[str, Any]] = {
    "sanity check first, then several validations an epoch": {
        **{"trainer.num_sanity_val_steps": 2, "trainer.val_check_interval": 1, "trainer.limit_train_batches": 3}
    },
    "the last one under a random split": {"data.protocol": "random", "trainer.max_epochs": 3},
    "averaged weights": {"trainer.callbacks": json.dumps([EMA])},
    "averaged weights of the last epochs": {
        "trainer.callbacks": json.dumps([SWA]),
        "trainer.max_epochs": 3,
    },
    "every second epoch": {"trainer.check_val_every_n_epoch": 2},
    "half of the validation batches": {"trainer.limit_val_batches": 0.5},
}


def fit(corpus: Path, **changed: Any) -> Run:
    """A run in this folder."""
    run(["fit", "--config", str(CONFIGS / "mfcc.yaml"), *options(corpus, **{"trainer.max_epochs": 2, **changed})])
    return Run.open("lightning_logs/mfcc/version_0")


@pytest.mark.parametrize("changed", WAYS.values(), ids=list(WAYS))
def test_the_table_is_what_the_best_checkpoint_gives(
    changed: dict[str, Any], corpus: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = fit(corpus, **changed)
    if "limit_val_batches" in "".join(changed):
        said = capsys.readouterr().out
        assert "note:  only 32 of 80 validation clips were scored, by trainer.limit_val_batches" in said
        assert "control" not in said
        assert not (made.folder / "controls_val.csv").exists()
    part = [f"--{name}={value}" for name, value in changed.items() if name.endswith("limit_val_batches")]
    assert run(["validate", "--ckpt_path", str(made.folder), *part]) == 0
    table = made.predictions()
    pd.testing.assert_frame_equal(made.predictions(suffix="_best"), table, rtol=0, atol=1e-6)
    uar = scores(table)["uar"]
    logged = pd.read_csv(made.folder / "metrics.csv")["val/uar"].dropna().tolist()
    assert uar == pytest.approx(logged[-1] if "data.protocol" in changed else max(logged), abs=1e-6)
    # Everything else tells of the same model.
    best = made.environment["best_metrics"]
    events = EventAccumulator(str(made.folder))
    events.Reload()
    shown = {name: events.Scalars(f"best/{name}")[-1].value for name in ("uar", "accuracy", "loss")}
    assert shown == pytest.approx({name: best[f"val/{name}"] for name in shown})
    assert shown["uar"] == pytest.approx(uar, abs=1e-6)
    assert shown["accuracy"] == pytest.approx(scores(table)["accuracy"], abs=1e-6)
    card = (made.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"| UAR (unweighted average recall) | {100 * uar:.1f} |" in card
    assert f"Epoch: {made.environment['best_epoch']}, {made.split.selection}." in card
    assert made.metrics["uar"] == uar


def with_subsets(made: Run, path: str, change: dict[str, str]) -> Path:
    """The run's split with other words for its subsets, as a file of one's own."""
    table = pd.read_csv(made.folder / "split.csv", dtype=str).drop(columns="protocol")
    table.assign(subset=table["subset"].replace(change)).to_csv(path, index=False)
    return Path(path)


def test_training_speakers_are_named_where_they_are_scored(
    fitted: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(fitted, here / "copy")
    made = Run.open("copy")
    trained = made.split.speakers("train")
    with_subsets(made, "swapped.csv", {"train": "test", "test": "train"})
    assert run(["test", "--ckpt_path", "copy", "--data.split_csv", "swapped.csv"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    clips = len(made.split.clips("train"))
    assert f"not independent, which flatters the figures: {clips} of the {clips} clips and speakers" in said
    assert f"{', '.join(trained[:8])} trained the model" in said
    assert "speaker-independent" not in said
    with_subsets(made, "chosen.csv", {"val": "test", "test": "val"})
    assert run(["test", "--ckpt_path", "copy", "--data.split_csv", "chosen.csv"]) == 0
    assert "chose the epoch" in " ".join(capsys.readouterr().out.split())


def test_test_clips_are_counted_whatever_the_command_and_after_the_scoring(
    fitted: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(fitted, here / "copy")
    made = Run.open("copy")
    assert run(["validate", "--ckpt_path", "copy"]) == 0
    assert made.openings == 0
    with_subsets(made, "swapped.csv", {"val": "test", "test": "val"})
    assert run(["validate", "--ckpt_path", "copy", "--data.split_csv", "swapped.csv"]) == 0
    assert made.openings == 1
    assert run(["test", "--ckpt_path", "copy/checkpoints"]) == 0
    assert made.openings == 2
    assert "the test clips of this run were scored 2 times" in " ".join(capsys.readouterr().out.split())
    assert run(["test", "--ckpt_path", "copy", "--trainer.fast_dev_run=true"]) == 0
    assert made.openings == 2  # one batch, and nothing of it is shown or written
    tested = read_predictions(here / "copy" / "predictions_test.csv")
    assert set(tested["clip_id"]) == set(made.split.clips("test"))

    def broken(*_: object) -> None:
        raise EmolightError("The scoring failed.")

    monkeypatch.setattr("emolight.models.classifier.EmotionClassifier.test_step", broken)
    with pytest.raises(EmolightError, match="The scoring failed"):
        run(["test", "--ckpt_path", "copy"])
    assert made.openings == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"trainer.max_steps": 1}, "the first validation comes after 2 steps"),
        ({"trainer.limit_val_batches": 0}, "trainer.limit_val_batches is 0: there would be no result."),
        ({"trainer.limit_train_batches": 0}, "trainer.limit_train_batches is 0: there would be no result."),
        ({"trainer.limit_val_batches": 0.001}, "limit_val_batches"),
        ({"trainer.check_val_every_n_epoch": 5}, "trainer.check_val_every_n_epoch is 5, and max_epochs 2"),
    ],
    ids=str,
)
def test_a_training_without_a_result_is_refused_before_it_begins(
    changed: dict[str, Any], message: str, corpus: Path, here: Path
) -> None:
    with pytest.raises(EmolightError) as caught:
        fit(corpus, **changed)
    assert message in str(caught.value)
    assert not list(here.rglob("version_*"))


def test_a_training_that_ends_before_its_first_validation_says_so(corpus: Path, here: Path) -> None:
    with pytest.raises(EmolightError, match="ended before its first validation, so there is no result"):
        fit(corpus, **{"trainer.max_time": "00:00:00:00"})
    assert not list(here.rglob("version_*"))


def test_a_callback_whose_arguments_are_an_enumeration_is_written_into_the_configuration(
    corpus: Path, here: Path
) -> None:
    timer = {"class_path": "lightning.pytorch.callbacks.Timer", "init_args": {"duration": "01:00:00:00"}}
    made = fit(corpus, **{"trainer.max_epochs": 1, "trainer.callbacks": json.dumps([timer])})
    assert made.config["trainer"]["callbacks"][0]["init_args"]["interval"] == "step"


def test_an_epoch_that_is_cut_short_does_not_show_the_metrics_of_another(
    corpus: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = fit(corpus, **{"trainer.max_steps": 3})
    lines = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ") and "train/loss" in line
    ]
    assert ["val/uar" in line for line in lines] == [True, False]
    assert made.environment["best_epoch"] == 1


def test_what_was_tested_goes_when_another_model_is_the_best(here: Path) -> None:
    """As of a run that was tested before it was resumed."""
    for name in ("predictions_test.csv", "predictions_test_other.csv", "metrics_test.json", "controls_test.csv"):
        (here / name).touch()
    (here / "test_scorings.csv").touch()
    (here / "plots").mkdir()
    (here / "plots" / "test_confusion.png").touch()
    recorder = Recorder(Run(here))
    recorder.best = Best(0, {}, pd.DataFrame({"clip_id": ["one"]}))
    recorder._write("val", fitting=True)
    assert {path.name for path in here.iterdir()} == {"plots", "predictions_val.csv", "test_scorings.csv"}
    assert not list((here / "plots").iterdir())
    assert recorder.run.subset == "val"
