"""Attention over padded sequences (appendix A of the paper), and what later families added to it.

Axes: `B` images, `T` tokens (padded), `D` width, `H` heads.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.architecture import ViTConfig
from model.norms import RmsNorm, make_norm
from model.positions import Places

Attend = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]
Inputs = tuple[Tensor, Tensor, Tensor]


def masked_attention(query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, heads: int) -> Tensor:
    """Attention that ignores padding.

    Args:
        query: `[B, S, D]`; S is T, 1 for a query that pools, or the few first tokens that somebody reads.
        key: `[B, T, D]`.
        value: `[B, T, E]`; E is D, or 2*D for differential attention.
        lengths: int64 `[B]`, valid tokens of each image, counted from the left.
        heads: H.

    Returns:
        `[B, S, E]`; rows of padding are finite and meaningless.
    """
    query, key, value = (split_heads(x, heads) for x in (query, key, value))
    valid = torch.arange(key.shape[2], device=key.device) < lengths[:, None]  # [B, T]
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=valid[:, None, None, :])  # [B, H, S, E/H]
    return mixed.transpose(1, 2).flatten(2)


def matmul_attention(query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, heads: int) -> Tensor:
    """`masked_attention` written out in MatMul and Softmax, with the same arguments and result.

    For runtimes without an attention operator, and for training on a CPU: there the backward pass of the fused kernel
    took 57 % of a step in bfloat16, and this form made the whole step 2.6 times faster (Pico/4, batch 256).
    """
    query, key, value = (split_heads(x, heads) for x in (query, key, value))
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)  # [B, H, S, T]
    valid = torch.arange(key.shape[2], device=key.device) < lengths[:, None]  # [B, T]
    weights = scores.masked_fill(~valid[:, None, None, :], float("-inf")).softmax(-1)
    mixed: Tensor = weights.to(value.dtype) @ value  # [B, H, S, E/H]
    return mixed.transpose(1, 2).flatten(2)


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """`[B, T, D]` to `[B, H, T, D/H]`."""
    batch, count, width = tokens.shape
    return tokens.view(batch, count, heads, width // heads).transpose(1, 2)


def _by_head(norm: nn.Module, tokens: Tensor, heads: int) -> Tensor:
    """Normalise the part of each head `[B, T, D/H]` by itself."""
    normalised: Tensor = norm(tokens.view(*tokens.shape[:2], heads, -1))
    return normalised.flatten(-2)


class QueryKeyValue(nn.Linear):
    """Queries, keys and values from one matrix, in this order of its rows."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 3 * width)

    def forward(self, tokens: Tensor, first: int | None = None) -> Inputs:  # type: ignore[override]
        """Queries of the first tokens or of all, keys and values of all: `[B, T, D]` to `[B, S, D]`, `[B, T, D]` twice.

        Another module of these arguments may take its place; export puts one there.
        """
        width = self.in_features
        if first is None:
            query, key, value = super().forward(tokens).chunk(3, dim=-1)
        else:
            query = F.linear(tokens[:, :first], self.weight[:width], self.bias[:width])
            key, value = F.linear(tokens, self.weight[width:], self.bias[width:]).chunk(2, dim=-1)
        return query, key, value


class Attention(nn.Module):
    """Multi-head self-attention, with norms of queries and keys and of the result if the configuration has them."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = QueryKeyValue(config.width)
        self.query_norm = make_norm(config, self.query_width(config)) if config.qk_norm else None
        self.key_norm = make_norm(config, self.query_width(config)) if config.qk_norm else None
        self.norm = make_norm(config, config.width) if config.inner_norm else nn.Identity()
        self.project = nn.Linear(config.width, config.width)
        # Export and training on a CPU set another function here.
        self.attend: Attend = masked_attention

    @staticmethod
    def query_width(config: ViTConfig) -> int:
        """Values of one head's query."""
        return config.width // config.heads

    def forward(
        self, tokens: Tensor, lengths: Tensor, first: int | None = None, places: Places | None = None
    ) -> Tensor:
        """`[B, T, D]`, valid tokens `[B]` to `[B, T, D]`, or `[B, first, D]`: what the first tokens alone gather.

        Attention with relative positions needs the places of patches; others leave them.
        """
        query, key, value = self.qkv(tokens, first)
        projected: Tensor = self.project(self.norm(self.mix(query, key, value, lengths, places)))
        return projected

    def mix(self, query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, _places: Places | None) -> Tensor:
        """`[B, S, D]`, `[B, T, D]` twice, valid tokens `[B]` to `[B, S, D]`."""
        return self.attend(*self._normalised(query, key), value, lengths, self.heads)

    def _normalised(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        if self.query_norm is None or self.key_norm is None:
            return query, key
        return _by_head(self.query_norm, query, self.heads), _by_head(self.key_norm, key, self.heads)


class DifferentialAttention(Attention):
    """The difference of two attentions over the same values ("Differential Transformer", Ye et al. 2024, section 2.1).

    The first halves of queries and keys make one map, the second halves the other. The paper's lambda is one number
    once it is trained, `balance`, and its factor 1 - lambda_init is part of `head_norm.weight`.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config)
        self.balance = nn.Parameter(torch.zeros(()))
        self.head_norm = RmsNorm(config.width // config.heads, 1e-5)

    @staticmethod
    def query_width(config: ViTConfig) -> int:
        """Values of one head's query in one of the two maps."""
        return config.width // config.heads // 2

    def mix(self, query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, _places: Places | None) -> Tensor:
        """`[B, S, D]`, `[B, T, D]` twice, valid tokens `[B]` to `[B, S, D]`."""
        first, second = (
            self.attend(*self._normalised(half_query, half_key), value, lengths, self.heads)
            for half_query, half_key in zip(query.chunk(2, -1), key.chunk(2, -1), strict=True)
        )
        return _by_head(self.head_norm, first - self.balance * second, self.heads)
