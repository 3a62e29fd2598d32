"""Attention for an artifact whose checkpoint is not at hand: the operators of the rollout, hung beside its own.

    python -m export.attention_output model.onnx -o explained.onnx

For float32 exports of opset 24, where attention is found by its operator, of models whose class token is pooled and is
all that stands before the patches: ViT, CLIP, DeiT without distillation. Weights and answers stay as they are, to the
bit. For everything else there is `python -m export.to_onnx --explain`, from the checkpoint.
"""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import onnxruntime
import torch
import typer
from torch import Tensor, nn

from export.graph import ATTENTION, ExportError, drop_notes
from model.architecture import ViTConfig
from model.manifest import METADATA_KEY, Manifest, ManifestError
from model.rollout import mean_weights, rollout


class _Rollout(nn.Module):
    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self._config = config

    def forward(self, lengths: Tensor, *tokens: Tensor) -> Tensor:
        """Valid tokens `[B]`, queries and keys `[B, T, D]` of each block to `[B, N]`."""
        pairs = zip(tokens[::2], tokens[1::2], strict=True)
        return rollout([mean_weights(*pair, lengths, self._config.heads) for pair in pairs], lengths, self._config)


def add_attention(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the output `attention`, and a manifest that says so.

    Raises:
        ExportError: if it has no operators to take it from.
    """
    attentions = [node for node in model.graph.node if node.op_type == "Attention"]
    if not attentions or any(len(node.input) < 7 for node in attentions):
        raise ExportError("attention is added to exports of opset 24, where it is one operator: export the checkpoint")
    heads = next(each.i for each in attentions[0].attribute if each.name == "q_num_heads")
    names = [name for node in attentions for name in node.input[:2]]
    sizes = {value.name: value.type.tensor_type.shape.dim for value in model.graph.value_info}
    rows = [sizes[name][1].dim_value for name in names]  # 0: any
    config = ViTConfig(width=sizes[names[0]][2].dim_value, depth=len(attentions), heads=heads, mlp_dim=1)
    found = onnx.compose.add_prefix(_trace(config, rows), "rollout/", rename_outputs=False, rename_inputs=False)
    renames = dict(zip((each.name for each in found.graph.input), [attentions[0].input[6], *names], strict=True))
    for node in found.graph.node:
        node.input[:] = [renames.get(name, name) for name in node.input]
    explained = onnx.ModelProto()
    explained.CopyFrom(model)
    explained.graph.node.extend(found.graph.node)
    explained.graph.initializer.extend(found.graph.initializer)
    explained.graph.output.extend(found.graph.output)
    manifest = Manifest.from_json(next(each.value for each in model.metadata_props if each.key == METADATA_KEY))
    onnx.helper.set_model_props(explained, {METADATA_KEY: replace(manifest, explain=True).to_json()})
    return explained


def _trace(config: ViTConfig, rows: list[int]) -> onnx.ModelProto:
    """The rollout alone; queries and keys have so many tokens, 0: any number."""
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    examples = tuple(torch.zeros(2, count or 5, config.width) for count in rows)
    shapes = tuple({0: batch} | ({} if count else {1: tokens}) for count in rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.onnx about itself
        program = torch.onnx.export(
            _Rollout(config).eval(),
            (torch.tensor([5, 5]), *examples),
            dynamo=True,
            opset_version=24,
            output_names=[ATTENTION],
            dynamic_shapes=({0: batch}, shapes),
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx returned no program")
    drop_notes(program.model)
    return program.model_proto


def command(
    artifact: Annotated[Path, typer.Argument(help="An artifact without attention.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .onnx file to write.")],
) -> None:
    """Add attention to an artifact, and try it."""
    try:
        plain = artifact.read_bytes()
        # From bytes and to bytes: onnx.load and onnx.save open the files that a model names.
        explained = add_attention(onnx.load_from_string(plain)).SerializeToString()
        _try(explained, plain)
    except (ExportError, ManifestError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    output.write_bytes(explained)


def _try(explained: bytes, plain: bytes) -> None:
    """Raises: ExportError: unless logits have the same bits, and the shares of patches are in sum 1."""
    before, after = (_open(each) for each in (plain, explained))
    dim, grid = before.get_inputs()[0].shape[2], np.array([(3, 4), (1, 1)])
    feed = {"patches": np.random.default_rng(0).integers(0, 256, (2, 20, dim), np.uint8), "grid": grid}
    logits, shares = after.run(["logits", ATTENTION], feed)
    if not np.array_equal(logits, before.run(["logits"], feed)[0]):
        raise ExportError("the logits are not what they were")
    own = np.arange(20) < grid.prod(1)[:, None]
    if shares.shape != own.shape or shares[~own].any() or not np.allclose(shares.sum(1), 1, atol=1e-5):
        raise ExportError("the model has other tokens than its class token before the patches: export the checkpoint")


def _open(content: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    typer.run(command)
