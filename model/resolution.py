"""Another native grid for a trained model (section 3.2): its positions resampled, whatever kind they are."""

import torch
from torch import Tensor

from model.positions import AxisPositionEmbedding, Grid, PositionEmbedding
from model.relative import RelativeAttention
from model.vit import VisionTransformer


@torch.no_grad()
def resampled_weights(model: VisionTransformer, grid: Grid) -> dict[str, Tensor]:
    """All weights of `model` by name, for the same architecture with this native grid.

    With embedded positions an image of that grid is answered as it is now. Relative ones are read between the entries
    of their tables, which is near to it: the model itself mixes places, not offsets.
    """
    weights = dict(model.state_dict())
    for name, module in model.named_modules():
        if isinstance(module, PositionEmbedding | AxisPositionEmbedding | RelativeAttention):
            weights |= {f"{name}.{key}": tensor for key, tensor in module.resampled(grid).items()}
    return weights
