"""Preprocessing read from a source's configuration, against the library that wrote it, on the same photographs."""

from dataclasses import replace
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from photos import SIZES, jpeg, photo
from PIL import Image
from published_pixels import DOCUMENTS, TIMM

from model.checkpoints.loading import CheckpointError
from model.checkpoints.pixels import IMAGENET, ORIGINAL_JAX, TORCHVISION, Pixels, from_timm
from model.checkpoints.processors import from_transformers
from model.headers import ImageLimits
from model.manifest import Preprocessing
from model.preprocess import preprocess

LEVEL = 0.5  # of 255: the largest mean absolute difference of pixels


@cache
def photograph(name: str) -> bytes:
    return jpeg(photo(*SIZES[name]))


def patches_of(side: int, patch: int = 16) -> Preprocessing:
    return Preprocessing(patch, (side // patch, side // patch), 1, "squash")


def ours(data: bytes, pixels: Pixels, spec: Preprocessing) -> NDArray[np.float64]:
    """Pixels 0..255 [H, W, C] as the model gets them, put together again from its patches."""
    fitted = Preprocessing.from_dict(pixels.fit(spec).to_dict())  # as a manifest checks it
    sequence = preprocess(data, fitted, ImageLimits(), exact=True)
    (rows, columns), patch = sequence.grid, fitted.patch_size
    tiles = sequence.patches.reshape(rows, columns, patch, patch, 3).swapaxes(1, 2)
    return tiles.reshape(rows * patch, columns * patch, 3).astype(np.float64)


def theirs(normalised: NDArray[Any], pixels: Pixels) -> NDArray[np.float64]:
    """[C, H, W] as a library normalised it, back to 0..255 [H, W, C]."""
    return (normalised.transpose(1, 2, 0).astype(np.float64) * pixels.std + pixels.mean) * 255


def assert_equal(left: NDArray[np.float64], right: NDArray[np.float64]) -> None:
    assert left.shape == right.shape
    assert np.abs(left - right).mean() < LEVEL


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("case", TIMM)
def test_timm(case: str, name: str) -> None:
    from timm.data import create_transform, resolve_data_config

    transform = create_transform(**resolve_data_config({}, pretrained_cfg=TIMM[case]))
    pixels, data = from_timm(TIMM[case]), photograph(name)
    expected = theirs(transform(Image.open(BytesIO(data))).numpy(), pixels)
    assert_equal(ours(data, pixels, patches_of(pixels.side)), expected)


def processor_of(document: dict[str, Any]) -> Any:
    import transformers

    kind = document.get("image_processor_type") or document.get("feature_extractor_type", "ViTImageProcessor")
    kind = kind.replace("FeatureExtractor", "ImageProcessor")
    known = {key: value for key, value in document.items() if not key.endswith("_type")}
    return getattr(transformers, kind)(**known)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("case", DOCUMENTS)
def test_transformers(case: str, name: str) -> None:
    document, side, patch = DOCUMENTS[case]
    processor = processor_of(document)
    pixels, data = from_transformers(document), photograph(name)
    expected = processor(Image.open(BytesIO(data)), return_tensors="np")["pixel_values"][0]
    assert_equal(ours(data, pixels, patches_of(side, patch)), theirs(expected, pixels))


@pytest.mark.parametrize(("architecture", "weights"), TORCHVISION)
def test_torchvision_says_the_same_of_its_weights(architecture: str, weights: str) -> None:
    from torchvision import models

    transform = models.get_model_weights(architecture)[weights].transforms()
    assert TORCHVISION[architecture, weights] == Pixels(
        side=transform.crop_size[0],
        resize="crop",
        resize_to=transform.resize_size[0],
        interpolation=transform.interpolation.value,
        mean=tuple(transform.mean),
        std=tuple(transform.std),
    )


def test_no_weights_of_torchvision_are_missing() -> None:
    from torchvision import models

    names = models.list_models(include="vit_*")
    assert set(TORCHVISION) == {(name, weights.name) for name in names for weights in models.get_model_weights(name)}


# --- fitting to patches -----------------------------------------------------------------------------------------------
def test_a_table_larger_than_the_image_sets_the_budget() -> None:
    pixels = from_transformers(DOCUMENTS["facebook/dinov2-base"][0])
    fitted = pixels.fit(patches_of(518, 14))
    assert (fitted.native_grid, fitted.max_patches, fitted.resize_to) == ((37, 37), 256, 592)
    assert pixels.departures(fitted) == ()


def test_sides_that_are_not_whole_patches_are_said() -> None:
    pixels = Pixels(side=384)
    (sentence,) = pixels.departures(patches_of(378, 14))
    assert "384 pixels are not whole patches of 14" in sentence
    assert pixels.fit(patches_of(378, 14)).resize_to == 384


def test_an_image_larger_than_the_table_keeps_its_crop_and_is_said() -> None:
    pixels = replace(IMAGENET, side=448, resize_to=512)
    (sentence,) = pixels.departures(patches_of(224))
    assert "images of 448 pixels" in sentence
    assert pixels.fit(patches_of(224)).resize_to == 256


def test_the_original_code_squashes() -> None:
    fitted = ORIGINAL_JAX.fit(patches_of(224))
    assert (fitted.resize, fitted.resize_to, fitted.interpolation, fitted.max_patches) == (
        "squash",
        None,
        "bilinear",
        784,
    )


# --- what is not written, and what cannot be expressed ----------------------------------------------------------------
@pytest.mark.parametrize("model_type", ["vit", "deit", "dinov2", "siglip"])
def test_without_a_file_the_default_of_the_class_counts(model_type: str) -> None:
    import transformers

    kinds = {"vit": "ViT", "deit": "DeiT", "dinov2": "Bit", "siglip": "Siglip"}
    processor = getattr(transformers, f"{kinds[model_type]}ImageProcessor")()
    pixels = from_transformers(None, model_type)
    data = photograph("landscape")
    expected = processor(Image.open(BytesIO(data)), return_tensors="np")["pixel_values"][0]
    assert_equal(ours(data, pixels, patches_of(pixels.side)), theirs(expected, pixels))


def test_a_processor_inside_a_processor_is_found() -> None:
    assert from_transformers({"image_processor": {"size": 384}}).side == 384


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"rescale_factor": 1 / 127.5}, "does not scale pixels by 1/255"),
        ({"do_rescale": False}, "does not scale pixels by 1/255"),
        ({"do_resize": False}, "does not resize"),
        ({"do_pad": True}, "pads images"),
        ({"resample": 0}, "resample 0"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"size": {"height": 224, "width": 336}}, "only squares can"),
        ({"size": {"longest_edge": 224}}, "only squares can"),
        ({"size": 200, "crop_size": 224, "do_center_crop": True}, "crops 224 pixels from 200"),
        ({"image_processor_type": "BitImageProcessor", "do_center_crop": False}, "without a crop to one size"),
        ({"image_processor_type": "SamImageProcessorFast"}, "'SamImageProcessorFast' is not known"),
    ],
)
def test_what_transformers_does_and_we_cannot_is_refused(document: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        from_transformers(document)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"input_size": [1, 28, 28]}, "only square RGB images"),
        ({"input_size": [3, 224, 336]}, "only square RGB images"),
        ({"crop_mode": "border"}, "crop_mode 'border'"),
        ({"interpolation": "nearest"}, "interpolation 'nearest'"),
        ({"mean": [0.5]}, "mean"),
    ],
)
def test_what_timm_does_and_we_cannot_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        from_timm(config)
