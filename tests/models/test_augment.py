from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from emolight.errors import EmolightError
from emolight.models.augment import (
    DEFAULT,
    Augmentation,
    Band,
    Clipping,
    Crop,
    Gain,
    Hiss,
    MuLaw,
    Noise,
    Reverb,
    SpecAugment,
    TimeShift,
    mixup,
)
from emolight.models.parts import build

WAVEFORM = [TimeShift(), Gain(), Noise(), Reverb(), Band(), Clipping(), Crop(0.01, 0.05)]


def one(strength: float) -> torch.Tensor:
    return torch.tensor([[strength]])


def decibels(wave: torch.Tensor) -> torch.Tensor:
    return 10 * wave.square().mean(1).log10()


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
    for change in (TimeShift(0), Gain(0)):
        torch.testing.assert_close(change(wave), wave)
    assert torch.equal(SpecAugment(0, 0.5, 0, 0.5)(image), image)
    assert torch.equal(SpecAugment(2, 0.0, 2, 0.0)(image), image)
    assert mixup(image, torch.eye(3), 0.0)[0] is image


def test_the_default_is_what_the_results_were_measured_with() -> None:
    changes = [build(spec, Augmentation)() for spec in DEFAULT]
    assert [type(change) for change in changes] == [TimeShift, Noise, Gain, SpecAugment]
    assert [change.spec["init_args"] for change in changes] == [
        {"fraction": 0.1, "p": 1.0},
        {"decibels": 20.0, "spread": 30.0, "p": 1.0, "folder": None},
        {"decibels": 3.0, "p": 1.0},
        {"freq_masks": 2, "freq_width": 0.15, "time_masks": 2, "time_width": 0.15},
    ]


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


def test_a_probability_chooses_clips_and_leaves_the_others_alone() -> None:
    torch.manual_seed(0)
    wave = torch.randn(400, 50)
    changed = (Gain(6.0, p=0.25)(wave) != wave).any(dim=1)
    assert 70 < int(changed.sum()) < 130
    assert Gain(6.0, p=0.0)(wave) is wave


def test_clipping_is_at_full_scale_and_otherwise_a_gain() -> None:
    wave = torch.linspace(-0.5, 0.5, 101)[None]
    torch.testing.assert_close(Clipping().disturb(wave, one(20.0)), (10 * wave).clamp(-1, 1))


@pytest.mark.parametrize("rate", [16000, 48000])
def test_a_band_keeps_a_tone_below_its_limit_and_removes_one_above(rate: int) -> None:
    change, inner = Band(), slice(2000, -2000)
    change.sample_rate = rate
    for length in (rate, rate + 1):
        time = torch.arange(length) / rate
        below, above = (torch.sin(2 * torch.pi * hertz * time)[None] for hertz in (3201.3, 4801.7))
        torch.testing.assert_close(change.disturb(below, one(4000.0))[:, inner], below[:, inner], atol=0.005, rtol=0)
        assert float(decibels(change.disturb(above, one(4000.0))[:, inner])) < -70


@pytest.mark.parametrize("rt60", [0.3, 0.8])
def test_a_room_decays_by_60_db_in_its_time(rt60: float) -> None:
    torch.manual_seed(0)
    rooms = Reverb().rooms(torch.tensor([[rt60], [1.0]]))
    torch.testing.assert_close(rooms.square().sum(dim=1), torch.ones(2))
    torch.testing.assert_close(rooms[:, 0].square(), torch.full((2,), 0.5))
    tail = rooms[0, 1:].double().square()
    decay = 10 * (tail.flip(0).cumsum(0).flip(0) / tail.sum()).log10().numpy()  # Schroeder's backward integral
    inside = np.flatnonzero((decay < -5) & (decay > -35))
    slope = np.polyfit(inside / 16000, decay[inside], 1)[0]
    assert -60 / slope == pytest.approx(rt60, rel=0.1)


def test_reverberation_is_the_convolution_with_the_room() -> None:
    wave = torch.randn(1, 800)
    torch.manual_seed(1)
    wet = Reverb().disturb(wave, one(0.3))[0]
    torch.manual_seed(1)
    room = Reverb().rooms(one(0.3))[0]
    np.testing.assert_allclose(wet, np.convolve(wave[0], room)[:800], atol=1e-4)


