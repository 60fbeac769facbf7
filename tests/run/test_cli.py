"""The real command line on the synthetic corpus: what it writes, what it refuses."""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lightning.pytorch as pl
import pandas as pd
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import emolight
from emolight.__main__ import run
from emolight.data.corpora import corpus_of
from emolight.errors import EmolightError
from emolight.evaluation.predictions import read_predictions, scores
from emolight.run.folder import CLAIMED, Run
from emolight.run.precision import fast_precision
from tests.encoders import make_whisper
from tests.small import CONFIGS, CPU, LIGHT, options

SHIPPED = sorted({path.stem for path in CONFIGS.glob("*.yaml")} - {"mfcc"})
"""mfcc is trained by all the others here."""
OVERLAYS = sorted({path.stem for path in (CONFIGS / "overlays").glob("*.yaml")} - {"mlflow", "wandb", "finetune"})
"""The loggers' are tested by the newcomer; finetune is for another recipe."""
PLOTS = {f"plots/{name}.png" for name in ("curves", "val_confusion", "val_recall", "val_speakers")}
FILES = {
    *("config.yaml", "split.csv", "environment.json", "metrics.csv", "predictions_val.csv", "MODEL_CARD.md"),
    *("checkpoints/best.ckpt", "checkpoints/last.ckpt"),
    *PLOTS,
}
"""What stands in a run folder, beside TensorBoard's."""


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_configuration_trains(name: str, corpus: Path, here: Path) -> None:
    own = [f"--model.network.path={make_whisper(here / 'encoder_weights')}"] if name == "encoder" else []
    assert run(["fit", "--config", str(CONFIGS / f"{name}.yaml"), *options(corpus), *own]) == 0
    assert (here / "lightning_logs" / name / "version_0" / "checkpoints" / "best.ckpt").exists()


def test_the_overlays_compose(corpus: Path, here: Path) -> None:
    """All of them on one recipe, which is more than each alone."""
    overlays = [word for name in OVERLAYS for word in ("--config", str(CONFIGS / "overlays" / f"{name}.yaml"))]
    small = [word for word in options(corpus) if not word.startswith("--data.task")]
    assert run(["fit", "--config", str(CONFIGS / "mfcc.yaml"), *overlays, *small]) == 0
    made = Run.open("lightning_logs/mfcc/version_0")
    data, model, trainer = (made.config[name] for name in ("data", "model", "trainer"))
    seen = {
        "bf16": trainer["precision"] == "bf16-mixed",
        "early_stopping": [one["class_path"].rpartition(".")[2] for one in trainer["callbacks"]] == ["EarlyStopping"],
        "full": data["task"] == "full",
        "random": made.split.label == "random seed 0",
        "robust": (model["features"]["init_args"]["level"], len(model["augment"])) == ("rms", 6),
    }
    assert seen == dict.fromkeys(OVERLAYS, True)


def test_the_encoder_is_tuned_by_its_overlay(corpus: Path, here: Path) -> None:
    overlay = ["--config", str(CONFIGS / "overlays" / "finetune.yaml")]
    path = f"--model.network.path={make_whisper(here / 'encoder_weights')}"
    assert run(["fit", "--config", str(CONFIGS / "encoder.yaml"), *overlay, *options(corpus), path]) == 0


def test_the_run_folder_is_complete(fitted: Path) -> None:
    files = files_of(fitted)
    assert files >= FILES
    assert "hparams.yaml" not in files
    assert not [name for name in files if ".part" in name]
    environment = json.loads((fitted / "environment.json").read_text())
    assert environment["versions"]["torch"] == importlib.metadata.version("torch")
    assert environment["versions"]["emolight"] == emolight.__version__
    assert environment["seed"] == 0
    assert environment["finished"]
    assert str(fitted.parents[2]) not in (fitted / "split.csv").read_text()


