"""``crossval --enrol`` by the real command, and how the clips are drawn."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgba

from emolight.__main__ import run
from emolight.errors import EmolightError
from emolight.experiments.compare import make_groups
from emolight.experiments.enrolment import _ways, _write, enrolment_figure, score_enrolment
from emolight.experiments.results import read_result
from emolight.inference.recognizer import load
from emolight.report.report import page
from emolight.run.folder import Run
from tests.small import CONFIGS, options


@pytest.fixture(scope="module")
def crossval(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("enrolment")
    small = options(corpus, **{"trainer.precision": "32-true"})  # as enrolment is computed
    words = ["--config", str(CONFIGS / "mfcc.yaml"), "--folds", "1", *small, "--model.speaker_norm=true"]
    with contextlib.chdir(folder):
        assert (
            run(["crossval", *words, "--enrol", "0", "2", "22", "400", "all", "--enrol-as", "mixed", "ordinary"]) == 0
        )
    return folder / "lightning_logs" / "mfcc" / "crossval_emobox6"


def test_the_curve_has_every_way_once(crossval: Path) -> None:
    table = pd.read_csv(crossval / "enrolment_test.csv")
    ways = list(zip(table["enrolled"], table["clips"].astype(str), table["draws"], strict=True))
    assert ways == [
        ("mixed", "0", 1),
        ("mixed", "2", 5),
        ("mixed", "22", 5),
        ("mixed", "all", 1),
        ("ordinary", "2", 5),
        ("ordinary", "all", 1),
    ]
    assert table["clips_mean"].tolist() == pytest.approx([0, 2, 19, 19, 2, 3.8])  # of 20 clips a speaker, 4 are calm
    assert not list(crossval.parent.glob("*_enrol_400_*"))
    assert (
        "enrolled with 22 clips of all emotions, 19.0 on average"
        in read_result(crossval.with_name(f"{crossval.name}_enrol_22_mixed")).selection
    )
    assert table[["uar", "low", "high"]].notna().all().all()
    assert (crossval / "enrolment_test.png").is_file()


@pytest.mark.drawn
def test_the_legend_covers_no_curve_and_bars_have_the_colour_of_their_line() -> None:
    kinds = ("mixed", "ordinary", "one emotion")
    rows = [
        {"enrolled": kind, "clips": count, "uar": 0.5, "low": 0.4, "high": 0.6}
        for kind in kinds
        for count in ("0", "2")
    ]
    figure = enrolment_figure(rows, "test clips of enrolled speakers")
    figure.draw_without_rendering()
    (axes,), (legend,) = figure.axes, figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(kinds)
    assert legend.get_window_extent().y1 <= axes.get_tightbbox().y0
    for line, caps, bars in axes.containers:
        colour = to_rgba(line.get_color())
        assert [to_rgba(cap.get_color()) for cap in caps] == [colour] * 2
        assert [tuple(one) for one in bars[0].get_color()] == [colour]


def test_more_clips_than_there_are_is_a_mistake(crossval: Path, tmp_path: Path) -> None:
    shutil.copytree(crossval, tmp_path / "lightning_logs" / "mfcc" / crossval.name)
    result = read_result(tmp_path / "lightning_logs" / "mfcc" / crossval.name)
    with pytest.raises(EmolightError, match=r"No speaker has so many other clips\."):
        score_enrolment(result, ["400"], ["mixed"], None)


def test_adapted_results_stand_apart_and_say_how(crossval: Path) -> None:
    plain = read_result(crossval)
    enrolled = read_result(crossval.with_name(f"{crossval.name}_enrol_2_mixed"))
    assert plain.fingerprint != enrolled.fingerprint
    assert "enrolled with 2 clips of all emotions, 5 draws" in enrolled.selection
    assert set(enrolled.table["clip_id"]) == set(plain.table["clip_id"])
    assert enrolled.table["seed"].nunique() == 5
    (group,) = make_groups([enrolled])
    assert group["results"][0]["seeds"] == 1  # and each of its draws is of the same network
    text = page(enrolled)
    assert "a mean over 5 draws of enrolled clips, between which" in text
    assert "5 seeds" not in text
    with pytest.raises(EmolightError, match="holds results without their models, as of enrolled speakers"):
        load(enrolled.folder)
    # Not enrolled at all, the same model gives what `test` gave.
    assert plain.openings == enrolled.openings == 2


def test_a_model_scores_enrolled_speakers_of_another_corpus(
    crossval: Path,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It knows no `bored`, the other corpus has no `calm`, and the command is given where the run is."""
    paths, emotions = sorted(corpus.rglob("*-0[56].wav")), {"03": "happy", "04": "sad", "05": "angry", "06": "bored"}
    rows = [(path, emotions.get(path.stem.split("-")[2]), f"other {path.stem[-2:]}") for path in paths]
    table = pd.DataFrame(rows, columns=["path", "emotion", "speaker"]).dropna()
    table.to_csv(tmp_path / "other.csv", index=False)
    made = crossval / "fold_1_seed_0" / "version_0"
    monkeypatch.chdir(made)
    words = ["test", "--ckpt_path", ".", "--data.corpus", str(tmp_path / "other.csv"), "--data.root=/"]
    words += [f"--data.cache_dir={corpus.parent / 'cache'}", "--enrol", "0", "2", "all", "--enrol-as", "mixed"]
    assert run(words) == 0
    assert "labels of both: happy, sad, angry" in capsys.readouterr().out
    curve = pd.read_csv(made / "enrolment_test_other.csv", dtype=str)
    assert curve["clips"].tolist() == ["0", "2", "all"]
    none, two, everything = (
        read_result(made.with_name(f"version_0_other_enrol_{way}")) for way in ("0", "2_mixed", "all_mixed")
    )
    known = table[table["emotion"] != "bored"]
    for result in (none, two, everything):
        assert (result.corpus, result.protocol, result.kind) == ("other", "every clip tests", "test")
        assert result.table["clip_id"].nunique() == len(known)
        assert set(result.table["speaker"]) == {"other 05", "other 06"}
        assert set(result.table["prediction"]) <= {"happy", "sad", "angry"}
        assert "labels of both: happy, sad, angry" in result.facts["meaning"]
    assert none.selection.endswith("; speakers not enrolled")
    assert two.selection.endswith("; speakers enrolled with 2 clips of all emotions, 5 draws")
    assert two.table["seed"].nunique() == 5
    plain = Run.open(made).predictions("test", "_other")
    pd.testing.assert_frame_equal(plain, none.table[plain.columns], rtol=1e-3, atol=1e-5)
    assert not np.allclose(plain["prob_sad"], everything.table["prob_sad"], rtol=0, atol=1e-4)


