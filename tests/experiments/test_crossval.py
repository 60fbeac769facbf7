"""Cross-validation, its summary, the seal, the model card and transfer, by the real command on a small corpus."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from emolight.__main__ import run
from emolight.data.ravdess import discover
from emolight.data.splits import EMOBOX6, FOLDS
from emolight.errors import EmolightError
from emolight.evaluation.predictions import read_predictions, scores
from emolight.experiments import jobs
from emolight.experiments.controls import CONTROLS
from emolight.experiments.crossval import full_config
from emolight.experiments.jobs import Job, environment, run_jobs
from emolight.experiments.transfer import transfer_split
from emolight.model_card import CARD
from emolight.results import read_result
from emolight.runs import count_openings, record_opening
from tests.small import CONFIGS, options

FOLDS_RUN = ["--folds", "1", "2"]


def command(corpus: Path, *words: str) -> list[str]:
    return ["--config", str(CONFIGS / "mfcc.yaml"), *words, *options(corpus)]


@pytest.fixture(scope="module")
def crossval(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished cross-validation of two folds."""
    folder = tmp_path_factory.mktemp("crossval")
    with contextlib.chdir(folder):
        assert run(["crossval", *command(corpus, *FOLDS_RUN, "--workers", "2")]) == 0
    return folder / "lightning_logs" / "mfcc" / "crossval_emobox6"


