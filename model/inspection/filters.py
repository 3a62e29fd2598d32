"""Filters of the patch embedding: its first principal components as small RGB images (figure 7, left).

Axes: `F` filters, `P` side of a filter, `C` channels, `n` components.
"""

import torch
from torch import Tensor, nn

from model.hybrid import PatchwiseStem, ResNetEmbedding
from model.standardised import StandardisedConvolution, standardise
from model.vit import PatchEmbedding, VisionTransformer

COMPONENTS = 28  # as many as the paper shows


def first_filters(model: VisionTransformer) -> Tensor:
    """What the first linear layer or convolution multiplies pixels by, `[F, P, P, C]`.

    Of a hybrid that is the first convolution of its stem, of a patchwise stem its first squares.
    """
    embedding = model.embedding
    if isinstance(embedding, ResNetEmbedding):
        return _first_kernel(embedding).permute(0, 2, 3, 1)
    if isinstance(embedding, PatchwiseStem):
        return _squares(embedding.layers[0].get_parameter("weight"), embedding.squares[0])
    if not isinstance(embedding, PatchEmbedding):
        raise TypeError(f"{type(embedding).__name__} has no filters that are known")
    return _squares(embedding.project.weight, model.preprocessing.patch_size)


def _first_kernel(embedding: ResNetEmbedding) -> Tensor:
    """`[F, C, P, P]`, as it is used."""
    convolution = next(each for each in embedding.stem.root.modules() if isinstance(each, nn.Conv2d))
    kernel = convolution.weight.detach()
    return standardise(kernel) if isinstance(convolution, StandardisedConvolution) else kernel


def _squares(weight: Tensor, side: int) -> Tensor:
    return weight.detach().view(len(weight), side, side, -1)


def principal_components(filters: Tensor, count: int = COMPONENTS) -> tuple[Tensor, Tensor]:
    """The directions in which filters differ most.

    Args:
        filters: `[F, P, P, C]`.
        count: how many components, as far as there are any.

    Returns:
        components `[n, P, P, C]` of length 1, whose largest value is positive, and the share of the variance that each
        explains, `[n]`.
    """
    flat = filters.flatten(1).double()
    _, strengths, directions = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    components = directions * largest.sign()
    variances = strengths.square()
    shares = variances / variances.sum().clamp(min=1e-30)
    return components[:count].view(-1, *filters.shape[1:]).float(), shares[:count].float()
