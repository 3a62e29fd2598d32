"""The blocks of timm's Vision Transformers: their names, and the layouts that put several matrices into one.

Axes: `D` width, `M` hidden size of the MLP, `H` heads.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.architecture import BlockLayout
from model.checkpoints.conversion import add_zero_biases, count_of, rename, take
from model.checkpoints.loading import CheckpointError

_NAMES = (
    # timm's block; the two lists of "Three things everyone should know" are its halves
    (r"norm([12])\.(\w+)", r"norm\1.\2"),
    (r"ls([12])\.gamma", r"scale\1.factor"),
    (r"attn\.qkv\.(\w+)", r"attention.qkv.\1"),
    (r"attn\.proj\.(\w+)", r"attention.project.\1"),
    (r"attn\.q_norm\.(\w+)", r"attention.query_norm.\1"),
    (r"attn\.k_norm\.(\w+)", r"attention.key_norm.\1"),
    (r"attn\.norm\.(\w+)", r"attention.norm.\1"),
    (r"mlp\.fc1\.(\w+)", r"mlp.0.\1"),
    (r"mlp\.norm\.(\w+)", r"mlp.1.1.\1"),
    (r"mlp\.fc2\.(\w+)", r"mlp.2.\1"),
    (r"attns\.(\d+)\.norm\.(\w+)", r"branches.\1.norm1.\2"),
    (r"attns\.(\d+)\.attn\.qkv\.(\w+)", r"branches.\1.attention.qkv.\2"),
    (r"attns\.(\d+)\.attn\.proj\.(\w+)", r"branches.\1.attention.project.\2"),
    (r"attns\.(\d+)\.ls\.gamma", r"branches.\1.scale1.factor"),
    (r"ffns\.(\d+)\.norm\.(\w+)", r"branches.\1.norm2.\2"),
    (r"ffns\.(\d+)\.mlp\.fc1\.(\w+)", r"branches.\1.mlp.0.\2"),
    (r"ffns\.(\d+)\.mlp\.fc2\.(\w+)", r"branches.\1.mlp.2.\2"),
    (r"ffns\.(\d+)\.ls\.gamma", r"branches.\1.scale2.factor"),
)
_LAMBDA = re.compile(r"attn\.(lambda_[qk][12]|sub_norm\.weight)")


@dataclass(frozen=True, slots=True)
class Found:
    """What keys and shapes of the blocks say of the architecture."""

    depth: int
    mlp_dim: int
    head_width: int | None  # of queries and keys, if they are normalised
    layout: BlockLayout
    branches: int
    norm_bias: bool
    layer_scale: bool
    differential: bool
    inner_norm: bool
    gated: bool


def to_blocks(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Found]:
    """All blocks in our names, and what they are.

    Raises:
        CheckpointError: if there are none.
    """
    depth = count_of(tensors, r"blocks\.(\d+)\.")
    if not depth:
        raise CheckpointError("the checkpoint has no blocks: it is not a Vision Transformer of timm")
    blocks = [_block(tensors, index) for index in range(depth)]
    ours = {f"blocks.{index}.{name}": tensor for index, block in enumerate(blocks) for name, tensor in block.items()}
    add_zero_biases(ours, ["attention.qkv", "attention.project", "mlp.0", "mlp.2"])
    return ours, _look_at(blocks[0], depth, "parallel" if "blocks.0.in_proj.weight" in tensors else "sequential")


def _block(tensors: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    start = f"blocks.{index}."
    block = {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
    return rename(_unpack(block, index), _NAMES)


def _look_at(block: Mapping[str, Tensor], depth: int, layout: BlockLayout) -> Found:
    branches = count_of(block, r"branches\.(\d+)\.")
    one = {name.removeprefix("branches.0."): tensor for name, tensor in block.items()}
    if missing := {"mlp.0.weight", "mlp.2.weight"} - one.keys():
        raise CheckpointError(f"the first block is of an unknown kind: it has no {' and no '.join(sorted(missing))}")
    head_norm = one.get("attention.query_norm.weight")
    mlp_dim = one["mlp.2.weight"].shape[1]
    return Found(
        depth=depth,
        mlp_dim=mlp_dim,
        head_width=None if head_norm is None else len(head_norm),
        layout=layout,
        branches=max(branches, 1),
        norm_bias="norm1.bias" in one,
        layer_scale="scale1.factor" in one,
        differential="attention.balance" in one,
        inner_norm="attention.norm.weight" in one,
        gated=one["mlp.0.weight"].shape[0] == 2 * mlp_dim,
    )


def _unpack(block: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    """Layouts that pack differently, unpacked to that of timm's plain block."""
    if "in_proj.weight" in block:
        block = _unpack_parallel(block)
    if "mlp.fc1_g.weight" in block:
        for part in ("weight", "bias"):
            if f"mlp.fc1_g.{part}" in block:
                both = [take(block, f"mlp.fc1_g.{part}"), take(block, f"mlp.fc1_x.{part}")]
                block[f"mlp.fc1.{part}"] = torch.cat(both)  # the gate first
    if any(_LAMBDA.fullmatch(name) for name in block):
        block = _fold_differential(block, index)
    return block


