"""Tiny artifacts of the serving contract, made without torch: the mean of an image's own patches, times a matrix.

`B` images, `N` patches, `K` classes. Padding does not count, so an image's logits do not depend on its batch.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from model.manifest import METADATA_KEY, Manifest, Preprocessing, Provenance

PATCH = 4
LABELS = ("red", "green", "blue")
MANIFEST = Manifest(
    name="tiny-colours",
    version="1.0.0",
    description="Names the strongest colour.",
    labels=LABELS,
    preprocessing=Preprocessing(patch_size=PATCH, native_grid=(7, 7), max_patches=100, resize="aspect"),
    provenance=Provenance(source="made by hand"),
)


def write_artifact(path: Path, manifest: Manifest | None = MANIFEST, **changes: Any) -> Path:
    """Write a model whose logits are the mean colour of the image times ten.

    Args:
        path: where.
        manifest: None leaves it out.
        changes: `patches_name`, `patches_type`, `classes`, `scale` (NaN makes NaN logits), `extra_input`, `length` (a
            number fixes the axis of patches), `opset`, `ballast` (an array that weighs and does nothing else),
            `attention` (the shares of patches are their brightness; the manifest has `explain`).
    """
    model = build_model(**changes)
    if changes.get("attention") and manifest is not None:
        manifest = replace(manifest, explain=True)
    if manifest is not None:
        helper.set_model_props(model, {METADATA_KEY: manifest.to_json()})
    onnx.save(model, path)
    return path


def build_model(
    patches_name: str = "patches",
    patches_type: int = TensorProto.UINT8,
    classes: int = 3,
    scale: float = 10.0,
    *,
    extra_input: bool = False,
    length: int | str = "patches_count",
    opset: int = 17,
    ballast: np.ndarray[Any, Any] | None = None,
    attention: bool = False,
) -> onnx.ModelProto:
    """The graph of `write_artifact`."""
    width = PATCH * PATCH * 3
    # Sums of whole numbers below 2**24 are exact in float32, so the order of summation changes no bit.
    colours = np.tile(np.eye(3, dtype=np.float32), (PATCH * PATCH, 1))  # [P*P*3, 3]
    head = np.zeros((3, classes), np.float32)
    head[: min(3, classes), : min(3, classes)] = np.eye(3, dtype=np.float32)[: min(3, classes), : min(3, classes)]
    constants = {
        "colours": colours,
        "full": np.array(PATCH * PATCH * 255, np.float32),
        "head": head * np.float32(scale),
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "axis1": np.array([1], np.int64),
        "axis2": np.array([2], np.int64),
    }
    if ballast is not None:
        constants["ballast"] = ballast
    nodes = [
        helper.make_node("ReduceProd", ["grid"], ["count"], axes=[1], keepdims=1),  # [B, 1]
        helper.make_node("Shape", [patches_name], ["longest"], start=1, end=2),
        helper.make_node("Squeeze", ["longest"], ["longest0"]),
        helper.make_node("Range", ["zero", "longest0", "one"], ["places"]),  # [N]
        helper.make_node("Less", ["places", "count"], ["own"]),  # [B, N]
        helper.make_node("Cast", ["own"], ["weight"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["weight", "axis2"], ["weight3"]),  # [B, N, 1]
        helper.make_node("Cast", [patches_name], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["pixels", "colours"], ["sums"]),  # [B, N, 3]
        helper.make_node("Mul", ["sums", "weight3"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axis1"], ["total"], keepdims=0),  # [B, 3]
        helper.make_node("Cast", ["count"], ["patches_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["patches_float", "full"], ["divisor"]),
        helper.make_node("Div", ["total", "divisor"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "head"], ["logits"]),  # [B, K]
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes]),
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 3]),
    ]
    if ballast is not None:  # what no output depends on would not be kept
        nodes.append(helper.make_node("Gather", ["ballast", "places"], ["some"]))
        outputs.append(helper.make_tensor_value_info("some", TensorProto.FLOAT, ["patches_count"]))
    if attention:
        nodes += [
            helper.make_node("ReduceSum", ["kept", "axis2"], ["brightness"], keepdims=0),  # [B, N]
            helper.make_node("Add", ["brightness", "weight"], ["parts"]),  # black patches have a share too
            helper.make_node("ReduceSum", ["parts", "axis1"], ["whole"], keepdims=1),
            helper.make_node("Div", ["parts", "whole"], ["attention"]),
        ]
        outputs.append(helper.make_tensor_value_info("attention", TensorProto.FLOAT, ["batch", length]))
    inputs = [
        helper.make_tensor_value_info(patches_name, patches_type, ["batch", length, width]),
        helper.make_tensor_value_info("grid", TensorProto.INT64, ["batch", 2]),
    ]
    if extra_input:
        inputs.append(helper.make_tensor_value_info("mask", TensorProto.INT64, ["batch"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        inputs,
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def renamed(**fields: Any) -> Manifest:
    """The manifest with other fields."""
    return replace(MANIFEST, **fields)
