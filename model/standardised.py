"""Convolutions with standardised weights ("Micro-Batch Training with Batch-Channel Normalization", Qiao et al. 2019).

With group norm they take the place of batch norm in the ResNets of the paper, "ResNet (BiT)" (section 4.1).

Axes: `O` outputs of a convolution, `I` inputs, `k` side of its kernel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def standardise(kernel: Tensor, epsilon: float = 1e-8) -> Tensor:
    """`[O, I, k, k]` to the same, with mean 0 and variance 1 for each output; timm's epsilon for ResNetV2."""
    flat = kernel.flatten(1)
    variance, mean = torch.var_mean(flat, 1, correction=0, keepdim=True)
    return ((flat - mean) / (variance + epsilon).sqrt()).view_as(kernel)


class StandardisedConvolution(nn.Conv2d):
    """A convolution that standardises its kernel in every forward pass."""

    def forward(self, image: Tensor) -> Tensor:
        """`[B, I, h, w]` to `[B, O, h / stride, w / stride]`."""
        return F.conv2d(image, standardise(self.weight), self.bias, self.stride, self.padding)


def fold_kernels(module: nn.Module) -> None:
    """Put plain convolutions with standardised kernels, which answer the same, in the place of all of these."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, StandardisedConvolution):
                setattr(parent, name, _folded(child))


def _folded(source: StandardisedConvolution) -> nn.Conv2d:
    sizes = (source.in_channels, source.out_channels, source.kernel_size, source.stride, source.padding)
    plain = nn.Conv2d(*sizes, bias=source.bias is not None)  # type: ignore[arg-type]
    plain.load_state_dict(source.state_dict() | {"weight": standardise(source.weight.detach().double())})
    return plain
