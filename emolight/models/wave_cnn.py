"""The article's first system: one-dimensional convolutions on raw samples."""

from __future__ import annotations

from torch import Tensor, nn


class WaveCNN(nn.Sequential):
    """Five layers of 1-D convolution on raw samples: ``[B, 1, T]`` to logits ``[B, num_classes]``.

    The first layer looks at 10 ms of sound (160 samples at 16 kHz) every 1.25 ms, as a learnt filter bank; the
    others follow M5 of Dai et al., *Very Deep Convolutional Neural Networks for Raw Waveforms*, 2017: kernels of
    3, batch norm, pooling by 4.

    Args:
        num_classes: size of the last layer.
        width: channels of the first layer; the last has 4 times as many.
    """

    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__(
            *_block(1, width, kernel_size=160, stride=20),
            *_block(width, width, kernel_size=3),
            *_block(width, 2 * width, kernel_size=3),
            *_block(2 * width, 4 * width, kernel_size=3),
            *_block(4 * width, 4 * width, kernel_size=3),
            _MeanOverTime(),
            nn.Linear(4 * width, num_classes),
        )


class _MeanOverTime(nn.Module):
    def forward(self, activations: Tensor) -> Tensor:
        return activations.mean(dim=-1)


def _block(inputs: int, outputs: int, kernel_size: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv1d(inputs, outputs, kernel_size, stride, padding=kernel_size // 2, bias=False),
        nn.BatchNorm1d(outputs),
        nn.ReLU(),
        nn.MaxPool1d(4, ceil_mode=True),
    ]
