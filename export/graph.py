"""The graph: a trained model to ONNX operators, with both axes dynamic.

The model is not bent for export; `ServingGraph` is a copy of it with five changes: the normalisation of pixels is
folded into the patch embedding, that of a stem's kernels into the kernels, queries, keys and values come from a MatMul
each, attention becomes the operator of the chosen opset, and outputs are float32.

Axes: `B` images, `N` patches, `T` tokens, `D` width, `H` heads, `K` classes.
"""

import copy
import warnings
from typing import Literal

import onnx_ir as ir
import torch
from torch import Tensor, nn

from model.attention import Attend, Attention, Inputs, matmul_attention
from model.blocks import leading
from model.manifest import METADATA_KEY, Manifest, Precision
from model.rollout import Watcher, has_rollout, rollout
from model.standardised import fold_kernels
from model.vit import PatchEmbedding, VisionTransformer

Opset = Literal[24, 18]
# int8 is made from the float32 graph by export.quantize
_DTYPE: dict[Precision, torch.dtype] = {"float32": torch.float32, "float16": torch.float16, "int8": torch.float32}
ATTENTION = "attention"  # the output of the rollout
MAX_FILE_BYTES = 2**31 - 2**20  # protobuf's limit for one message, less room for the graph itself


class ExportError(ValueError):
    """A model that cannot be exported as asked; the message says why and what to do instead."""


class FoldedPatchEmbedding(nn.Module):
    """`PatchEmbedding` with `(x/255 - mean) / std` folded into weight and bias: one Cast, one MatMul, one Add."""

    def __init__(self, source: PatchEmbedding, dtype: torch.dtype) -> None:
        super().__init__()
        mean, std = source.mean.double(), source.std.double()
        folded = source.project.weight.double() / std
        bias = source.project.bias.double() - folded @ mean
        # In float16 a weight divided by 255 may become subnormal and lose digits: scale the pixels there instead.
        self.scale = 1 / 255 if dtype == torch.float16 else None
        if self.scale is None:
            folded = folded / 255
        self.project = nn.Linear(folded.shape[1], folded.shape[0])
        with torch.no_grad():
            self.project.weight.copy_(folded)
            self.project.bias.copy_(bias)

    def forward(self, patches: Tensor, _grid: Tensor) -> Tensor:
        """uint8 `[B, N, P*P*C]` to `[B, N, D]`."""
        pixels = patches.to(self.project.weight.dtype)
        projected: Tensor = self.project(pixels if self.scale is None else pixels * self.scale)
        return projected


def onnx_attention(query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, heads: int) -> Tensor:
    """`model.attention.masked_attention` as the standard `Attention` operator of opset 24.

    Its seventh input, `nonpad_kv_seqlen`, is the number of valid tokens: no mask is ever made, and on CUDA in float16
    the runtime may take flash attention.
    """
    mixed: Tensor = torch.onnx.ops.symbolic(
        "Attention",
        [query, key, value, None, None, None, lengths],
        attrs={"q_num_heads": heads, "kv_num_heads": heads},
        dtype=query.dtype,
        shape=(*query.shape[:2], value.shape[-1]),
        version=24,
    )
    return mixed


class SplitInputs(nn.Module):
    """`QueryKeyValue` as three MatMuls and, as a rule, one Add instead of one MatMul, one wide Add and a Split.

    A bias of the keys adds the same to all scores of a query, which Softmax takes away again, unless the keys are
    normalised. A bias of the values passes through attention unchanged, since its weights sum to 1: it moves into the
    bias of the projection, unless a norm or the difference of two maps lies between.
    """

    def __init__(self, source: Attention) -> None:
        super().__init__()
        weights, biases = source.qkv.weight.chunk(3), source.qkv.bias.chunk(3)
        movable = type(source) is Attention and isinstance(source.norm, nn.Identity)
        self.query = _linear(weights[0], biases[0])
        self.key = _linear(weights[1], None if source.key_norm is None else biases[1])
        self.value = _linear(weights[2], None if movable else biases[2])
        if movable:
            moved = source.project.weight.double() @ biases[2].double()
            with torch.no_grad():
                source.project.bias.copy_(source.project.bias.double() + moved)

    def forward(self, tokens: Tensor, first: int | None) -> Inputs:
        """`[B, T, D]` to queries `[B, S, D]`, keys and values `[B, T, D]`."""
        return self.query(leading(tokens, first)), self.key(tokens), self.value(tokens)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A layer of these values."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
    return layer


def _split_inputs(model: VisionTransformer) -> None:
    for module in model.modules():
        if isinstance(module, Attention):
            module.qkv = SplitInputs(module)  # type: ignore[assignment]


