"""Convolutions on maps of a few cells, where those of oneDNN are slow or wrong."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CELLS = {torch.float32: 8, torch.bfloat16: 20}
"""Largest output map, in cells, that is computed by a matrix product. In bfloat16 CPUs with AMX multiply faster."""


class SmallMapConv2d(nn.Conv2d):
    """``nn.Conv2d`` that takes another road for small output maps on a CPU; same weights, same ``state_dict``.

    Where the output has at most :data:`CELLS` cells, or one row or column, the neighbours of each cell are laid
    side by side and multiplied with the kernel at once. oneDNN's convolution is slow there. In bfloat16 it is also
    wrong for kernels above 1x1 of stride 2 whose output is one column wide: its weight gradient, and on CPUs with
    AMX its result too, reads memory that was never written (torch 2.14.1). Grouped ones run in float32 there.
    """

    def forward(self, image: Tensor) -> Tensor:
        """The convolution."""
        if image.device.type != "cpu" or torch.compiler.is_exporting():
            return super().forward(image)
        (step_h, step_w), (pad_h, pad_w) = self.stride, (int(side) for side in self.padding)
        rows, tops = _places(image.shape[2], self.kernel_size[0], step_h, pad_h)
        columns, lefts = _places(image.shape[3], self.kernel_size[1], step_w, pad_w)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else image.dtype
        if min(rows, columns) != 1 and (rows * columns > CELLS.get(dtype, 0) or self.groups > 1):
            return super().forward(image)
        if self.groups > 1:  # little work, so that float32 costs little
            with torch.autocast("cpu", enabled=False):
                bias = None if self.bias is None else self.bias.float()
                result: Tensor = self._conv_forward(image.float(), self.weight.float(), bias)
                return result.to(dtype)
        cells = F.pad(image.to(dtype).permute(0, 2, 3, 1), (0, 0, pad_w, pad_w, pad_h, pad_h))
        down, right = step_h * (rows - 1) + 1, step_w * (columns - 1) + 1
        neighbours = torch.cat(
            [cells[:, i : i + down : step_h, j : j + right : step_w] for i in tops for j in lefts], dim=3
        )
        # A view, where the weights are channels_last and the whole kernel is in use.
        weight = self.weight[:, :, tops.start : tops.stop, lefts.start : lefts.stop]
        return F.linear(neighbours, weight.permute(0, 2, 3, 1).flatten(1), self.bias).permute(0, 3, 1, 2)


def _places(size: int, kernel: int, step: int, pad: int) -> tuple[int, range]:
    """Outputs along a side, and the part of the kernel that ever meets more than padding."""
    outputs = (size + 2 * pad - kernel) // step + 1
    return outputs, range(max(0, pad - step * (outputs - 1)), min(kernel, pad + size))


def use_small_maps(network: nn.Module) -> None:
    """Let those convolutions of a network take small maps the other way that oneDNN is slow or wrong at."""
    for layer in network.modules():
        if (
            type(layer) is nn.Conv2d
            and max(layer.kernel_size) > 1
            and (layer.dilation, layer.padding_mode) == ((1, 1), "zeros")
            and not isinstance(layer.padding, str)
        ):
            layer.__class__ = SmallMapConv2d  # weights, hooks and names stay