def test_best_is_weights_alone_and_both_checkpoints_are_plain(fitted: Path) -> None:
    contents = {}
    for name in ("best", "last"):
        contents[name] = torch.load(fitted / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert contents[name]["hyper_parameters"]["sample_rate"] == 16000
        assert bool(contents[name]["state_dict"]["normalise.fitted"])
    assert "optimizer_states" in contents["last"]
    assert "optimizer_states" not in contents["best"]
    sizes = [(fitted / "checkpoints" / f"{name}.ckpt").stat().st_size for name in ("best", "last")]
    assert 2 * sizes[0] < sizes[1]


def test_fit_says_at_its_start_what_it_is_about_to_do(
    corpus: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["fit", "--config", str(CONFIGS / "mfcc.yaml"), *options(corpus, **CPU)])
    said = capsys.readouterr().out.partition("epoch 1/1")[0]
    for text in (
        *("lightning_logs/mfcc/version_0", "320 training clips of 16 speakers", "80 test clips", "emobox6 fold 1"),
        *("speaker-independent", "cpu", fast_precision("cpu"), "5 classes"),
        "40 MFCC of 0.6 s (1 × 40 × 19) into ResNet18 (11.2 M weights)",
    ):
        assert text in said


def test_tensorboard_has_everything_and_stays_small(fitted: Path) -> None:
    events = EventAccumulator(str(fitted), size_guidance={"images": 0, "audio": 0})
    events.Reload()
    tags = events.Tags()
    assert {"val/uar", "val/loss", "train/loss", "lr-AdamW"} <= set(tags["scalars"])
    assert {"confusion", "features"} <= set(tags["images"])
    assert [image.step for image in events.Images("confusion")] == [1, 2]  # epochs, as in their titles
    assert sum(tag.startswith("worst_clips/") for tag in tags["audio"]) == 5
    assert sum(tag.startswith("worst_spectrograms/") for tag in tags["images"]) == 5
    told = HParamsPluginData.FromString(events.SummaryMetadata("_hparams_/experiment").plugin_data.content)
    leading = {info.name for info in told.experiment.hparam_infos if info.differs}
    assert leading == {"features", "features.n_mels", "features.n_mfcc", "learning_rate", "data.batch_size"}
    told = HParamsPluginData.FromString(events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content)
    shown = told.session_start_info.hparams
    assert (shown["features"].string_value, shown["network"].string_value) == ("MFCC", "ResNet18")
    metadata = next(fitted.rglob("metadata.tsv")).read_text().splitlines()
    assert metadata[0].split("\t")[:3] == ["clip_id", "emotion", "speaker"]
    written = [path for path in fitted.rglob("*") if "tfevents" in path.name or path.suffix == ".tsv"]
    assert sum(path.stat().st_size for path in written) < 20e6


def test_config_reruns_the_run_to_the_bit(fitted: Path, here: Path) -> None:
    assert run(["fit", "--config", str(fitted / "config.yaml")]) == 0
    again = here / "lightning_logs" / "mfcc" / "version_0"
    for name in ("predictions_val.csv", "split.csv"):
        assert (again / name).read_bytes() == (fitted / name).read_bytes()
    first, second = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for folder in (fitted, again)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_test_needs_only_the_run_and_leaves_the_fits_files_alone(fitted: Path, here: Path) -> None:
    copied = here / "copied"
    shutil.copytree(fitted, copied)
    kept = {name: (copied / name).read_bytes() for name in ("config.yaml", "metrics.csv", "predictions_val.csv")}
    assert run(["test", "--ckpt_path", str(copied)]) == 0
    assert run(["validate", f"--ckpt_path={copied / 'checkpoints' / 'best.ckpt'}"]) == 0
    assert {name: (copied / name).read_bytes() for name in kept} == kept
    made = Run.open(copied)
    assert set(made.predictions("test")["clip_id"]) == set(made.split.clips("test"))
    assert (copied / "predictions_val_best.csv").read_bytes() == kept["predictions_val.csv"]
    assert (copied / "plots" / "test_confusion.png").exists()
    assert pd.read_csv(copied / "controls_test.csv")["uar"].between(0, 1).all()
    metrics = json.loads((copied / "metrics_test.json").read_text())
    assert metrics == made.metrics == scores(made.predictions("test"))
    card = (copied / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Test clips: 80 of 4 speakers" in card
    assert f"{made.environment['corpus']}: {made.environment['about']}" in card
    assert "Toronto" not in card
    assert not (here / "lightning_logs").exists()


def test_a_users_own_split_wins_and_gets_its_own_table(fitted: Path, here: Path) -> None:
    shutil.copytree(fitted, here / "copied")
    mine = pd.read_csv(here / "copied" / "split.csv", dtype=str).drop(columns="protocol").groupby("subset").head(10)
    mine.to_csv(here / "mine.csv", index=False)
    assert run(["test", "--ckpt_path", "copied", "--data.split_csv", "mine.csv"]) == 0
    assert len(read_predictions(here / "copied" / "predictions_test_mine.csv")) == 10


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--model.learning_rate=0.5", "model.learning_rate 0.001, received 0.5"),
        ("--model.features.n_mels=50", "model.features.n_mels 64, received 50"),
        ("--data.sample_rate=8000", "data.sample_rate 16000, received 8000"),
        ("--data.emotions=[calm,sad]", "received ['calm', 'sad']"),
        ("--data.fold=2", "data.fold None, received 2"),
        ("--data.protocol=luna5", "data.protocol None, received luna5"),
        ("--data.label=intensity", "data.label None, received intensity"),
    ],
)
def test_a_flag_that_contradicts_the_checkpoint_is_refused(flag: str, message: str, fitted: Path, here: Path) -> None:
    with pytest.raises(EmolightError, match="The checkpoint was trained with") as caught:
        run(["test", "--ckpt_path", str(fitted / "checkpoints" / "best.ckpt"), flag])
    assert message in str(caught.value)


