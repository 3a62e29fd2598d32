"""Attention rollout: how much of an image's pooled output comes from each of its patches, by attention alone.

"Quantifying Attention Flow in Transformers" (Abnar and Zuidema 2020, section 3), as figure 6 of "An Image is Worth
16x16 Words" has it (appendix D.7): weights are averaged over all heads, and the matrices of all blocks are multiplied.
What passes by attention, in the residual, counts as much as what passes through it.

Axes: `B` images, `N` patches (padded), `T` tokens (padded), `H` heads, `S` tokens that a block computes.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from model.architecture import ViTConfig
from model.attention import Attend, masked_attention, split_heads
from model.pooling import average_shares
from model.vit import VisionTransformer


def mean_weights(query: Tensor, key: Tensor, lengths: Tensor, heads: int) -> Tensor:
    """Weights of attention, averaged over the heads: `[B, S, D]`, `[B, T, D]` to `[B, S, T]`, as `head_weights`."""
    return head_weights(query, key, lengths, heads).mean(1)


def head_weights(query: Tensor, key: Tensor, lengths: Tensor, heads: int) -> Tensor:
    """Weights of attention in float32: `[B, S, D]`, `[B, T, D]` to `[B, H, S, T]`; those of padded keys are 0."""
    query, key = split_heads(query.float(), heads), split_heads(key.float(), heads)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)  # [B, H, S, T]
    valid = torch.arange(key.shape[2], device=key.device) < lengths[:, None]  # [B, T]
    weights: Tensor = scores.masked_fill(~valid[:, None, None, :], float("-inf")).softmax(-1)
    return weights


class Watcher:
    """Attends by another function and keeps the weights of every call, in order.

    Args:
        attend: computes attention.
        weigh: what is kept of a call: `mean_weights`, or `head_weights` for those of each head.
    """

    def __init__(self, attend: Attend, weigh: Callable[[Tensor, Tensor, Tensor, int], Tensor] = mean_weights) -> None:
        self._attend = attend
        self._weigh = weigh
        self.seen: list[Tensor] = []  # [B, S, T] or [B, H, S, T] each

    def take(self) -> list[Tensor]:
        """What was seen, which is then forgotten."""
        seen, self.seen = self.seen, []
        return seen

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, heads: int) -> Tensor:
        """As `model.attention.masked_attention`."""
        self.seen.append(self._weigh(query, key, lengths, heads))
        return self._attend(query, key, value, lengths, heads)


def has_rollout(config: ViTConfig) -> bool:
    """Whether weights of attention are shares: those of differential attention may be negative."""
    return config.attention != "differential"


def attention_shares(model: VisionTransformer, patches: Tensor, grid: Tensor) -> Tensor:
    """The shares of one batch, `[B, N]`; arguments are those of the model, which attends as by default afterwards."""
    watcher = Watcher(masked_attention)
    model.attend_with(watcher)
    try:
        model(patches, grid)
    finally:
        model.attend_with(masked_attention)
    return rollout(watcher.take(), grid[:, 0] * grid[:, 1] + model.config.prefix, model.config)


def rollout(seen: list[Tensor], lengths: Tensor, config: ViTConfig) -> Tensor:
    """From the weights of a forward pass to the share of each patch.

    The product of all matrices is never made: the pooled output is one row, which goes back through the blocks.

    Args:
        seen: `[B, S, T]` of each attention, in order; the last is that of the pooling if that attends.
        lengths: int64 `[B]`, valid tokens of each image.
        config: of the model.

    Returns:
        float32 `[B, N]`, at least 0, of each image in sum 1; 0 on padding.
    """
    blocks = seen[:-1] if config.pooling == "attention" else seen
    depth, last = config.branches, blocks[-1]
    row = _pooled(seen, lengths, config, tokens=last.shape[1])
    for start in range(len(blocks) - depth, -1, -depth):
        weights = torch.stack(blocks[start : start + depth]).mean(0) if depth > 1 else blocks[start]
        passed = F.pad(row, (0, weights.shape[2] - weights.shape[1]))  # tokens that are not computed have no residual
        row = (row @ weights + passed) / 2
    patches = row[:, 0, config.prefix :]
    return patches / patches.sum(1, keepdim=True)


def _pooled(seen: list[Tensor], lengths: Tensor, config: ViTConfig, tokens: int) -> Tensor:
    """What the pooled output takes from each token after the last block: `[B, 1, S]`."""
    places = torch.arange(tokens, device=lengths.device).expand(lengths.shape[0], 1, -1)
    if config.distilled:
        return (places < 2).float() / 2
    first = (places == 0).float()
    if config.pooling == "token":
        return first
    skip = 0 if config.pool_prefix else config.prefix
    if config.pooling == "attention":
        return F.pad(seen[-1], (skip, 0))
    average = F.pad(average_shares(tokens - skip, lengths - skip), (skip, 0)).unsqueeze(1)
    return average if config.pooling == "average" else (first + average) / 2
