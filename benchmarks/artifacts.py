"""Models with random weights for benchmarks: the time of a forward pass does not depend on what the weights are.

    python -m benchmarks.artifacts Ti/16 -o vit-ti-16.onnx
    python -m benchmarks.artifacts Ti/16 --resize aspect --max-patches 196 -o aspect.onnx

The graph is the one of `python -m export.to_onnx`, without its comparison with PyTorch. Benchmarks ask
`benchmarks.served.artifact` for a model, which runs this in a process of its own, so that no benchmark holds torch.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import onnx_ir as ir
import torch
import typer

from export.graph import build_graph
from model.manifest import Manifest, Precision, Preprocessing, Provenance
from model.vit import VisionTransformer, decode_variant


def command(
    variant: Annotated[str, typer.Argument(help="Such as Ti/16.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .onnx file to write.")],
    classes: Annotated[int, typer.Option(min=1, help="Size of the head.")] = 1000,
    resize: Annotated[Literal["crop", "squash", "aspect"], typer.Option(help="See model/manifest.py.")] = "crop",
    max_patches: Annotated[int | None, typer.Option(min=1, help="Most patches of one image.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Native side, pixels.")] = None,
    opset: Annotated[Literal["24", "18"], typer.Option(help="Of the graph.")] = "24",
    precision: Annotated[Precision, typer.Option(help="Of the weights.")] = "float32",
) -> None:
    """Write one artifact."""
    config, spec = decode_variant(variant, image_size=image_size, classes=classes)
    spec = _changed(spec, resize, max_patches)
    torch.manual_seed(0)
    model = VisionTransformer(config, spec).eval()
    manifest = Manifest(
        name=f"random-{variant.lower().replace('/', '-')}",
        version="0",
        description="Random weights: answers mean nothing.",
        labels=tuple(f"class {index}" for index in range(classes)),
        preprocessing=spec,
        position_interpolation=config.position_interpolation,
        precision=precision,
        provenance=Provenance("benchmarks.artifacts"),
    )
    partial = output.with_name(f".{output.name}.partial")
    ir.save(build_graph(model, manifest, 24 if opset == "24" else 18), partial)
    partial.replace(output)


def _changed(
    spec: Preprocessing, resize: Literal["crop", "squash", "aspect"], max_patches: int | None
) -> Preprocessing:
    resize_to = spec.resize_to if resize == "crop" else None
    return replace(spec, resize=resize, resize_to=resize_to, max_patches=max_patches or spec.max_patches)


if __name__ == "__main__":
    typer.run(command)
