from __future__ import annotations

from pathlib import Path

import pytest
import torch

from emolight.__main__ import run
from emolight.errors import EmolightError
from emolight.models.averaging import MovingAverage
from emolight.models.classifier import EmotionClassifier, load_classifier
from tests.small import CONFIGS, options


def test_the_average_moves_by_the_rule() -> None:
    """By hand: with a decay of 0.5 the share is 9/10, 9/11 ... until 9/18 = 0.5, then 0.5."""
    move = MovingAverage(0.5)._kwargs["avg_fn"]
    zero, one = torch.zeros(1), torch.ones(1)
    assert float(move(zero, one, torch.tensor(1))) == pytest.approx(9 / 11)
    assert float(move(zero, one, torch.tensor(100))) == 0.5
    third = torch.tensor([1 / 3])
    assert torch.equal(move(third, third, torch.tensor(3)), third)
    assert bool(move(torch.tensor(False), torch.tensor(True), torch.tensor(3)))


def test_the_checkpoint_holds_what_was_validated(corpus: Path, here: Path) -> None:
    """`validate` repeats the figures of the epoch, and the weights to go on from are others."""
    words = options(corpus, **{"trainer.max_epochs": 2, "model.average": 0.9})
    run(["fit", "--config", str(CONFIGS / "mfcc.yaml"), *words])
    folder = here / "lightning_logs" / "mfcc" / "version_0"
    fitted = (folder / "predictions_val.csv").read_bytes()
    run(["validate", "--ckpt_path", str(folder / "checkpoints" / "best.ckpt")])
    assert (folder / "predictions_val_best.csv").read_bytes() == fitted
    content = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    average, weights = content["state_dict"], content["current_model_state"]
    assert not torch.equal(average["network.fc.weight"], weights["network.fc.weight"])
    assert torch.equal(average["temperature"], weights["temperature"])
    same = [name for name in average if name.startswith(("front_end", "normalise"))]
    assert all(torch.equal(average[name], weights[name]) for name in same)
    assert float(load_classifier(folder / "checkpoints" / "best.ckpt").temperature) == float(average["temperature"])


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(EmolightError, match=r"model\.average is"):
        EmotionClassifier(classes=["calm", "sad"], average=decay)