def test_mu_law_has_the_levels_of_the_formula_with_zero_among_them() -> None:
    wave = torch.linspace(-1.2, 1.2, 20001)[None]
    coded = MuLaw()(wave)
    levels = np.arange(-127, 128) / 127
    expected = np.sign(levels) * (255.0 ** np.abs(levels) - 1) / 254
    np.testing.assert_allclose(coded.unique(), expected, rtol=1e-4, atol=1e-9)
    assert not coded[wave == 0].any()
    assert (coded - wave.clamp(-1, 1)).abs().max() < 0.03


def test_crop_keeps_a_piece_of_what_is_no_padding() -> None:
    wave = torch.cat([torch.arange(1.0, 8001.0), torch.zeros(4000)]).repeat(50, 1)
    torch.manual_seed(0)
    cropped = Crop(0.1, 0.2)(wave)
    kept = (cropped != 0).sum(dim=1)
    assert (int(kept.min()) >= 1600, int(kept.max()) <= 3200) == (True, True)
    assert torch.equal(cropped[:, 1599] - cropped[:, 0], torch.full((50,), 1599.0))
    middle = Crop().disturb(wave[:1], one(0.25), one(0.5))
    assert torch.equal(middle[0, :4000], wave[0, 2000:6000])


def test_hiss_fills_zeros_only() -> None:
    wave = torch.cat([torch.ones(1, 1000), torch.zeros(1, 9000)], dim=1)
    filled = Hiss().disturb(wave, one(-60.0))
    assert torch.equal(filled[:, :1000], wave[:, :1000])
    assert float(decibels(filled[:, 1000:])) == pytest.approx(-60, abs=0.3)


def test_noises_and_rooms_of_ones_own_come_from_a_tree_of_sound_files(tmp_path: Path) -> None:
    (tmp_path / "noise" / "free").mkdir(parents=True)
    tone = np.sin(2 * np.pi * 1000 * np.arange(800) / 8000)
    soundfile.write(tmp_path / "noise" / "free" / "a.flac", np.stack([tone, tone], axis=1), 8000)
    soundfile.write(tmp_path / "noise" / "silent.wav", np.zeros(800), 8000)
    (tmp_path / "noise" / "README").write_text("A tree as MUSAN's.")
    torch.manual_seed(0)
    wave = torch.randn(3, 4000)
    noise = Noise(10.0, 0.0, folder=str(tmp_path))(wave) - wave
    torch.testing.assert_close(decibels(wave) - decibels(noise), torch.full((3,), 10.0), atol=0.01, rtol=0)
    pitch = torch.fft.rfft(noise).abs().argmax(dim=1) * 16000 / 4000
    torch.testing.assert_close(pitch, torch.full((3,), 1000.0), atol=20, rtol=0)
    assert len({tuple(row) for row in noise[:, :20].tolist()}) == 3
    rooms = tmp_path / "rooms"
    rooms.mkdir()
    soundfile.write(rooms / "echo.wav", np.eye(1, 500, 100)[0] + np.eye(1, 500, 300)[0] / 2, 16000, subtype="FLOAT")
    echoed = Reverb(folder=str(rooms))(wave)
    direct = (1 / 1.25**0.5) * wave
    torch.testing.assert_close(echoed, direct + 0.5 * torch.nn.functional.pad(direct, (200, 0))[:, :4000])
    for missing in (Noise(folder=str(tmp_path / "nowhere")), Reverb(folder=str(tmp_path / "nowhere"))):
        with pytest.raises(EmolightError, match=r"No sound file is in the folder .*nowhere"):
            missing(wave)
    (rooms / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(EmolightError, match=r"broken\.wav cannot be read"):
        Reverb(folder=f"{rooms}/")(wave)


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
        (Gain, {"p": 1.5}, "Gain.p is 1.5; it must be from 0 to 1"),
        (Reverb, {"low": 0.5, "high": 0.3}, "Reverb.high is 0.3; it must be from 0.5 to 10"),
        (Band, {"low": 0.0}, "Band.low is 0"),
        (SpecAugment, {"freq_width": -0.1}, "SpecAugment.freq_width is -0.1"),
        (SpecAugment, {"time_masks": -1}, "SpecAugment.time_masks is -1"),
    ],
)
def test_values_out_of_range_are_named(kind: type[nn.Module], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EmolightError, match=message):
        kind(**settings)