def _unpack_parallel(block: dict[str, Tensor]) -> dict[str, Tensor]:
    """`ParallelScalingBlock`: one matrix for the MLP and for queries, keys and values; one norm for both branches."""
    in_proj = take(block, "in_proj.weight")
    width = in_proj.shape[1]
    hidden = len(in_proj) - 3 * width
    if "out_proj.weight" in block:  # its differential sibling has one matrix at the end too
        out = take(block, "out_proj.weight")
        ends = {"attn.proj.weight": out[:, :width], "mlp.fc2.weight": out[:, width:]}
        if "out_proj.bias" in block:
            bias = take(block, "out_proj.bias")
            ends |= {"attn.proj.bias": bias, "mlp.fc2.bias": torch.zeros_like(bias)}
    else:
        table = ((r"attn_out_proj\.(\w+)", r"attn.proj.\1"), (r"mlp_out_proj\.(\w+)", r"mlp.fc2.\1"))
        ends, block = {}, rename(block, table)
    unpacked = ends | {"mlp.fc1.weight": in_proj[:hidden], "attn.qkv.weight": in_proj[hidden:]}
    if "in_proj.bias" in block:
        bias = take(block, "in_proj.bias")
        unpacked |= {"mlp.fc1.bias": bias[:hidden], "attn.qkv.bias": bias[hidden:]}
    for name, tensor in block.items():
        both = {"in_norm": "norm{}", "ls": "ls{}"}.get(name.split(".")[0])
        if both:
            unpacked |= {f"{both.format(branch)}.{name.split('.')[1]}": tensor for branch in (1, 2)}
        elif name == "mlp_bias":
            unpacked["mlp.fc1.bias"] = tensor
        elif re.match(r"[qk]_norm|lambda_|sub_norm", name):
            unpacked[f"attn.{name}"] = tensor
        else:
            unpacked[name] = tensor
    return unpacked


def _fold_differential(block: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    """Lambda to one number, its constant into the norm, and queries and keys sorted by map instead of by head."""
    vectors = {}
    for name in ("q1", "k1", "q2", "k2"):
        if f"attn.lambda_{name}" not in block:
            raise CheckpointError(f"differential attention of block {index} has no lambda_{name}: it is not supported")
        vectors[name] = take(block, f"attn.lambda_{name}").double()
    if len({vector.shape for vector in vectors.values()}) > 1:
        raise CheckpointError(f"the vectors of lambda of block {index} are not of one size")
    initial = 0.8 - 0.6 * math.exp(-0.3 * index)  # section 2.1 of the paper
    first, second = (torch.exp((vectors[f"q{each}"] * vectors[f"k{each}"]).sum()) for each in (1, 2))
    block["attention.balance"] = (first - second + initial).float()
    block["attention.head_norm.weight"] = take(block, "attn.sub_norm.weight") * (1 - initial)
    head = len(vectors["q1"])
    for part in ("weight", "bias"):
        if f"attn.qkv.{part}" in block:
            query, key, value = block[f"attn.qkv.{part}"].chunk(3)
            block[f"attn.qkv.{part}"] = torch.cat([_by_map(query, head), _by_map(key, head), value])
    return block


def _by_map(rows: Tensor, head: int) -> Tensor:
    """Rows `[H * 2 * head, ...]`, by head and then by map, to by map and then by head."""
    return rows.reshape(-1, 2, head, *rows.shape[1:]).transpose(0, 1).reshape(rows.shape)
