"""A cross-validation whose options are chosen within each fold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest

from emolight.__main__ import run
from emolight.data.corpora import RAVDESS, Synthetic
from emolight.errors import EmolightError
from emolight.experiments.results import read_result
from emolight.run.folder import Run
from emolight.sweep.nested import choose
from tests.small import CONFIGS, options
from tests.sweep.conftest import YAML

FOLDER = Path("lightning_logs/mfcc/crossval_emobox6_nested")


def test_each_fold_takes_the_best_trial_on_its_own_validation_speakers(words: list[str], corpus: Path) -> None:
    command = ["crossval", "--config", str(CONFIGS / "mfcc.yaml"), "--nested", words[1], "--workers", "2"]
    command += ["--folds", "1", "2", *options(corpus)]
    assert run(command) == 0
    result = read_result(FOLDER)
    assert result.protocol == "emobox6 folds 1 2, options chosen within each fold"
    assert (result.kind, result.subset, result.openings) == ("crossval", "test", 2)
    chosen = pd.read_csv(FOLDER / "tables" / "chosen.csv").set_index("fold")
    assert [*chosen.index] == [1, 2]
    for fold, row in chosen.iterrows():
        trials = [Run.open(path) for path in sorted(FOLDER.glob(f"search_fold_{fold}/trial_*/version_0"))]
        assert len(trials) == 2
        for trial in trials:
            assert trial.split.speakers("val") == sorted(RAVDESS.protocols["emobox6"][int(str(fold))].val)
            assert trial.openings == 0
        found = [trial.environment["best_metrics"]["val/uar"] for trial in trials]
        assert (row["trial"], row["val/uar"]) == (found.index(max(found)), pytest.approx(max(found)))
        best, own = trials[row["trial"]], Run.open(FOLDER / f"fold_{fold}_seed_0" / "version_0")
        assert own.config["model"] == best.config["model"]
        assert own.config["model"]["learning_rate"] == pytest.approx(row["model.learning_rate"])
        assert own.openings == 1
        page = (FOLDER / f"search_fold_{fold}" / "sweep.html").read_text(encoding="utf-8")
        assert "that of the nested cross-validation" in page
        assert "retrain" not in page  # on other folds, whose test speakers have chosen
    before = {path: path.read_bytes() for path in [*FOLDER.glob("**/chosen.*"), FOLDER / "predictions.csv"]}
    assert run(command) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert len([*FOLDER.glob("*_fold_*/**/version_0")]) == 4
    assert run(["report", str(FOLDER)]) == 0
    assert "options chosen within each fold" in (FOLDER / "report.html").read_text(encoding="utf-8")
    sweep = Path(words[1])
    sweep.write_text(sweep.read_text().replace("trials: 2", "trials: 3"))
    with pytest.raises(EmolightError, match="search_fold_1 was searched by another sweep"):
        run(command)


def test_a_search_whose_trials_were_all_pruned(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "small.yaml").write_text(YAML)
    monkeypatch.setattr("emolight.sweep.sweep.search", lambda *_: optuna.create_study())
    with pytest.raises(EmolightError, match=r"No trial of .*search_fold_1 came to its end"):
        choose(Path("small.yaml"), FOLDER, 1, 1)


def test_it_needs_folds_with_test_speakers(words: list[str], corpus: Path) -> None:
    clips = Synthetic().find(corpus).table[["path", "emotion", "speaker"]]
    clips.assign(subset=np.resize(["train", "val", "test"], len(clips))).to_csv("mine.csv", index=False)
    command = ["crossval", "--config", str(CONFIGS / "mfcc.yaml"), "--nested", words[1], *options(corpus)]
    for more in (["--protocol", "random"], ["--data.corpus", "mine.csv", "--data.task", "null"]):
        with pytest.raises(EmolightError, match="needs folds with test speakers"):
            run([*command, *more])
