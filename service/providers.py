"""What ONNX Runtime is told: session options, execution providers and their options. `B` images, `N` patches.

The option names are those of onnxruntime 1.31:
https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from model.manifest import METADATA_KEY, Manifest, ManifestError, Preprocessing
from service.cores import usable_cores
from service.errors import StartError
from service.onnx_file import metadata_of, opset_of
from service.settings import EngineSettings

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
# The first opset with the Attention operator, on which TensorRT's parser fails in 10.14 and 10.16:
# https://github.com/NVIDIA/TensorRT/issues/4705, https://github.com/NVIDIA/TensorRT/issues/4738
_OPSET_OF_ATTENTION = 23
_USUAL_IMAGES = 8  # of the batch that TensorRT chooses its kernels for


def import_runtime() -> Any:
    """The onnxruntime module.

    Raises:
        StartError: if there is none.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # the wheels report home unless this is set before the import
    try:
        import onnxruntime  # noqa: PLC0415 - after the variable above, and only where a model is run
    except ImportError:
        raise StartError(
            "onnxruntime is not installed: pip install patchserve[cpu], or patchserve[gpu] for NVIDIA GPUs, never both"
        ) from None
    return onnxruntime


def session_options(runtime: Any, settings: EngineSettings) -> Any:
    """Threads and spinning of the CPU work, and silence."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = settings.engine_threads or usable_cores()
    options.inter_op_num_threads = 1
    # A plan of the memory of a run is kept for every shape that ever came, and is not faster here.
    options.enable_mem_pattern = False
    options.log_severity_level = 4  # fatal; errors are raised, and their text would reach the log unformatted
    # Spinning threads wait for the next operator of a run, not for the next run.
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(settings.engine_spinning)))
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def check_support(runtime: Any, settings: EngineSettings, content: bytes, path: Path) -> None:
    """Refuse what cannot work before a session is opened.

    Raises:
        StartError: if the provider is not in this onnxruntime, or cannot do what the settings ask for.
    """
    if PROVIDERS[settings.provider] not in runtime.get_available_providers():
        raise StartError(
            f"provider {settings.provider} is not in this onnxruntime: pip install patchserve[gpu] in an "
            "environment without onnxruntime (the two share a module), or choose --provider cpu"
        )
    if settings.cuda_graphs and settings.provider != "cuda":
        raise StartError("--cuda-graphs needs --provider cuda: one graph a shape is not possible elsewhere")
    if settings.engine_lanes > 1 and settings.provider != "cpu":
        raise StartError(
            f"--engine-lanes {settings.engine_lanes} needs --provider cpu: a GPU runs one batch after the other"
        )
    opset = opset_of(content)
    if settings.provider == "tensorrt" and opset is not None and opset >= _OPSET_OF_ATTENTION:
        raise StartError(
            f"the model {path} is of opset {opset}, whose Attention operator TensorRT's parser fails on: export it "
            "with --opset 18, or choose --provider cuda"
        )


def provider_list(settings: EngineSettings, content: bytes) -> list[Any]:
    """Providers with their options, the wanted one first; each takes the nodes that those before it leave."""
    if settings.provider == "cpu":
        return [PROVIDERS["cpu"]]
    behind = [(PROVIDERS["cuda"], _cuda_options(settings)), PROVIDERS["cpu"]]
    if settings.provider == "cuda":
        return behind
    return [(PROVIDERS["tensorrt"], _tensorrt_options(settings, content)), *behind]


def _cuda_options(settings: EngineSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "device_id": settings.device_id,
        # By default the arena doubles with each new shape and never gives back.
        "arena_extend_strategy": "kSameAsRequested",
        # Only the hybrid's stem convolves; the default tries every algorithm at every new shape.
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": int(settings.gpu_tf32),
        "enable_cuda_graph": int(settings.cuda_graphs),
    }
    if settings.gpu_memory_bytes:
        options["gpu_mem_limit"] = settings.gpu_memory_bytes
    return options


def _tensorrt_options(settings: EngineSettings, content: bytes) -> dict[str, Any]:
    options: dict[str, Any] = {
        "device_id": settings.device_id,
        "trt_fp16_enable": settings.tensorrt_fp16,
        "trt_layer_norm_fp32_fallback": settings.tensorrt_fp16,
    }
    if settings.tensorrt_cache_dir is not None:
        # The cache's own keys name the graph, not the weights: another model of the same architecture would be
        # answered by the first one's engine. So each file has its own folder. Timings depend on shapes alone.
        folder = settings.tensorrt_cache_dir / hashlib.sha256(content).hexdigest()[:16]
        options |= {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(folder)}
        options |= {"trt_timing_cache_enable": True, "trt_timing_cache_path": str(settings.tensorrt_cache_dir)}
    if (spec := _preprocessing(content)) is not None:
        options |= _profile(spec, settings.tensorrt_max_images)
    return options


def _profile(spec: Preprocessing, max_images: int) -> dict[str, str]:
    """One TensorRT engine for every shape from one patch to the largest: without it each new shape is built again."""
    usual = (min(_USUAL_IMAGES, max_images), spec.native_patches)
    return {
        f"trt_profile_{name}_shapes": f"patches:{images}x{patches}x{spec.patch_dim},grid:{images}x2"
        for name, (images, patches) in (("min", (1, 1)), ("opt", usual), ("max", (max_images, spec.max_patches)))
    }


def _preprocessing(content: bytes) -> Preprocessing | None:
    """None for a file that is no artifact: the engine says so when it has opened it."""
    try:
        return Manifest.from_json(metadata_of(content, METADATA_KEY) or "").preprocessing
    except ManifestError:
        return None
