"""The engine: one artifact in ONNX Runtime. It knows arrays only, no HTTP, no queue, no clock.

`B` images, `N` patches, `C` classes, `P*P*3` values of a patch.

A model file is code: only the operator chooses it. What can be checked is checked at load, so that a wrong file stops
the start instead of failing the first request.
"""

import hashlib
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.manifest import METADATA_KEY, Manifest, ManifestError
from service.errors import EngineError, StartError
from service.settings import EngineSettings

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_CONTRACT = {  # name: (kind, element type, rank)
    "patches": ("input", "tensor(uint8)", 3),
    "grid": ("input", "tensor(int64)", 2),
    "logits": ("output", "tensor(float)", 2),
    "embedding": ("output", "tensor(float)", 2),
}


@dataclass(frozen=True, slots=True)
class Model:
    """What a loaded artifact is.

    Attributes:
        manifest: what the file says of itself.
        digest: `sha256:` and the SHA-256 of the file.
        provider: the execution provider that runs it.
    """

    manifest: Manifest
    digest: str
    provider: str


class Engine:
    """Runs batches of patch sequences through one model; thread-safe as ONNX Runtime's `Run` is.

    Raises:
        StartError: if the file is no artifact of ours, or the provider is missing.
    """

    def __init__(self, settings: EngineSettings) -> None:
        path = settings.model or bundled_model()
        content = _read(path)
        self._session = _open_session(content, path, settings)
        manifest = _read_manifest(self._session, path)
        _check_contract(self._session, manifest, path)
        _check_provider(self._session, settings)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.model = Model(manifest, digest, settings.provider)
        self._on_device = settings.provider != "cpu"

    def run(self, patches: NDArray[np.uint8], grid: NDArray[np.int64]) -> NDArray[np.float32]:
        """Classify one batch.

        Args:
            patches: uint8 [B, N, P*P*3], each image padded on the right.
            grid: int64 [B, 2], rows and columns of each image.

        Returns:
            Logits, float32 [B, C].

        Raises:
            EngineError: if ONNX Runtime fails.
        """
        try:
            return self._run_bound(patches, grid) if self._on_device else self._run(patches, grid)
        except Exception as error:
            raise EngineError(_first_line(error)) from error

    def warm_up(self) -> None:
        """Run a batch of one and a batch of two, and check what comes out.

        Raises:
            StartError: if the model fails or its logits are not one finite number per label.
        """
        spec, classes = self.model.manifest.preprocessing, len(self.model.manifest.labels)
        for count in (1, 2):
            patches = np.zeros((count, spec.native_patches, spec.patch_dim), np.uint8)
            try:
                logits = self.run(patches, np.tile(np.asarray(spec.native_grid, np.int64), (count, 1)))
            except EngineError as error:
                raise StartError(f"the model fails on a first batch: {error}") from None
            if logits.shape != (count, classes) or not np.isfinite(logits).all():
                raise StartError(
                    f"the model answers a blank image with {logits.shape} instead of finite {count, classes}"
                )

    def _run(self, patches: NDArray[np.uint8], grid: NDArray[np.int64]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._session.run(["logits"], {"patches": patches, "grid": grid})[0]
        return logits

    def _run_bound(self, patches: NDArray[np.uint8], grid: NDArray[np.int64]) -> NDArray[np.float32]:
        """Inputs are copied to the device once, outputs stay there until the run has ended."""
        binding = self._session.io_binding()
        binding.bind_cpu_input("patches", np.ascontiguousarray(patches))
        binding.bind_cpu_input("grid", np.ascontiguousarray(grid))
        binding.bind_output("logits", "cuda")
        self._session.run_with_iobinding(binding)
        logits: NDArray[np.float32] = binding.copy_outputs_to_cpu()[0]
        return logits


def bundled_model() -> Path:
    """The model that ships with the package.

    Raises:
        StartError: if this installation has none.
    """
    path = Path(str(files("model"))) / "bundled" / "fashion-mnist.onnx"
    if not path.is_file():
        raise StartError("this installation has no bundled model: name one, as in patchserve serve MODEL.onnx")
    return path


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StartError(f"the model {path} cannot be read: {error.strerror}") from None
    if not content:
        raise StartError(f"the model {path} is empty")
    return content


def _open_session(content: bytes, path: Path, settings: EngineSettings) -> Any:
    """From bytes, not from the path: then ONNX Runtime refuses external data, and the digest is of what is loaded."""
    runtime = _import_runtime()
    wanted = _PROVIDERS[settings.provider]
    if wanted not in runtime.get_available_providers():
        raise StartError(
            f"provider {settings.provider} is not in this onnxruntime: pip install patchserve[gpu] in an "
            "environment without onnxruntime (the two share a module), or choose --provider cpu"
        )
    if settings.provider != "cpu":
        runtime.preload_dlls()  # CUDA and cuDNN from their wheels lie where the dynamic linker does not look
    options = runtime.SessionOptions()
    options.intra_op_num_threads = settings.engine_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # fatal; errors are raised, and their text would reach the log unformatted
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(settings.engine_spinning)))
    try:
        return runtime.InferenceSession(content, options, providers=_provider_list(settings))
    except Exception as error:
        digest = hashlib.sha256(content).hexdigest()
        raise StartError(
            f"the model {path} (SHA-256 {digest}) is no single-file ONNX model that this onnxruntime can load: "
            f"{_first_line(error)}"
        ) from error