_ATTENTION: dict[Opset, Attend] = {24: onnx_attention, 18: matmul_attention}


class ServingGraph(nn.Module):
    """The exported module: uint8 patches and grids in, float32 logits and embeddings out.

    With `explain` the attention rollout as well. Its operators hang beside those of the model, so that a run which does
    not ask for it need not compute them.
    """

    def __init__(self, model: VisionTransformer, opset: Opset, dtype: torch.dtype, *, explain: bool = False) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self._watcher = Watcher(_ATTENTION[opset]) if explain else None
        self.model.attend_with(self._watcher or _ATTENTION[opset])
        _split_inputs(self.model)
        fold_kernels(self.model)
        if isinstance(model.embedding, PatchEmbedding):
            self.model.embedding = FoldedPatchEmbedding(model.embedding, dtype)  # type: ignore[assignment]
        self.to(dtype).eval().requires_grad_(False)

    def forward(self, patches: Tensor, grid: Tensor) -> tuple[Tensor, ...]:
        """uint8 `[B, N, P*P*C]`, int64 `[B, 2]` to float32 `[B, K]`, if the model has a head, `[B, D]`, `[B, N]`."""
        outputs = self._answer(patches, grid)
        if self._watcher is None:
            return outputs
        lengths = grid[:, 0] * grid[:, 1] + self.model.config.prefix
        return *outputs, rollout(self._watcher.take(), lengths, self.model.config)

    def _answer(self, patches: Tensor, grid: Tensor) -> tuple[Tensor, ...]:
        logits, embedding = self.model(patches, grid)
        return (logits.float(), embedding.float()) if self.model.config.classes else (embedding.float(),)


def output_names(model: VisionTransformer, *, explain: bool = False) -> list[str]:
    """Outputs of the model's graph: a feature extractor has no logits."""
    return [*(["logits"] if model.config.classes else []), "embedding", *([ATTENTION] if explain else [])]


def check_size(model: VisionTransformer, precision: Precision) -> None:
    """Refuse early what cannot become one file.

    Raises:
        ExportError: when the weights alone pass protobuf's limit of 2 GiB for a single file.
    """
    size = sum(weight.numel() for weight in model.parameters()) * _DTYPE[precision].itemsize
    if size > MAX_FILE_BYTES:
        raise ExportError(
            f"the weights need {size / 1e9:.2f} GB in {precision}, and an artifact is one file of at most 2.15 GB "
            "(protobuf's limit): export with --precision float16, which halves it"
        )


def build_graph(model: VisionTransformer, manifest: Manifest, opset: Opset) -> ir.Model:
    """Trace `model` into an ONNX model that carries `manifest`.

    Args:
        model: float32, on the CPU; left as it is.
        manifest: its `precision` chooses the weights' type, `explain` adds the attention rollout.
        opset: 24 for the `Attention` operator, 18 for older runtimes and TensorRT (MatMul and Softmax).

    Raises:
        ExportError: when the weights cannot be stored in one file, or attention cannot be rolled out.
    """
    check_size(model, manifest.precision)
    if manifest.explain and not has_rollout(model.config):
        raise ExportError(
            "--explain: attention rollout is defined for weights that are shares, and differential attention subtracts "
            "one map from another: export without --explain"
        )
    spec = manifest.preprocessing
    rows, columns = 3, 5  # any example: both axes are dynamic
    patches = torch.zeros(2, rows * columns, spec.patch_dim, dtype=torch.uint8)
    grid = torch.tensor([[rows, columns]] * 2)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("patches")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.onnx about itself
        program = torch.onnx.export(
            ServingGraph(model, opset, _DTYPE[manifest.precision], explain=manifest.explain),
            (patches, grid),
            dynamo=True,
            opset_version=opset,
            input_names=["patches", "grid"],
            output_names=output_names(model, explain=manifest.explain),
            dynamic_shapes={"patches": {0: batch, 1: length}, "grid": {0: batch}},
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx returned no program")
    graph = program.model
    drop_notes(graph)
    graph.metadata_props[METADATA_KEY] = manifest.to_json()
    return graph


def drop_notes(graph: ir.Model) -> None:
    """Remove what the exporter notes on every node: stack traces, with the paths of the machine that exported."""
    graph.metadata_props.clear()
    graph.graph.metadata_props.clear()
    values = [*graph.graph.inputs, *graph.graph.initializers.values()]
    for node in graph.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        values += node.outputs
    for value in values:
        value.metadata_props.clear()
        value.doc_string = None
