"""Our pixels against those of timm, transformers and torchvision, written to docs/preprocessing.md.

    python -m benchmarks.preprocessing

For each published configuration the library's own transform runs beside ours, exact and default. The difference is the
mean and the largest absolute difference of 8-bit pixels, over all pixels and channels. The logits are those of a model
with random weights (192 wide, 4 blocks, 1000 classes) on both. Both ways to resample are also compared with PyTorch's
in float64. Photographs: those that scikit-learn and scikit-image ship, also cut, reduced or enlarged to sizes they
lack. Needs timm, transformers, torchvision, scikit-learn and scikit-image; took 80 s on one core.
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
import torch.nn.functional as F
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
from model.preprocess import PatchSequence, patchify, preprocess
from model.resampling import SIMD_PIXELS, resample
from model.vit import VisionTransformer

OUTPUT = Path("docs/preprocessing.md")
LIMIT = 0.5  # levels of 255, mean
_LIBRARIES = ("timm", "transformers", "torchvision", "pillow", "cykooz-resizer")

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
class Difference:
    """Our pixels against theirs."""

    mean: float
    largest: float
    logits: float  # largest difference, relative to the largest logit
    same_top1: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One configuration on one photograph."""

    exact: Difference
    default: Difference  # a JPEG decoded at a reduced scale where that is enough, and resized with SIMD
    margin: float  # between their first and second logit, relative to the largest logit


def cases() -> Iterator[Case]:
    """Every configuration that is compared."""
    data = importlib.import_module("timm.data")
    for name, config in TIMM.items():
        transform = data.create_transform(**data.resolve_data_config({}, pretrained_cfg=config))
        pixels = from_timm(config)
        yield Case("timm", name, _in_numpy(transform), pixels, _patches(pixels.side, 16))
    for name, (document, side, patch) in DOCUMENTS.items():
        run = _processor(document)
        yield Case("transformers", name, run, from_transformers(document), _patches(side, patch))
    models = importlib.import_module("torchvision.models")
    for (architecture, weights), pixels in TORCHVISION.items():
        transform = models.get_model_weights(architecture)[weights].transforms()
        spec = _patches(pixels.side, int(architecture[-2:]))
        yield Case("torchvision", f"{architecture} {weights}", _in_numpy(transform), pixels, spec)


def _in_numpy(run: Callable[[Image.Image], torch.Tensor]) -> Transform:
    return lambda image: run(image).numpy()


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
    values = case.transform(Image.open(BytesIO(data)).convert("RGB")).transpose(1, 2, 0).astype(np.float64)
    theirs = np.rint((values * spec.std + spec.mean) * 255).astype(np.uint8)  # [H, W, C]
    expected = patchify(np.ascontiguousarray(theirs), spec.patch_size)
    exact, default = (preprocess(data, spec, ImageLimits(), exact=each) for each in (True, False))
    first, second = _logits(model, expected, exact.grid).sort(descending=True).values[:2]
    return Row(
        exact=_difference(exact, expected, model),
        default=_difference(default, expected, model),
        margin=float((first - second) / _logits(model, expected, exact.grid).abs().max()),
    )


def _difference(ours: PatchSequence, expected: NDArray[np.uint8], model: VisionTransformer) -> Difference:
    pixels = np.abs(ours.patches.astype(int) - expected)
    logits, source = (_logits(model, patches, ours.grid) for patches in (ours.patches, expected))
    return Difference(
        mean=float(pixels.mean()),
        largest=float(pixels.max()),
        logits=float((logits - source).abs().max() / source.abs().max()),
        same_top1=bool(logits.argmax() == source.argmax()),
    )


@torch.inference_mode()
def _logits(model: VisionTransformer, patches: NDArray[np.uint8], grid: tuple[int, int]) -> torch.Tensor:
    logits: torch.Tensor = model(torch.from_numpy(patches[None]), torch.tensor([grid]))[0]
    return logits[0]


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
        rows = results[case.library, case.name].values()
        exact, default = max(row.exact.mean for row in rows), max(row.default.mean for row in rows)
        print(f"{case.library} {case.name}: exact {exact:.3f}, default {default:.3f}", flush=True)
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(_page(results, images))
    if any(max(row.exact.mean, row.default.mean) >= LIMIT for each in results.values() for row in each.values()):
        raise SystemExit(f"a mean difference reaches {LIMIT} of 255")


