"""The Vision Transformer over patch sequences ("An Image is Worth 16x16 Words", Dosovitskiy et al. 2021, section 3).

The model takes what serving sends: uint8 patches, padded to the longest image of the batch, and each image's own grid.
Read it top to bottom; `VisionTransformer.forward` at the end is equations 1 to 4 of the paper.

Axes: `B` images, `N` patches (padded), `T` = 1 + N tokens, `D` width, `H` heads, `P` patch side, `C` channels,
`K` classes.
"""

import torch
from torch import Tensor, nn

from model.architecture import ViTConfig
from model.attention import Attend, Attention
from model.blocks import make_block
from model.hybrid import PatchwiseStem, ResNetEmbedding
from model.manifest import Preprocessing
from model.norms import make_norm
from model.pooling import AttentionPooling, Pool
from model.positions import Places, find_places, make_positions
from model.relative import behind_prefix
from model.variants import decode_variant as decode_variant  # noqa: PLC0414 - where callers look for it


class PatchEmbedding(nn.Module):
    """Equation 1, `x_p E`: normalise and project flattened patches with one MatMul."""

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(preprocessing.patch_dim, width)
        # Values of a patch run (row, column, channel), so the channel means repeat P*P times. Not learned, not stored;
        # and real where weights are not yet, on the meta device.
        repeat = preprocessing.patch_dim // preprocessing.channels
        self.register_buffer("mean", torch.tensor(preprocessing.mean * repeat, device="cpu"), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std * repeat, device="cpu"), persistent=False)

    def forward(self, patches: Tensor, _grid: Tensor) -> Tensor:
        """uint8 `[B, N, P*P*C]` to `[B, N, D]`; the grid is for stems that look beyond a patch."""
        pixels = patches.to(self.mean.dtype) / 255
        projected: Tensor = self.project((pixels - self.mean) / self.std)
        return projected


def make_embedding(config: ViTConfig, preprocessing: Preprocessing) -> PatchEmbedding | ResNetEmbedding | PatchwiseStem:
    """What turns the patches of this architecture into tokens."""
    if config.stem == "patches":
        return PatchEmbedding(preprocessing, config.width)
    if config.stem == "patchwise":
        return PatchwiseStem(config, preprocessing)
    return ResNetEmbedding(config, preprocessing)


