"""A float32 graph to int8: MatMuls over all tokens get 8-bit weights and inputs, everything else stays float32.

Written in the standard form, QuantizeLinear and DequantizeLinear around a MatMul, from which ONNX Runtime makes one
integer product when it loads the file. Weights are signed and scaled per column. Inputs are unsigned, with one scale
each that calibration fixes: scales taken from the batch itself would make an image's answer depend on its batch-mates
and on padding.

Kept in float32, because they decide much and cost little: the patch embedding (pixels), positions, attention scores
and Softmax, norms, activations, the residual stream, what is computed of the pooled tokens alone after the last
attention, and the head.

Axes: `B` images, `T` tokens, `K` inputs of a layer, `E` its outputs.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.verify import open_session
from model.architecture import ViTConfig

Feed = dict[str, NDArray[np.generic]]
_SAMPLE = 20_000  # values of one tensor kept from one batch
_SHRINK = np.linspace(1.0, 0.3, 29)  # of the observed range: outliers are cut where that lowers the error


@dataclass(slots=True)
class Observed:
    """Values of one tensor, seen during calibration."""

    low: float = 0.0  # zero is always inside: it must be representable
    high: float = 0.0
    samples: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, values: NDArray[np.float32], draw: np.random.Generator) -> None:
        """Remember the extremes and a sample of `values`."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self.samples.append(draw.choice(values.reshape(-1), min(_SAMPLE, values.size), replace=False))

    def interval(self) -> tuple[float, float]:
        """The part of the range that loses least, in the mean of squares, when its values become 8 bits."""
        values = np.concatenate(self.samples)
        choices = [(self.low * factor, self.high * factor) for factor in _SHRINK]
        return min(choices, key=lambda choice: _squared_error(values, *choice))


def _squared_error(values: NDArray[np.float32], low: float, high: float) -> float:
    scale, zero = _scale_and_zero(low, high)
    restored = (np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale
    return float(np.square(values - restored).mean())


def _scale_and_zero(low: float, high: float) -> tuple[float, int]:
    scale = max(high - low, 1e-8) / 255
    return scale, round(-low / scale)


def layers(graph: ir.Graph, config: ViTConfig) -> list[ir.Node]:
    """The MatMuls to quantise: those of blocks that see every token."""
    return [node for node in graph if node.op_type == "MatMul" and _is_layer(node, config)]


def _is_layer(node: ir.Node, config: ViTConfig) -> bool:
    tokens, weight = node.inputs
    if tokens is None or weight is None or weight.const_value is None or weight.const_value.dtype != ir.DataType.FLOAT:
        return False
    producer, shape = tokens.producer(), tokens.shape
    pixels = producer is None or producer.op_type == "Cast"
    every_token = shape is not None and len(shape) == 3 and not isinstance(shape[1], int)
    layer = len(weight.const_value.shape) == 2 and weight.const_value.shape[0] in {config.width, config.mlp_dim}
    return layer and every_token and not pixels and "positions" not in (weight.name or "")


def observe(path: Path, names: Iterable[str], feeds: Iterable[Feed], scratch: Path) -> dict[str, Observed]:
    """Run a float32 graph and remember what passes through the named tensors.

    Args:
        path: the graph.
        names: tensors to watch.
        feeds: batches without padding, since what stands in padding must not set a range.
        scratch: a file to write the graph with these outputs to.
    """
    model = ir.load(path)
    values = {value.name: value for node in model.graph for value in node.outputs}
    observed = {name: Observed() for name in names}
    model.graph.outputs.extend(values[name] for name in observed if values[name] not in model.graph.outputs)
    ir.save(model, scratch)
    session, draw = open_session(scratch), np.random.default_rng(0)
    for feed in feeds:
        for name, array in zip(observed, session.run(list(observed), feed), strict=True):
            observed[name].add(array, draw)
    return observed


def quantize(model: ir.Model, config: ViTConfig, intervals: dict[str, tuple[float, float]]) -> int:
    """Quantise the layers of `model` in place.

    Args:
        model: float32.
        config: its architecture.
        intervals: range of the input of each layer, by name of the tensor.

    Returns:
        How many MatMuls are now of 8 bits.
    """
    chosen = layers(model.graph, config)
    restored: dict[str, ir.Value] = {}
    for node in chosen:
        tokens, weight = _inputs(node)
        name, weight_name = str(tokens.name), str(weight.name)
        if name not in restored:
            restored[name] = _round_tokens(model.graph, node, tokens, intervals[name])
        node.replace_input_with(0, restored[name])
        node.replace_input_with(1, _round_weight(model.graph, node, weight))
        model.graph.initializers.pop(weight_name)
    return len(chosen)


def _inputs(node: ir.Node) -> tuple[ir.Value, ir.Value]:
    """Tokens and weight of a MatMul."""
    tokens, weight = node.inputs
    if tokens is None or weight is None:
        raise ValueError(f"{node.name} is no layer")
    return tokens, weight


def _round_tokens(graph: ir.Graph, before: ir.Node, tokens: ir.Value, interval: tuple[float, float]) -> ir.Value:
    """`[B, T, K]` through 8 bits: QuantizeLinear, DequantizeLinear."""
    scale, zero = _scale_and_zero(*interval)
    constants = [
        _constant(graph, f"{tokens.name}_scale", np.float32(scale)),
        _constant(graph, f"{tokens.name}_zero", np.uint8(zero)),
    ]
    rounded = ir.node("QuantizeLinear", [tokens, *constants])
    restored = ir.node("DequantizeLinear", [rounded.outputs[0], *constants])
    rounded.outputs[0].name, restored.outputs[0].name = f"{tokens.name}_uint8", f"{tokens.name}_restored"
    graph.insert_before(before, [rounded, restored])
    return restored.outputs[0]


def _round_weight(graph: ir.Graph, before: ir.Node, weight: ir.Value) -> ir.Value:
    """`[K, E]` as int8 with a scale for each of the E columns."""
    if weight.const_value is None:
        raise ValueError(f"{weight.name} is no weight")
    values = weight.const_value.numpy()
    scale = np.maximum(np.abs(values).max(0) / 127, 1e-12).astype(np.float32)  # [E]
    inputs = [
        _constant(graph, f"{weight.name}_int8", np.rint(values / scale).astype(np.int8)),
        _constant(graph, f"{weight.name}_scale", scale),
        _constant(graph, f"{weight.name}_zero", np.zeros(len(scale), np.int8)),
    ]
    restored = ir.node("DequantizeLinear", inputs, attributes={"axis": 1})
    restored.outputs[0].name = f"{weight.name}_restored"
    graph.insert_before(before, restored)
    return restored.outputs[0]


def _constant(graph: ir.Graph, name: str, array: NDArray[np.generic] | np.generic) -> ir.Value:
    values = np.asarray(array)
    tensor = ir.tensor(values, name=name)
    value = ir.Value(name=name, shape=ir.Shape(values.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value
