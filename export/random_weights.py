"""Models with random weights: for benchmarks, and for trying a deployment before the real weights are there."""

import torch

from export.graph import ExportError, check_size
from model.checkpoints.native import Description
from model.manifest import Precision, Provenance
from model.sources.labels import generic
from model.sources.source import Source, model_name
from model.vit import VisionTransformer, decode_variant


def random_source(variant: str, image_size: int | None, precision: Precision, seed: int = 0) -> Source:
    """A model of a known variant such as `B/16`.

    Raises:
        ExportError: for an unknown variant, or one that cannot become one file in this precision.
    """
    try:
        config, spec = decode_variant(variant, image_size=image_size)
    except ValueError as error:
        raise ExportError(str(error)) from None
    with torch.device("meta"):  # before gigabytes of random weights are drawn
        check_size(VisionTransformer(config, spec), precision)
    torch.manual_seed(seed)
    model = VisionTransformer(config, spec).eval()
    name = f"random-{model_name(variant)}"
    text = f"ViT-{variant} with random weights: answers mean nothing"
    description = Description(generic(config.classes), name, description=text)
    return Source(model, description, Provenance(f"random:{variant} (seed {seed})"))
