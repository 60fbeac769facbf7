"""torchvision's image networks, with a stem for the channels of the features."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn

from emolight.errors import EmolightError
from emolight.models.networks import CamLayer, Network
from emolight.models.smallmaps import use_small_maps


class _Torchvision(Network):
    """A network of torchvision with a stem for any number of channels.

    Args:
        pretrained: start from the ImageNet weights. A one-channel stem is the sum over the three colours, so that
            a grey image gives the response that it gives as three equal channels; of several channels each takes an
            equal share of that sum.

    Raises:
        EmolightError: the weights are not on disk and cannot be downloaded, or their file is damaged.
    """

    name: ClassVar[str]
    weights: ClassVar[Any]
    stem: ClassVar[str] = "conv1"
    last: ClassVar[str] = "fc"
    cam: ClassVar[str] = "layer4"
    recordable = True

    def __init__(self, in_channels: int, num_classes: int, pretrained: bool = False) -> None:
        super().__init__(in_channels, num_classes)
        self.network: nn.Module = torchvision.models.get_model(self.name, weights=None, num_classes=num_classes)
        stem = self.network.get_submodule(self.stem)
        assert isinstance(stem, nn.Conv2d)
        stem.in_channels = in_channels
        stem.weight = nn.Parameter(torch.empty(stem.out_channels, in_channels, *stem.kernel_size))
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        if pretrained:
            self._take_imagenet(in_channels)
        use_small_maps(self.network)
        self.to(memory_format=torch.channels_last)

    def _take_imagenet(self, in_channels: int) -> None:
        state, stem = imagenet_state(self.weights), f"{self.stem}.weight"
        state[stem] = state[stem].sum(dim=1, keepdim=True).repeat(1, in_channels, 1, 1) / in_channels
        own = self.network.state_dict()
        head = {name: value for name, value in own.items() if name.startswith(f"{self.last}.")}
        self.network.load_state_dict({**state, **head})

    def forward(self, image: Tensor) -> Tensor:
        """Logits; see :class:`Network`."""
        if not torch.compiler.is_exporting():
            image = image.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(image)
        return logits

    @property
    def cam_layer(self) -> CamLayer:
        """The last convolutions; five strides of 2, each with a kernel centred on its cell."""
        return CamLayer(self.network.get_submodule(self.cam), 32, 0.0)


class ResNet18(_Torchvision):
    """He et al., *Deep Residual Learning*, 2016: 11 million weights, embedding of 512."""

    name, weights = "resnet18", torchvision.models.ResNet18_Weights.IMAGENET1K_V1


class ResNet34(_Torchvision):
    """The same with 21 million weights."""

    name, weights = "resnet34", torchvision.models.ResNet34_Weights.IMAGENET1K_V1


class EfficientNetB0(_Torchvision):
    """Tan and Le, *EfficientNet*, 2019: 4 million weights, embedding of 1280."""

    name, weights = "efficientnet_b0", torchvision.models.EfficientNet_B0_Weights.IMAGENET1K_V1
    stem, last, cam = "features.0.0", "classifier.1", "features"


class MobileNetV3(_Torchvision):
    """Howard et al., *Searching for MobileNetV3*, 2019, the small one: 1.5 million weights, embedding of 1024."""

    name, weights = "mobilenet_v3_small", torchvision.models.MobileNet_V3_Small_Weights.IMAGENET1K_V1
    stem, last, cam = "features.0.0", "classifier.3", "features"


def imagenet_state(weights: Any) -> dict[str, Tensor]:
    """ImageNet weights of a torchvision enum, from PyTorch's cache folder or the internet, hash checked.

    EmolightError where they are not on disk and cannot be downloaded, or their file is damaged.
    """
    target = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        state: dict[str, Tensor] = weights.get_state_dict(map_location="cpu", check_hash=True, weights_only=True)
    except (URLError, TimeoutError, ConnectionError) as error:
        raise EmolightError(
            f"model.network.pretrained needs the ImageNet weights, and the download failed: {error}.",
            f"Download {weights.url} elsewhere and place it at {target}, or set model.network.pretrained false.",
        ) from None
    except (RuntimeError, EOFError, OSError, UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        problem = f"The ImageNet weights at {target} cannot be read: {reason}"
        raise EmolightError(problem, "Delete the file and run again.") from None
    return state