class VisionTransformer(nn.Module):
    """ViT over padded batches of patch sequences."""

    def __init__(self, config: ViTConfig, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.config = config
        self.preprocessing = preprocessing
        self.embedding = make_embedding(config, preprocessing)
        self.embedding_norm = make_norm(config, config.width) if config.embedding_norm else nn.Identity()
        if config.class_token:
            self.class_token = nn.Parameter(torch.zeros(1, 1, config.width))
            self.class_position = nn.Parameter(torch.zeros(1, 1, config.width))
        if config.registers:
            self.registers = nn.Parameter(torch.zeros(1, config.registers, config.width))
        self.positions = make_positions(config, preprocessing.native_grid)
        self.pre_norm = make_norm(config, config.width) if config.pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(make_block(config, preprocessing.native_grid) for _ in range(config.depth))
        self.norm = make_norm(config, config.width) if config.final_norm != "none" else nn.Identity()
        self.pool = Pool(config)
        width = 2 * config.width if config.pooling == "token+average" else config.width
        self.pre_logits = nn.Linear(width, config.pre_logits) if config.pre_logits else None
        self.head = nn.Linear(config.pre_logits or width, config.classes) if config.classes else None
        self.distillation_head = nn.Linear(width, config.classes) if config.distilled and config.classes else None
        self.apply(_initialise)
        if config.class_token:
            nn.init.normal_(self.class_token, std=0.02)

    def attend_with(self, attend: Attend) -> None:
        """Compute attention by another function of the same arguments and result."""
        for module in self.modules():
            if isinstance(module, Attention | AttentionPooling):
                module.attend = attend

    def forward(self, patches: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        """Classify a batch of images of any sizes.

        Args:
            patches: uint8 `[B, N, P*P*C]`, each image's patches row by row, padded on the right with anything.
            grid: int64 `[B, 2]`, rows and columns of each image; `rows * columns <= N`. A model whose
                `config.mixed_grids` is False needs the same grid for all images, and no padding.

        Returns:
            logits `[B, K]` and embedding `[B, D]`, the pooled and normalised tokens that the head reads: `[B, 2*D]` for
            `token+average`, `[B, pre_logits]` behind such a layer. Without a head the logits are `[B, 0]`.
        """
        tokens = self.encode(self.embed(patches, grid), grid, self._read())
        if self.config.distilled:
            return self._mean_of_two(*self.norm(tokens[:, :2]).unbind(1))
        embedding = self._embedding(tokens, grid[:, 0] * grid[:, 1] + self.config.prefix)
        return self._logits(self.head, embedding), embedding

    def embed(self, patches: Tensor, grid: Tensor) -> Tensor:
        """The arguments of `forward` to embedded patches `[B, N, D]`, before they are given positions."""
        embedded: Tensor = self.embedding_norm(self.embedding(patches, grid))
        return embedded

    def encode(self, embedded: Tensor, grid: Tensor, first: int | None = None) -> Tensor:
        """Equations 1 to 3 from embedded patches on.

        Args:
            embedded: `[B, N, D]`.
            grid: int64 `[B, 2]`.
            first: how many of the first tokens the last block computes; None for all.

        Returns:
            what the last block says of each token, `[B, T, D]` or `[B, first, D]`, before the final norm.
        """
        if self.positions is not None:
            embedded = embedded + self.positions(grid, embedded.shape[1])
        tokens = self.pre_norm(torch.cat([*self._prefix(embedded.shape[0]), embedded], dim=1))  # [B, T, D]
        lengths = grid[:, 0] * grid[:, 1] + self.config.prefix
        places = self._places(grid, embedded.shape[1]) if self.config.positions == "relative" else None
        for block in self.blocks[:-1]:
            tokens = block(tokens, lengths, None, places)
        last: Tensor = self.blocks[-1](tokens, lengths, first, places)
        return last

    def _places(self, grid: Tensor, patches: int) -> Places:
        """Of all tokens, for relative positions."""
        native, interpolation = self.preprocessing.native_grid, self.config.position_interpolation
        return behind_prefix(find_places(grid, patches, native, interpolation), self.config.prefix)

    def _read(self) -> int | None:
        """How many of the first tokens the last block computes; None for all.

        Where one token is pooled nobody reads the others: 7 % of the operations of a model of 12 blocks are never done.
        Two and not one, and there are always two: runtimes sum a product with a single row in another order, and then
        an image would not answer bit for bit the same alone and in a padded batch.
        """
        return 2 if self.config.pooling == "token" or self.config.distilled else None

    def _prefix(self, batch: int) -> list[Tensor]:
        """Class token and registers, `[B, 1, D]` and `[B, R, D]`, as far as there are any."""
        prefix = [self.class_token + self.class_position] if self.config.class_token else []
        prefix += [self.registers] if self.config.registers else []
        return [token.expand(batch, -1, -1) for token in prefix]

    def _embedding(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """`[B, T, D]`, valid tokens `[B]` to `[B, D]`; equation 4 where one token is pooled."""
        if self.config.final_norm == "tokens":
            pooled: Tensor = self.pool(self.norm(tokens), lengths)
        else:
            pooled = self.norm(self.pool(tokens, lengths))
        return pooled if self.pre_logits is None else self.pre_logits(pooled).tanh()

    def _mean_of_two(self, class_token: Tensor, distillation_token: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and embedding of a distilled model, the mean of what both tokens `[B, D]` say."""
        student = self._logits(self.head, class_token)
        teacher = self._logits(self.distillation_head, distillation_token)
        return (student + teacher) / 2, (class_token + distillation_token) / 2

    @staticmethod
    def _logits(head: nn.Linear | None, embedding: Tensor) -> Tensor:
        return embedding[:, :0] if head is None else head(embedding)


def _initialise(module: nn.Module) -> None:
    """As the reference implementation: Xavier everywhere; a fixed 0.02 is too small for narrow models."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
