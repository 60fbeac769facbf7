from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from emolight.errors import EmolightError
from emolight.models.networks import ForeignNetwork, Network, WaveCNN, head_inputs
from emolight.models.vision import EfficientNetB0, MobileNetV3, ResNet18, ResNet34

WEIGHTS = torchvision.models.ResNet18_Weights.IMAGENET1K_V1


@pytest.fixture
def rgb_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.nn.Module]:
    """A random RGB ResNet18 whose weights lie where PyTorch looks for the ImageNet ones, behind a loopback URL."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=1000)
    network.train()
    network(torch.randn(4, 3, 64, 64))  # batch norm statistics that are not the initial ones
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    served = tmp_path / "served"
    served.mkdir()
    torch.save(network.state_dict(), served / "weights.pth")
    digest = hashlib.sha256((served / "weights.pth").read_bytes()).hexdigest()[:8]
    (served / "weights.pth").rename(served / f"resnet18-{digest}.pth")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(served))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use_url(monkeypatch, f"http://127.0.0.1:{server.server_port}/resnet18-{digest}.pth")
    yield network.eval()
    server.shutdown()
    server.server_close()


def use_url(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    replaced = type(WEIGHTS.value)(url=url, transforms=WEIGHTS.transforms, meta=WEIGHTS.meta)
    monkeypatch.setattr(WEIGHTS, "_value_", replaced)


def test_a_grey_image_gives_the_response_of_three_equal_channels(rgb_weights: nn.Module) -> None:
    """One channel or two equal ones: the stem's response is that of the colours together."""
    grey = torch.randn(2, 1, 64, 80, generator=torch.Generator().manual_seed(1))
    expected = rgb_weights(grey.expand(-1, 3, -1, -1))
    for channels in (1, 2):
        ours = ResNet18(channels, 5, pretrained=True).eval()
        ours.network.fc = rgb_weights.fc  # type: ignore[assignment]
        torch.testing.assert_close(ours(grey.expand(-1, channels, -1, -1)), expected, rtol=1e-4, atol=1e-4)


def test_without_internet_the_error_says_how_to_place_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    use_url(monkeypatch, "http://127.0.0.1:9/resnet18-f37072fd.pth")
    with pytest.raises(EmolightError, match=r"model\.network\.pretrained") as caught:
        ResNet18(1, 5, pretrained=True)
    assert str(tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth") in str(caught.value)


def test_a_damaged_weights_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").write_bytes(b"not weights")
    with pytest.raises(EmolightError, match="cannot be read"):
        ResNet18(1, 5, pretrained=True)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [ResNet18, ResNet34, EfficientNetB0, MobileNetV3])
def test_only_stem_and_head_differ_from_torchvision(kind: type[Network], channels: int) -> None:
    """The stem takes the features' channels; the embedding and the layer of Grad-CAM are where they belong."""
    ours = kind(channels, 5).eval()
    reference = torchvision.models.get_model(ours.name, num_classes=5)  # type: ignore[attr-defined]
    shapes = {name.removeprefix("network."): value.shape for name, value in ours.state_dict().items()}
    expected = {name: value.shape for name, value in reference.state_dict().items()}
    differing = {name for name in shapes if shapes[name] != expected.get(name)}
    assert shapes.keys() == expected.keys()
    assert differing == ({f"{ours.stem}.weight"} if channels == 1 else set())  # type: ignore[attr-defined]
    layer, stride, offset = ours.cam_layer
    seen: dict[nn.Module, torch.Size] = {}
    for module in (layer, ours.head):
        module.register_forward_hook(lambda module, inputs, result: seen.update({module: result.shape}))
    assert ours(torch.randn(2, channels, 40, 71)).shape == seen[ours.head] == (2, 5)
    assert seen[layer][2:] == (2, 3)
    assert (stride, offset) == (32, 0.0)


@pytest.mark.parametrize("kind", [ResNet18, EfficientNetB0, MobileNetV3])
def test_a_cell_of_the_map_is_centred_where_it_says(kind: type[Network]) -> None:
    """The cell of Grad-CAM's layer at k answers to the input around 32 k most."""
    torch.manual_seed(0)
    network = kind(1, 5)
    for _ in range(20):  # fresh statistics of EfficientNet let no signal through
        network(torch.randn(4, 1, 33, 97))
    network.eval()
    image = torch.zeros(1, 1, 33, 353, requires_grad=True)
    seen: list[torch.Tensor] = []
    network.cam_layer.layer.register_forward_hook(lambda module, inputs, result: seen.append(result))
    network(image + torch.randn(image.shape))
    (gradient,) = torch.autograd.grad(seen[0][0, :, 0, 5].square().sum(), image)
    weight = gradient.square().sum(dim=(0, 1, 2))
    assert abs(float((weight * torch.arange(353)).sum() / weight.sum()) - 5 * 32) < 8


@pytest.mark.parametrize("samples", [4000, 40000])
def test_wave_cnn_has_five_convolutions_and_takes_any_length(samples: int) -> None:
    network = WaveCNN(1, 8)
    assert sum(isinstance(layer, nn.Conv1d) for layer in network.modules()) == 5
    assert network(torch.randn(2, 1, samples)).shape == (2, 8)
    assert network.head is network.last
    assert not network.image
    assert network.cam_layer[1:] == (5120, 2549.5)


class Mine(Network):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.layers = nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten())
        self.last = nn.Linear(4, num_classes)


class Plain(nn.Module):
    def __init__(self, in_channels: int, num_classes: int, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(width), nn.Flatten(), nn.Linear(width**2, num_classes))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image)


def test_a_network_of_ones_own_has_a_head_and_a_layer_to_look_at() -> None:
    network = Mine(2, 5)
    assert network.head is network.last
    assert network.cam_layer == (network.layers[1], None, 0.0)


def test_a_plain_module_is_taken_where_a_checkpoint_can_name_it() -> None:
    network = ForeignNetwork(functools.partial(Plain, width=2), 1, 5, image=True)
    assert network(torch.randn(3, 1, 40, 20)).shape == (3, 5)
    assert network.spec == {"class_path": f"{__name__}.Plain", "init_args": {"width": 2}}
    with pytest.raises(EmolightError, match="no layer Conv1d or Conv2d"):
        _ = network.cam_layer
    with pytest.raises(EmolightError, match="which a checkpoint cannot name"):
        ForeignNetwork(lambda channels, classes: Plain(channels, classes), 1, 5, image=True)


def test_what_another_thread_gives_the_head_is_not_seen() -> None:
    network = WaveCNN(1, 3, 4).eval()
    own, other = torch.randn(2, 1, 4000), torch.randn(3, 1, 4000)
    with head_inputs(network) as seen:
        thread = threading.Thread(target=network, args=(other,))
        thread.start()
        thread.join()
        network(own)
    assert [len(one) for one in seen] == [2]