def _import_runtime() -> Any:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # the wheels report home unless this is set before the import
    try:
        import onnxruntime  # noqa: PLC0415 - after the variable above, and only where a model is run
    except ImportError:
        raise StartError(
            "onnxruntime is not installed: pip install patchserve[cpu], or patchserve[gpu] for NVIDIA GPUs, never both"
        ) from None
    return onnxruntime


def _provider_list(settings: EngineSettings) -> list[Any]:
    if settings.provider == "cpu":
        return [_PROVIDERS["cpu"]]
    # kSameAsRequested: by default the arena doubles with each new shape and never gives back.
    cuda: dict[str, Any] = {"device_id": settings.device_id, "arena_extend_strategy": "kSameAsRequested"}
    if settings.gpu_memory_bytes:
        cuda["gpu_mem_limit"] = settings.gpu_memory_bytes
    on_device: list[Any] = [(_PROVIDERS["cuda"], cuda)]
    if settings.provider == "tensorrt":
        on_device.insert(0, (_PROVIDERS["tensorrt"], {"device_id": settings.device_id}))
    return [*on_device, _PROVIDERS["cpu"]]


def _check_provider(session: Any, settings: EngineSettings) -> None:
    """ONNX Runtime falls back to the CPU with a warning when a GPU library cannot be loaded; we do not."""
    active = session.get_providers()
    if active[0] != _PROVIDERS[settings.provider]:
        raise StartError(
            f"provider {settings.provider} could not be started, onnxruntime chose {active[0]}: check the driver and "
            "the CUDA and cuDNN libraries, or choose --provider cpu"
        )


def _read_manifest(session: Any, path: Path) -> Manifest:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise StartError(f"the model {path} has no manifest: export it with patchserve's export tools")
    try:
        return Manifest.from_json(text)
    except ManifestError as error:
        raise StartError(f"the model {path}: {' '.join(str(error).split())}") from None


def _check_contract(session: Any, manifest: Manifest, path: Path) -> None:
    found = {("input", node.name): node for node in session.get_inputs()}
    found |= {("output", node.name): node for node in session.get_outputs()}
    problems = [f"unknown input {name!r}" for kind, name in found if kind == "input" and name not in _CONTRACT]
    for name, (kind, element, rank) in _CONTRACT.items():
        node = found.get((kind, name))
        if node is None:
            problems.append(f"{kind} {name!r} is missing")
        elif node.type != element or len(node.shape) != rank:
            problems.append(f"{kind} {name!r} is {node.type} of rank {len(node.shape)}, not {element} of rank {rank}")
    problems = problems or _check_sizes({name: node.shape[-1] for (_, name), node in found.items()}, manifest)
    if problems:
        raise StartError(f"the model {path} does not keep the contract: {'; '.join(problems)}")


def _check_sizes(last: dict[str, Any], manifest: Manifest) -> list[str]:
    """Compare the last axes with the manifest; one that the graph leaves open shows in the warm-up."""
    wanted = {"patches": manifest.preprocessing.patch_dim, "grid": 2, "logits": len(manifest.labels)}
    source = {"patches": "values of a patch", "grid": "sides", "logits": "labels"}
    return [
        f"{name!r} has {last[name]} columns, the manifest {size} {source[name]}"
        for name, size in wanted.items()
        if isinstance(last[name], int) and last[name] != size
    ]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
