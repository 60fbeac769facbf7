import numpy as np
import pytest

from emolight.evaluation.pictures import draw_features
from emolight.evaluation.style import new_figure
from emolight.models.features import FeatureAxis


@pytest.mark.parametrize(
    ("axis", "label"),
    [
        (FeatureAxis("band", "Bark", None, 0, 23), "band (Bark)"),
        (FeatureAxis("coefficient", "", None, 0, 23), "coefficient"),
        (FeatureAxis("frequency", "Hz", "linear", 0, 8000), "frequency (Hz)"),
        (FeatureAxis("frequency", "Hz", "mel", 0, 8000), "frequency (Hz, mel scale)"),
    ],
)
def test_rows_have_the_unit_that_the_front_end_tells(axis: FeatureAxis, label: str) -> None:
    drawn = new_figure().subplots()
    draw_features(drawn, np.zeros((24, 10), np.float32), 16000, 256, axis)
    assert drawn.get_ylabel() == label
