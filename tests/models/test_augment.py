from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from emolight.errors import EmolightError
from emolight.models.augment import (
    DEFAULT,
    Augmentation,
    Gain,
    Noise,
    SpecAugment,
    Speed,
    TimeShift,
    mixup,
    resample,
)
from emolight.models.parts import build

WAVEFORM = [TimeShift(), Gain(), Noise(), Speed()]


@pytest.mark.parametrize("change", [*WAVEFORM, SpecAugment()], ids=lambda change: type(change).__name__)
def test_training_changes_every_clip_differently_and_evaluation_none(change: Augmentation) -> None:
    """The seed fixes what is drawn, also where the default type is bfloat16."""
    clips = torch.randn(1, 1000).repeat(4, 1) if change.level == "waveform" else torch.ones(4, 1, 40, 60)
    assert change.eval()(clips) is clips
    drawn = []
    for seed, dtype in ((1, torch.float32), (1, torch.float32), (2, torch.float32), (1, torch.bfloat16)):
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        drawn.append(change.train()(clips))
        torch.set_default_dtype(torch.float32)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[3])
    assert not torch.equal(drawn[0], drawn[2])
    assert drawn[0].shape == clips.shape
    assert len({tuple(clip.flatten().tolist()) for clip in drawn[0]}) == 4


def test_nothing_drawn_changes_nothing() -> None:
    wave, image = torch.randn(3, 1000), torch.randn(3, 2, 20, 30)
    for change in (TimeShift(0), Gain(0), Speed(0)):
        torch.testing.assert_close(change(wave), wave)
    assert torch.equal(SpecAugment(0, 0.5, 0, 0.5)(image), image)
    assert torch.equal(SpecAugment(2, 0.0, 2, 0.0)(image), image)
    assert mixup(image, torch.eye(3), 0.0)[0] is image


def test_the_default_is_what_the_results_were_measured_with() -> None:
    changes = [build(spec, Augmentation)() for spec in DEFAULT]
    assert [type(change) for change in changes] == [TimeShift, Noise, Gain, SpecAugment]
    assert [change.spec["init_args"] for change in changes] == [
        {"fraction": 0.1},
        {"decibels": 20.0, "spread": 30.0},
        {"decibels": 3.0},
        {"freq_masks": 2, "freq_width": 0.15, "time_masks": 2, "time_width": 0.15},
    ]


def test_resample_plays_faster_and_slower() -> None:
    ramp = torch.arange(100.0).repeat(3, 1)
    faster, same, slower = resample(ramp, torch.tensor([[2.0], [1.0], [0.5]]))
    assert torch.equal(faster[:50], 2 * torch.arange(50.0))
    assert not faster[50:].any()
    assert torch.equal(same, ramp[0])
    assert torch.equal(slower, torch.arange(100) / 2)


def test_speed_stays_within_its_range_and_moves_the_pitch() -> None:
    torch.manual_seed(0)
    wave = torch.sin(2 * torch.pi * 0.05 * torch.arange(4000)).repeat(100, 1)
    changed = Speed(0.2)(wave)[:, :3000]
    pitch = torch.fft.rfft(changed).abs().argmax(1) / 3000
    assert 0.0395 < pitch.min() < 0.043
    assert 0.057 < pitch.max() < 0.0605


def test_time_shift_moves_the_samples_and_fills_with_silence() -> None:
    torch.manual_seed(0)
    wave = torch.arange(1.0, 101.0).repeat(50, 1)
    for shifted in TimeShift(0.2)(wave):
        kept = shifted[shifted != 0]
        assert len(kept) >= 80
        assert torch.equal(kept.diff(), torch.ones(len(kept) - 1))


def test_gain_stays_within_its_range() -> None:
    torch.manual_seed(0)
    wave = torch.ones(200, 10)
    level = 20 * Gain(6.0)(wave)[:, 0].log10()
    assert -6.001 <= level.min() < -4
    assert 4 < level.max() <= 6.001


def test_noise_keeps_the_promised_ratio() -> None:
    torch.manual_seed(0)
    wave = torch.sin(torch.arange(16000) * 0.1).repeat(100, 1)
    noise = Noise(10.0)(wave) - wave
    ratio = 10 * (wave.square().mean(1) / noise.square().mean(1)).log10()
    assert 9.5 < ratio.min() < 15
    assert 35 < ratio.max() < 40.5


def test_digital_silence_stays_so() -> None:
    assert not Noise(0.0)(torch.zeros(2, 100)).any()


def test_masks_are_bands_of_at_most_the_width_in_all_channels() -> None:
    torch.manual_seed(0)
    masked = SpecAugment(1, 0.25, 0, 0)(torch.ones(100, 2, 40, 8))
    assert torch.equal(masked, masked[:, :1, :, :1].expand_as(masked))
    widths = (masked[:, 0, :, 0] == 0).sum(dim=1)
    assert (int(widths.min()), int(widths.max())) == (0, 10)
    masked = SpecAugment(0, 0, 1, 0.5)(torch.ones(100, 1, 4, 20))[:, 0]
    assert torch.equal(masked, masked[:, :1].expand_as(masked))
    widths = (masked[:, 0] == 0).sum(dim=1)
    assert (int(widths.min()), int(widths.max())) == (0, 10)
    assert 4 < widths.float().mean() < 6


def test_mixup_mixes_features_and_targets_by_the_same_share() -> None:
    torch.manual_seed(0)
    targets = torch.eye(6)
    images = targets.view(6, 6, 1, 1).clone()
    mixed, labels = mixup(images, targets, alpha=0.4)
    torch.testing.assert_close(mixed[:, :, 0, 0], labels)
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(6))
    assert (labels.max(dim=1).values >= 0.5).all()
    assert not torch.equal(labels, targets)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (TimeShift, {"fraction": 2.0}, "TimeShift.fraction is 2; it must be from 0 to 1"),
        (Gain, {"decibels": -1.0}, "Gain.decibels is -1"),
        (Noise, {"decibels": float("nan")}, "Noise.decibels is nan"),
        (Speed, {"fraction": 1.0}, "Speed.fraction is 1"),
        (SpecAugment, {"freq_width": -0.1}, "SpecAugment.freq_width is -0.1"),
        (SpecAugment, {"time_masks": -1}, "SpecAugment.time_masks is -1"),
    ],
)
def test_values_out_of_range_are_named(kind: type[nn.Module], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EmolightError, match=message):
        kind(**settings)
