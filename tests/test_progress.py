from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from emolight import progress
from emolight.progress import EpochLines, clock


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
    lines.on_train_epoch_end(trainer, cast(Any, None))
    assert capsys.readouterr().out == "epoch 5/10  train/loss 1.250  val/uar 0.500  0:30, 0:50 left\n"


def test_only_the_first_process_prints(capsys: pytest.CaptureFixture[str]) -> None:
    trainer: Any = SimpleNamespace(is_global_zero=False)
    EpochLines().on_train_epoch_end(trainer, cast(Any, None))
    assert capsys.readouterr().out == ""
