"""The recorded training pass: on a GPU equal to the usual one, elsewhere the usual one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from emolight.models.networks import MobileNetV3, ResNet18
from emolight.models.replay import Replay

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def train(kind: Any, allowed: bool, dtype: torch.dtype, device: str) -> tuple[list[float], nn.Module, Replay]:
    """Losses of a few steps on batches that differ, the last one shorter."""
    torch.manual_seed(0)
    network = kind(1, 5).to(device)
    replay = Replay(network, allowed)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    generator, losses = torch.Generator().manual_seed(1), []
    for clips in (8, 8, 8, 8, 8, 5):
        image = torch.randn(clips, 1, 40, 71, generator=generator).to(device)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            torch.manual_seed(clips)
            logits = replay(image)
        loss = nn.functional.cross_entropy(logits.float(), torch.arange(clips, device=device) % 5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, network, replay


def test_is_the_network_itself_without_a_gpu() -> None:
    seen: list[Tensor] = []
    network = nn.Sequential(nn.Linear(3, 2))
    network.register_forward_hook(lambda module, inputs, output: seen.append(output))
    logits = Replay(network, allowed=True)(torch.ones(4, 3))
    assert seen[0] is logits


@cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [ResNet18, MobileNetV3])
def test_trains_as_without_on_a_gpu(kind: Any, dtype: torch.dtype) -> None:
    usual, network, _ = train(kind, False, dtype, "cuda")
    losses, recorded, replay = train(kind, True, dtype, "cuda")
    assert replay.recorded is not None
    tolerance = 2e-3 if dtype is torch.float32 else 5e-2
    if kind is ResNet18:  # the other draws dropout from other places of the generator
        assert losses == pytest.approx(usual, rel=tolerance)
    for one, other in zip(recorded.buffers(), network.buffers(), strict=True):
        torch.testing.assert_close(one.float(), other.float(), rtol=0.05, atol=0.05)
    assert recorded.state_dict().keys() == network.state_dict().keys()


@cuda
def test_evaluates_and_freezes_as_without() -> None:
    network = ResNet18(1, 5).cuda()
    replay, image = Replay(network, True), torch.randn(4, 1, 40, 71, device="cuda")
    replay(image)
    assert replay.recorded is not None
    network.eval()
    assert torch.equal(replay(image), network(image))
    network.train()
    network.head.requires_grad_(False)
    replay(image).sum().backward()
    assert all(weights.grad is None for weights in network.head.parameters())
    assert network.network.conv1.weight.grad is not None
