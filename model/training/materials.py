"""What a run needs before its first step: the model, the images, and how they are varied."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console

from model.attention import matmul_attention
from model.augment import Augmentation, for_small_grey
from model.checkpoints.native import Description
from model.data import LabelledImages, hold_out
from model.data_sets import load_data
from model.manifest import Preprocessing
from model.sources.load import load, locate
from model.sources.source import parse_source
from model.training.mimetic import begin_mimetically
from model.training.seeds import generator_at
from model.training.starting import at_resolution, evaluated_side, with_new_head
from model.vit import VisionTransformer, decode_variant


@dataclass(frozen=True, slots=True)
class Request:
    """What a command line asks for; `model.train` says what each is."""

    data: Path | None = None
    validation: Path | None = None
    hold_out: float = 0.1
    source: str | None = None
    resolution: int | None = None
    variant: str = "Pico/4"
    image_size: int | None = None
    pooling: Literal["token", "average"] = "token"
    mimetic: bool = False
    max_patches: int | None = None
    limit: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Materials:
    """All there is before the first step."""

    model: VisionTransformer
    data: LabelledImages
    validation: LabelledImages
    augmentation: Augmentation
    description: Description


def prepare(request: Request, augmentation: Augmentation, console: Console) -> Materials:
    """Load what a run starts from; unreadable images are named on the console and left out.

    Raises:
        CheckpointError: if the checkpoint cannot be used.
        DataError: if a data set cannot be.
        ValueError: for a wrong variant or size.
    """
    torch.manual_seed(request.seed)
    body, description = _body(request, console)
    spec = body.preprocessing
    if request.max_patches is not None:
        spec = body.preprocessing = replace(spec, max_patches=request.max_patches)
    data, validation = _images(request, spec)
    for reason in dict.fromkeys(data.skipped + validation.skipped):  # parts of one set name the same
        console.print(f"skipped {reason}", markup=False, soft_wrap=True)
    classes = len(data.labels)
    model = _from_scratch(body, classes, request) if request.source is None else with_new_head(body, classes)
    if not torch.cuda.is_available():
        model.attend_with(matmul_attention)
    if request.data is None:  # small grey pictures on black, which serving may see in other colours and sizes
        augmentation = for_small_grey(augmentation)
    return Materials(model, data, validation, augmentation, replace(description, labels=data.labels))


def _body(request: Request, console: Console) -> tuple[VisionTransformer, Description]:
    """The model without its future head, and what is known of it."""
    if request.source is None:
        with torch.device("meta"):  # random weights are drawn when the number of classes is known
            config, spec = decode_variant(request.variant, image_size=request.image_size)
            config = replace(config, pooling=request.pooling, class_token=request.pooling == "token")
            body = VisionTransformer(config, replace(spec, resize="aspect", resize_to=None))
        return body, Description((), licence="MIT" if request.data is None else "")
    source = load(locate(parse_source(request.source)))
    for note in source.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    side = request.resolution or evaluated_side(source.model.preprocessing)
    text = f"fine-tuned from {source.provenance.source} (sha256 {source.provenance.sha256})"
    return at_resolution(source.model, side), Description((), description=text, licence=source.provenance.licence)


def _from_scratch(body: VisionTransformer, classes: int, request: Request) -> VisionTransformer:
    model = VisionTransformer(replace(body.config, classes=classes), body.preprocessing)
    if request.mimetic:
        begin_mimetically(model)
    return model


def _images(request: Request, spec: Preprocessing) -> tuple[LabelledImages, LabelledImages]:
    """Images to learn from and images that choose the best epoch."""
    side, crop = round(spec.patch_size * math.sqrt(spec.max_patches)), spec.resize.startswith("crop")
    data = load_data(request.data, "train", side, crop=crop)
    if request.limit is not None:
        order = torch.randperm(len(data), generator=generator_at(request.seed))  # folders come class by class
        data = data.subset(order[: request.limit])
    if request.validation is None:
        return hold_out(data, request.hold_out, request.seed)
    return data, load_data(request.validation, "test", side, data.labels, crop=crop)
