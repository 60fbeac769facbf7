"""A trial is a fit like any other: its folder, its value, its pruning; also with two processes of DDP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pandas as pd
import pytest
import torch
from optuna.trial import FrozenTrial, TrialState

from emolight.errors import EmolightError
from emolight.run.folder import Run
from emolight.run.recorder import Best, Recorder
from emolight.sweep.space import read_sweep
from emolight.sweep.storage import open_storage
from emolight.sweep.study import create_study
from emolight.sweep.trial import Plan, Report, drop_checkpoints, make_plan, value_of
from emolight.sweep.workers import run_worker


@pytest.fixture
def plan(words: list[str]) -> Callable[..., Plan]:
    def make(text: str = "", **changed: Any) -> Plan:
        path = Path("small.yaml")
        path.write_text(f"{path.read_text()}\n{text}\n")
        alone = [] if "devices_per_trial" not in changed else ["--trainer.accelerator=cpu"]
        return make_plan(replace(read_sweep(path), trials=1, **changed), [*words[2:], *alone])

    return make


def trial_of(plan: Plan) -> FrozenTrial:
    url, sweep = "sqlite:///study.db", plan.sweep
    study = create_study(open_storage(url, True), sweep.name, sweep.objectives, plan.definition, sweep.trials)
    plan.folder.mkdir(parents=True, exist_ok=True)
    run_worker(plan, url)
    (trial,) = study.trials
    return trial


@pytest.mark.parametrize("more", [[], ["--data.protocol=random"]])
def test_the_value_is_that_of_the_epoch_of_best_ckpt(more: list[str], plan: Callable[..., Plan]) -> None:
    made = plan(epochs=2, folds=[] if more else [1])
    made = make_plan(made.sweep, [*made.words, *more])
    trial = trial_of(made)
    (folder,) = trial.user_attrs["folders"]
    assert Path(folder) == Path("lightning_logs/small/trial_0000/version_0")
    run = Run.open(folder)
    assert trial.values == [pytest.approx(run.metrics["uar"], abs=1e-6)]
    curve = pd.read_csv(run.folder / "metrics.csv")["val/uar"].dropna().tolist()
    expected = curve if more else [max(curve[: epoch + 1]) for epoch in range(2)]
    assert list(trial.intermediate_values.values()) == pytest.approx(expected)
    assert trial.values == [trial.intermediate_values[1]]
    best = torch.load(run.best, weights_only=True)
    assert best["epoch"] + 1 == run.environment["best_epoch"]
    assert best["hyper_parameters"]["learning_rate"] == pytest.approx(trial.params["model.learning_rate"])
    assert run.subset == "val"
    assert run.openings == 0


def test_a_pruned_fit_ends_early_with_a_whole_folder(
    plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna.pruners.NopPruner, "prune", lambda self, study, trial: trial.last_step >= 1)
    trial = trial_of(plan(epochs=9))
    assert trial.state is TrialState.PRUNED
    run = Run.open(trial.user_attrs["folders"][0])
    assert len(pd.read_csv(run.folder / "metrics.csv")["val/uar"].dropna()) == 2
    assert run.finished


def test_what_is_reported_is_what_the_trial_would_be_worth_now(tmp_path: Path) -> None:
    study = optuna.create_study(pruner=optuna.pruners.NopPruner())
    report, recorder = Report(study.ask(), "val/uar", 4), Recorder(Run(tmp_path))
    trainer: Any = SimpleNamespace(state=SimpleNamespace(fn="fit"), sanity_checking=False, callbacks=[recorder])
    trainer.should_stop = True  # by early stopping, which is no pruning
    trainer.max_epochs, trainer.num_training_batches, loop = 2, 10, SimpleNamespace()
    trainer.fit_loop = SimpleNamespace(epoch_loop=loop)
    for batches, uar in ((4, 0.1), (5, 0.25), (8, 0.3), (20, 0.5)):  # before the first of four steps, at it, too early
        recorder.best, loop.total_batch_idx = Best(0, {"val/uar": uar}), batches - 1
        report.on_validation_end(trainer, None)  # type: ignore[arg-type]
    report.finished.append(0.75)  # another fold follows
    report.start, loop.total_batch_idx = 4, 9
    report.on_validation_end(trainer, None)  # type: ignore[arg-type]
    assert study.trials[0].intermediate_values == {0: 0.25, 3: 0.5, 5: 0.625}
    assert not report.pruned


def test_a_trial_reaches_its_last_step_with_its_last_validation(plan: Callable[..., Plan]) -> None:
    """Two validations an epoch count as two steps, and one every other epoch as one of two."""
    made = plan(epochs=2, folds=[1])
    for word, steps, reported in (("val_check_interval=0.5", 4, [0, 1, 2, 3]), ("check_val_every_n_epoch=2", 2, [1])):
        again = make_plan(replace(made.sweep, name=f"of_{steps}"), [*made.words, f"--trainer.{word}"])
        assert again.steps == steps
        assert list(trial_of(again).intermediate_values) == reported


def test_a_fold_begins_at_the_same_step_whether_or_not_the_one_before_ended_early(
    plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    def ended_early(*words: Any) -> Any:
        steps.append(words[-1].start)
        return SimpleNamespace(folder="here", environment={"best_metrics": {"val/uar": 0.5}, "parameters": 1})

    monkeypatch.setattr("emolight.sweep.trial.fit", ended_early)
    assert trial_of(plan(epochs=9, folds=[1, 2, 3])).values == [0.5]
    assert steps == [0, 9, 18]


def test_several_folds_and_objectives(plan: Callable[..., Plan]) -> None:
    trial = trial_of(
        plan("objectives: {parameters: minimize, val/loss: minimize, val/recall_happy: maximize}", folds=[1, 2])
    )
    runs = [Run.open(folder) for folder in trial.user_attrs["folders"]]
    assert [run.folder.parent.name for run in runs] == ["fold_1_seed_0", "fold_2_seed_0"]
    assert [run.split.label for run in runs] == ["emobox6 fold 1", "emobox6 fold 2"]
    assert 11e6 < trial.values[0] < 12e6
    recalls = [run.metrics["recall"]["happy"] for run in runs]
    assert trial.values[2] == pytest.approx(sum(recalls) / 2, abs=1e-6)


def test_two_processes_with_ddp(plan: Callable[..., Plan]) -> None:
    trial = trial_of(plan(devices_per_trial=2))
    assert trial.state is TrialState.COMPLETE
    run = Run.open(trial.user_attrs["folders"][0])
    assert [path.name for path in run.folder.parent.glob("version_*")] == ["version_0"]
    assert run.environment["processes"] == 2
    assert str(run.config["trainer"]["devices"]) == "2"
    assert trial.values == [pytest.approx(run.metrics["uar"], abs=1e-6)]
    assert run.metrics["uar"] == pytest.approx(pd.read_csv(run.folder / "metrics.csv")["val/uar"].max(), abs=1e-6)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_fit_that_cannot_run_says_why(processes: int, plan: Callable[..., Plan], monkeypatch: Any) -> None:
    made = plan(devices_per_trial=processes)
    monkeypatch.setattr("emolight.sweep.study.ERRORS", 1)
    with pytest.raises(EmolightError, match="limit_train_batches"):
        trial_of(make_plan(made.sweep, [*made.words, "--trainer.limit_train_batches=0"]))


def test_a_metric_that_is_missing_or_no_number() -> None:
    with pytest.raises(EmolightError, match=r"The objective val/uar is nan"):
        value_of({"val/loss": 1.0}, "val/uar")


class Moving:
    """A study in which another process ends a trial, the best so far, between two looks."""

    directions = (optuna.study.StudyDirection.MAXIMIZE,)

    def __init__(self, values: list[float]) -> None:
        self.values, self.looks = values, 0

    def get_trials(self, deepcopy: bool = True) -> list[FrozenTrial]:
        self.looks += 1
        shown = self.values[: len(self.values) + self.looks - 2]
        made = optuna.create_study(direction="maximize")
        for number in range(len(self.values)):
            trial = made.ask()
            if number < len(shown):
                made.tell(trial, shown[number])
        return made.trials

    @property
    def best_trials(self) -> list[FrozenTrial]:
        complete = [trial for trial in self.get_trials() if trial.state is TrialState.COMPLETE]
        return [max(complete, key=lambda trial: trial.values[0])]


def test_a_sweep_never_deletes_the_checkpoints_of_its_best_trial(plan: Callable[..., Plan]) -> None:
    made, study = plan(), Moving([0.3, 0.5, 0.4, 0.9])
    for number in range(4):
        (made.folder / f"trial_{number:04d}" / "fold_1" / "version_0" / "checkpoints").mkdir(parents=True)

    def left() -> list[str]:
        return sorted(path.parts[-4] for path in made.folder.glob("**/checkpoints"))

    drop_checkpoints(replace(made, sweep=replace(made.sweep, checkpoints="all")), study)  # type: ignore[arg-type]
    assert len(left()) == 4
    drop_checkpoints(made, study)  # type: ignore[arg-type]
    assert left() == ["trial_0003"]
