from __future__ import annotations

import numpy as np
import pytest

from emolight.evaluation.calibration import TEMPERATURES, calibrate, fit_temperature


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return result


def test_probabilities_are_those_of_the_divided_logits() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (50, 4))
    np.testing.assert_allclose(calibrate(softmax(logits), 2.5), softmax(logits / 2.5), atol=1e-9)
    np.testing.assert_allclose(calibrate(softmax(logits), 1), softmax(logits), atol=1e-12)
    hard = calibrate(np.eye(3), 1.0)  # no logarithm of 0
    assert np.isfinite(hard).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(temperature: float) -> None:
    random = np.random.default_rng(1)
    logits = random.normal(0, 3, (20_000, 4))
    truth = softmax(logits / temperature)
    labels = (truth.cumsum(axis=1) > random.random((len(truth), 1))).argmax(axis=1)
    assert fit_temperature(softmax(logits), labels) == pytest.approx(temperature, rel=0.05)


def test_the_temperature_stays_within_its_ends() -> None:
    sure = np.tile([0.9, 0.1], (8, 1))
    for labels in (np.zeros(8, dtype=int), np.ones(8, dtype=int)):
        assert TEMPERATURES[0] <= fit_temperature(sure, labels) <= TEMPERATURES[1]
