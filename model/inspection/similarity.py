"""How similar position embeddings are to each other (figure 7, centre).

Axes: `R` native rows, `C` native columns, `D` width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.vit import VisionTransformer


@torch.no_grad()
def position_similarity(model: VisionTransformer) -> Tensor | None:
    """Cosine similarity of the position of each patch of the native grid to that of each: `[R, C, R, C]`.

    None for a model whose patches have no embedded positions: relative ones, or none.
    """
    if model.positions is None:
        return None
    rows, columns = model.preprocessing.native_grid
    device = next(model.parameters()).device
    positions = model.positions(torch.tensor([[rows, columns]], device=device), rows * columns)[0]
    return cosine_similarity(positions).view(rows, columns, rows, columns)


def cosine_similarity(vectors: Tensor) -> Tensor:
    """Of each to each, -1 to 1: `[N, D]` to `[N, N]`; a vector of zeros is like nothing, 0."""
    normed = F.normalize(vectors.double(), dim=-1)
    return (normed @ normed.T).float()
