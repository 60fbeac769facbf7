"""Convolutions on small maps.

The machine that this was written on has bfloat16 instructions (AVX-512) and no AMX: the wrong weight gradients of
oneDNN are seen there, with freed memory spoilt; its wrong results on CPUs with AMX are not.
"""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emolight.models.networks import Network
from emolight.models.smallmaps import SmallMapConv2d, use_small_maps
from emolight.models.stems import MultiStemResNet18
from emolight.models.vision import MobileNetV3, ResNet18

SIZES = [*product(range(1, 6), range(1, 6)), (1, 17), (23, 1), (7, 1), (4, 9), (8, 8)]


def spoil_free_memory() -> None:
    """Put 1e30 where a result that is never written will be found."""
    del [torch.full((1 << 20,), 1e30) for _ in range(8)][:]


def by_conv(layer: nn.Conv2d, image: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Result, and the gradients of image and weights."""
    image = image.detach().clone().requires_grad_()
    spoil_free_memory()
    layer.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        result = layer(image)
    result.float().square().sum().backward()
    assert image.grad is not None
    assert layer.weight.grad is not None
    return [result.detach().float(), image.grad.clone(), layer.weight.grad.clone()]


def pair(stride: int, kernel: int = 3, groups: int = 1, bias: bool = False) -> tuple[nn.Conv2d, SmallMapConv2d]:
    torch.manual_seed(0)
    options = {"padding": kernel // 2, "groups": groups, "bias": bias}
    plain = nn.Conv2d(32, 64, kernel, stride, **options).to(memory_format=torch.channels_last)  # type: ignore[arg-type]
    ours = SmallMapConv2d(32, 64, kernel, stride, **options).to(memory_format=torch.channels_last)  # type: ignore[arg-type]
    ours.load_state_dict(plain.state_dict())
    return plain, ours


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "groups"), [(3, 1), (7, 1), (5, 32)])
def test_equals_the_convolution_on_every_small_map(kernel: int, groups: int, stride: int) -> None:
    """In float32 to rounding; in bfloat16 within 2 % of float32, which oneDNN's own convolution is not everywhere."""
    plain, ours = pair(stride, kernel, groups, bias=True)
    for (height, width), clips in product(SIZES, (1, 8, 32)):
        image = torch.randn(clips, 32, height, width).contiguous(memory_format=torch.channels_last)
        expected = by_conv(plain, image, torch.float32)
        for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.02)):
            for name, theirs, found in zip(
                ("result", "image", "weights"), expected, by_conv(ours, image, dtype), strict=True
            ):
                assert theirs.shape == found.shape
                error = float((theirs - found).norm() / theirs.norm())
                assert error < tolerance, (name, height, width, clips, dtype, error)


def test_large_maps_go_the_usual_way(monkeypatch: pytest.MonkeyPatch) -> None:
    _, ours = pair(1)
    monkeypatch.setattr("emolight.models.smallmaps.F.linear", lambda *_: pytest.fail("a matrix product"))
    ours(torch.randn(1, 32, 3, 3))
    with torch.autocast("cpu", torch.bfloat16):
        ours(torch.randn(1, 32, 4, 6))
    with pytest.raises(pytest.fail.Exception):
        ours(torch.randn(1, 32, 2, 4))


def test_only_what_it_can_compute_is_replaced() -> None:
    network = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
    )
    use_small_maps(network)
    assert [type(layer) is SmallMapConv2d for layer in network] == [True] + 4 * [False]


@pytest.mark.parametrize("frames", [8, 16, 19, 32, 71])
@pytest.mark.parametrize("kind", [ResNet18, MobileNetV3, MultiStemResNet18])
def test_a_whole_network_agrees_in_both_precisions(kind: type[Network], frames: int) -> None:
    """Logits and gradients in bfloat16 against float32; short clips end in maps one column wide."""
    torch.manual_seed(0)
    network, image = kind(1, 5), torch.randn(8, 1, 40, frames)
    for _ in range(5):
        network(image)
    network.eval()  # statistics of the few cells of a batch would magnify what bfloat16 rounds off
    found = []
    for precise in (True, False):
        network.zero_grad()
        spoil_free_memory()
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            logits = network(image).float()
        F.cross_entropy(logits, torch.arange(8) % 5).backward()
        weights = [value.grad.flatten() for value in network.parameters() if value.grad is not None]
        found.append((logits.detach(), torch.cat(weights)))
    for theirs, ours, tolerance in zip(*found, (0.05, 0.4), strict=True):  # at 200 frames 0.02 and 0.24
        assert float((theirs - ours).norm() / theirs.norm()) < tolerance
