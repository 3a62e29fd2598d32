"""Our pixels against those of timm, transformers and torchvision, written to docs/preprocessing.md.

    python -m benchmarks.preprocessing

For each published configuration the library's own transform runs beside ours. The difference is the mean and the
largest absolute difference of 8-bit pixels, over all pixels and channels. The logits are those of one model with random
weights (192 wide, 4 blocks, 1000 classes) on both. Photographs: those that scikit-learn and scikit-image ship, also
cut, reduced or enlarged to sizes they lack. Needs timm, transformers, torchvision, scikit-learn and scikit-image; took
35 s on one core.
"""

import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from photos import jpeg
from published_pixels import DOCUMENTS, TIMM

from model.architecture import ViTConfig
from model.checkpoints.pixels import TORCHVISION, Pixels, from_timm
from model.checkpoints.processors import from_transformers
from model.headers import ImageLimits
from model.manifest import Preprocessing
from model.preprocess import patchify, preprocess
from model.vit import VisionTransformer

OUTPUT = Path("docs/preprocessing.md")
LIMIT = 0.5  # levels of 255, mean
_LIBRARIES = ("timm", "transformers", "torchvision", "pillow")

Transform = Callable[[Image.Image], NDArray[Any]]  # to normalised values [C, H, W]


@dataclass(frozen=True, slots=True)
class Case:
    """One published configuration: how its library prepares an image, and how we read it."""

    library: str
    name: str
    transform: Transform
    pixels: Pixels
    spec: Preprocessing  # the patches of its model


@dataclass(frozen=True, slots=True)
class Row:
    """One configuration on one photograph."""

    mean: float
    largest: float
    reduced: float  # mean, with a JPEG decoded at a reduced scale where that is enough
    logits: float  # largest difference, relative to the largest logit
    same_top1: bool
    margin: float  # between their first and second logit, relative to the largest logit


def cases() -> Iterator[Case]:
    """Every configuration that is compared."""
    data = importlib.import_module("timm.data")
    for name, config in TIMM.items():
        transform = data.create_transform(**data.resolve_data_config({}, pretrained_cfg=config))
        pixels = from_timm(config)
        yield Case("timm", name, lambda image, run=transform: run(image).numpy(), pixels, _patches(pixels.side, 16))
    for name, (document, side, patch) in DOCUMENTS.items():
        run = _processor(document)
        yield Case("transformers", name, run, from_transformers(document), _patches(side, patch))
    models = importlib.import_module("torchvision.models")
    for (architecture, weights), pixels in TORCHVISION.items():
        transform = models.get_model_weights(architecture)[weights].transforms()
        spec = _patches(pixels.side, int(architecture[-2:]))
        yield Case(
            "torchvision",
            f"{architecture} {weights}",
            lambda image, run=transform: run(image).numpy(),
            pixels,
            spec,
        )


def _processor(document: dict[str, Any]) -> Transform:
    kind = document.get("image_processor_type") or document.get("feature_extractor_type", "ViTImageProcessor")
    cls = getattr(importlib.import_module("transformers"), kind.replace("FeatureExtractor", "ImageProcessor"))
    processor = cls(**{key: value for key, value in document.items() if not key.endswith("_type")})
    return lambda image: processor(image, return_tensors="np")["pixel_values"][0]


