"""Convolutions between pixels and tokens: the paper's hybrid (section 3.1, "Hybrid Architecture") and its relatives.

The interface is that of the plain patch embedding, uint8 patches and grids in. A ResNet looks beyond one patch, so its
stem puts the patches together again, and all images of a batch need one grid; `PatchwiseStem` stays inside a patch.
A patch is as large as the stem's stride times the patch of its feature map, so the grid is that of the tokens.
Normalisations whose numbers are fixed after training (batch norm, weight standardisation) are folded into the
convolutions by the converters; a stem that is trained here standardises its kernels each time, `stem_standardised`.

Axes: `B` images, `N` patches, `P` patch side, `C` channels, `D` width, `F` features, `h`, `w` sides of a feature map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.architecture import ViTConfig, stem_stride
from model.manifest import Preprocessing
from model.standardised import StandardisedConvolution


class Convolution(nn.Module):
    """Convolution with the padding, and the norm if any, of its family.

    `resnetv2` pads as TensorFlow's SAME does: the odd row and column at the end. Sides are even wherever the stride is
    2, so the padding is known beforehand. A group norm follows. `resnetd` pads both ends; its batch norm is folded.
    """

    def __init__(self, config: ViTConfig, inputs: int, outputs: int, side: int, stride: int = 1) -> None:
        super().__init__()
        grouped = config.stem == "resnetv2"
        total = max(side - stride, 0)
        self.padding = (total // 2, total - total // 2) if grouped else (side // 2, side // 2)
        kind = StandardisedConvolution if config.stem_standardised else nn.Conv2d
        self.convolve = kind(inputs, outputs, side, stride, bias=not grouped)
        self.norm = nn.GroupNorm(32, outputs, eps=config.stem_epsilon) if grouped else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        """`[B, F, h, w]` to the same, with other features and sides divided by the stride."""
        if any(self.padding):
            image = F.pad(image, self.padding * 2)
        convolved: Tensor = self.norm(self.convolve(image))
        return convolved


class Unit(nn.Module):
    """Residual bottleneck of ResNet: 1x1, 3x3 with the stride, 1x1, each followed by its norm."""

    def __init__(self, config: ViTConfig, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.reduce = Convolution(config, inputs, outputs // 4, 1)
        self.convolve = Convolution(config, outputs // 4, outputs // 4, 3, stride)
        self.expand = Convolution(config, outputs // 4, outputs, 1)
        self.shortcut: nn.Module = nn.Identity()
        if config.stem == "resnetv2" and inputs != outputs:
            self.shortcut = Convolution(config, inputs, outputs, 1, stride)
        elif inputs != outputs:  # the "D" of ResNet-D: average, then convolve
            average = nn.AvgPool2d(2) if stride == 2 else nn.Identity()
            self.shortcut = nn.Sequential(average, Convolution(config, inputs, outputs, 1))

    def forward(self, image: Tensor) -> Tensor:
        """`[B, F, h, w]` to the same, with other features and sides divided by the stride."""
        residual = F.relu(self.convolve(F.relu(self.reduce(image))))
        return F.relu(self.expand(residual) + self.shortcut(image))


class ResNetStem(nn.Module):
    """Pixels to the feature map of a ResNet without its last stages: stride 4 after the root, times 2 each stage."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        depths = [int(depth) for depth in config.stem_layers.split("-") if depth]
        self.pool_padding = (0, 1) if config.stem == "resnetv2" else (1, 1)
        if config.stem == "resnetv2":
            self.root = nn.ModuleList([Convolution(config, 3, 64, 7, 2)])
        else:
            self.root = nn.ModuleList(
                [Convolution(config, 3, 32, 3, 2), Convolution(config, 32, 32, 3), Convolution(config, 32, 64, 3)]
            )
        self.stages = nn.ModuleList()
        self.stride, self.features = stem_stride(config.stem_layers), 64
        for index, depth in enumerate(depths):
            outputs = 256 * 2**index
            first = Unit(config, self.features, outputs, stride=2 if index else 1)
            self.stages.append(nn.Sequential(first, *(Unit(config, outputs, outputs, 1) for _ in range(depth - 1))))
            self.features = outputs

    def forward(self, image: Tensor) -> Tensor:
        """`[B, C, h, w]` to `[B, F, h / stride, w / stride]`."""
        for convolution in self.root:
            image = F.relu(convolution(image))
        # After ReLU nothing is below 0, so zeros are as good as the reference's minus infinity.
        image = F.max_pool2d(F.pad(image, self.pool_padding * 2), 3, 2)
        for stage in self.stages:
            image = stage(image)
        return image


