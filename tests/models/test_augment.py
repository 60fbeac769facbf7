from __future__ import annotations

import pytest
import torch

from emolight.errors import EmolightError
from emolight.models.augment import Augment, SpecAugment, WaveformAugment, mixup, resample

OFF = Augment(speed=0, time_shift=0, gain_db=0, noise_db=None, freq_masks=0, time_masks=0, mixup=0)


def only(**settings: float) -> Augment:
    return Augment(**{**OFF.__dict__, **settings})


def test_evaluation_is_the_identity() -> None:
    wave, image = torch.randn(3, 1000), torch.randn(3, 1, 20, 30)
    assert WaveformAugment(Augment()).eval()(wave) is wave
    assert SpecAugment(Augment()).eval()(image) is image


def test_training_changes_every_clip_differently() -> None:
    torch.manual_seed(0)
    wave, image = torch.randn(1, 1000).repeat(4, 1), torch.ones(4, 1, 20, 30)
    for changed, before in ((WaveformAugment(Augment())(wave), wave), (SpecAugment(Augment())(image), image)):
        assert changed.shape == before.shape
        assert len({tuple(clip.flatten().tolist()) for clip in changed}) == 4


def test_the_seed_fixes_what_is_drawn() -> None:
    wave = torch.randn(4, 1000)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(WaveformAugment(Augment())(wave))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_everything_off_changes_nothing() -> None:
    wave, image, targets = torch.randn(3, 1000), torch.randn(3, 1, 20, 30), torch.eye(3)
    assert torch.equal(WaveformAugment(OFF)(wave), wave)
    assert torch.equal(SpecAugment(OFF)(image), image)
    assert mixup(image, targets, 0.0) == (image, targets)


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
    changed = WaveformAugment(only(speed=0.2))(wave)[:, :3000]
    pitch = torch.fft.rfft(changed).abs().argmax(1) / 3000
    assert 0.0395 < pitch.min() < 0.043
    assert 0.057 < pitch.max() < 0.0605


def test_time_shift_moves_the_samples_and_fills_with_silence() -> None:
    torch.manual_seed(0)
    wave = torch.arange(1.0, 101.0).repeat(50, 1)
    for shifted in WaveformAugment(only(time_shift=0.2))(wave):
        kept = shifted[shifted != 0]
        assert len(kept) >= 80
        assert torch.equal(kept.diff(), torch.ones(len(kept) - 1))


def test_gain_stays_within_its_range() -> None:
    torch.manual_seed(0)
    wave = torch.ones(200, 10)
    level = 20 * WaveformAugment(only(gain_db=6.0))(wave)[:, 0].log10()
    assert -6.001 <= level.min() < -4
    assert 4 < level.max() <= 6.001


def test_noise_keeps_the_promised_ratio() -> None:
    torch.manual_seed(0)
    wave = torch.sin(torch.arange(16000) * 0.1).repeat(100, 1)
    noise = WaveformAugment(only(noise_db=10.0))(wave) - wave
    ratio = 10 * (wave.square().mean(1) / noise.square().mean(1)).log10()
    assert 9.5 < ratio.min() < 15
    assert 35 < ratio.max() < 40.5


def test_masks_are_bands_of_at_most_the_width() -> None:
    torch.manual_seed(0)
    masked = SpecAugment(only(freq_masks=1, freq_width=0.25))(torch.ones(100, 1, 40, 8))[:, 0]
    assert torch.equal(masked, masked[:, :, :1].expand_as(masked))
    widths = (masked[:, :, 0] == 0).sum(dim=1)
    assert 0 <= widths.min() <= 2
    assert 8 <= widths.max() <= 10
    masked = SpecAugment(only(time_masks=1, time_width=0.5))(torch.ones(100, 1, 4, 20))[:, 0]
    assert torch.equal(masked, masked[:, :1].expand_as(masked))
    assert (masked[:, 0] == 0).sum(dim=1).max() <= 10


def test_mixup_mixes_features_and_targets_by_the_same_share() -> None:
    torch.manual_seed(0)
    targets = torch.eye(6)
    images = targets.view(6, 6, 1, 1).clone()
    mixed, labels = mixup(images, targets, alpha=0.4)
    torch.testing.assert_close(mixed[:, :, 0, 0], labels)
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(6))
    assert (labels.max(dim=1).values >= 0.5).all()
    assert not torch.equal(labels, targets)


@pytest.mark.parametrize("settings", [{"time_shift": 2.0}, {"mixup": -1.0}, {"freq_width": -0.1}])
def test_values_out_of_range_are_named(settings: dict[str, float]) -> None:
    with pytest.raises(EmolightError, match=r"model\.augment\." + next(iter(settings))):
        Augment(**settings).check()