def _patches(side: int, patch: int) -> Preprocessing:
    return Preprocessing(patch, (side // patch, side // patch), 1, "squash")


def photographs() -> dict[str, bytes]:
    """Files by name: photographs as they are shipped, then cut or resized to the sizes that cameras and pages have."""
    load = importlib.import_module("sklearn.datasets").load_sample_image
    data = importlib.import_module("skimage.data")
    shipped = {name: Image.fromarray(load(f"{name}.jpg")) for name in ("china", "flower")}
    shipped |= {name: Image.fromarray(getattr(data, name)()) for name in ("astronaut", "coffee", "rocket", "chelsea")}
    resized = {
        "astronaut, cut to portrait": shipped["astronaut"].crop((100, 0, 388, 512)),
        "rocket, cut and enlarged": shipped["rocket"].crop((200, 0, 440, 427)).resize((900, 1601)),
        "coffee, enlarged": shipped["coffee"].resize((1600, 1067)),
        "chelsea, reduced": shipped["chelsea"].resize((120, 80)),
        "flower, 12 megapixels": shipped["flower"].resize((4240, 2829)),
    }
    return {f"{name} {image.width}x{image.height}": jpeg(image) for name, image in (shipped | resized).items()}


def compare(case: Case, data: bytes, model: VisionTransformer) -> Row:
    """One configuration on one photograph."""
    spec = case.pixels.fit(case.spec)
    exact = preprocess(data, spec, ImageLimits(), exact=True)
    reduced = preprocess(data, spec, ImageLimits())
    values = case.transform(Image.open(BytesIO(data)).convert("RGB")).transpose(1, 2, 0).astype(np.float64)
    theirs = np.rint((values * spec.std + spec.mean) * 255).astype(np.uint8)  # [H, W, C]
    expected = patchify(np.ascontiguousarray(theirs), spec.patch_size)
    grid = torch.tensor([exact.grid])
    with torch.inference_mode():
        ours, source = (model(torch.from_numpy(each[None]), grid)[0][0] for each in (exact.patches, expected))
    difference = np.abs(exact.patches.astype(int) - expected)
    return Row(
        mean=float(difference.mean()),
        largest=float(difference.max()),
        reduced=float(np.abs(reduced.patches.astype(int) - expected).mean()),
        logits=float((ours - source).abs().max() / source.abs().max()),
        same_top1=bool(ours.argmax() == source.argmax()),
        margin=float((source.sort().values[-1] - source.sort().values[-2]) / source.abs().max()),
    )


def _model(case: Case) -> VisionTransformer:
    torch.manual_seed(0)
    spec = replace(case.pixels.fit(case.spec), mean=case.pixels.mean, std=case.pixels.std)
    return VisionTransformer(ViTConfig(width=192, depth=4, heads=3, mlp_dim=768), spec).eval()


def main() -> None:
    """Run every case on every photograph, write the tables, and fail if a difference is over the limit."""
    torch.set_num_threads(1)
    images = photographs()
    results = {}
    for case in cases():
        model = _model(case)
        results[case.library, case.name] = {name: compare(case, data, model) for name, data in images.items()}
        worst = max(row.mean for row in results[case.library, case.name].values())
        print(f"{case.library} {case.name}: {worst:.3f}", flush=True)
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(_page(results, list(images)))
    rows = [row for each in results.values() for row in each.values()]
    if any(row.mean >= LIMIT for row in rows):
        raise SystemExit(f"a mean difference reaches {LIMIT} of 255")


def _page(results: dict[tuple[str, str], dict[str, Row]], images: list[str]) -> str:
    rows = [row for each in results.values() for row in each.values()]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES)
    mean, largest, reduced = (max(getattr(row, name) for row in rows) for name in ("mean", "largest", "reduced"))
    lines = [
        "# Preprocessing: the same pixels as the source",
        "",
        "Written by `python -m benchmarks.preprocessing`; do not edit. Each published configuration is read from its",
        "own file, and its library's own transform runs beside ours on the same photographs.",
        f"Libraries: {versions}.",
        "",
        f"{len(rows)} comparisons ({len(results)} configurations, {len(images)} photographs):",
        "",
        f"- exact mode: mean absolute difference at most **{mean:.3f}** of 255 (limit {LIMIT}), a single pixel at most"
        f" {largest:.0f};",
        f"- reduced JPEG decoding, the default of the service: mean at most {reduced:.3f}; only large JPEGs differ;",
        f"- the same top-1 in {sum(row.same_top1 for row in rows)} of {len(rows)}, with a model of random weights.",
        *_flips(results),
        "",
        "## By configuration",
        "",
        "Worst over the photographs. `logits`: largest difference, relative to the largest logit.",
        "",
        "| library | configuration | mean | largest | reduced JPEG, mean | logits | same top-1 |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for (library, name), each in results.items():
        lines.append(f"| {library} | {name} | {_cells(list(each.values()))} |")
    lines += [
        "",
        "## By photograph",
        "",
        "Worst over the configurations.",
        "",
        "| photograph | mean | largest | reduced JPEG, mean | logits | same top-1 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [f"| {image} | {_cells([each[image] for each in results.values()])} |" for image in images]
    return "\n".join([*lines, "", *_NOTES, ""])


def _flips(results: dict[tuple[str, str], dict[str, Row]]) -> list[str]:
    """Where the top-1 changed, and how near the first two logits were."""
    return [
        f"  Not in {library} {name}, {image}: there the first two logits are {row.margin:.1e} of the largest\n"
        f"  apart, and the difference of pixels moves logits by {row.logits:.1e}."
        for (library, name), each in results.items()
        for image, row in each.items()
        if not row.same_top1
    ]


def _cells(rows: list[Row]) -> str:
    return " | ".join(
        [
            f"{max(row.mean for row in rows):.3f}",
            f"{max(row.largest for row in rows):.0f}",
            f"{max(row.reduced for row in rows):.3f}",
            f"{max(row.logits for row in rows):.1e}",
            f"{sum(row.same_top1 for row in rows)} of {len(rows)}",
        ]
    )


_NOTES = (
    "## What is not the same",
    "",
    "- Pillow 13 resizes along the axis first that costs less, and rounds in between. For tall images that is another",
    "  order than torch's, or than Pillow's without our crop: a sixth of the pixels then differ by one level.",
    "- Transparent pixels show the manifest's background; the libraries drop the alpha channel and show what it hid.",
    "- EXIF orientation is applied; timm and transformers leave that to the code that opens the image.",
    "- The original JAX code resizes without antialiasing; we always antialias.",
    "- Where the side is not whole patches (SigLIP so400m: 384 pixels, patches of 14), the source drops the last rows",
    "  and columns, and we drop as many around the centre; the export says so.",
    "- What cannot be expressed (padding, nearest-neighbour resampling, other scales than 1/255) is refused.",
)


if __name__ == "__main__":
    main()