class ResNetEmbedding(nn.Module):
    """The hybrid: patches of a ResNet's feature map, projected."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ViTConfig, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.stem = ResNetStem(config)
        self.patch_size = preprocessing.patch_size
        self.feature_patch = preprocessing.patch_size // self.stem.stride
        self.project = nn.Linear(self.feature_patch**2 * self.stem.features, config.width)
        self.register_buffer("mean", torch.tensor(preprocessing.mean, device="cpu")[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std, device="cpu")[:, None, None], persistent=False)

    def forward(self, patches: Tensor, grid: Tensor) -> Tensor:
        """uint8 `[B, N, P*P*C]`, `[B, 2]` to `[B, N, D]`; all grids are equal, and N is their number of patches."""
        rows, columns = grid_of(grid)
        torch._check(rows * columns == patches.shape[1])
        pixels = join_patches(patches, rows, columns, self.patch_size).to(self.mean.dtype) / 255
        features = self.stem((pixels - self.mean) / self.std)
        embedded: Tensor = self.project(split_patches(features, rows, columns, self.feature_patch))
        return embedded


def grid_of(grid: Tensor) -> tuple[int, int]:
    """Rows and columns of a batch of equal grids, `[B, 2]`."""
    rows, columns = grid[0].tolist()
    torch._check(rows >= 1)
    torch._check(columns >= 1)
    return rows, columns


def join_patches(patches: Tensor, rows: int, columns: int, side: int) -> Tensor:
    """`[B, N, side*side*C]`, (row, column, channel) inside a patch, to an image `[B, C, rows*side, columns*side]`."""
    split = patches.view(patches.shape[0], rows, columns, side, side, -1)
    return split.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def split_patches(image: Tensor, rows: int, columns: int, side: int) -> Tensor:
    """The inverse of `join_patches`."""
    split = image.reshape(*image.shape[:2], rows, side, columns, side)
    return split.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


class PatchwiseStem(nn.Module):
    """Convolutions whose kernels are their strides, 4, 2 and 2 pixels wide: each patch by itself (MobileCLIP's ViT-B).

    Such a convolution is a linear layer over the squares of a patch; its batch norm is folded in.
    """

    mean: Tensor
    std: Tensor
    squares = (4, 2, 2)  # pixels or features along a side of a square

    def __init__(self, config: ViTConfig, preprocessing: Preprocessing) -> None:
        super().__init__()
        widths = (preprocessing.channels, config.width // 4, config.width // 4, config.width)
        self.layers = nn.ModuleList(
            nn.Linear(square * square * inputs, outputs)
            for square, inputs, outputs in zip(self.squares, widths[:-1], widths[1:], strict=True)
        )
        self.patch_size = preprocessing.patch_size
        self.register_buffer("mean", torch.tensor(preprocessing.mean, device="cpu"), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std, device="cpu"), persistent=False)

    def forward(self, patches: Tensor, _grid: Tensor) -> Tensor:
        """uint8 `[B, N, P*P*C]` to `[B, N, D]`; the grid is not needed."""
        side = self.patch_size
        pixels = patches.reshape(*patches.shape[:2], side, side, -1).to(self.mean.dtype) / 255
        features = (pixels - self.mean) / self.std  # [B, N, P, P, C]
        for square, layer in zip(self.squares, self.layers, strict=True):
            features = layer(_squares(features, square))
            if layer is not self.layers[-1]:
                features = F.gelu(features)
        return features.flatten(2)  # one square is left


def _squares(features: Tensor, side: int) -> Tensor:
    """`[B, N, h, h, F]` to `[B, N, h/side, h/side, side*side*F]`."""
    count = features.shape[2] // side
    split = features.reshape(*features.shape[:2], count, side, count, side, -1)
    return split.permute(0, 1, 2, 4, 3, 5, 6).flatten(4)
