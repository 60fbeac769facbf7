"""The recorded training pass: on a GPU equal to the usual one, elsewhere the usual one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from emolight.models.replay import Replay
from emolight.models.stems import MultiStemResNet18
from emolight.models.vision import MobileNetV3, ResNet18

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_is_the_network_itself_without_a_gpu() -> None:
    seen: list[Tensor] = []
    network = nn.Sequential(nn.Linear(3, 2))
    network.register_forward_hook(lambda module, inputs, output: seen.append(output))
    logits = Replay(network, allowed=True)(torch.ones(4, 3))
    assert seen[0] is logits


def test_a_recording_draws_nothing_and_ends_where_a_buffer_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    # Lightning's averaging of weights replaces the running statistics: a recording would write where they were.
    def record(around: nn.Module, images: tuple[Tensor]) -> None:
        around(torch.rand_like(*images))
        around.forward = lambda image: torch.tensor(7.0)  # type: ignore[method-assign]

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record)
    network, image = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), torch.ones(2, 1, 5, 5)
    replay, mean, state = Replay(network, True), network[1].running_mean.clone(), torch.get_rng_state()
    replay._record(image)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(network[1].running_mean, mean)
    assert replay(image).item() == 7
    network[1].running_mean = torch.zeros(2)
    assert replay(image).shape == (2, 2, 3, 3)


@cuda
def test_dropout_draws_the_same_wherever_it_is_recorded() -> None:
    network = nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.5)).cuda()
    image, found = torch.ones(8, 64, device="cuda"), []
    for recorded_at in (0, 1):
        replay = Replay(network, True)
        for step in range(recorded_at, 3):
            torch.manual_seed(step)
            logits = replay(image).detach().clone()
        assert replay.recorded is not None
        found.append(logits)
    assert torch.equal(*found)


@cuda
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-2), (torch.bfloat16, 0.2)])
@pytest.mark.parametrize("kind", [ResNet18, MobileNetV3, MultiStemResNet18])
def test_makes_the_same_gradients_on_a_gpu(
    kind: Any, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the same weights at every step: after six steps two trainings that differ by 1e-6 are 3 % apart.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    usual = kind(1, 5).cuda()
    for layer in usual.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    recorded = copy.deepcopy(usual)
    ways = {"usual": (usual, Replay(usual)), "recorded": (recorded, Replay(recorded, True))}
    optimizer = torch.optim.SGD(usual.parameters(), lr=0.01)
    for clips in (16, 16, 16, 16, 7):
        image, labels = torch.randn(clips, 1, 40, 71, device="cuda"), torch.arange(clips, device="cuda") % 5
        found = []
        for network, way in ways.values():
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
                logits = way(image)
            network.zero_grad()
            nn.functional.cross_entropy(logits.float(), labels).backward()
            gradients = [weights.grad.flatten() for weights in network.parameters() if weights.grad is not None]
            found.append((logits.float(), torch.cat(gradients)))
        for one, other in zip(*found, strict=True):
            assert float((one - other).norm() / one.norm()) < tolerance
        for one, other in zip(usual.buffers(), recorded.buffers(), strict=True):
            torch.testing.assert_close(one, other, rtol=0.02, atol=0.02)
        optimizer.step()
        recorded.load_state_dict(usual.state_dict())  # what is recorded sees new weights
    assert ways["recorded"][1].recorded is not None
    assert recorded.state_dict().keys() == usual.state_dict().keys()


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