@pytest.fixture(scope="module")
def both_channels(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus, and its clips once more under the names of songs."""
    root = tmp_path_factory.mktemp("both") / "corpus"
    for path in corpus.rglob("*.wav"):
        for channel in ("01", "02"):
            copy = root / path.parent.name / path.name.replace("03-01-", f"03-{channel}-", 1)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    return root


@pytest.fixture
def inside(crossval: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(crossval.parents[2])
    return crossval


def test_every_test_actor_is_predicted_once(crossval: Path) -> None:
    table = read_predictions(crossval / "predictions.csv")
    assert set(table["actor"]) == {*EMOBOX6[1].test, *EMOBOX6[2].test}
    assert not table.duplicated(["clip_id", "seed"]).any()
    for fold in (1, 2):
        own = read_predictions(crossval / f"fold_{fold}_seed_0" / "version_0" / "predictions_test.csv")
        assert set(table[table["fold"] == fold]["clip_id"]) == set(own["clip_id"])


def test_the_summary_agrees_with_the_predictions(crossval: Path) -> None:
    summary = json.loads((crossval / "summary.json").read_text())
    expected = scores(read_predictions(crossval / "predictions.csv"))
    for name in ("uar", "wa", "macro_f1"):
        assert summary["pooled"][name]["value"] == pytest.approx(expected[name])
        low, high = summary["pooled"][name]["by_actor"]
        assert low <= expected[name] <= high
    assert [one["group"] for one in summary["groups"]["fold"]] == [1, 2]
    assert {one["name"] for one in summary["controls"]} == set(CONTROLS)
    for name in ("pooled", "by_actor", "by_fold", "by_sex", "by_seed", "controls"):
        assert len(pd.read_csv(crossval / "tables" / f"{name}.csv")) >= 1
    assert {path.name for path in (crossval / "plots").iterdir()} == {"confusion.png", "recall.png", "actors.png"}


def test_the_result_says_how_it_was_made(crossval: Path) -> None:
    result = read_result(crossval)
    assert (result.kind, result.subset, result.protocol) == ("crossval", "test", "emobox6 folds 1 2")
    assert result.openings == 2
    assert result.facts["seconds"] > 0


def test_finished_folds_are_not_run_again_and_missing_ones_are(
    inside: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[str] = []
    whole = jobs._run

    def counted(job: Job, *rest: object) -> None:
        started.append(job.label)
        whole(job, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(jobs, "_run", counted)
    before = (inside / "predictions.csv").read_bytes()
    assert run(["crossval", *command(corpus, *FOLDS_RUN)]) == 0
    assert started == []
    assert "2 of 2 are finished already" in capsys.readouterr().out
    (inside / "fold_2_seed_0" / "version_0" / "job.json").unlink()
    assert run(["crossval", *command(corpus, *FOLDS_RUN)]) == 0
    assert started == ["fold 2 seed 0"]
    # The same seed on the same machine: the fold comes out as before.
    assert (inside / "predictions.csv").read_bytes() == before


def test_another_recipe_in_the_same_folder_is_refused(inside: Path, corpus: Path) -> None:
    with pytest.raises(EmolightError, match=r"was begun with model.learning_rate 0.001, received 0.5"):
        run(["crossval", *command(corpus, *FOLDS_RUN), "--model.learning_rate=0.5"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folds", "9"], "Protocol 'emobox6' has no fold 9"),
        (["--protocol", "random", "--folds", "1"], "Protocol 'random' has no fold 1"),
        (["--data.fold", "2"], "--data.fold cannot be given here"),
        (["--model.learning_rat=0.1"], "Unknown option 'model.learning_rat'"),
        (["--workers", "0"], "--workers is 0"),
    ],
)
def test_mistakes_are_told_before_anything_runs(words: list[str], message: str, corpus: Path, here: Path) -> None:
    with pytest.raises(EmolightError, match=message):
        run(["crossval", *command(corpus, *words)])
    assert not (here / "lightning_logs").exists()


def test_a_failing_run_is_named_with_its_reason(here: Path, corpus: Path) -> None:
    folder = here / "lightning_logs" / "x" / "fold_1"
    job = Job("fold 1", folder, ["--config", str(CONFIGS / "mfcc.yaml"), "--data.root", "nowhere"], True)
    with pytest.raises(EmolightError, match=r"1 of 1 failed, the first: fold 1: "):
        run_jobs([job], 1)
    assert "nowhere" in job.log.read_text()


def test_full_config_is_complete(corpus: Path, here: Path) -> None:
    config = full_config(["--config", str(CONFIGS / "mfcc.yaml"), "--model.learning_rate", "0.25"])
    assert config["model"]["learning_rate"] == 0.25
    assert config["data"]["protocol"] == "emobox6"
    assert yaml.safe_load(yaml.safe_dump(config)) == config


def test_workers_share_threads_or_get_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert environment(1, 4)["OMP_NUM_THREADS"] == "2"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [environment(place, 3)["CUDA_VISIBLE_DEVICES"] for place in range(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert environment(1, 2)["CUDA_VISIBLE_DEVICES"] == "7"


def test_the_seal_counts_every_opening(tmp_path: Path) -> None:
    assert count_openings(tmp_path) == 0
    assert record_opening(tmp_path, "best.ckpt", 320) == 1
    assert record_opening(tmp_path, "last.ckpt", 320) == 2
    table = pd.read_csv(tmp_path / "test_openings.csv")
    assert table["checkpoint"].tolist() == ["best.ckpt", "last.ckpt"]


def test_a_second_test_is_told(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = inside / "fold_1_seed_0" / "version_0" / "checkpoints" / "best.ckpt"
    before = count_openings(checkpoint.parents[1])
    assert run(["test", "--ckpt_path", str(checkpoint)]) == 0
    assert f"were scored {before + 1} times" in capsys.readouterr().out


def test_every_run_has_a_model_card(crossval: Path) -> None:
    card = (crossval / "fold_1_seed_0" / "version_0" / CARD).read_text()
    table = read_predictions(crossval / "fold_1_seed_0" / "version_0" / "predictions_test.csv")
    assert f"| UAR (unweighted average recall) | {100 * scores(table)['uar']:.1f} |" in card
    for text in ("emobox6 fold 1", "## Intended use", "## Limits", "not for commercial use", "best.ckpt"):
        assert text in card


def test_ctrl_c_ends_the_runs(here: Path, corpus: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "emolight",
        "crossval",
        *command(corpus, "--folds", "1"),
        "--trainer.max_epochs=500",
    ]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    log = here / "lightning_logs" / "mfcc" / "crossval_emobox6" / "fold_1_seed_0" / "log.txt"
    try:
        for _ in range(600):
            if log.is_file() and "epoch 1/" in log.read_text():
                break
            if process.poll() is not None:
                break
            time.sleep(0.2)
        process.terminate()
        assert process.wait(60) == 143
    finally:
        process.kill()
    alive = subprocess.run(["pgrep", "-f", f"{log.parent}"], capture_output=True, text=True, check=False).stdout
    assert alive == ""


def test_transfer_keeps_one_channel_for_training_and_both_for_test(both_channels: Path) -> None:
    clips = discover(both_channels).table
    split = transfer_split(clips, "emobox6", 1, "song").merge(clips[["clip_id", "channel"]], on="clip_id")
    assert set(split[split["subset"] != "test"]["channel"]) == {"song"}
    test = split[split["subset"] == "test"]
    assert set(test["channel"]) == {"speech", "song"}
    assert set(test["actor"]) == set(FOLDS["emobox6"][1].test)


def test_transfer_writes_the_matrix(both_channels: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two folds: what one trains on, the other tests on, so that their clips differ."""
    words = [*command(both_channels, *FOLDS_RUN, "--workers", "2"), "--data.channels=[speech, song]"]
    assert run(["transfer", *words]) == 0
    rows = pd.read_csv(here / "lightning_logs" / "mfcc" / "transfer_emobox6.csv")
    assert rows[["trained_on", "tested_on"]].apply(tuple, axis=1).tolist() == [
        (trained, tested) for trained in ("speech", "song") for tested in ("speech", "song")
    ]
    table = read_predictions(here / "lightning_logs" / "mfcc" / "transfer_emobox6_song" / "predictions.csv")
    expected = scores(table[table["channel"] == "speech"])["uar"]
    assert rows.iloc[2]["uar"] == pytest.approx(expected, abs=1e-6)
    assert "tested on song" in capsys.readouterr().out
    assert (here / "lightning_logs" / "mfcc" / "transfer_emobox6.png").is_file()
    summary = json.loads((here / "lightning_logs" / "mfcc" / "transfer_emobox6_song" / "summary.json").read_text())
    assert {one["name"] for one in summary["controls"]} == set(CONTROLS)
