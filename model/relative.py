"""Relative positions (appendix D.4): attention that knows how far patches are from each other, not where they are.

As in the paper an extra attention takes the same queries, with learned embeddings of offsets as its keys, and its
logits are added to those of the content before the softmax. What differs: the paper's offset is that of two places in
the row-by-row sequence, `p_q - p_k`, which stands for another displacement in every other grid; here it is two numbers,
rows and columns, each with an embedding, and the logits of both are added. Each head and each block has embeddings of
its own. Between a patch and a token before the patches there is no offset, and nothing is added: where the class token
is pooled, those of the last block decide nothing.

The sum of both logits is one inner product of longer vectors, `(q, q.E[p_q - 1], .., q.E[p_q - R])` with
`(k, 1 at p_k)`: any attention function or operator computes it, no mask of all pairs is made, and each image of a batch
has its own grid. In another grid a place is a mixture of native places, as for absolute positions.

Axes: `B` images, `S` queries, `T` tokens, `H` heads, `d` = D / H, `R` native rows, `C` native columns.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.architecture import ViTConfig
from model.attention import Attention, split_heads
from model.positions import Grid, Places


class Offsets(nn.Module):
    """Learned embeddings of the offsets along one axis, `[H, d, 2R - 1]`, and their logits for queries."""

    index: Tensor

    def __init__(self, heads: int, head_width: int, native: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(heads, head_width, 2 * native - 1))
        nn.init.trunc_normal_(self.table, std=0.02)
        place = torch.arange(native, device="cpu")
        # Of the offset from each place to each; not learned, and real where weights are on the meta device.
        self.register_buffer("index", place[:, None] - place + native - 1, persistent=False)

    def forward(self, query: Tensor, places: Tensor) -> Tensor:
        """`[B, H, S, d]`, places of the queries `[B, S, R]` to the logit of each place of a key, `[B, H, S, R]`."""
        logits = (query @ self.table)[..., self.index]  # [B, H, S, R, R]
        return (logits * places[:, None, :, :, None].to(query.dtype)).sum(-2)

    def resampled(self, native: int) -> Tensor:
        """The table for another number of native places, `[H, d, 2*native - 1]`, read linearly between its entries.

        An offset is a share of the image, so it keeps its meaning; beyond the ends of the table is its end.
        """
        old = self.index.shape[0]
        offset = torch.arange(1 - native, native, device=self.table.device) * old / native + old - 1
        place = offset.clamp(0, 2 * old - 2)
        low, high = place.floor().long(), place.ceil().long()
        return torch.lerp(self.table[..., low], self.table[..., high], place - low)


class RelativeAttention(Attention):
    """Multi-head self-attention with relative positions."""

    def __init__(self, config: ViTConfig, native_grid: Grid) -> None:
        super().__init__(config)
        head_width = config.width // config.heads
        self.rows = Offsets(config.heads, head_width, native_grid[0])
        self.columns = Offsets(config.heads, head_width, native_grid[1])

    def mix(self, query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, places: Places | None) -> Tensor:
        """`[B, S, D]`, `[B, T, D]` twice, valid tokens `[B]` to `[B, S, D]`; places are those of all tokens."""
        if places is None:
            raise ValueError("attention with relative positions needs the places of the tokens")
        query, key = self._normalised(query, key)
        return self.attend(self._longer_query(query, places), self._longer_key(key, places), value, lengths, self.heads)

    def _longer_query(self, query: Tensor, places: Places) -> Tensor:
        """`[B, S, D]` to `[B, S, H*(d + R + C)]`."""
        count, split = query.shape[1], split_heads(query, self.heads)
        parts = [split, self.rows(split, places.rows[:, :count]), self.columns(split, places.columns[:, :count])]
        longer = torch.cat(parts, dim=-1)
        # Attention divides by the root of the longer length; all logits are those of the shorter one.
        scale = math.sqrt(longer.shape[-1] / split.shape[-1])
        return (longer * scale).transpose(1, 2).flatten(2)

    def _longer_key(self, key: Tensor, places: Places) -> Tensor:
        """`[B, T, D]` to `[B, T, H*(d + R + C)]`."""
        place = torch.cat(places, dim=-1).to(key.dtype)  # [B, T, R + C]
        every_head = place[:, None].expand(-1, self.heads, -1, -1)
        return torch.cat([split_heads(key, self.heads), every_head], dim=-1).transpose(1, 2).flatten(2)

    def resampled(self, grid: Grid) -> dict[str, Tensor]:
        """The offsets for another native grid."""
        return {"rows.table": self.rows.resampled(grid[0]), "columns.table": self.columns.resampled(grid[1])}


def behind_prefix(places: Places, prefix: int) -> Places:
    """Places of all tokens `[B, T, ..]` from those of patches `[B, N, ..]`: tokens before the patches have none."""
    return Places(*(F.pad(axis, (0, 0, prefix, 0)) for axis in places))
