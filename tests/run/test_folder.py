"""The folder of a run: found from anywhere in it, claimed and counted by many at once."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from emolight.__main__ import run as emolight
from emolight.errors import EmolightError
from emolight.evaluation.predictions import scores
from emolight.run.folder import CONFIG, Run, read_config


@pytest.mark.parametrize("place", [".", "checkpoints", "checkpoints/best.ckpt", "checkpoints/last.ckpt", "plots"])
def test_a_run_is_opened_by_its_folder_and_by_what_lies_in_it(place: str, fitted: Path) -> None:
    run = Run.open(fitted / place)
    assert run.folder.resolve() == fitted
    assert run.name == "mfcc version_0"
    assert run.finished
    assert (run.subset, run.openings) == ("val", 0)
    assert run.metrics == scores(run.predictions("val"))


def test_from_within_the_folder_too(fitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fitted / "checkpoints")
    assert Run.open("best.ckpt").name == "mfcc version_0"
    assert Run.open(".").best.resolve() == fitted / "checkpoints" / "best.ckpt"


def test_a_configuration_further_up_makes_no_run(here: Path) -> None:
    (here / CONFIG).write_text("data: {}\n")
    deep = here / "models" / "mine" / "checkpoints"
    deep.mkdir(parents=True)
    (deep / "best.ckpt").write_bytes(b"")
    with pytest.raises(EmolightError, match=r"No config\.yaml in the folders above"):
        Run.open(deep / "best.ckpt")
    with pytest.raises(EmolightError, match="There is no run 'nowhere'"):
        Run.open("nowhere")


def test_what_is_missing_or_damaged_is_named(fitted: Path, here: Path) -> None:
    shutil.copytree(fitted, here / "copy")
    with pytest.raises(EmolightError, match=r"emolight test --ckpt_path copy/checkpoints/best\.ckpt"):
        Run.open("copy").predictions("test")
    (here / "copy" / "environment.json").write_text("{")
    with pytest.raises(EmolightError, match=r"environment\.json is damaged"):
        _ = Run.open("copy").environment
    (here / "copy" / "environment.json").unlink()
    assert Run.open("copy").environment == {}
    for text, message in (("data: [", "is not valid YAML"), ("data: {}\nmodel: 3\n", "no model, trainer")):
        (here / "copy" / CONFIG).write_text(text)
        with pytest.raises(EmolightError, match=message):
            read_config(here / "copy" / CONFIG)


def test_a_cross_validation_that_is_not_finished_is_no_run(here: Path) -> None:
    (here / "mine" / "fold_1_seed_0").mkdir(parents=True)
    with pytest.raises(EmolightError, match="The cross-validation in 'mine' is not finished"):
        Run.open("mine")
    assert Run("mine").folder == Path("mine")


def test_facts_are_added_and_kept(fitted: Path, here: Path) -> None:
    shutil.copytree(fitted, here / "copy")
    run = Run.open("copy")
    run.note(speed="fast")
    again = Run.open("copy").environment
    assert again["speed"] == "fast"
    assert again["corpus"] == run.environment["corpus"] != ""


def test_runs_that_may_not_be_compared_have_other_fingerprints(fitted: Path, here: Path) -> None:
    mark = Run.open(fitted).fingerprint
    assert mark["protocol"] == "emobox6 fold 1"
    assert (mark["task"], mark["clips scored"], mark["selection"]) == (
        "article",
        "val",
        Run.open(fitted).split.selection,
    )
    shutil.copytree(fitted, here / "copy")
    shutil.copy(here / "copy" / "predictions_val.csv", here / "copy" / "predictions_test.csv")
    split = pd.read_csv(here / "copy" / "split.csv", dtype=str)
    split.iloc[1:].to_csv(here / "copy" / "split.csv", index=False)
    other = Run.open("copy").fingerprint
    assert [name for name in mark if mark[name] != other[name]] == ["clips scored", "split"]


def test_its_data_is_on_its_own_split(fitted: Path, corpus: Path, here: Path) -> None:
    run = Run.open(fitted)
    shutil.copytree(corpus, here / "moved")
    data = run.data(root=str(here / "moved"), batch_size=2)
    data.setup()
    assert (data.split.hash, data.split.label, data.batch_size) == (run.split.hash, "emobox6 fold 1", 2)
    assert str(here / "moved") in data.clips["file"][0]
    assert run.data(root=None).places[0][1] == corpus


def test_no_two_claim_the_same_folder(here: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: Run.claim(here / "logs", "a/b").folder, range(40)))
    assert sorted(int(folder.name.removeprefix("version_")) for folder in made) == list(range(40))
    for name in ("../out", "/out", "a/../../out"):
        with pytest.raises(EmolightError, match="leads out of"):
            Run.claim(here / "logs", name)
    (here / "file").write_text("")
    with pytest.raises(EmolightError, match="No run folder can be made under"):
        Run.claim(here / "file", "name")


def score(folder: str) -> None:
    """Ten threads of one process score the test clips."""
    run = Run(Path(folder))
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda number: run.count_test(f'model {number}, "last".ckpt', 5), range(10)))


@pytest.mark.parametrize("command", ["test --ckpt_path", "validate --ckpt_path", "robustness"])
def test_a_folder_that_is_not_writable_is_refused_before_the_scoring(
    command: str, fitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: access(path, mode) and (mode != os.W_OK or Path(path) != fitted)
    )
    before = sorted(path.name for path in fitted.iterdir())
    with pytest.raises(EmolightError, match=r"cannot be written to[\s\S]*Copy it"):
        emolight([*command.split(), str(fitted)])
    assert sorted(path.name for path in fitted.iterdir()) == before


def test_of_80_concurrent_scorings_none_is_lost(here: Path) -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        pool.map(score, [str(here)] * 8, chunksize=1)
    assert Run(here).openings == 80
    table = pd.read_csv(here / "test_scorings.csv")
    assert set(table["checkpoint"]) == {f'model {number}, "last".ckpt' for number in range(10)}
    assert (table["clips"] == 5).all()
    assert not list(here.glob("*.part"))
