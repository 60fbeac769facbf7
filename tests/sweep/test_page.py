"""What stands in the folder of a sweep at the end, by studies of made-up trials."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import yaml
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from emolight.evaluation.style import BLUE
from emolight.report.pages import Cell, Sheet
from emolight.sweep.page import _pictures, write_sweep
from emolight.sweep.space import Sweep, read_sweep
from emolight.sweep.study import ERROR
from emolight.sweep.trial import FOLDERS, Plan

pytestmark = pytest.mark.drawn

SWEEPS = Path(__file__).resolve().parents[2] / "sweeps"
URL = "postgresql://me:geheim@host/db"
BASE = {"trainer": {"devices": "auto", "strategy": "auto", "max_epochs": 5, "default_root_dir": None}}


@pytest.fixture
def page(here: Path) -> str:
    """Of 20 trials, in which trial 17 is the best, 4 and 13 failed, and the others report and may be pruned."""
    study, plan = made({"val/uar": "maximize"})
    write_sweep(study, plan, URL)
    return (plan.folder / "sweep.html").read_text(encoding="utf-8")


def made(objectives: dict[str, str], trials: int = 20) -> tuple[optuna.Study, Plan]:
    sweep = Sweep(**{**vars(read_sweep(SWEEPS / "features.yaml")), "objectives": objectives})
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    study = optuna.create_study(directions=[*objectives.values()], sampler=sweep.make_sampler(0), pruner=pruner)
    rng = np.random.default_rng(0)

    def objective(trial: optuna.Trial) -> list[float]:
        sweep.suggest(trial)
        folder = Path("lightning_logs/features") / f"trial_{trial.number:04d}" / "version_0"
        folder.mkdir(parents=True)
        config = {"name": "x", "data": {}, "model": {}, "trainer": {"devices": 1, "strategy": "ddp"}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        clips = "clip_id,emotion,speaker,subset,protocol\n"
        clips += "".join(f"{subset},happy,{subset},{subset},emobox6 fold 1\n" for subset in ("test", "train", "val"))
        (folder / "split.csv").write_text(clips)
        trial.set_user_attr(FOLDERS, [str(folder)])
        if trial.number in (4, 13):
            trial.set_user_attr(ERROR, "<script>alert('1')</script>")
            raise ValueError
        value = 0.625 if trial.number == 17 else float(rng.uniform(0.4, 0.6))
        for epoch in range(5) if len(objectives) == 1 else ():
            trial.report(value * (epoch + 1) / 5, epoch)
            if trial.should_prune() and trial.number != 17:
                raise optuna.TrialPruned
        return [value, float(rng.integers(10**6, 2 * 10**6))][: len(objectives)]

    study.optimize(objective, n_trials=trials, catch=(ValueError,))
    study.enqueue_trial({})
    return study, Plan(sweep, [], BASE)


def test_page_of_a_sweep(page: str) -> None:
    for title in ("Optimization history", "Intermediate values", "Parameter importances", "Slice"):
        assert f">{title}</h2>" in page
    assert '<strong class="huge">62.5\u00a0%</strong>' in page
    assert "Objective" not in page
    assert "sweep retrain --config lightning_logs/features --protocol emobox6" in page
    assert "optuna-dashboard postgresql://me@host/db" in page
    assert "<script>alert" not in page
    assert page.count("<tr") == 21  # head and trials; the one that waits is not begun
    assert page.count('class="strong"') == 1


def test_figures_say_per_cent_whole_trials_and_which_is_the_best(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: dict[str, Figure] = {}
    monkeypatch.setattr(
        "emolight.sweep.page.picture", lambda figure, alt: figures.setdefault(alt.partition(" of ")[0], figure)
    )
    study, _ = made({"val/uar": "maximize"})
    list(_pictures(study, ["val/uar"]))
    for figure in figures.values():
        figure.draw_without_rendering()
        assert [axes.get_title(loc=place) for axes in figure.axes for place in ("left", "center")] == [""] * (
            2 * len(figure.axes)
        )
    history, curves, slices = (figures[name].axes for name in ("Optimization history", "Intermediate values", "Slice"))
    assert (history[0].get_xlabel(), history[0].get_ylabel()) == ("Trial", "val/uar (%)")
    assert all(float(text).is_integer() for text in ticks(history[0].xaxis))
    assert max(map(float, ticks(history[0].yaxis))) > 60
    # Validations count from 1, and of the trials the best stands out.
    assert (curves[0].get_xlabel(), curves[0].get_ylabel()) == ("validation", "val/uar (%)")
    assert [text for text, at in zip(ticks(curves[0].xaxis), curves[0].get_xticks(), strict=True) if at == 0] == ["1"]
    assert [line.get_label() for line in curves[0].lines if line.get_color() == BLUE] == ["Trial17"]
    assert {"spectrogram", "mel", "mfcc"} >= set(ticks(slices[0].xaxis)) > {"mel"}
    assert "0.001" in ticks(slices[3].xaxis)


def ticks(axis: Axis) -> list[str]:
    return [text.get_text().replace("\N{MINUS SIGN}", "-") for text in axis.get_ticklabels()]


def test_a_column_of_numbers_is_one_although_the_best_trial_has_none() -> None:
    sheet = Sheet(
        "Trials", ["trial", "n_mfcc", "state"], [[Cell("17", 17), Cell("", ""), Cell("complete", "complete")]]
    )
    assert sheet.figures == [True, False, False]
    assert sheet._replace(rows=[*sheet.rows, [Cell("3", 3), Cell("35", 35), Cell("pruned", "pruned")]]).figures == [
        *(True, True, False)
    ]


def test_best_yaml_and_trials_csv(page: str, here: Path) -> None:
    folder = Path("lightning_logs/features")
    assert (folder / "best.yaml").read_text().startswith("# Trial 17 of the sweep 'features'")
    best = yaml.safe_load((folder / "best.yaml").read_text())
    assert (best["name"], best["trainer"]) == ("features/best", {"devices": "auto", "strategy": "auto"})
    trials = pd.read_csv(folder / "trials.csv")
    assert trials["value"].idxmax() == 17
    assert "params_model.learning_rate" in trials


def test_after_a_split_of_ones_own_every_speaker_is_held_out_by_speakers5(here: Path) -> None:
    study, plan = made({"val/uar": "maximize"}, 1)
    path = Path(study.best_trial.user_attrs[FOLDERS][0]) / "config.yaml"
    path.write_text(path.read_text().replace("data: {}", "data: {split_csv: own.csv}"))
    write_sweep(study, plan, URL)
    text = (plan.folder / "sweep.html").read_text(encoding="utf-8")
    assert "sweep retrain --config lightning_logs/features --protocol speakers5" in text


def test_several_objectives_and_no_complete_trial(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, plan = made({"val/uar": "maximize", "parameters": "minimize"}, 12)
    write_sweep(study, plan, URL)
    text = (plan.folder / "sweep.html").read_text(encoding="utf-8")
    assert ">Pareto front</h2>" in text
    assert text.count('class="strong"') == len(study.best_trials) > 1
    told = capsys.readouterr().out
    assert "next:\npython -m emolight sweep retrain" in told
    assert "geheim" not in told + text
    empty = optuna.create_study(directions=["maximize", "minimize"])
    write_sweep(empty, plan, URL)
    assert "No best trial" in (plan.folder / "sweep.html").read_text(encoding="utf-8")
