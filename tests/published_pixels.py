"""How published checkpoints prepare images: what their own configuration files hold."""

from typing import Any

_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}

TIMM: dict[str, dict[str, Any]] = {
    # the pretrained_cfg of timm's config.json
    "vit_base_patch16_224.augreg": {
        "input_size": [3, 224, 224],
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    },
    "deit3_base_patch16_384": {"input_size": [3, 384, 384], "crop_pct": 1.0, "interpolation": "bicubic"} | _IMAGENET,
    "timm's defaults": {"input_size": [3, 224, 224], "interpolation": "bilinear"},
    "vit_base_patch16_clip_384": {
        "input_size": [3, 384, 384],
        "crop_pct": 0.95,
        "crop_mode": "squash",
        "interpolation": "bicubic",
    },
    "vit_large_patch14_clip_336": {
        "input_size": [3, 336, 336],
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "interpolation": "bicubic",
    },
}

DOCUMENTS: dict[str, tuple[dict[str, Any], int, int]] = {
    # what a published preprocessor_config.json holds, side of the position table, side of a patch
    "google/vit-base-patch16-224": (
        {"do_normalize": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 224},
        224,
        16,
    ),
    "ViTImageProcessor": (
        {"image_processor_type": "ViTImageProcessor", "resample": 2, "size": {"height": 384, "width": 384}},
        384,
        16,
    ),
    "facebook/deit-base-distilled-patch16-224": (
        {
            "crop_size": 224,
            "do_center_crop": True,
            "feature_extractor_type": "DeiTFeatureExtractor",
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
            "resample": 3,
            "size": 256,
        },
        224,
        16,
    ),
    "facebook/dinov2-base": (
        {
            "crop_size": {"height": 224, "width": 224},
            "do_center_crop": True,
            "do_convert_rgb": True,
            "image_mean": [0.485, 0.456, 0.406],
            "image_processor_type": "BitImageProcessor",
            "image_std": [0.229, 0.224, 0.225],
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            "size": {"shortest_edge": 256},
        },
        518,
        14,
    ),
    "google/siglip-base-patch16-256": (
        {"image_processor_type": "SiglipImageProcessor", "resample": 3, "size": {"height": 256, "width": 256}},
        256,
        16,
    ),
    "ConvNextImageProcessor": (
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "crop_pct": 0.875},
        224,
        16,
    ),
}
