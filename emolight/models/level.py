"""One level for every clip, so that the distance to the microphone tells a network nothing."""

from typing import Literal, TypeAlias

import torch
from scipy.fft import next_fast_len
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, conv1d, pad
from torchaudio.functional import fftconvolve, highpass_biquad, treble_biquad

from emolight.errors import EmolightError

LevelKind: TypeAlias = Literal["keep", "rms", "loudness"]
TARGET = {"rms": 10**-2.0, "loudness": 10 ** ((0.691 - 23) / 10)}
"""Mean square that clips are brought to: -20 dBFS, and -23 LUFS."""
GATE = 10 ** ((0.691 - 70) / 10)  # blocks below -70 LUFS are silence


class Level(nn.Module):
    """Scales waveforms ``[B, T]`` to one mean square of their samples, zeros aside, K-weighted and gated for loudness.

    Zeros before or behind a clip change nothing, and silence stays silence. The gates are those of ITU-R BS.1770-4,
    with blocks of 0.4 s; the last blocks count for as much as they have of the clip.
    """

    response: Tensor

    def __init__(self, kind: str, sample_rate: int) -> None:
        super().__init__()
        if kind not in TARGET:
            raise EmolightError(f"model.features.level is '{kind}'.", "Valid: keep, rms, loudness.")
        self.kind, self.block = kind, round(0.4 * sample_rate)
        impulse = pad(torch.tensor([0.1], dtype=torch.float64), (0, sample_rate // 16 - 1))  # filters clip at 1
        response = highpass_biquad(treble_biquad(impulse, sample_rate, 4.0, 1500.0, 0.5**0.5), sample_rate, 38.0, 0.5)
        self.register_buffer("response", 10 * response.float(), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """The clips at their new level."""
        mean = self.mean_square(waveform)
        return waveform * (TARGET[self.kind] / torch.where(mean > 0, mean, TARGET[self.kind])).sqrt()

    def mean_square(self, waveform: Tensor) -> Tensor:
        """Of each clip, ``[B, 1]``; 0 is silence."""
        sound = (waveform != 0).float()
        if self.kind == "rms":
            return waveform.square().sum(1, keepdim=True) / sound.sum(1, keepdim=True).clamp(min=1)
        power, count = self._blocks(self._weighted(waveform).square() * sound), self._blocks(sound)
        means = power / count.clamp(min=1e-9)
        loud = (means > GATE).float()
        for _ in range(2):  # the second time by the relative gate, 10 dB below what the first one leaves
            mean = (power * loud).sum(1, keepdim=True) / (count * loud).sum(1, keepdim=True).clamp(min=1e-9)
            loud = loud * (means > mean / 10)
        return mean

    def _blocks(self, values: Tensor) -> Tensor:
        return avg_pool1d(pad(values, (0, self.block)).unsqueeze(1), self.block, self.block // 4).squeeze(1)

    def _weighted(self, waveform: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            return convolved(waveform, self.response[None])
        before = pad(waveform, (len(self.response) - 1, 0)).unsqueeze(1)
        return conv1d(before, self.response.flip(0)[None, None]).squeeze(1)


def convolved(waveform: Tensor, response: Tensor) -> Tensor:
    """``[B, T]`` with ``[B, R]``, as long as before, by a Fourier transform of a length that is fast."""
    whole = waveform.shape[1] + response.shape[1] - 1
    response = pad(response, (0, next_fast_len(whole, real=True) - whole))
    result: Tensor = fftconvolve(waveform, response)
    return result[:, : waveform.shape[1]]
