"""ResNet18 for one-channel images."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from urllib.error import URLError

import torch
import torchvision
from torch import nn

from emolight.errors import EmolightError


def resnet18(num_classes: int, pretrained: bool = False) -> nn.Module:
    """Torchvision's ResNet18 with a 1-channel stem: ``[B, 1, F, N]`` to logits ``[B, num_classes]``.

    Args:
        num_classes: size of the last layer.
        pretrained: start from the ImageNet weights. The stem's three input channels are summed into one, so that
            a grey image gives the response that it gives as an RGB image of three equal channels.

    Raises:
        EmolightError: the weights are not on disk and cannot be downloaded, or their file is damaged.
    """
    network: nn.Module = torchvision.models.resnet18(num_classes=num_classes)
    network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    if pretrained:
        state = imagenet_state()
        state["conv1.weight"] = state["conv1.weight"].sum(dim=1, keepdim=True)
        head = {name: value for name, value in network.state_dict().items() if name.startswith("fc.")}
        network.load_state_dict({**state, **head})
    return network


def imagenet_state() -> dict[str, torch.Tensor]:
    """The ImageNet weights of ResNet18, from PyTorch's cache folder or the internet, hash checked.

    Raises:
        EmolightError: see :func:`resnet18`.
    """
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    target = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        state: dict[str, torch.Tensor] = torch.hub.load_state_dict_from_url(
            weights.url, map_location="cpu", check_hash=True, weights_only=True
        )
    except (URLError, TimeoutError, ConnectionError) as error:
        raise EmolightError(
            f"model.pretrained needs the ImageNet weights, and the download failed: {error}.",
            f"Download {weights.url} elsewhere and place it at {target}, or set model.pretrained false.",
        ) from None
    except (RuntimeError, EOFError, OSError, UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise EmolightError(
            f"The ImageNet weights at {target} cannot be read: {reason}",
            "Delete the file and run again.",
        ) from None
    return state
