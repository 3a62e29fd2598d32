"""From the tokens of an image to one embedding.

Axes: `B` images, `N` patches (padded), `T` tokens (padded), `D` width.
"""

import torch
from torch import Tensor, nn

from model.architecture import ViTConfig
from model.attention import Attend, masked_attention
from model.blocks import make_mlp
from model.norms import make_norm


def average(tokens: Tensor, lengths: Tensor) -> Tensor:
    """Mean of the valid tokens, summed in float32: `[B, T, D]`, `[B]` to `[B, D]`."""
    valid = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]  # [B, T]
    total = torch.where(valid[:, :, None], tokens.float(), 0).sum(1)
    return (total / lengths[:, None]).to(tokens.dtype)


def average_shares(tokens: int, lengths: Tensor) -> Tensor:
    """What `average` takes from each of so many tokens: `[B]` to float32 `[B, T]`."""
    valid = torch.arange(tokens, device=lengths.device) < lengths[:, None]
    return valid / lengths[:, None]


class AttentionPooling(nn.Module):
    """One learned query attends to all tokens, then an MLP ("Scaling Vision Transformers", Zhai et al. 2021, "MAP")."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Parameter(torch.zeros(1, 1, config.width))
        self.key_value = nn.Linear(config.width, 2 * config.width)
        self.project = nn.Linear(config.width, config.width)
        self.norm = make_norm(config, config.width)
        self.mlp = make_mlp(config)
        self.attend: Attend = masked_attention  # export sets another function here

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """`[B, T, D]`, valid tokens `[B]` to `[B, D]`."""
        key, value = self.key_value(tokens).chunk(2, dim=-1)
        query = self.query.expand(tokens.shape[0], -1, -1)
        pooled: Tensor = self.project(self.attend(query, key, value, lengths, self.heads)).squeeze(1)
        transformed: Tensor = self.mlp(self.norm(pooled))
        return pooled + transformed


class Pool(nn.Module):
    """The pooling of an architecture."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.kind = config.pooling
        self.skip = 0 if config.pool_prefix else config.prefix  # tokens that are not averaged or attended to
        self.attention = AttentionPooling(config) if config.pooling == "attention" else None

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """`[B, T, D]`, valid tokens `[B]` to `[B, D]`, or `[B, 2*D]` for `token+average`."""
        if self.kind == "token":
            return tokens[:, 0]
        body, count = tokens[:, self.skip :], lengths - self.skip
        if self.attention is not None:
            attended: Tensor = self.attention(body, count)
            return attended
        if self.kind == "token+average":
            return torch.cat([tokens[:, 0], average(body, count)], dim=-1)
        return average(body, count)
