from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from emolight.run import progress
from emolight.run.progress import EpochLines, clock


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3661, "1:01:01"), (-1, "0:00")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_an_epochs_line_has_metrics_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([100.0, 130.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    metrics = {"train/loss": torch.tensor(1.25), "val/uar": torch.tensor(0.5)}
    trainer: Any = SimpleNamespace(is_global_zero=True, current_epoch=2, max_epochs=10, callback_metrics=metrics)
    lines = EpochLines()
    lines.on_train_start(trainer, cast(Any, None))
    trainer.current_epoch = 4
    lines.on_validation_end(trainer, cast(Any, None))
    lines.on_train_epoch_end(trainer, cast(Any, None))
    assert capsys.readouterr().out == "epoch 5/10  train/loss 1.250  val/uar 0.500  0:30, 0:50 left\n"


def test_metrics_of_an_earlier_epoch_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"train/loss": torch.tensor(1.25), "val/uar": torch.tensor(0.5)}
    trainer: Any = SimpleNamespace(is_global_zero=True, current_epoch=0, max_epochs=-1, callback_metrics=metrics)
    lines = EpochLines()
    lines.on_train_start(trainer, cast(Any, None))
    lines.on_validation_end(trainer, cast(Any, None))
    trainer.current_epoch = 1
    lines.on_train_epoch_end(trainer, cast(Any, None))
    assert capsys.readouterr().out == "epoch 2/?  train/loss 1.250  0:00\n"


def test_only_the_first_process_prints_but_every_one_reads_the_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    read = []

    class Trainer:
        is_global_zero = False

        @property
        def callback_metrics(self) -> dict[str, Any]:
            read.append(True)  # Lightning sums them up over the processes: one alone would wait for ever
            return {}

    EpochLines().on_train_epoch_end(cast(Any, Trainer()), cast(Any, None))
    assert read
    assert capsys.readouterr().out == ""
