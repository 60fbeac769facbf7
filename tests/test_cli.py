"""The real command line on the synthetic corpus: what it writes, what it refuses."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import emolight
from emolight.__main__ import run
from emolight.errors import EmolightError
from emolight.evaluation.predictions import read_predictions, scores
from tests.small import CONFIGS, options

SHIPPED = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
OVERLAYS = sorted(path.stem for path in (CONFIGS / "overlays").glob("*.yaml"))


@pytest.fixture(scope="module")
def fitted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("fitted")
    with contextlib.chdir(folder):
        run(["fit", "--config", str(CONFIGS / "mfcc.yaml"), *options(corpus, **{"trainer.max_epochs": 2})])
    return folder / "lightning_logs" / "mfcc" / "version_0"


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_configuration_trains(name: str, corpus: Path, here: Path) -> None:
    assert run(["fit", "--config", str(CONFIGS / f"{name}.yaml"), *options(corpus)]) == 0
    assert (here / "lightning_logs" / name / "version_0" / "checkpoints" / "best.ckpt").exists()


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_overlay_composes(name: str, corpus: Path, here: Path) -> None:
    overlay = ["--config", str(CONFIGS / "overlays" / f"{name}.yaml")]
    small = [option for option in options(corpus) if not option.startswith(("--data.emotions", "--data.channels"))]
    if name == "full":
        with pytest.raises(EmolightError, match="No clip is left of emotion neutral, disgust, surprised"):
            run(["fit", "--config", str(CONFIGS / "mfcc.yaml"), *overlay, *small])
        return
    assert run(["fit", "--config", str(CONFIGS / "mfcc.yaml"), *overlay, *small, "--data.channels=[speech]"]) == 0


def test_the_run_folder_is_complete(fitted: Path) -> None:
    files = {path.relative_to(fitted).as_posix() for path in fitted.rglob("*") if path.is_file()}
    plots = {f"plots/{name}.png" for name in ("curves", "val_confusion", "val_recall", "val_actors")}
    expected = {
        *("config.yaml", "split.csv", "environment.json", "metrics.csv", "predictions_val.csv"),
        *("checkpoints/best.ckpt", "checkpoints/last.ckpt"),
    }
    assert expected | plots <= files
    assert "hparams.yaml" not in files
    environment = json.loads((fitted / "environment.json").read_text())
    assert environment["versions"]["torch"] == importlib.metadata.version("torch")
    assert environment["versions"]["emolight"] == emolight.__version__
    assert environment["seed"] == 0
    assert str(fitted.parents[2]) not in (fitted / "split.csv").read_text()


def test_both_checkpoints_load_with_weights_only(fitted: Path) -> None:
    for name in ("best", "last"):
        checkpoint = torch.load(fitted / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert checkpoint["hyper_parameters"]["sample_rate"] == 16000
        assert bool(checkpoint["state_dict"]["normalise.fitted"])


def test_predictions_agree_with_the_logged_metrics(fitted: Path) -> None:
    values = scores(read_predictions(fitted / "predictions_val.csv"))
    best = pd.read_csv(fitted / "metrics.csv")["val/uar"].max()
    assert values["uar"] == pytest.approx(best, abs=1e-6)


def test_tensorboard_has_everything_and_stays_small(fitted: Path) -> None:
    events = EventAccumulator(str(fitted), size_guidance={"images": 0, "audio": 0})
    events.Reload()
    tags = events.Tags()
    assert {"val/uar", "val/loss", "train/loss", "lr-AdamW"} <= set(tags["scalars"])
    assert {"confusion", "features"} <= set(tags["images"])
    assert len(events.Images("confusion")) == 2
    assert sum(tag.startswith("worst_clips/") for tag in tags["audio"]) == 5
    assert sum(tag.startswith("worst_spectrograms/") for tag in tags["images"]) == 5
    told = HParamsPluginData.FromString(events.SummaryMetadata("_hparams_/experiment").plugin_data.content)
    leading = {info.name for info in told.experiment.hparam_infos if info.differs}
    assert leading == {"features.mode", "features.n_mels", "features.n_mfcc", "learning_rate", "data.batch_size"}
    metadata = next(fitted.rglob("metadata.tsv")).read_text().splitlines()
    assert metadata[0].split("\t")[:3] == ["clip_id", "emotion", "actor"]
    written = [path for path in fitted.rglob("*") if "tfevents" in path.name or path.suffix == ".tsv"]
    assert sum(path.stat().st_size for path in written) < 20e6


def test_config_reruns_the_run_to_the_bit(fitted: Path, here: Path) -> None:
    assert run(["fit", "--config", str(fitted / "config.yaml")]) == 0
    again = here / "lightning_logs" / "mfcc" / "version_0"
    for name in ("predictions_val.csv", "split.csv"):
        assert (again / name).read_bytes() == (fitted / name).read_bytes()
    first, second = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (fitted, again)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_test_needs_only_the_checkpoint_and_leaves_the_fits_files_alone(fitted: Path, here: Path) -> None:
    copied = here / "copied"
    shutil.copytree(fitted, copied)
    kept = {name: (copied / name).read_bytes() for name in ("config.yaml", "metrics.csv", "predictions_val.csv")}
    checkpoint = copied / "checkpoints" / "best.ckpt"
    assert run(["test", "--ckpt_path", str(checkpoint)]) == 0
    assert run(["validate", f"--ckpt_path={checkpoint}"]) == 0
    assert {name: (copied / name).read_bytes() for name in kept} == kept
    split = pd.read_csv(copied / "split.csv")
    tested = read_predictions(copied / "predictions_test.csv")
    assert set(tested["clip_id"]) == set(split.loc[split["subset"] == "test", "clip_id"])
    again = (copied / "predictions_val_best.csv").read_bytes()
    assert again == kept["predictions_val.csv"]
    assert (copied / "plots" / "test_confusion.png").exists()
    assert not (here / "lightning_logs").exists()


def test_a_users_own_split_wins_and_gets_its_own_table(fitted: Path, here: Path) -> None:
    copied = here / "copied"
    shutil.copytree(fitted, copied)
    mine = pd.read_csv(copied / "split.csv").drop(columns="protocol").groupby("subset").head(10)
    mine.to_csv(here / "mine.csv", index=False)
    checkpoint = str(copied / "checkpoints" / "best.ckpt")
    assert run(["test", "--ckpt_path", checkpoint, "--data.split_csv", "mine.csv"]) == 0
    assert len(read_predictions(copied / "predictions_test_mine.csv")) == 10


@pytest.mark.parametrize("command", ["test", "validate"])
def test_without_a_checkpoint_they_refuse(command: str, corpus: Path, here: Path) -> None:
    with pytest.raises(EmolightError, match=f"`{command}` needs a checkpoint"):
        run([command, *options(corpus)[:2]])


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--model.learning_rate=0.5", "model.learning_rate 0.001, received 0.5"),
        ("--model.features.n_mels=50", "model.features.n_mels 64, received 50"),
        ("--data.sample_rate=8000", "sample_rate 16000, received 8000"),
        ("--data.emotions=[calm,sad]", "received ['calm', 'sad']"),
    ],
)
def test_a_flag_that_contradicts_the_checkpoint_is_refused(
    flag: str, message: str, fitted: Path, here: Path
) -> None:
    with pytest.raises(EmolightError) as caught:
        run(["test", "--ckpt_path", str(fitted / "checkpoints" / "best.ckpt"), flag])
    assert message in str(caught.value)


@pytest.mark.parametrize("flag", ["--data.fold=2", "--data.protocol=luna5"])
def test_another_fold_than_the_checkpoints_is_refused(flag: str, fitted: Path, here: Path) -> None:
    with pytest.raises(EmolightError, match="The checkpoint was trained with data"):
        run(["test", "--ckpt_path", str(fitted / "checkpoints" / "best.ckpt"), flag])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.rot=x"], "Did you mean 'data.root'?"),
        (["--trainer.max_epoch=3"], "Did you mean 'trainer.max_epochs'?"),
        (["--data.batch_size=many"], "data.batch_size is 'many'.\nExpected: int."),
        (["--data.protocol=embox6"], "Did you mean 'emobox6'?"),
        (["--config", "mffc.yaml"], "There is no configuration file"),
        (["--model.classes=[a]"], "Set data.emotions."),
        (["--data.root=nowhere"], "There is no folder with recordings at 'nowhere'"),
        (["--ckpt_path=nowhere.ckpt"], "Go on with a run: fit --resume RUN"),
        (["--model.features.f_min=9000"], "model.features.f_min is 9000"),
    ],
)
def test_mistakes_get_cause_value_and_fix(words: list[str], message: str, here: Path) -> None:
    with pytest.raises(EmolightError) as caught:
        run(["fit", *words])
    assert message in str(caught.value)
    assert str(caught.value).count("\n") <= 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("data:\n  rot: x\n", "Did you mean 'data.root'?"),
        ("trainer:\n  max_epoch: 3\n", "Did you mean 'trainer.max_epochs'?"),
        ("data: [unclosed\n", "bad.yaml is not valid YAML"),
        ("data: !!python/object/apply:os.mkdir [hacked]\n", "bad.yaml is not valid YAML"),
    ],
)
def test_mistakes_in_yaml_too(content: str, message: str, here: Path) -> None:
    (here / "bad.yaml").write_text(content)
    with pytest.raises(EmolightError) as caught:
        run(["fit", "--config", "bad.yaml"])
    assert message in str(caught.value)
    assert not (here / "hacked").exists()


def test_with_no_data_fit_names_the_three_ways_out(here: Path) -> None:
    with pytest.raises(EmolightError) as caught:
        run(["fit", "--config", str(CONFIGS / "mfcc.yaml")])
    assert all(way in str(caught.value) for way in ("emolight download", "--data.root", "configs/demo.yaml"))
    assert str(caught.value).count("\n") <= 2
    assert not list(here.rglob("*.ckpt"))


def test_help_shows_the_projects_options_first_and_briefly(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["fit", "--help"])
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 110
    assert text.index("--data.root") < text.index("--model.features.mode") < text.index("--trainer.max_epochs")
    assert "--trainer.barebones" not in text
    assert "(type:" not in text


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "emolight", *words]


def test_two_processes_give_the_metrics_of_one(fitted: Path, here: Path) -> None:
    shutil.copytree(fitted, here / "copied")
    checkpoint = here / "copied" / "checkpoints" / "last.ckpt"
    clips = pd.read_csv(checkpoint.parents[1] / "split.csv").sample(frac=1, random_state=0)
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for count in (7, 13, 320):
        part = clips.head(count + 5).assign(protocol="custom")
        part["subset"] = ["val"] * count + ["train"] * 5
        part.to_csv(here / f"clips{count}.csv", index=False)
        words = ["validate", "--ckpt_path", str(checkpoint), f"--data.split_csv=clips{count}.csv"]
        table = checkpoint.parents[1] / f"predictions_val_last_clips{count}.csv"
        assert run(words) == 0
        one_process = read_predictions(table)
        metrics = table.with_name(f"metrics_val_last_clips{count}.json")
        one_process_metrics = json.loads(metrics.read_text())
        table.unlink()
        metrics.unlink()
        done = subprocess.run(command(*words, *two), capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        two_processes = read_predictions(table)
        assert len(two_processes) == count
        pd.testing.assert_frame_equal(two_processes, one_process, rtol=0, atol=2e-6)
        assert json.loads(metrics.read_text()) == pytest.approx(one_process_metrics, abs=1e-6)
        assert one_process_metrics["val/accuracy"] == pytest.approx(scores(one_process)["wa"], abs=1e-6)


def test_two_processes_train_in_one_run_folder(corpus: Path, here: Path) -> None:
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.precision=bf16-mixed"]
    words = ["fit", "--config", str(CONFIGS / "mfcc.yaml"), *options(corpus), *two]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command(*words), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (here / "lightning_logs" / "mfcc").iterdir()] == ["version_0"]
    run_folder = here / "lightning_logs" / "mfcc" / "version_0"
    values = scores(read_predictions(run_folder / "predictions_val.csv"))
    assert values["uar"] == pytest.approx(pd.read_csv(run_folder / "metrics.csv")["val/uar"].max(), abs=1e-6)
    assert str(yaml.safe_load((run_folder / "config.yaml").read_text())["trainer"]["devices"]) == "2"