def _page(results: dict[tuple[str, str], dict[str, Row]], images: dict[str, bytes]) -> str:
    rows = [row for each in results.values() for row in each.values()]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES)
    lines = [
        "# Preprocessing: the same pixels as the source",
        "",
        "Written by `python -m benchmarks.preprocessing`; do not edit. Each published configuration is read from its",
        "own file, and its library's own transform runs beside ours on the same photographs.",
        f"Libraries: {versions}.",
        "",
        f"{len(rows)} comparisons ({len(results)} configurations, {len(images)} photographs):",
        "",
        f"- exact, `--exact-decode`: {_worst([row.exact for row in rows])};",
        f"- default, large JPEGs at a reduced scale, resized with SIMD: {_worst([row.default for row in rows])}.",
        "",
        f"The limit is a mean of {LIMIT}. Top-1 is that of a model with random weights.",
        *_flips(results),
        "",
        "## By configuration",
        "",
        "Worst over the photographs. `logits`: largest difference, relative to the largest logit.",
        "",
        f"| library | configuration | {_HEADINGS} |",
        f"|---|---|{_ALIGNED}",
    ]
    for (library, name), each in results.items():
        lines.append(f"| {library} | {name} | {_cells(list(each.values()))} |")
    lines += [
        "",
        "## By photograph",
        "",
        "Worst over the configurations.",
        "",
        f"| photograph | {_HEADINGS} |",
        f"|---|{_ALIGNED}",
    ]
    lines += [f"| {image} | {_cells([each[image] for each in results.values()])} |" for image in images]
    return "\n".join([*lines, "", *_against_float64(images), "", *_NOTES, ""])


_HEADINGS = "exact: mean | largest | logits | same top-1 | default: mean | largest | logits | same top-1"
_ALIGNED = "---:|" * 8


def _worst(differences: list[Difference]) -> str:
    mean, largest = (max(getattr(each, name) for each in differences) for name in ("mean", "largest"))
    same = sum(each.same_top1 for each in differences)
    return (
        f"mean\n  absolute difference at most **{mean:.3f}** of 255, a single pixel at most {largest:.0f}, "
        f"the same top-1 in {same} of {len(differences)}"
    )


def _flips(results: dict[tuple[str, str], dict[str, Row]]) -> list[str]:
    """Where the top-1 changed, and how near the first two logits were."""
    return [
        f"Not the same in {library} {name}, {image}, {mode}: there the first two logits are {row.margin:.1e} of the\n"
        f"largest apart, and the difference of pixels moves logits by {difference.logits:.1e}."
        for (library, name), each in results.items()
        for image, row in each.items()
        for mode, difference in (("exact", row.exact), ("default", row.default))
        if not difference.same_top1
    ]


def _cells(rows: list[Row]) -> str:
    return " | ".join(_columns([row.exact for row in rows]) + _columns([row.default for row in rows]))


def _columns(differences: list[Difference]) -> list[str]:
    return [
        f"{max(each.mean for each in differences):.3f}",
        f"{max(each.largest for each in differences):.0f}",
        f"{max(each.logits for each in differences):.1e}",
        f"{sum(each.same_top1 for each in differences)} of {len(differences)}",
    ]


def _against_float64(images: dict[str, bytes]) -> list[str]:
    """Which resampler is nearer to the convolution without rounding: a section of the page."""
    lines = [
        "## Against the convolution in float64",
        "",
        "The whole photograph, decoded at full size, to 224x224: mean absolute difference to PyTorch's antialiased",
        "resizing in float64, of 255. Rounding the result alone costs 0.25. Images that the default leaves to Pillow",
        "are not listed.",
        "",
        "| photograph | bilinear: Pillow | default | bicubic: Pillow | default |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, data in images.items():
        image = Image.open(BytesIO(data)).convert("RGB")
        if image.width * image.height <= SIMD_PIXELS:
            errors = (_float64_error(image, each, exact) for each in ("bilinear", "bicubic") for exact in (True, False))
            lines.append(f"| {name} | {' | '.join(f'{error:.3f}' for error in errors)} |")
    return lines


def _float64_error(image: Image.Image, interpolation: Any, exact: bool) -> float:
    box = (0, 0, *image.size)
    ours = resample(image, (224, 224), interpolation, box, exact=exact)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(torch.float64)  # [1, C, H, W]
    wanted = F.interpolate(pixels, (224, 224), mode=interpolation, antialias=True)[0].permute(1, 2, 0)
    return float(np.abs(ours - wanted.clamp(0, 255).numpy()).mean())


_NOTES = (
    "## What is not the same",
    "",
    "- By default `cykooz-resizer` resizes decoded images of up to 1.5 megapixels, with SIMD; with `--exact-decode`",
    "  Pillow does, as in the transforms of the sources. Filters and their support are the same. The order of the axes",
    "  is not, nor the rounding between them: the mean differs by less than a level, single pixels at hard edges by",
    "  more. Against float64 the default is no worse. Larger images have Pillow's bits in both modes, and so has all",
    "  on Linux on aarch64, for which that package has no wheel, and wherever it is not installed.",
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
