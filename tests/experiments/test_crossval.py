"""Cross-validation, its summary, the runner of processes and transfer, by the real command on a small corpus."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import numpy as np
import pandas as pd
import pytest
import torch

from emolight.__main__ import run
from emolight.data.corpora import RAVDESS, Synthetic, corpus_of
from emolight.data.datamodule import EmotionDataModule
from emolight.errors import EmolightError
from emolight.evaluation.predictions import predictions_table, read_predictions, scores
from emolight.experiments import jobs, transfer
from emolight.experiments.crossval import clips_of
from emolight.experiments.disturb import DISTURBANCES
from emolight.experiments.processes import Task, environment, run_processes
from emolight.experiments.results import facts_of, read_result
from emolight.experiments.summary import control_scores
from emolight.run.cli import full_config
from emolight.run.controls import CONTROLS
from emolight.run.folder import Run
from tests.small import CONFIGS, CPU, LIGHT, options

FOLDS_RUN = ["--folds", "1", "2"]
TEST_SPEAKERS = {who for fold in (1, 2) for who in RAVDESS.protocols["emobox6"][fold].test}


def command(corpus: Path, *words: str, **changed: Any) -> list[str]:
    return ["--config", str(CONFIGS / "mfcc.yaml"), *words, *options(corpus, **changed)]


@pytest.fixture(scope="module")
def crossval(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished cross-validation of two folds."""
    folder = tmp_path_factory.mktemp("crossval")
    with contextlib.chdir(folder):
        assert run(["crossval", *command(corpus, *FOLDS_RUN, "--workers", "2")]) == 0
    return folder / "lightning_logs" / "mfcc" / "crossval_emobox6"


