"""Temperature scaling: probabilities that mean what they say.

Source: Guo et al., *On Calibration of Modern Neural Networks*, 2017.
"""

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.floating]
TEMPERATURES = (0.05, 20.0)
FLOOR = 1e-12
"""Smallest probability of which a logarithm is taken."""


def calibrate(probabilities: Probabilities, temperature: float) -> NDArray[np.float64]:
    """Softmax of the logits divided by ``temperature``, from the logits' own probabilities ``[B, C]``."""
    from scipy.special import softmax

    logits = np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), FLOOR))
    return softmax(logits / temperature, axis=1)  # type: ignore[no-any-return]


def fit_temperature(probabilities: Probabilities, labels: NDArray[np.integer]) -> float:
    """The temperature, from 0.05 to 20, under which ``labels`` [B] are likeliest by probabilities ``[B, C]``.

    They are of clips that the model was not trained on.
    """
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        of_label = calibrate(probabilities, np.exp(log_temperature))[rows, labels]
        return float(-np.log(np.maximum(of_label, FLOOR)).mean())

    best = minimize_scalar(loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded")
    return float(np.exp(best.x))
