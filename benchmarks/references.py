"""Models of other libraries with random weights: what `benchmarks.coverage` and tests compare conversions with.

Every parameter is drawn anew, because what libraries initialise to zero or one (biases, LayerScale, norms) would hide
a conversion that loses it. Depth is reduced, and the number of heads of the widest; every kind of block, stem, pooling
and head is kept.
"""

import importlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

Answer = tuple[Tensor, Tensor | None]  # logits [1, K], embedding [1, D] if the library gives it
TIMM_MODULES = ("vision_transformer", "deit", "vision_transformer_hybrid")
CLASSES = 16
WIDE = 1100  # models above this width get six heads of their own width


@dataclass(frozen=True, slots=True)
class Reference:
    """A model of another library.

    Attributes:
        family: the converter, `model.checkpoints.from_FAMILY`.
        weights: in the names of the family's files.
        config: as the family's configuration file has it.
        mean, std: normalisation.
        answer: float32 `[1, 3, height, width]`, normalised, to logits and embedding, at any size in whole patches.
        square: whether the library resamples its positions for square images alone.
    """

    family: str
    weights: Mapping[str, Tensor]
    config: Mapping[str, Any]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    answer: Callable[[Tensor], Answer]
    square: bool = False


def randomise(model: Any, seed: int = 0) -> Any:
    """Draw all parameters and statistics, in place: around what they do in a trained model, none at its default."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=draw)
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith(("gamma", "lambda1", "weight"))):
                tensor.copy_(1 + 0.2 * noise.clamp(-3, 3))
            elif tensor.ndim == 4:
                tensor.copy_(noise * tensor[0].numel() ** -0.5)
            elif tensor.ndim == 2 and not name.endswith(("token", "embeddings")):
                tensor.copy_(noise * tensor.shape[1] ** -0.5)
            else:
                tensor.copy_(0.2 * noise)
    return model.eval()


def timm_names() -> list[str]:
    """Every entry of the modules that the converter covers."""
    timm = importlib.import_module("timm")
    return [name for module in TIMM_MODULES for name in timm.list_models(module=module)]


def _build_timm(name: str, depth: int, changes: dict[str, Any]) -> Any:
    """On the meta device first: initialising what is drawn anew afterwards would take most of the time."""
    timm = importlib.import_module("timm")
    options: dict[str, Any] = {"num_classes": CLASSES, "depth": depth, "dynamic_img_size": True} | changes
    if name in timm.list_models(module="vision_transformer_hybrid"):  # finds its sizes by a forward pass
        return timm.create_model(name, **options)
    with torch.device("meta"):
        model = timm.create_model(name, **options)
        if model.embed_dim > WIDE:
            heads = next(module.num_heads for module in model.blocks.modules() if hasattr(module, "num_heads"))
            changes |= {"embed_dim": 6 * (model.embed_dim // heads), "num_heads": 6}
            model = timm.create_model(name, **options | changes)
    return model.to_empty(device="cpu")


def from_timm(name: str, depth: int, **changes: Any) -> Reference:
    """An entry of timm, resampling positions itself (`dynamic_img_size`); `changes` are further arguments of it."""
    model = _build_timm(name, depth, changes)  # which adds what it changes
    randomise(model)
    settings = model.pretrained_cfg
    config = {"architecture": name, "pretrained_cfg": dict(settings), "model_args": changes}

    def answer(image: Tensor) -> Answer:
        features = model.forward_features(image)
        return model.forward_head(features), model.forward_head(features, pre_logits=True)

    return Reference("timm", model.state_dict(), config, settings["mean"], settings["std"], answer)


# --- transformers ---------------------------------------------------------------------------------------------------
HUGGING_FACE: dict[str, tuple[str, str, dict[str, Any]]] = {
    # name: (configuration, model, fields)
    "ViTForImageClassification": ("ViTConfig", "ViTForImageClassification", {}),
    "ViTForImageClassification without qkv_bias": ("ViTConfig", "ViTForImageClassification", {"qkv_bias": False}),
    "DeiTForImageClassification": ("DeiTConfig", "DeiTForImageClassification", {}),
    "DeiTForImageClassificationWithTeacher": ("DeiTConfig", "DeiTForImageClassificationWithTeacher", {}),
    "Dinov2ForImageClassification": ("Dinov2Config", "Dinov2ForImageClassification", {"image_size": 518}),
    "Dinov2ForImageClassification with SwiGLU": (
        "Dinov2Config",
        "Dinov2ForImageClassification",
        {"use_swiglu_ffn": True, "image_size": 224, "patch_size": 14},
    ),
    "Dinov2WithRegistersForImageClassification": (
        "Dinov2WithRegistersConfig",
        "Dinov2WithRegistersForImageClassification",
        {"patch_size": 14},
    ),
    "Dinov2WithRegistersForImageClassification with SwiGLU": (
        "Dinov2WithRegistersConfig",
        "Dinov2WithRegistersForImageClassification",
        {"patch_size": 14, "use_swiglu_ffn": True},
    ),
    "SiglipForImageClassification": ("SiglipConfig", "SiglipForImageClassification", {}),
    "ViTModel (no head)": ("ViTConfig", "ViTModel", {}),
    "Dinov2Model (no head)": ("Dinov2Config", "Dinov2Model", {"patch_size": 14}),
    "SiglipVisionModel (no head)": ("SiglipVisionConfig", "SiglipVisionModel", {}),
}


def from_transformers(name: str, depth: int, **changes: Any) -> Reference:
    """A class of transformers; weights and configuration are read back from what `save_pretrained` writes.

    `changes` are further fields of its configuration.
    """
    transformers = importlib.import_module("transformers")
    configuration, kind, fields = HUGGING_FACE[name]
    fields = fields | {"num_hidden_layers": depth} | changes
    if kind == "SiglipForImageClassification":
        fields = {"vision_config": fields}
    if not kind.endswith("Model"):
        fields["num_labels"] = CLASSES
    model = randomise(getattr(transformers, kind)(getattr(transformers, configuration)(**fields)))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        weights = load_file(f"{folder}/model.safetensors")
        config = json.loads(Path(folder, "config.json").read_text())
    resampled = {} if "Dinov2" in kind else {"interpolate_pos_encoding": True}

    def answer(image: Tensor) -> Answer:
        output = model(image, **resampled)
        if not kind.endswith("Model"):
            return output.logits, None
        pooled = output.last_hidden_state[:, 0] if kind == "ViTModel" else output.pooler_output
        return torch.empty(1, 0), pooled

    return Reference("transformers", weights, config, (0.5,) * 3, (0.25,) * 3, answer)


# --- torchvision ----------------------------------------------------------------------------------------------------
TORCHVISION = ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14")


def from_torchvision(name: str, depth: int) -> Reference:
    """A model of torchvision, at other sizes by its own `interpolate_embeddings`; more layers than `depth` are cut."""
    module = importlib.import_module("torchvision.models.vision_transformer")

    def make(side: int) -> Any:
        model = getattr(module, name)(weights=None, image_size=side, num_classes=CLASSES)
        model.encoder.layers = model.encoder.layers[:depth]
        return model.eval()

    model = make(224)
    randomise(model)

    def answer(image: Tensor) -> Answer:
        state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        resized = make(image.shape[-1])
        resized.load_state_dict(module.interpolate_embeddings(image.shape[-1], model.patch_size, state))
        return resized(image), None

    config = {"architecture": name}
    return Reference("torchvision", model.state_dict(), config, (0.5,) * 3, (0.25,) * 3, answer, square=True)


# --- the original JAX code ------------------------------------------------------------------------------------------
_JAX = {
    # name in the paper: (entry of timm with the same architecture, size of the pre-logits)
    "B/16 fine-tuned": ("vit_base_patch16_224", 0),
    "B/16 of ImageNet-21k with pre-logits": ("vit_base_patch16_224", 768),
    "S/32 without a head": ("vit_small_patch32_224", 0),
    "R50+B/16": ("vit_base_r50_s16_224", 0),
    "R26+S/32": ("vit_small_r26_s32_224", 0),
    "R50+L/32": ("vit_large_r50_s32_224", 0),
    "R+Ti/16": ("vit_tiny_r_s16_p8_224", 0),
}


def from_jax(name: str, depth: int) -> Reference:
    """A file of the original layout, read back by timm's own reader of these files.

    timm's model gets the original's GELU, epsilon of group norms, and weight standardisation: timm adds 1e-8 to the
    variance where the original adds 1e-5 to the deviation, which is worth 4e-4 of the logits of R50+L/32. Positions are
    resampled by `scipy.ndimage.zoom` as in the original's `checkpoint.py`.
    """
    timm, zoom = importlib.import_module("timm"), importlib.import_module("scipy.ndimage").zoom
    entry, size = _JAX[name]
    headless = name.endswith("without a head")
    model = timm.create_model(entry, num_classes=0 if headless else CLASSES, depth=depth, act_layer="gelu_tanh")
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = 1e-6
        if type(module).__name__ == "StdConv2dSame":
            module.forward = partial(_original_convolution, module)
    arrays = jax_layout(randomise(model).state_dict(), model.blocks[0].attn.num_heads)
    draw = np.random.default_rng(1)
    if size:
        kernel = draw.normal(0, size**-0.5, (model.embed_dim, size)).astype(np.float32)
        arrays |= {"pre_logits/kernel": kernel, "pre_logits/bias": draw.normal(0, 0.2, size).astype(np.float32)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "checkpoint.npz")
        np.savez(path, allow_pickle=False, **arrays)
        randomise(model, seed=1)  # so that all that counts comes from the file
        model.load_pretrained(str(path))
        with np.load(path, allow_pickle=False) as file:
            weights = {key: torch.from_numpy(array) for key, array in file.items()}
    table = weights["Transformer/posembed_input/pos_embedding"]
    native, first_side = int((table.shape[1] - 1) ** 0.5), model.patch_embed.img_size[0]

    def answer(image: Tensor) -> Answer:
        sides = [length * native // first_side for length in image.shape[2:]]
        model.set_input_size(img_size=tuple(image.shape[2:]))
        image_table = table[0, 1:].view(native, native, -1).numpy()
        resampled = torch.from_numpy(zoom(image_table, (sides[0] / native, sides[1] / native, 1), order=1))
        model.pos_embed = nn.Parameter(torch.cat([table[:, :1], resampled.flatten(0, 1)[None]], dim=1))
        pooled = model.forward_head(model.forward_features(image), pre_logits=True)
        if size:
            pooled = (pooled @ weights["pre_logits/kernel"] + weights["pre_logits/bias"]).tanh()
        return torch.empty(1, 0) if headless else model.head(pooled), pooled

    return Reference("jax", weights, {}, (0.5,) * 3, (0.5,) * 3, answer)


def _original_convolution(module: Any, image: Tensor) -> Tensor:
    """`StdConv` of the original's `models_resnet.py`, with TensorFlow's SAME padding."""
    layers = importlib.import_module("timm.layers")
    weight = module.weight - module.weight.mean((1, 2, 3), keepdim=True)
    weight = weight / (weight.std((1, 2, 3), correction=0, keepdim=True) + 1e-5)
    padded = layers.pad_same(image, module.kernel_size, module.stride)
    return nn.functional.conv2d(padded, weight, stride=module.stride)


_JAX_NAMES = (
    ("cls_token", "cls"),
    ("pos_embed", "Transformer/posembed_input/pos_embedding"),
    (r"patch_embed\.proj", "embedding"),
    (r"norm", "Transformer/encoder_norm"),
    (r"blocks\.(\d+)\.norm1", r"Transformer/encoderblock_\1/LayerNorm_0"),
    (r"blocks\.(\d+)\.norm2", r"Transformer/encoderblock_\1/LayerNorm_2"),
    (r"blocks\.(\d+)\.attn\.(\w+)", r"Transformer/encoderblock_\1/MultiHeadDotProductAttention_1/\2"),
    (r"blocks\.(\d+)\.mlp\.fc1", r"Transformer/encoderblock_\1/MlpBlock_3/Dense_0"),
    (r"blocks\.(\d+)\.mlp\.fc2", r"Transformer/encoderblock_\1/MlpBlock_3/Dense_1"),
    (r"patch_embed\.backbone\.(?:stem\.)?conv", "conv_root"),
    (r"patch_embed\.backbone\.(?:stem\.)?norm", "gn_root"),
    (r"patch_embed\.backbone\.stages\.(\d)\.blocks\.(\d+)\.conv(\d)", r"block\1+/unit\2+/conv\3"),
    (r"patch_embed\.backbone\.stages\.(\d)\.blocks\.(\d+)\.norm(\d)", r"block\1+/unit\2+/gn\3"),
    (r"patch_embed\.backbone\.stages\.(\d)\.blocks\.(\d+)\.downsample\.conv", r"block\1+/unit\2+/conv_proj"),
    (r"patch_embed\.backbone\.stages\.(\d)\.blocks\.(\d+)\.downsample\.norm", r"block\1+/unit\2+/gn_proj"),
)


def jax_layout(state: Mapping[str, Tensor], heads: int) -> dict[str, NDArray[np.float32]]:
    """Weights of a timm model under the names and with the axes of the original files."""
    arrays = {}
    for name, tensor in state.items():
        place, _, kind = name.rpartition(".") if name.endswith((".weight", ".bias")) else (name, "", "")
        pattern, text = next((pair for pair in _JAX_NAMES if re.fullmatch(pair[0], place)), (place, place))
        base = re.sub(r"(\d+)\+", lambda match: str(int(match[1]) + 1), re.sub(f"^{pattern}$", text, place))
        array, norm = tensor.detach().numpy(), re.search(r"Norm|norm|gn", base)
        if base.endswith("/qkv"):
            for part, rows in zip(("query", "key", "value"), np.split(array, 3), strict=True):
                split = rows.reshape(heads, -1, *rows.shape[1:])  # [H, D/H, D] or [H, D/H]
                turned = split.transpose(2, 0, 1) if split.ndim == 3 else split
                arrays[f"{base[:-3]}{part}/{'kernel' if kind == 'weight' else 'bias'}"] = turned
        elif base.endswith("/proj"):
            turned = array.T.reshape(heads, -1, len(array)) if kind == "weight" else array
            arrays[f"{base[:-4]}out/{'kernel' if kind == 'weight' else 'bias'}"] = turned
        elif not kind:
            arrays[base] = array
        else:
            leaf = "bias" if kind == "bias" else "scale" if norm else "kernel"
            turned = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
            arrays[f"{base}/{leaf}"] = turned.reshape(1, 1, 1, -1) if "gn" in base else turned
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def all_references(depth: int) -> Iterator[tuple[str, Callable[[], Reference]]]:
    """Name and maker of every reference."""
    for name in HUGGING_FACE:
        yield f"transformers:{name}", partial(from_transformers, name, depth)
    for name in TORCHVISION:
        yield f"torchvision:{name}", partial(from_torchvision, name, depth)
    for name in _JAX:
        yield f"jax:{name}", partial(from_jax, name, depth)
    for name in timm_names():
        yield f"timm:{name}", partial(from_timm, name, depth)
