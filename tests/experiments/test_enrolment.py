"""``crossval --enrol`` by the real command, and how the clips are drawn."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pandas as pd
import pytest

from emolight.__main__ import run
from emolight.errors import EmolightError
from emolight.experiments.results import read_result
from tests.small import CONFIGS, options


@pytest.fixture(scope="module")
def crossval(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("enrolment")
    words = ["--config", str(CONFIGS / "mfcc.yaml"), "--folds", "1", *options(corpus), "--model.speaker_norm=true"]
    with contextlib.chdir(folder):
        assert run(["crossval", *words, "--enrol", "0", "2", "all", "--enrol-as", "mixed", "ordinary"]) == 0
    return folder / "lightning_logs" / "mfcc" / "crossval_emobox6"


def test_the_curve_has_every_way_once(crossval: Path) -> None:
    table = pd.read_csv(crossval / "enrolment_test.csv")
    ways = list(zip(table["enrolled"], table["clips"].astype(str), table["draws"], strict=True))
    assert ways == [
        ("mixed", "0", 1),
        ("mixed", "2", 5),
        ("mixed", "all", 1),
        ("ordinary", "2", 5),
        ("ordinary", "all", 1),
    ]
    assert table[["uar", "low", "high"]].notna().all().all()
    assert (crossval / "enrolment_test.png").is_file()


def test_adapted_results_stand_apart_and_say_how(crossval: Path) -> None:
    plain = read_result(crossval)
    enrolled = read_result(crossval.with_name(f"{crossval.name}_enrol_2_mixed"))
    assert plain.fingerprint != enrolled.fingerprint
    assert "enrolled with 2 clips of all emotions, 5 draws" in enrolled.selection
    assert set(enrolled.table["clip_id"]) == set(plain.table["clip_id"])
    assert enrolled.table["seed"].nunique() == 5
    # Not enrolled at all, the same model gives what `test` gave.
    assert plain.openings == 2


def test_models_that_do_not_adapt_are_refused(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EmolightError, match="adapt to speakers"):
        run(["crossval", "--config", str(CONFIGS / "mfcc.yaml"), *options(corpus), "--enrol", "3"])
    with pytest.raises(EmolightError, match="numbers of clips"):
        run(["crossval", "--config", str(CONFIGS / "mfcc.yaml"), *options(corpus), "--enrol", "many"])