@pytest.fixture
def inside(crossval: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(crossval.parents[2])
    return crossval


def test_of_the_model_a_result_tells_what_all_its_runs_share(tmp_path: Path) -> None:
    runs = []
    for fold, hidden in enumerate((64, 128)):
        folder = tmp_path / str(fold)
        folder.mkdir()
        model = {"features": "emolight.MFCC", "network": {"class_path": "Net", "init_args": {"hidden": hidden}}}
        (folder / "config.yaml").write_text(json.dumps({"data": {}, "model": model, "trainer": {}}))
        (folder / "environment.json").write_text(json.dumps({"parameters": hidden, "seconds": 9}))
        (folder / "split.csv").write_text("clip_id,emotion,speaker,subset\na,sad,1,train\n")
        runs.append(Run.open(folder))
    told, alone = facts_of(*runs), facts_of(runs[1])
    assert told["features"] == "emolight.MFCC"
    assert not {"network", "parameters"} & told.keys()
    assert (alone["network"], alone["parameters"]) == (model["network"], 128)
    assert told["seconds"] == 9


def test_every_test_speaker_is_predicted_once_and_the_summary_agrees(crossval: Path) -> None:
    table = read_predictions(crossval / "predictions.csv")
    assert set(table["speaker"]) == TEST_SPEAKERS
    assert not table.duplicated(["clip_id", "seed"]).any()
    for fold in (1, 2):
        own = read_predictions(crossval / f"fold_{fold}_seed_0" / "version_0" / "predictions_test.csv")
        assert set(table[table["fold"] == fold]["clip_id"]) == set(own["clip_id"])
    summary, expected = json.loads((crossval / "summary.json").read_text()), scores(table)
    for name in ("uar", "accuracy", "macro_f1"):
        assert summary["pooled"][name]["value"] == pytest.approx(expected[name])
        low, high = summary["pooled"][name]["by_speaker"]
        assert low <= expected[name] <= high
    assert [one["group"] for one in summary["groups"]["fold"]] == [1, 2]
    assert {one["name"] for one in summary["controls"]} == set(CONTROLS)
    for name in ("pooled", "by_speaker", "by_fold", "by_sex", "by_seed", "controls"):
        assert len(pd.read_csv(crossval / "tables" / f"{name}.csv")) >= 1
    assert {path.name for path in (crossval / "plots").iterdir()} == {"confusion.png", "recall.png", "speakers.png"}


def test_what_is_there_is_kept_and_what_is_missing_is_run(
    inside: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = read_result(inside)
    assert (result.kind, result.subset, result.protocol) == ("crossval", "test", "emobox6 folds 1 2")
    assert (result.speaker_independent, result.finished, result.openings) == (True, True, 2)
    assert result.facts["seconds"] > 0
    before = (inside / "predictions.csv").read_bytes()
    (inside / "fold_2_seed_0" / "version_0" / "predictions_test.csv").unlink()  # as if stopped before its test
    # One fold alone does not take the place of the result of two.
    assert run(["crossval", *command(corpus, "--folds", "1")]) == 0
    printed = capsys.readouterr().out
    assert "2 runs in" in printed
    assert "1 of them finished" in printed
    assert "clips of 8 speakers of 24, emobox6 folds 1 2" in printed
    assert "speaker-independent: no speaker is in two subsets" in printed
    assert "was scored 3 times in all" in printed
    assert (inside / "predictions.csv").read_bytes() == before
    assert [path.name for path in (inside / "fold_2_seed_0").glob("version_*")] == ["version_0"]


def test_another_recipe_and_other_clips_are_refused_but_not_another_place(
    inside: Path, corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(EmolightError, match=r"was begun with model.learning_rate 0.001, received 0.5"):
        run(["crossval", *command(corpus, *FOLDS_RUN), "--model.learning_rate=0.5"])
    moved = tmp_path / "moved"
    shutil.copytree(corpus, moved)
    before = (inside / "predictions.csv").read_bytes()
    assert run(["crossval", *command(moved, *FOLDS_RUN)]) == 0
    assert (inside / "predictions.csv").read_bytes() == before
    first, *_ = sorted(moved.rglob("*.wav"))
    sound = bytearray(first.read_bytes())
    sound[5000] ^= 1
    first.write_bytes(sound)
    with pytest.raises(EmolightError, match=r"was begun with 480 clips(.|\n)*are others"):
        run(["crossval", *command(moved, *FOLDS_RUN)])


def test_other_subsets_in_the_same_table_are_refused(corpus: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = Synthetic().find(corpus).table[["path", "emotion", "speaker"]]
    words = command(corpus, **{"data.corpus": "mine.csv", "data.task": "null"})
    begun: list[Any] = []
    monkeypatch.setattr("emolight.experiments.crossval.run_all", lambda tasks, *_: begun.append(tasks))
    for subsets in (["train", "val", "test"], ["test", "val", "train"]):
        clips.assign(subset=np.resize(subsets, len(clips))).to_csv("mine.csv", index=False)
        with pytest.raises(EmolightError if begun else StopIteration, match="begun with 480 clips" if begun else ""):
            run(["crossval", *words])
    assert len(begun) == 1
    data: Any = SimpleNamespace(split_csv="own.csv", split=SimpleNamespace(protocol="custom"))
    data.cache, hashes = SimpleNamespace(hashes={}), set[str]()
    for subset in ("train", "val"):  # of a sweep, whose split may be a file
        data.clips = clips.assign(clip_id=clips["path"], subset=subset)
        hashes.add(clips_of(data)["hash"])
    assert len(hashes) == 2


def test_robustness_is_of_every_folds_held_out_speakers(
    inside: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Disturbances are tested elsewhere; here a fold's own model scores that fold's clips, on the record."""
    scored: list[tuple[Any, set[str]]] = []

    def pretend(model: Any, clips: pd.DataFrame, groups: Any) -> dict[str, pd.DataFrame]:
        scored.append((model, set(clips["speaker"])))
        fold = read_predictions(Path(model).parents[1] / "predictions_test.csv")
        return {one.name: fold if n % 2 else fold.assign(prediction="calm") for n, one in enumerate(DISTURBANCES, 1)}

    monkeypatch.setattr("emolight.experiments.crossval.load", lambda path: path)
    monkeypatch.setattr("emolight.experiments.crossval.score_disturbed", pretend)
    before, result = (inside / "predictions.csv").read_bytes(), read_result(inside)
    assert run(["crossval", *command(corpus, *FOLDS_RUN), "--robustness"]) == 0
    for fold, (model, speakers) in enumerate(scored, start=1):
        assert f"fold_{fold}_seed_0" in str(model)
        assert speakers == set(RAVDESS.protocols["emobox6"][fold].test)
    rows = pd.read_csv(inside / "robustness_test.csv").set_index("disturbance")
    assert rows["uar"].iloc[0] == pytest.approx(scores(result.table)["uar"], abs=1e-6)
    assert rows["uar"].iloc[1] == pytest.approx(0.2)
    assert (rows["clips"] == len(result.table)).all()
    assert rows["uar_change_low"].iloc[1] <= rows["uar_change"].iloc[1] <= rows["uar_change_high"].iloc[1]
    assert (inside / "robustness_test.png").is_file()
    assert json.loads((inside / "robustness_test.json").read_text())["rows"][0]["disturbance"] == "clean"
    assert read_result(inside).openings == result.openings + 2
    assert (inside / "predictions.csv").read_bytes() == before
    assert f"scored {result.openings + 2} times in all" in capsys.readouterr().out


def test_two_at_once_in_one_folder_are_refused(inside: Path, corpus: Path) -> None:
    with filelock.FileLock(inside / ".lock"), pytest.raises(EmolightError, match="Another process is at work"):
        run(["crossval", *command(corpus, *FOLDS_RUN)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folds", "9"], "Protocol 'emobox6' has no fold 9"),
        (["--protocol", "random", "--folds", "1"], "Protocol 'random' has no fold 1"),
        (["--protocol", "emobox"], "'emobox'"),
        (["--data.fold", "2"], r"--data.fold cannot be given here(.|\n)*--folds"),
        (["--config", '{"data": {"split_csv": "own.csv"}}'], "data.split_csv is own.csv(.|\\n)*--protocol"),
        (["--model.learning_rat=0.1"], "learning_rat"),
        (["--worker", "2"], r"Unknown option '--worker'(.|\n)*--workers"),
        (["--workers", "0"], "--workers is 0"),
        (["--name", "/out"], "The name '/out' leads out of"),
        (["--trainer.fast_dev_run=true"], "fast_dev_run leaves no runs"),
        (["--data.corpus=RAVDESS", "--data.root=nowhere"], "nowhere"),
    ],
)
def test_mistakes_show_before_anything_runs(words: list[str], message: str, corpus: Path, here: Path) -> None:
    with pytest.raises(EmolightError, match=message):
        run(["crossval", *command(corpus), *words])
    assert not (here / "lightning_logs" / "mfcc").exists()


def test_a_random_split_is_scored_on_its_validation_clips(
    corpus: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["crossval", *command(corpus, "--protocol", "random", "--seeds", "0", "1")]) == 0
    result = read_result(here / "lightning_logs" / "mfcc" / "crossval_random")
    assert (result.subset, result.protocol, result.speaker_independent) == ("val", "random seed 0", False)
    assert sorted(result.table["seed"].unique()) == [0, 1]
    assert "speaker-dependent" in capsys.readouterr().out


def fail(what: str) -> None:
    if what == "mistake":
        raise EmolightError("Too little of it.", "Take more.")
    if what == "second":
        assert Path("marker").exists() or Path("marker").touch()
    print(os.environ["OMP_NUM_THREADS"], torch.get_num_threads(), "— ünïcode")


def test_the_runner_runs_again_what_is_asked_for_and_swallows_nothing(here: Path) -> None:
    tasks = [Task(what, here / f"{what}.txt", fail, (what,)) for what in ("good", "mistake", "second")]
    run_processes(tasks, 2, ended=lambda task: task.code == 1)
    assert [(task.code, task.starts) for task in tasks] == [(0, 1), (2, 1), (0, 2)]
    assert tasks[0].last_line().startswith("1 1")
    assert tasks[1].last_line("emolight: ") == "emolight: Too little of it."
    with pytest.raises(EmolightError, match=r"1 of 2 failed, the first: mistake: Too little of it"):
        jobs.run_all(tasks[:2], 1)

    def own_fault() -> None:
        raise RuntimeError("of the runner's own")

    with pytest.raises(RuntimeError, match="of the runner's own"):
        run_processes([Task("long", here / "long.txt", time.sleep, (600,))], 1, watch=own_fault)


def test_workers_share_threads_or_get_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert environment(1, 4)["OMP_NUM_THREADS"] == "2"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [environment(place, 3)["CUDA_VISIBLE_DEVICES"] for place in range(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert environment(1, 2)["CUDA_VISIBLE_DEVICES"] == "7"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_the_command_ends_its_runs(number: signal.Signals, here: Path, corpus: Path) -> None:
    words = command(corpus, "--folds", "1", **LIGHT, **{"trainer.max_epochs": 500})
    whole = [sys.executable, "-m", "emolight", "crossval", *words]
    process = subprocess.Popen(whole, stdout=subprocess.DEVNULL, start_new_session=True)
    log = here / "lightning_logs" / "mfcc" / "crossval_emobox6" / "fold_1_seed_0" / "log.txt"
    try:
        while process.poll() is None and not (log.is_file() and "epoch 1/" in log.read_text()):
            time.sleep(0.2)
        # As `timeout` does it, to all of its group; or as the system does it when memory is short, to it alone.
        os.killpg(process.pid, number) if number == signal.SIGTERM else process.kill()
        assert process.wait(180) == (143 if number == signal.SIGTERM else -number)
    finally:
        process.kill()
    for _ in range(600):  # the run says so when it is stopped
        if "stopped in epoch" in log.read_text():
            break
        time.sleep(0.2)
    assert "stopped in epoch" in log.read_text()


def test_folds_that_test_a_speaker_twice_are_refused_before_the_training(
    corpus: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold = RAVDESS.protocols["emobox6"][1]
    monkeypatch.setattr(Synthetic, "protocols", {"emobox6": {1: fold, 2: fold}})
    monkeypatch.setattr("emolight.experiments.crossval.run_all", None)
    with pytest.raises(EmolightError, match=f"Speaker {fold.test[0]} is a test speaker of more than one fold"):
        run(["crossval", *command(corpus, *FOLDS_RUN)])


def test_where_one_fold_cannot_train_the_controls_there_are_none(corpus: Path, here: Path) -> None:
    """As of training clips of one class: the folds are trained by then, and their result is written."""
    place = {"corpus": "Synthetic", "root": corpus, "task": "article", "duration": 0.6}
    place |= {"cache_dir": corpus.parent / "cache", "splits_dir": here}
    data = EmotionDataModule(**place)
    data.setup()
    table = data.split.table
    table[(table["subset"] != "train") | (table["emotion"] == "sad")].to_csv("one.csv", index=False)
    assert control_scores([EmotionDataModule(**place)], "val")
    assert control_scores([EmotionDataModule(**place), EmotionDataModule(**place, split_csv="one.csv")], "val") == []


def test_transfer_by_a_column(corpus: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["transfer", *command(corpus, "--folds", "1", "--by", "intensity")]) == 0
    place = here / "lightning_logs" / "mfcc"
    rows = pd.read_csv(place / "transfer_intensity.csv")
    values = ("normal", "strong")
    assert list(zip(rows["trained_on"], rows["tested_on"], strict=True)) == [(a, b) for a in values for b in values]
    folder = place / "transfer_emobox6_strong"
    table = read_predictions(folder / "predictions.csv")
    assert set(table["speaker"]) == set(RAVDESS.protocols["emobox6"][1].test)
    assert rows.iloc[2]["uar"] == pytest.approx(scores(table[table["intensity"] == "normal"])["uar"], abs=1e-6)
    split = pd.read_csv(folder / "fold_1_seed_0" / "version_0" / "split.csv", dtype=str)
    intensity = split["clip_id"].str.split("-").str[3]  # in the names: 02 is strong
    assert set(intensity[split["subset"] != "test"]) == {"02"}
    assert set(intensity[split["subset"] == "test"]) == {"01", "02"}
    assert read_result(folder).protocol == "emobox6 trained on strong folds 1"
    assert json.loads((place / "transfer_intensity.json").read_text())["rows"][0]["tested_on"] == "normal"
    assert (place / "transfer_intensity.png").is_file()
    printed = capsys.readouterr().out
    assert "tested on strong" in printed
    assert "note: From only 4 speakers" in printed


def test_a_transfer_renames_the_labels_of_the_column_that_holds_them(corpus: Path) -> None:
    data = {"corpus": "Synthetic", "root": str(corpus), "label": "sex", "label_map": {"male": "m", "calm": "c"}}
    valid: dict[str, set[str]] = {"label_map": set(), "filter": set()}
    assert transfer._known({**data, "filter": None}, valid)["label_map"] == {"male": "m"}


def test_a_folder_that_is_damaged_or_of_an_ensemble_is_told(
    crossval: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "lightning_logs" / "mfcc" / crossval.name
    shutil.copytree(crossval, own)
    shutil.copytree(crossval.parents[2] / "splits", tmp_path / "splits")
    for content, message in (("{", "is damaged"), ('{"kind": "ensemble"}', "holds an ensemble")):
        (own / "crossval.json").write_text(content)
        with pytest.raises(EmolightError, match=message):
            run(["crossval", *command(corpus, *FOLDS_RUN)])
    (own / "crossval.json").unlink()
    assert run(["crossval", *command(corpus, *FOLDS_RUN)]) == 0
    (own / "clips.json").write_text("{")
    with pytest.raises(EmolightError, match=r"clips\.json is damaged"):
        run(["crossval", *command(corpus, *FOLDS_RUN)])


def test_a_class_that_is_typed_is_trusted_by_every_fold(
    corpus: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOLIGHT_IMPORTS", "")
    (here / "own_mel.py").write_text(
        "from emolight.models.features import MelSpectrogram\n\n\nclass OwnMel(MelSpectrogram):\n    pass\n"
    )
    own = ["--folds", "1", "--model.features", "own_mel.OwnMel"]
    assert run(["crossval", *command(corpus, *own, **LIGHT)]) == 0
    assert os.environ["EMOLIGHT_IMPORTS"] == "own_mel"


def test_each_worker_has_as_many_devices_as_are_typed(
    corpus: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(_: object, workers: int, devices: int) -> None:
        raise EmolightError(f"{workers} workers with {devices} devices")

    monkeypatch.setattr("emolight.experiments.crossval.run_all", look)
    words = ["--workers", "2", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    with pytest.raises(EmolightError, match="2 workers with 2 devices"):
        run(["crossval", *command(corpus, *words)])


def test_transfer_from_one_corpus_to_another(corpus: Path, here: Path) -> None:
    """The other corpus is a table of some of the clips under other speakers' names; two processes train each fold."""
    paths = sorted(corpus.rglob("*-1[0-4].wav"))
    emotions = {"02": "calm", "03": "happy", "04": "sad", "05": "angry", "06": "fearful"}
    rows = [(path, emotions[path.stem.split("-")[2]], f"other {path.stem[-2:]}") for path in paths]
    pd.DataFrame(rows, columns=["path", "emotion", "speaker"]).to_csv("other.csv", index=False)
    words = ["--folds", "1", "--train-on", "Synthetic", "--test-on", "other.csv=/"]
    assert run(["transfer", *command(corpus, *words, **CPU, **{"trainer.devices": 2, "trainer.strategy": "ddp"})]) == 0
    table = pd.read_csv(here / "lightning_logs" / "mfcc" / "transfer_corpora.csv")
    assert table[["trained_on", "tested_on", "clips"]].to_numpy().tolist() == [
        ["synthetic voices", "synthetic voices", 80],
        ["synthetic voices", "other", len(rows)],
    ]
    pd.DataFrame(rows, columns=["path", "emotion", "speaker"]).replace({"sad": "sadness"}).to_csv("other.csv")
    named = [
        *words,
        "--name",
        "named",
        '--data.label_map={"sadness": "sad"}',
        '--data.filter={"intensity": ["normal"]}',
    ]
    assert run(["transfer", *command(corpus, *named, **LIGHT)]) == 0
    table = pd.read_csv(here / "lightning_logs" / "named" / "transfer_corpora.csv")
    assert table["clips"].tolist() == [40, len(rows)]  # a statement stands in the one alone, the label in the other
    with pytest.raises(EmolightError, match=r"Unknown name in data.label_map: 'sadnes'\.\nDid you mean 'sadness'"):
        run(["transfer", *command(corpus, *words, "--name=typo", '--data.label_map={"sadnes": "sad"}')])
    pd.DataFrame(rows, columns=["path", "emotion", "speaker"]).assign(
        emotion=[f"other {row[1]}" for row in rows]
    ).to_csv("other.csv")
    with pytest.raises(EmolightError, match=r"Synthetic and other\.csv share no label"):
        run(["transfer", *command(corpus, *words, "--name=apart")])
    with pytest.raises(EmolightError, match="What should differ"):
        run(["transfer", *command(corpus)])
    with pytest.raises(EmolightError, match=r"Unknown protocol: 'emobx6'\.\nDid you mean 'emobox6'"):
        run(["transfer", *command(corpus, *words, "--protocol=emobx6")])


def test_transfer_finds_each_corpus_and_scores_again_what_has_changed(corpus: Path, here: Path) -> None:
    """The configuration's own corpus, with its root and two speakers, is tested on alone."""
    labels = {"03": "happy", "04": "sad", "05": "angry"}
    for name, actors, sad in (("one", "0[1-6]", "sad"), ("two", "1[12]", "sadness")):
        paths = [path.relative_to(corpus) for path in sorted(corpus.rglob(f"*-{actors}.wav"))]
        rows = [(path, labels.get(path.stem[6:8]), path.stem[-2:]) for path in paths]
        table = pd.DataFrame(rows, columns=["path", "emotion", "speaker"]).dropna().replace("sad", sad)
        table.to_csv(f"{name}.csv", index=False)
    own = options(corpus, **{"data.corpus": "two.csv", "data.task": "null"})
    words = ["transfer", "--config", str(CONFIGS / "classical.yaml"), *own, "--folds", "1"]
    words += ["--train-on", f"one.csv={corpus}", "--test-on", "two.csv"]
    assert run(words) == 0
    place = here / "lightning_logs" / "classical" / "transfer_corpora.csv"
    assert pd.read_csv(place)["clips"].tolist() == [24, 16]  # not the sad ones
    assert run([*words, '--data.label_map={"sadness":"sad"}']) == 0
    assert pd.read_csv(place)["clips"].tolist() == [24, 24]
    for name in ("one", "two"):
        voices = pd.read_csv(f"{name}.csv", dtype=str)
        voices.assign(sex=["male" if int(who) % 2 else "female" for who in voices["speaker"]]).to_csv(
            f"{name}.csv", index=False
        )
    assert run([*words, "--name=sexes", "--data.label=sex", '--data.label_map={"female": "woman"}']) == 0
    other = read_predictions(next((here / "lightning_logs" / "sexes").rglob("predictions_test_two.csv")))
    assert set(other["label"]) == {"male", "woman"}
    card = next((here / "lightning_logs" / "sexes").rglob("MODEL_CARD.md")).read_text(encoding="utf-8")
    assert "always names one of its labels" in card
    table.replace({"angry": "anger", "happy": "joy"}).to_csv("two.csv", index=False)
    with pytest.raises(EmolightError, match=r"one\.csv and two\.csv share the label sad alone: angry, happy, sad and "):
        run([*words, '--data.label_map={"sadness":"sad"}'])
    (here / "other").mkdir()
    shutil.copy("two.csv", here / "other" / "one.csv")
    with pytest.raises(EmolightError, match="Two corpora have the name 'one'"):
        run([*words, f"other/one.csv={corpus}"])


def transfer_options(**given: Any) -> argparse.Namespace:
    usual = {"name": "mine", "protocol": None, "by": None, "train_on": [], "test_on": [], "folds": [1]}
    return argparse.Namespace(**{**usual, "seeds": [0], "workers": 1, **given})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[int, Path]]]:
    """Folder and splits of every cross-validation of a transfer, of which only the first fold's test clips are told."""
    seen: list[tuple[str, dict[int, Path]]] = []

    def pretend(config: dict[str, Any], data: Any, folder: Path, *rest: Any) -> SimpleNamespace:
        seen.append((folder.name, rest[-1]))
        clips = data.clips.iloc[data.subset("test")]
        right = np.eye(len(data.classes))[clips["emotion"].map(data.classes.index)]
        return SimpleNamespace(table=predictions_table(clips, data.classes, right))

    monkeypatch.setattr(transfer, "cross_validate", pretend)
    return seen


def test_a_transfer_takes_no_training_on_other_clips_for_its_own(
    corpus: Path, here: Path, asked: list[tuple[str, dict[int, Path]]]
) -> None:
    """Values that differ in a sign, columns that have the same values, and a fold of an earlier command."""
    clips = corpus_of("Synthetic").table(corpus)[["path", "emotion", "speaker", "intensity"]]
    clips["age"] = np.where(clips["intensity"] == "strong", "<30", ">30")
    clips["native"] = np.where(clips["intensity"] == "strong", "yes", "no")
    clips["noisy"] = np.where(np.arange(len(clips)) % 2, "yes", "no")
    clips.to_csv("voices.csv", index=False)
    config = full_config(command(corpus, **{"data.corpus": "voices.csv", "data.task": "all"}))
    transfer.between_values(config, transfer_options(by="age"))
    assert len({name for name, _ in asked}) == 2
    transfer.between_values(config, transfer_options(by="noisy"))
    with pytest.raises(EmolightError, match="transfer_speakers5_no is of other clips than native no"):
        transfer.between_values(config, transfer_options(by="native"))
    transfer.between_values(config, transfer_options(by="noisy", folds=[2], seeds=[1]))
    assert all(asked[-1][1][fold].is_file() for fold in (1, 2))


@pytest.mark.usefixtures("asked")
def test_a_transfer_to_a_value_that_no_test_clip_has_is_a_mistake(corpus: Path, here: Path) -> None:
    config = full_config(command(corpus))
    with pytest.raises(EmolightError, match="No test clip of these folds is of sex female"):
        transfer.between_values(config, transfer_options(by="sex", protocol="loso"))
    with pytest.raises(EmolightError, match="Unknown column: 'subset'"):  # it is the first fold's
        transfer.between_values(config, transfer_options(by="subset"))


def test_a_transfer_skips_bad_clips_of_the_other_corpus_too(
    corpus: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Task] = []
    monkeypatch.setattr(transfer, "cross_validate", lambda *_: SimpleNamespace(table=pd.DataFrame()))
    monkeypatch.setattr(transfer, "runs_of", lambda _: {(1, 0): Run(here / "fold_1_seed_0" / "version_0")})
    monkeypatch.setattr(transfer, "run_all", lambda tasks, _: asked.extend(tasks))
    monkeypatch.setattr(Run, "predictions", lambda *_: pd.DataFrame())
    clips = corpus_of("Synthetic").table(corpus)[["path", "emotion", "speaker"]].head(100)
    (here / "bad.wav").write_bytes(b"")
    bad = {"path": [here / "bad.wav"], "emotion": ["sad"], "speaker": ["01"]}
    pd.concat([clips, pd.DataFrame(bad)]).to_csv("other.csv", index=False)
    config = full_config(command(corpus, **{"data.on_bad_clip": "skip"}))
    named = {"train_on": ["Synthetic"], "test_on": [f"other.csv={corpus}"]}
    transfer.between_corpora(config, transfer_options(**named))
    assert "--data.on_bad_clip=skip" in asked[0].arguments[0]
