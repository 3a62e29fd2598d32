"""The network of the paper's baseline, "ResNet (BiT)" (section 4.1), small enough for small images.

Pre-activation bottlenecks ("Identity Mappings in Deep Residual Networks", He et al. 2016) with group norm and
standardised weights instead of batch norm ("Big Transfer", Kolesnikov et al. 2020). It reads what a ViT reads, patches
and grids, and puts them together again.

Axes: `B` images, `N` patches, `F` features, `h`, `w` sides of a feature map, `K` classes.
"""

import math
import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.hybrid import grid_of, join_patches
from model.manifest import Preprocessing
from model.standardised import StandardisedConvolution

# Units of each stage; the name counts layers, 3 a unit and 2. R20 is for images of 28 to 64 pixels.
_LAYERS = {"R20": (2, 2, 2), "R26": (2, 2, 2, 2), "R50": (3, 4, 6, 3), "R101": (3, 4, 23, 3)}
_SMALL = 64  # pixels of a native side up to which the root keeps the resolution


def make_norm(features: int) -> nn.GroupNorm:
    """Group norm of 32 groups; of fewer in a thin network, for a group of one feature would lose its mean."""
    groups = math.gcd(32, features) if features >= 64 else features // 4
    return nn.GroupNorm(groups, features)


class Bottleneck(nn.Module):
    """Norm, ReLU and convolution thrice: 1x1, 3x3 with the stride, 1x1; what is added bypasses all of it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = outputs // 4
        self.norms = nn.ModuleList(make_norm(features) for features in (inputs, inner, inner))
        self.reduce = StandardisedConvolution(inputs, inner, 1, bias=False)
        self.convolve = StandardisedConvolution(inner, inner, 3, stride, padding=1, bias=False)
        self.expand = StandardisedConvolution(inner, outputs, 1, bias=False)
        changes = inputs != outputs or stride != 1
        self.shortcut = StandardisedConvolution(inputs, outputs, 1, stride, bias=False) if changes else None

    def forward(self, image: Tensor) -> Tensor:
        """`[B, F, h, w]` to the same, with other features and sides divided by the stride."""
        active = F.relu(self.norms[0](image))
        bypass = image if self.shortcut is None else self.shortcut(active)
        reduced = self.convolve(F.relu(self.norms[1](self.reduce(active))))
        expanded: Tensor = self.expand(F.relu(self.norms[2](reduced)))
        return bypass + expanded


class ResNet(nn.Module):
    """A classifier of patches and grids; all images of a batch have the same grid.

    Args:
        layers: bottlenecks of each stage; the resolution is halved between stages.
        factor: of all widths; 1 is the usual one, 256 features behind the first stage.
        classes: K.
        preprocessing: what a patch is.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, layers: tuple[int, ...], factor: float, classes: int, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        side = preprocessing.patch_size * max(preprocessing.native_grid)
        features, width = round(64 * factor), round(256 * factor)
        self.root = _root(features, small=side <= _SMALL)
        stages = []
        for index, depth in enumerate(layers):
            outputs = width * 2**index
            for unit in range(depth):
                stages.append(Bottleneck(features, outputs, stride=2 if index and not unit else 1))
                features = outputs
        self.stages = nn.Sequential(*stages)
        self.norm = make_norm(features)
        self.head = nn.Linear(features, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("mean", torch.tensor(preprocessing.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std)[:, None, None], persistent=False)

    def forward(self, patches: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 `[B, N, P*P*C]`, int64 `[B, 2]` to logits `[B, K]` and pooled features `[B, F]`, as a ViT."""
        rows, columns = grid_of(grid)
        pixels = join_patches(patches, rows, columns, self.preprocessing.patch_size).to(self.mean.dtype) / 255
        features = F.relu(self.norm(self.stages(self.root((pixels - self.mean) / self.std))))
        embedding = features.mean((2, 3))
        return self.head(embedding), embedding


def _root(features: int, *, small: bool) -> nn.Module:
    if small:
        return StandardisedConvolution(3, features, 3, padding=1, bias=False)
    return nn.Sequential(StandardisedConvolution(3, features, 7, 2, padding=3, bias=False), nn.MaxPool2d(3, 2, 1))


def decode_resnet(name: str) -> tuple[tuple[int, ...], float]:
    """Bottlenecks of each stage, and the factor of the widths, of a name such as `R50x1` or `R20x0.25`.

    Raises:
        ValueError: for a name that is not known.
    """
    matched = re.fullmatch(r"(R\d+)x(\d{1,2}(?:\.\d{1,3})?)", name)
    factor = float(matched[2]) if matched else 0.0
    # The innermost width is 64 * factor; group norm wants a few features in each group.
    if matched is None or matched[1] not in _LAYERS or not 1 / 8 <= factor <= 4 or (64 * factor) % 8:
        raise ValueError(
            f"{name!r} is not a known ResNet: choose one of {', '.join(_LAYERS)}, then x and a factor of its widths "
            "from 0.125 to 4 in steps of 0.125, such as R20x0.25"
        )
    return _LAYERS[matched[1]], factor