def test_of_two_processes_one_scores_the_enrolled(crossval: Path) -> None:
    words = ["--ckpt_path", str(crossval / "fold_1_seed_0" / "version_0"), "--enrol", "2", "--enrol-as", "mixed"]
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]
    command = [sys.executable, "-m", "emolight", "test", *words, *two]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("clips mixed") == 1


@pytest.mark.parametrize(("count", "drawn"), [("0", 0), ("2", 2), ("9", 4), ("all", 4)])
def test_a_clip_is_adapted_by_others_of_its_speaker_alone(count: str, drawn: int) -> None:
    """Clip i is a one at place i, so that an offset shows who made it."""
    speakers, seen = np.array(list("aababbabba")), list[torch.Tensor]()
    clips = pd.DataFrame({"clip_id": list("0123456789"), "speaker": speakers, "emotion": ["sad", "happy"] * 5})
    batch = {"index": torch.arange(10)}
    model = SimpleNamespace(
        speakers=SimpleNamespace(offset=lambda statistics, ordinary: statistics.sum(0)),
        statistics=lambda batch: torch.eye(10),
        logits=lambda batch, offset: seen.append(offset) or torch.zeros(10, 2),
        temperature=1.0,
        network=None,
    )
    data = SimpleNamespace(
        clips=clips,
        test_dataloader=lambda: [batch],
        classes=["happy", "sad"],
        groups=(),
        split=SimpleNamespace(label=""),
    )
    draws = list(_ways(model, data, "test", [count, count], ["mixed", "mixed"]))  # type: ignore[arg-type]
    assert len(draws) == len(seen) == (5 if count.isdecimal() and drawn else 1)
    for offsets in seen:
        assert (offsets.sum(1) == drawn).all()
        assert offsets.diagonal().sum() == 0
        assert all(offsets[clip][torch.from_numpy(speakers != speakers[clip])].sum() == 0 for clip in range(10))


def test_speakers_without_ordinary_clips_are_not_said_to_be_enrolled(tmp_path: Path) -> None:
    table = pd.DataFrame({"clip_id": ["a"], "seed": [0], "enrolled": [0.0]})
    with pytest.raises(EmolightError, match="No speaker has so many other clips"):
        _write({("ordinary", "all"): [table]}, {}, tmp_path / "run", tmp_path / "curve")


def test_a_fold_that_chose_not_to_adapt_is_told() -> None:
    """The sweep of ``--nested`` may have model.speaker_norm in its space."""
    data: Any = SimpleNamespace(clips=pd.DataFrame({"speaker": ["1"]}))
    model: Any = SimpleNamespace(speakers=None)
    with pytest.raises(EmolightError, match="adapt to speakers"):
        next(_ways(model, data, "test", ["2"], ["mixed"]))


def test_models_that_do_not_adapt_are_refused(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EmolightError, match="adapt to speakers"):
        run(["crossval", "--config", str(CONFIGS / "mfcc.yaml"), *options(corpus), "--enrol", "3"])
    with pytest.raises(EmolightError, match="numbers of clips"):
        run(["crossval", "--config", str(CONFIGS / "mfcc.yaml"), *options(corpus), "--enrol", "many"])