@pytest.mark.parametrize("content", ["data: !!python/object/apply:os.mkdir [hacked]\n", "data: [unclosed\n"])
def test_a_configuration_is_plain_yaml(content: str, here: Path) -> None:
    (here / "bad.yaml").write_text(content)
    with pytest.raises(EmolightError, match=r"bad\.yaml is not valid YAML"):
        run(["fit", "--config", "bad.yaml"])
    assert not (here / "hacked").exists()


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "emolight", *words]


def test_two_processes_give_the_metrics_of_one(fitted: Path, here: Path) -> None:
    shutil.copytree(fitted, here / "copied")
    checkpoint = here / "copied" / "checkpoints" / "last.ckpt"
    clips = pd.read_csv(here / "copied" / "split.csv", dtype=str).sample(frac=1, random_state=0)
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]
    part = clips.head(12).assign(protocol="custom")
    part["subset"] = ["val"] * 7 + ["train"] * 5
    part.to_csv(here / "clips.csv", index=False)
    words = ["validate", "--ckpt_path", str(checkpoint), "--data.split_csv=clips.csv"]
    table = here / "copied" / "predictions_val_last_clips.csv"
    assert run(words) == 0
    one_process = read_predictions(table)
    table.unlink()
    done = subprocess.run(command(*words, *two), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(read_predictions(table), one_process, rtol=0, atol=2e-6)
    assert len(one_process) == 7


def test_two_processes_that_accumulate_gradients_score_the_model_that_they_save(corpus: Path, here: Path) -> None:
    """Also between two steps, when each has batch statistics of its own."""
    words = ["fit", "--config", str(CONFIGS / "mfcc.yaml"), *options(corpus, **{"trainer.limit_train_batches": 10})]
    words += ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]
    words += ["--trainer.precision=32-true"]
    words += ["--trainer.accumulate_grad_batches=7", "--trainer.val_check_interval=3"]
    done = subprocess.run(command(*words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = Run.open("lightning_logs/mfcc/version_0")
    assert run(["validate", "--ckpt_path", str(made.folder)]) == 0
    pd.testing.assert_frame_equal(made.predictions(suffix="_best"), made.predictions(), rtol=0, atol=2e-6)


def test_the_first_process_of_a_group_alone_removes_an_unused_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = here / "version_0"
    claimed.mkdir()
    monkeypatch.setenv(CLAIMED, str(claimed))
    for rank, there in ((1, True), (0, False)):
        monkeypatch.setattr(pl.utilities.rank_zero_only, "rank", rank)
        with pytest.raises(EmolightError, match=r"nowhere\.csv"):
            run(["fit", "--config", str(CONFIGS / "mfcc.yaml"), "--data.corpus=nowhere.csv"])
        assert claimed.exists() == there


LOGGERS = {
    "of one's own": ["lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir=mylogs"],
    "none": ["false"],
    "several": ['[{"class_path": "CSVLogger", "init_args": {"save_dir": "mylogs"}}]'],
}


@pytest.mark.parametrize("words", LOGGERS.values(), ids=list(LOGGERS))
def test_a_logger_is_added_and_never_takes_the_runs_place(words: list[str], corpus: Path, here: Path) -> None:
    small = ["--config", str(CONFIGS / "mfcc.yaml"), *options(corpus, **LIGHT)]
    assert run(["fit", *small, "--trainer.logger", *words]) == 0
    folder = here / "lightning_logs" / "mfcc" / "version_0"
    assert files_of(folder) >= FILES
    assert any("tfevents" in name for name in files_of(folder))
    assert bool(list(here.glob("mylogs/**/metrics.csv"))) == (words != ["false"])
    assert run(["test", "--ckpt_path", str(folder)]) == 0


def test_a_file_system_that_fails_is_told(corpus: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("emolight.models.checkpoint.save_checkpoint", fail)
    with pytest.raises(EmolightError, match=r"Input/output error\.\nMend that\. Go on with: .* fit --resume"):
        run(["fit", "--config", str(CONFIGS / "mfcc.yaml"), *options(corpus)])


def test_a_logger_that_fails_is_named(corpus: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(Exception):  # noqa: N818 - as of a tracking server's client
        pass

    def refuse(*_: object, **__: object) -> None:
        raise Refused("no API key")

    monkeypatch.setattr("lightning.pytorch.loggers.csv_logs.ExperimentWriter.__init__", refuse)
    words = ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "own"]
    with pytest.raises(EmolightError, match="CSVLogger cannot be used: no API key"):
        run(["fit", "--config", str(CONFIGS / "mfcc.yaml"), *options(corpus), *words])


def test_a_logger_whose_package_is_missing_is_told_in_one_line(corpus: Path, here: Path) -> None:
    if importlib.util.find_spec("wandb"):
        pytest.skip("wandb is installed")
    with pytest.raises(EmolightError) as caught:
        run(["fit", *options(corpus), "--trainer.logger", "lightning.pytorch.loggers.WandbLogger"])
    assert str(caught.value) == "The package wandb is not installed.\npip install wandb"
    assert not (here / "lightning_logs").exists()


def test_a_run_a_task_of_srun_is_a_whole_run(corpus: Path, here: Path) -> None:
    one_of_four = {"PROCID": "3", "LOCALID": "3", "NTASKS": "4", "JOB_ID": "7", "NODEID": "0"}
    variables = {f"SLURM_{name}": value for name, value in one_of_four.items()}
    words = command("fit", "--config", str(CONFIGS / "mfcc.yaml"), *options(corpus, **LIGHT))
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, **variables})
    assert done.returncode == 0, done.stderr
    folder = here / "lightning_logs" / "mfcc" / "version_0"
    assert files_of(folder) >= FILES
    assert pd.read_csv(folder / "metrics.csv")["val/uar"].notna().any()


def test_fit_in_a_thread_leaves_the_process_as_it_was(corpus: Path, here: Path) -> None:
    before, words = dict(os.environ), list(sys.argv)
    with ThreadPoolExecutor(1) as pool:
        small = ["fit", "--config", str(CONFIGS / "mfcc.yaml"), *options(corpus, **LIGHT)]
        assert pool.submit(run, small).result() == 0
    assert files_of(here / "lightning_logs" / "mfcc" / "version_0") >= FILES
    assert dict(os.environ) == before
    assert sys.argv == words


FIT_AND_TEST = """
import sys
from emolight.__main__ import main
for words in (sys.argv[1:], ["test", "--ckpt_path", "lightning_logs/mfcc/version_0"]):
    try:
        main(words)
    except SystemExit as end:
        assert end.code == 0, end.code"""


def test_text_is_utf8_whatever_the_locale(corpus: Path, here: Path) -> None:
    (here / "Übung").symlink_to(corpus)
    charmap = here / "loc"
    charmap.mkdir()
    subprocess.run(["localedef", "-i", "en_US", "-f", "CP1252", str(charmap / "en_US.CP1252")], check=False)
    if not (charmap / "en_US.CP1252").exists():
        pytest.skip("no localedef")
    variables = {**os.environ, "LOCPATH": str(charmap), "LC_ALL": "en_US.CP1252", "PYTHONUTF8": "0"}
    small = options(corpus, **LIGHT, **{"data.root": "Übung", "data.splits_dir": "Aufteilungen für Übung"})
    words = [sys.executable, "-c", FIT_AND_TEST, "fit", "--config", str(CONFIGS / "mfcc.yaml"), *small]
    done = subprocess.run(words, capture_output=True, check=False, env=variables)
    assert done.returncode == 0, done.stderr
    assert (here / "lightning_logs" / "mfcc" / "version_0" / "predictions_test.csv").is_file()
    text = (here / "lightning_logs" / "mfcc" / "version_0" / "config.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["data"]["root"].encode("cp1252").decode("utf-8") == "Übung"


def test_home_is_expanded_in_every_path(corpus: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "home").mkdir()
    monkeypatch.setenv("HOME", str(here / "home"))
    (here / "home" / "corpus").symlink_to(corpus)
    places = {"data.root": "~/corpus", "data.cache_dir": "~/cache", "data.splits_dir": "~/splits"}
    (here / "home.yaml").write_text("trainer: {default_root_dir: ~/runs}\n")
    small = options(corpus, **LIGHT, **places)
    assert run(["fit", "--config", str(CONFIGS / "mfcc.yaml"), "--config", "home.yaml", *small]) == 0
    assert sorted(path.name for path in here.iterdir()) == ["home", "home.yaml"]
    assert {path.name for path in (here / "home").iterdir()} >= {"runs", "cache", "splits"}
    assert run(["test", "--ckpt_path", "~/runs/lightning_logs/mfcc/version_0"]) == 0


def test_variables_are_expanded_in_the_paths_of_a_configuration(
    corpus: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICES", str(corpus))
    monkeypatch.setenv("PLACE", str(here / "place"))
    paths = {"root": "$VOICES", "cache_dir": "${PLACE}/cache", "splits_dir": "$PLACE/splits"}
    content = {"data": paths, "trainer": {"default_root_dir": "$PLACE/runs"}}
    (here / "places.yaml").write_text(yaml.safe_dump(content))
    small = [
        word for word in options(corpus, **LIGHT) if not word.startswith(tuple(f"--data.{name}" for name in paths))
    ]
    assert run(["fit", "--config", str(CONFIGS / "mfcc.yaml"), "--config", "places.yaml", *small]) == 0
    assert sorted(path.name for path in here.iterdir()) == ["place", "places.yaml"]
    assert {path.name for path in (here / "place").iterdir()} == {"runs", "cache", "splits"}


def test_a_corpus_that_is_a_class_takes_another_root(corpus: Path, here: Path) -> None:
    own = options(corpus, **LIGHT, **{"data.corpus": '{"class_path": "emolight.data.corpora.Synthetic"}'})
    assert run(["fit", "--config", str(CONFIGS / "mfcc.yaml"), *own]) == 0
    assert run(["robustness", "lightning_logs/mfcc/version_0", "--root", str(corpus), "--limit", "5"]) == 0


def test_tables_that_have_moved_are_found_by_their_roots(corpus: Path, here: Path) -> None:
    clips = corpus_of("Synthetic").table(corpus).groupby(["speaker", "emotion"]).head(1)
    clips = clips[clips["emotion"].isin(["happy", "sad"])]
    for name, own in (("a", clips[:24]), ("b", clips[24:])):
        Path("old", name).mkdir(parents=True)
        for path in own["path"]:
            shutil.copy(corpus / path, Path("old", name, Path(path).name))
        table = own[["emotion", "speaker"]].assign(path=[Path(path).name for path in own["path"]])
        table.to_csv(f"old/{name}/{name}.csv", index=False)
    both = {"data.corpus": "[old/a/a.csv, old/b/b.csv]", "data.root": "[old/a, old/b]", "data.task": "all"}
    fit = options(corpus, **LIGHT, **both, **{"data.protocol": "speakers5", "data.splits_dir": "."})
    assert run(["fit", "--config", str(CONFIGS / "mfcc.yaml"), *fit]) == 0
    Path("old").rename("new")
    made = "lightning_logs/mfcc/version_0"
    assert run(["robustness", made, "--root", "new/a", "new/b", "--limit", "5"]) == 0
    assert run(["report", made, "--root", "new/a", "new/b"]) == 0
    page = Path(made, "report.html").read_text(encoding="utf-8")
    assert "data:audio" in page
    assert run(["test", "--ckpt_path", made, "--data.corpus", "[new/a/a.csv, new/b/b.csv]"]) == 0
    assert set(Run.open(made).predictions("test")["clip_id"]) == set(Run.open(made).split.clips("test"))
    with pytest.raises(EmolightError, match=r"data.root is \['new/a'\] for 2 corpora|data.root is 'new/a' for 2"):
        run(["robustness", made, "--root", "new/a"])


def test_a_table_that_has_moved_is_the_same_corpus(
    corpus: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = corpus_of("Synthetic").table(corpus).groupby(["speaker", "emotion"]).head(1)
    clips = clips[clips["emotion"].isin(["happy", "sad"])]
    Path("old").mkdir()
    for path in clips["path"]:
        shutil.copy(corpus / path, Path("old", Path(path).name))
    own = clips[["emotion", "speaker"]].assign(path=[Path(path).name for path in clips["path"]])
    own.to_csv("old/mine.csv", index=False)
    small = {"data.corpus": "old/mine.csv", "data.root": "old", "data.task": "all", "data.splits_dir": "old"}
    fit = ["fit", "--config", str(CONFIGS / "mfcc.yaml"), *options(corpus, **LIGHT, **small)]
    assert run(fit) == 0
    Path("old").rename("new")
    made = "lightning_logs/mfcc/version_0"
    with pytest.raises(EmolightError, match=r"Say where: --data.corpus FOLDER/mine.csv"):
        run(["test", "--ckpt_path", made])
    capsys.readouterr()
    assert run(["test", "--ckpt_path", made, "--data.corpus", "new/mine.csv"]) == 0
    assert "mine, speakers5 fold 1 seed 0 (speaker-independent" in capsys.readouterr().out
    table = read_predictions(Path(made, "predictions_test.csv"))
    assert set(table["clip_id"]) == set(Run.open(made).split.clips("test"))
    with pytest.raises(EmolightError, match=r"data\.fold None, received 3"):
        run(["test", "--ckpt_path", made, "--data.corpus", "new/mine.csv", "--data.fold", "3"])
    assert run(["robustness", made, "--root", "new", "--subset", "val", "--limit", "5"]) == 0
    # While the own one is in its place, another of the same name is another corpus.
    shutil.copytree("new", "old")
    assert run(["test", "--ckpt_path", made, "--data.corpus", "new/mine.csv"]) == 0
    assert Path(made, "predictions_test_mine.csv").is_file()


@pytest.mark.parametrize("terminal", [False, True])
def test_a_progress_bar_of_ones_own_takes_the_place_of_ours(
    terminal: bool, corpus: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    own = options(corpus, **LIGHT, **{"trainer.callbacks": "TQDMProgressBar"})
    assert run(["fit", "--config", str(CONFIGS / "mfcc.yaml"), *own]) == 0


def test_a_part_of_the_test_clips_does_not_stand_for_all(fitted: Path, here: Path) -> None:
    with pytest.raises(EmolightError, match=r"limit_test_batches is 0\.5: a part of the test clips"):
        run(["test", "--ckpt_path", str(fitted), "--trainer.limit_test_batches", "0.5"])


def test_true_half_precision_trains(corpus: Path, here: Path) -> None:
    words = ["fit", "--config", str(CONFIGS / "mfcc.yaml"), *options(corpus), "--trainer.precision=bf16-true"]
    assert run(words) == 0
    assert run(["validate", "--ckpt_path", "lightning_logs/mfcc/version_0"]) == 0
    assert Run.open("lightning_logs/mfcc/version_0").environment["precision"] == "bf16-true"


def test_a_run_of_gpus_is_tested_on_a_cpu(fitted: Path, here: Path) -> None:
    shutil.copytree(fitted, here / "copied")
    config = yaml.safe_load((here / "copied" / "config.yaml").read_text())
    config["trainer"] |= {"accelerator": "gpu", "devices": 2, "strategy": "ddp"}
    (here / "copied" / "config.yaml").write_text(yaml.safe_dump(config))
    assert run(["test", "--ckpt_path", "copied"]) == 0
    if torch.cuda.is_available():
        return
    with pytest.raises(EmolightError, match=r"--trainer\.accelerator auto"):
        run(["fit", "--resume", "copied"])
    taken = ["--trainer.accelerator=auto", "--trainer.devices=auto", "--trainer.strategy=auto"]
    assert run(["fit", "--resume", "copied", *taken]) == 0


def test_few_steps_and_a_small_shared_memory(corpus: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = options(corpus, **LIGHT, **{"trainer.max_steps": 5, "trainer.max_epochs": 3})
    assert run(["fit", "--config", str(CONFIGS / "mfcc.yaml"), *few]) == 0  # a warm-up of one step
    usage = shutil._ntuple_diskusage(2**20, 2**20, 1000)  # type: ignore[attr-defined]
    monkeypatch.setattr("emolight.data.datamodule.shutil.disk_usage", lambda _: usage)
    with pytest.raises(EmolightError, match="MB in /dev/shm"):
        run(["fit", "--config", str(CONFIGS / "mfcc.yaml"), *options(corpus), "--data.num_workers=2"])
    assert not (here / "lightning_logs" / "mfcc" / "version_1").exists()
