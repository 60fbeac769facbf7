"""A trial is a fit like any other: its folder, its value, its pruning; also with two processes of DDP."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import torch
from optuna.trial import TrialState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from emolight.errors import EmolightError
from emolight.sweep.definition import read_sweep
from emolight.sweep.storage import open_storage
from emolight.sweep.study import create_study, work
from emolight.sweep.trial import Plan, drop_checkpoints, make_plan, run_trial, validated
from emolight.sweep.watch import Progress
from emolight.sweep.workers import join_study
from tests.small import CONFIGS, options

SPACE = "{model.learning_rate: {low: 3.0e-4, high: 5.0e-3, log: true}}"


@pytest.fixture
def plan(corpus: Path, here: Path) -> Callable[..., Plan]:
    def make(text: str = "", space: str = SPACE, words: Sequence[str] = ()) -> Plan:
        path = here / "small.yaml"
        path.write_text(f"config: {CONFIGS / 'mfcc.yaml'}\nspace: {space}\npruner: none\ntrials: 1\n{text}\n")
        given = [word for word in options(corpus) if not word.startswith("--trainer.max_epochs")]
        return make_plan(read_sweep(path), [*given, *words])

    return make


def run(plan: Plan) -> optuna.Study:
    url = "sqlite:///study.db"
    create_study(
        open_storage(url), plan.sweep.name, list(plan.sweep.objectives.values()), plan.definition, plan.sweep.trials
    )
    study = join_study(plan, url)
    work(study, lambda trial: run_trial(plan, trial))
    return study


def test_a_trial_is_a_run_and_its_value_that_of_best_ckpt(plan: Callable[..., Plan]) -> None:
    (trial,) = run(plan("epochs: 3")).trials
    folder = Path("lightning_logs/small/trial_0000/version_0")
    assert trial.user_attrs["folders"] == [str(folder)]
    curve = validated(folder / "metrics.csv")
    assert trial.values == [pytest.approx(max(row["val/uar"] for row in curve), abs=1e-6)]
    assert list(trial.intermediate_values) == [0, 1, 2]
    assert trial.user_attrs["epochs"] == 3
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["hyper_parameters"]["learning_rate"] == pytest.approx(trial.params["model.learning_rate"])
    events = EventAccumulator(str(folder))
    events.Reload()
    assert "_hparams_/session_start_info" in events.summary_metadata
    assert (folder / "config.yaml").is_file()
    assert not (folder / "predictions_test.csv").exists()


def test_a_pruned_fit_ends_early_with_a_whole_folder(
    plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna.pruners.NopPruner, "prune", lambda self, study, trial: trial.last_step >= 1)
    (trial,) = run(plan("epochs: 9")).trials
    assert trial.state is TrialState.PRUNED
    assert trial.user_attrs["epochs"] == 2
    folder = Path(trial.user_attrs["folders"][0])
    assert len(validated(folder / "metrics.csv")) == 2
    assert (folder / "plots" / "curves.png").is_file()


def test_only_the_best_trial_keeps_its_checkpoints(plan: Callable[..., Plan]) -> None:
    made = plan()
    study = optuna.create_study(direction="maximize")
    for number, value in enumerate((0.3, 0.5, 0.4)):
        (made.folder / f"trial_{number:04d}" / "version_0" / "checkpoints").mkdir(parents=True)
        study.tell(study.ask(), value)
    study.ask()  # runs
    (made.folder / "trial_0003" / "version_0" / "checkpoints").mkdir(parents=True)
    drop_checkpoints(replace(made, sweep=replace(made.sweep, checkpoints="all")), study)
    assert len(list(made.folder.glob("*/*/checkpoints"))) == 4
    drop_checkpoints(made, study)
    assert [path.parts[-3] for path in sorted(made.folder.glob("*/*/checkpoints"))] == ["trial_0001", "trial_0003"]


def test_several_folds_and_objectives(plan: Callable[..., Plan]) -> None:
    text = "folds: [1, 2]\nepochs: 1\nobjectives: {val/uar: maximize, parameters: minimize, latency_ms: minimize}"
    (trial,) = run(plan(text)).trials
    found = [validated(Path(folder) / "metrics.csv")[0]["val/uar"] for folder in trial.user_attrs["folders"]]
    assert [Path(folder).parent.name for folder in trial.user_attrs["folders"]] == [
        "fold_1_seed_0",
        "fold_2_seed_0",
    ]
    assert trial.values[0] == pytest.approx(sum(found) / 2, abs=1e-6)
    assert 11e6 < trial.values[1] < 12e6
    assert trial.values[2] > 0


def test_a_fit_that_cannot_run_says_why(plan: Callable[..., Plan]) -> None:
    small = plan("epochs: 1", space="{data.batch_size: {choices: [16, -1]}}")
    trial: Any = optuna.trial.FixedTrial({"data.batch_size": -1})
    with pytest.raises(EmolightError, match="batch_size"):
        run_trial(small, trial)


class FakeTrial:
    """Takes reports."""

    number = 0

    def __init__(self, stop_at: int = 99) -> None:
        self.reports: dict[int, float] = {}
        self.stop_at = stop_at

    def report(self, value: float, step: int) -> None:
        self.reports[step] = value

    def should_prune(self) -> bool:
        return max(self.reports) >= self.stop_at


def test_steps_go_on_across_folds_with_the_mean_of_what_is_known(
    plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emolight.sweep.watch.costs", lambda *_: {})
    trial: Any = FakeTrial()
    progress = Progress(plan("folds: [1, 2]\nepochs: 2"), trial)
    for fold in ((0.2, 0.6), (0.4, 0.3)):
        for uar in fold:
            assert not progress.epoch({"val/uar": uar})
        progress.end_fit(Path())
    # The last epoch dips to 0.3: the best of its fit so far, 0.4, goes into the mean.
    assert trial.reports == pytest.approx({0: 0.2, 1: 0.6, 2: 0.5, 3: 0.5})
    assert progress.values == pytest.approx([0.5])


@pytest.mark.parametrize(
    ("metrics", "message"),
    [({"val/loss": 1.0}, "val/uar is missing among val/loss"), ({"val/uar": float("nan")}, "val/uar is nan")],
)
def test_a_missing_metric_is_an_error(metrics: dict[str, float], message: str, plan: Callable[..., Plan]) -> None:
    trial: Any = FakeTrial()
    with pytest.raises(EmolightError, match=message):
        Progress(plan(), trial).epoch(metrics)


def test_two_processes_with_ddp(plan: Callable[..., Plan]) -> None:
    (trial,) = run(plan("devices_per_trial: 2\nepochs: 2")).trials
    folder = Path(trial.user_attrs["folders"][0])
    assert trial.state is TrialState.COMPLETE
    curve = pd.read_csv(folder / "metrics.csv")["val/uar"].dropna()
    assert list(trial.intermediate_values.values()) == pytest.approx(list(curve.cummax()))
    assert '"processes": 2' in (folder / "environment.json").read_text()


def test_two_processes_are_stopped_when_pruned(plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optuna.pruners.NopPruner, "prune", lambda self, study, trial: True)
    made: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def keep(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        process = popen(*args, **kwargs)
        if "emolight" in args[0]:
            made.append(process)
        return process

    monkeypatch.setattr("emolight.sweep.trial.subprocess.Popen", keep)
    (trial,) = run(plan("devices_per_trial: 2\nepochs: 500")).trials
    assert trial.state is TrialState.PRUNED
    assert [process.returncode for process in made] == [143]
    folder = Path(trial.user_attrs["folders"][0])
    before = (folder / "metrics.csv").read_bytes()
    time.sleep(2)
    assert (folder / "metrics.csv").read_bytes() == before  # the other process of the group is gone as well


def test_a_metrics_table_that_is_being_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    assert validated(path) == []
    path.write_text("epoch,step,train/loss,val/uar\n0,3,1.5,\n0,3,,0.25\n1,6,,0.")
    assert validated(path) == [{"epoch": 0.0, "step": 3.0, "val/uar": 0.25}]
