from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision

from emolight.errors import EmolightError
from emolight.models.resnet import resnet18
from emolight.models.wave_cnn import WaveCNN

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
    import hashlib

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
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    replaced = type(weights.value)(url=url, transforms=weights.transforms, meta=weights.meta)
    monkeypatch.setattr(weights, "_value_", replaced)


def test_a_grey_image_gives_the_response_of_three_equal_channels(rgb_weights: torch.nn.Module) -> None:
    ours = resnet18(5, pretrained=True).eval()
    grey = torch.randn(2, 1, 64, 80, generator=torch.Generator().manual_seed(1))
    ours.fc = rgb_weights.fc  # type: ignore[assignment]
    torch.testing.assert_close(ours(grey), rgb_weights(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def test_without_internet_the_error_says_how_to_place_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    use_url(monkeypatch, "http://127.0.0.1:9/resnet18-f37072fd.pth")
    with pytest.raises(EmolightError) as caught:
        resnet18(5, pretrained=True)
    assert str(tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth") in str(caught.value)


def test_a_damaged_weights_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").write_bytes(b"not weights")
    with pytest.raises(EmolightError, match="cannot be read"):
        resnet18(5, pretrained=True)


def test_stem_has_one_channel_and_the_rest_is_torchvisions() -> None:
    ours, reference = resnet18(5), torchvision.models.resnet18(num_classes=5)
    assert ours(torch.randn(2, 1, 40, 79)).shape == (2, 5)
    shapes = {name: value.shape for name, value in ours.state_dict().items()}
    expected = {name: value.shape for name, value in reference.state_dict().items()}
    assert shapes.pop("conv1.weight") == (64, 1, 7, 7)
    expected.pop("conv1.weight")
    assert shapes == expected


@pytest.mark.parametrize("samples", [4000, 40000])
def test_wave_cnn_has_five_convolutions_and_takes_any_length(samples: int) -> None:
    network = WaveCNN(8)
    assert sum(isinstance(layer, torch.nn.Conv1d) for layer in network.modules()) == 5
    assert network(torch.randn(2, 1, samples)).shape == (2, 8)
