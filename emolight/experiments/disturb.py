"""Disturbances of the robustness card: the augmentations of a training, each at one strength, on whole recordings.

None knows the model: where speech begins and ends is decided by :data:`SPEECH_DB`, so that all get the same recordings.
"""

import zlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from emolight.data.audio import Waveform, sound_range
from emolight.models.augment import Band, Clipping, Crop, Disturbance, Gain, Hiss, MuLaw, Noise, Reverb

SPEECH_DB = 30.0  # of sound_range


class Disturbed(NamedTuple):
    """A row of the card: its ``name`` and ``group`` for people, and what changes ``[1, T]`` at a rate in Hz."""

    name: str
    group: str
    change: Callable[[Tensor, int], Tensor]

    def apply(self, wave: Waveform, rate: int, clip_id: str) -> Waveform:
        """The disturbed samples [T]; random numbers belong to the clip, whichever clips and rows come before it."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(clip_id.encode()))
            changed: Waveform = self.change(torch.from_numpy(wave)[None], rate)[0].numpy()
        return changed


def at(change: Disturbance, strength: float, before: float = 0, behind: float = 0) -> Callable[[Tensor, int], Tensor]:
    """An augmentation at one strength, of a recording with so many seconds of zeros before and behind."""

    def changed(wave: Tensor, rate: int) -> Tensor:
        change.sample_rate = rate
        padded = pad(wave, (round(before * rate), round(behind * rate)))
        return change.disturb(padded, torch.tensor([[float(strength)]]))

    return changed


def noisy(wave: Tensor, rate: int, ratio: float) -> Tensor:
    """White noise over all of the recording, at a ratio to its speech: silence at the ends is not counted."""
    start, end = sound_range(wave[0].numpy(), SPEECH_DB)
    rolled = Noise().disturb(wave.roll(-start, 1), torch.tensor([[float(ratio)]]), torch.tensor([end - start]))
    return rolled.roll(start, 1)


def middle(wave: Tensor, rate: int, seconds: float) -> Tensor:
    """The middle of the speech; shorter speech stays whole."""
    speech, change = wave[:, slice(*sound_range(wave[0].numpy(), SPEECH_DB))], Crop()
    change.sample_rate = rate
    return change.disturb(speech, torch.tensor([[float(seconds)]]), torch.tensor([[0.5]]))[:, : round(seconds * rate)]


DISTURBANCES: tuple[Disturbed, ...] = (
    Disturbed("clean", "clean", lambda wave, _: wave),
    *(Disturbed(f"white noise, SNR {snr} dB", "noise", partial(noisy, ratio=snr)) for snr in (30, 20, 10, 5, 0)),
    *(Disturbed(f"sampled at {2 * k} kHz ({k} kHz bandwidth)", "band", at(Band(), 1000 * k)) for k in (4, 2)),
    Disturbed("gain +20 dB, clipped at full scale", "level", at(Clipping(), 20)),
    Disturbed("gain -20 dB", "level", at(Gain(), -20)),
    Disturbed("1 s of near silence at both ends", "time", at(Hiss(), -80, 1, 1)),
    Disturbed("only the middle second", "time", partial(middle, seconds=1)),
    Disturbed("8-bit mu-law", "coding", lambda wave, _: MuLaw().change(wave)),
    *(Disturbed(f"reverberation, RT60 {rt60} s", "room", at(Reverb(), rt60, behind=rt60)) for rt60 in (0.3, 0.8)),
)
"""The undisturbed recording first, then every disturbance of the robustness card, by group."""
