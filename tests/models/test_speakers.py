"""Adaptation to speakers: offsets, shrinkage, ordinary voices."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from emolight.errors import EmolightError
from emolight.models.fitting import fit_speakers
from emolight.models.speakers import SpeakerNorm


def voices(speakers: int = 30, clips: int = 20, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clips of 4 values: each speaker has an own mean; the first quarter of the clips is ordinary, 2 below the mean."""
    torch.manual_seed(0)
    numbers = torch.arange(speakers).repeat_interleave(clips)
    ordinary = (torch.arange(clips) < clips // 4).repeat(speakers)
    values = spread * torch.randn(speakers, 4)[numbers] + torch.randn(len(numbers), 4)
    return values - 2 * ordinary[:, None], numbers, ordinary


def test_the_offset_takes_a_speaker_to_the_centre() -> None:
    values, numbers, ordinary = voices(spread=5.0)
    norm = SpeakerNorm((4,))
    offsets = norm.fit(values, numbers, ordinary)
    shifted = values - offsets[numbers]
    means = torch.stack([shifted[numbers == number].mean(0) for number in range(30)])
    assert torch.allclose(means, norm.centre.expand_as(means), atol=1e-4)
    new = 7.0 + norm.centre + 0.1 * torch.randn(50, 4)
    assert torch.allclose(norm.offset(new, ordinary=False), torch.full((4,), 7.0), atol=0.3)


def test_ordinary_clips_are_not_taken_for_everything() -> None:
    norm = SpeakerNorm((4,))
    norm.fit(*voices(spread=5.0))
    quiet = norm.centre + 3.0 + norm.ordinary + 0.1 * torch.randn(60, 4)  # a speaker 3 above the centre
    assert torch.allclose(norm.offset(quiet, ordinary=True), torch.full((4,), 3.0), atol=0.2)
    assert norm.offset(quiet, ordinary=False).mean() < 2.0  # the trap
    assert norm.ordinary.mean() == pytest.approx(-1.5, abs=0.2)


@pytest.mark.parametrize("count", [1, 3, 10])
def test_a_few_clips_do_no_harm(count: int) -> None:
    """By the mean square error of the speakers' true offsets, against no enrolment and against the plain mean."""
    values, numbers, ordinary = voices(spread=0.7)
    norm = SpeakerNorm((4,))
    norm.fit(values, numbers, ordinary)
    none, plain, ours = 0.0, 0.0, 0.0
    for seed in range(200):
        torch.manual_seed(100 + seed)
        truth = 0.7 * torch.randn(4)
        clips = norm.centre + truth + 1.3 * torch.randn(count, 4)
        none += truth.square().sum().item()
        plain += (clips.mean(0) - norm.centre - truth).square().sum().item()
        ours += (norm.offset(clips, ordinary=False) - truth).square().sum().item()
    assert ours < none
    assert ours < plain


def test_no_clips_and_no_ordinary_training_clips() -> None:
    values, numbers, _ = voices()
    norm = SpeakerNorm((4,))
    norm.fit(values, numbers, torch.zeros(len(values), dtype=torch.bool))
    assert torch.equal(norm.offset(values[:0], ordinary=False), torch.zeros(4))
    with pytest.raises(EmolightError, match="ordinary voice"):
        norm.offset(values[:5], ordinary=True)


def test_fitting_speakers_warns_of_nothing() -> None:
    """pandas gives arrays that are not writable, of which PyTorch would warn once a process."""
    values, numbers, ordinary = voices(speakers=3, clips=4)
    clips = pd.DataFrame({"speaker": numbers.numpy().astype(str)})
    clips["emotion"] = ["neutral" if one else "sad" for one in ordinary]
    model = SimpleNamespace(device=torch.device("cpu"), statistics=lambda batch: values, enrol=lambda *_: None)
    data = SimpleNamespace(
        choice=SimpleNamespace(speakers="known"),
        statistics_dataloader=lambda: [{"index": torch.arange(12)}],
        clips=clips,
    )
    norm = SpeakerNorm((4,))
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fit_speakers(model, norm, data)  # type: ignore[arg-type]
    finally:
        torch.set_warn_always(False)
    assert norm.strength.isfinite()
    assert norm.ordinary.isfinite().all()
