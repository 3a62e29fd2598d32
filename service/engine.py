"""The engine: one artifact in ONNX Runtime. It knows arrays only, no HTTP, no queue, no clock.

`B` images, `N` patches, `C` classes, `D` width of the embedding, `P*P*3` values of a patch.

A model file is code: only the operator chooses it. What can be checked is checked at load, so that a wrong file stops
the start instead of failing the first request.
"""

import hashlib
import re
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.golden import golden_patches, golden_problem
from model.manifest import Manifest
from service.allocator import give_back_memory
from service.artifacts import bundled_model
from service.batching import BatchLimits, Lanes
from service.binding import BoundSession
from service.buckets import choose_buckets
from service.buffers import BatchBuffer, BatchMemory
from service.contract import check_contract, read_manifest
from service.cores import usable_cores
from service.devices import CudaDevice, Device, cuda_runtime
from service.errors import DeviceLostError, EngineError, OutOfMemoryError, StartError
from service.extras import ATTENTION, Answers, Extras, answers_of, output_names
from service.onnx_elsewhere import keeps_weights_elsewhere
from service.onnx_pruning import without_output
from service.providers import PROVIDERS, check_support, import_runtime, provider_list, session_options
from service.settings import EngineSettings

# The bundled model takes one thread 2.3 ms and two threads 2.4, ViT-Ti/16 26 and 21 (docs/performance/http-workers.md).
_QUICK_S = 0.005
# The words of onnxruntime 1.32 (core/framework/bfc_arena.cc, core/providers/cuda/cuda_call.cc) and of service.devices.
_OUT_OF_MEMORY = re.compile(
    r"Failed to allocate memory|bad_?alloc|out of memory|CUDA (?:failure|error) 2\b|ALLOC_FAILED", re.IGNORECASE
)
# Errors of cudaError_t that leave a context which "must be destroyed", in the words of its documentation, and those of
# a device that is not there any more: https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html
_DEVICE_LOST = re.compile(r"CUDA (?:failure|error) (?:4|46|100|101|214|220|226|700|702|71[0-9]|721|999)\b")


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

    With several lanes there are two sessions over the same file, one whose runs have all cores and one whose runs have
    a thread each, that of the caller. ONNX Runtime packs the weights for each session anew, so they cost memory twice.
    A model that is quick on one thread has the second session alone. A model that explains itself has one session more,
    whose runs compute the attention too: the others do without its operators.

    Attributes:
        model: what was loaded.
        lanes: how many batches may run at a time.
        golden_logits: float32 [C], what the model answers to `model.golden.golden_patches`; known after `warm_up`.

    Args:
        settings: the model and how it runs.
        device: binds all memory to this device; by default the GPU of the settings, and nothing on the CPU.

    Raises:
        StartError: if the file is no artifact of ours, or the provider is missing.
    """

    def __init__(self, settings: EngineSettings, device: Device | None = None) -> None:
        path = settings.model or bundled_model()
        content = _read(path, settings)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        runtime = import_runtime()
        _check_single(content, path)
        self._settings = settings
        self.golden_logits = np.empty(0, np.float32)
        self.lanes = _lanes_of(settings) if device is None else Lanes()
        several_widths = self.lanes.number > 1 and self.lanes.wide
        narrow = settings.model_copy(update={"engine_threads": 1}) if several_widths else settings
        whole, content = content, without_output(content, ATTENTION)
        self._narrow = self._wide = self._whole = _open_session(runtime, content, path, narrow)
        manifest = read_manifest(self._narrow, path)
        if manifest.explain and content is not whole:
            self._whole = _open_session(runtime, whole, path, narrow)
        check_contract(self._whole, manifest, path)
        _check_provider(self._narrow, settings)
        self.model = Model(manifest, digest, settings.provider)
        if device is None and settings.provider != "cpu":
            device = _open_gpu(runtime, settings)
        self._bound = device and BoundSession(
            runtime, self._wide, device, len(manifest.labels), graphs=settings.cuda_graphs, whole=self._whole
        )
        if several_widths and self._is_quick():
            self.lanes = replace(self.lanes, wide=False)
        elif several_widths:
            self._wide = _open_session(runtime, content, path, settings)

    def run(self, patches: NDArray[np.uint8], grid: NDArray[np.int64], *, alone: bool = True) -> NDArray[np.float32]:
        """Classify one batch.

        Args:
            patches: uint8 [B, N, P*P*3], each image padded on the right.
            grid: int64 [B, 2], rows and columns of each image.
            alone: on all cores; else, with several lanes, on the caller's thread. The answer is the same.

        Returns:
            Logits, float32 [B, C].

        Raises:
            OutOfMemoryError: if the batch does not fit into the memory.
            DeviceLostError: if the GPU is in a state that only a new process gets out of.
            EngineError: if ONNX Runtime fails otherwise.
        """
        try:
            return self._bound.run(patches, grid) if self._bound else self._run(patches, grid, alone=alone)
        except Exception as error:
            raise _kind_of(str(error))(_first_line(error)) from error

    def infer(
        self, patches: NDArray[np.uint8], grid: NDArray[np.int64], extras: Extras, *, alone: bool = True
    ) -> Answers:
        """As `run`, and what else is wanted; attention only of a model whose manifest has `explain`.

        Raises:
            EngineError: as `run`.
        """
        try:
            if self._bound:
                return self._bound.infer(patches, grid, extras)
            session = self._whole if Extras.ATTENTION in extras else self._wide if alone else self._narrow
            return answers_of(extras, session.run(output_names(extras), {"patches": patches, "grid": grid}))
        except Exception as error:
            raise _kind_of(str(error))(_first_line(error)) from error

    def warm_up(self) -> None:
        """Run a batch of one and a batch of two, of either width, and the golden image, and check what comes out.

        Raises:
            StartError: if the model fails, its logits are not one finite number per label, or the golden image gets
                other logits than the publisher of the model wrote down.
        """
        classes = len(self.model.manifest.labels)
        widths = (True, False) if self._wide is not self._narrow else (True,)
        for count, alone in product((1, 2), widths):
            try:
                logits = self.run(*self._blank(count), alone=alone)
            except EngineError as error:
                raise StartError(f"the model fails on a first batch: {error}") from None
            if logits.shape != (count, classes) or not np.isfinite(logits).all():
                raise StartError(
                    f"the model answers a blank image with {logits.shape} instead of finite {count, classes}"
                )
        if self.model.manifest.explain:
            self._check_attention()
        self.golden_logits = self._golden()
        if problem := golden_problem(self.golden_logits, self.model.manifest, rounded=self._rounds()):
            raise StartError(f"the model does not answer as it did when it was exported: {problem}")

    def _check_attention(self) -> None:
        patches, grid = self._blank(1)
        try:
            shares = self.infer(patches, grid, Extras.ATTENTION).attentions
        except EngineError as error:
            raise StartError(f"the model fails to explain a first image: {error}") from None
        if shares is None or shares.shape != patches.shape[:2] or not np.isclose(shares.sum(), 1, atol=1e-3):
            raise StartError("the attention that the model gives for a blank image is not a share for each patch")

    def _golden(self) -> NDArray[np.float32]:
        patches, grid = self._blank(1)
        patches[0] = golden_patches(self.model.manifest.preprocessing)
        try:
            logits: NDArray[np.float32] = self.run(patches, grid)[0]
        except EngineError as error:
            raise StartError(f"the model fails on the golden image: {error}") from None
        return logits

    def _rounds(self) -> bool:
        return self._settings.gpu_tf32 or (self._settings.provider == "tensorrt" and self._settings.tensorrt_fp16)

    def close(self) -> None:
        """Give the memory of the model back; nothing may run any more.

        Not left to the collector: it never looks at what was loaded before the service was ready.
        """
        if self._bound:
            self._bound.close()
        self._bound = self._narrow = self._wide = self._whole = None
        give_back_memory()

    def _is_quick(self) -> bool:
        """Whether an image takes one thread so little that several, which wait for each other, are not worth it."""
        taken_s = []
        for _ in range(3):
            started_s = time.perf_counter()
            try:
                self._run(*self._blank(1), alone=False)
            except Exception:  # noqa: BLE001 - the warm-up tells why it fails
                return False
            taken_s.append(time.perf_counter() - started_s)
        return min(taken_s) < _QUICK_S

    def _blank(self, images: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        spec = self.model.manifest.preprocessing
        patches = np.zeros((images, spec.native_patches, spec.patch_dim), np.uint8)
        return patches, np.tile(np.asarray(spec.native_grid, np.int64), (images, 1))

    def _run(self, patches: NDArray[np.uint8], grid: NDArray[np.int64], *, alone: bool) -> NDArray[np.float32]:
        session = self._wide if alone else self._narrow
        logits: NDArray[np.float32] = session.run(["logits"], {"patches": patches, "grid": grid})[0]
        return logits

    def open_memory(self, limits: BatchLimits) -> BatchMemory:
        """Where batches of this model are written, and the shapes that they are padded to.

        Raises:
            StartError: if TensorRT prepares for smaller batches than these.
        """
        settings, spec = self._settings, self.model.manifest.preprocessing
        if settings.provider == "tensorrt" and limits.max_images > settings.tensorrt_max_images:
            raise StartError(f"--max-batch-images is over --tensorrt-max-images, {settings.tensorrt_max_images}")
        buckets = choose_buckets(settings.length_buckets, settings.provider, self.model.manifest, limits)
        shapes = buckets.shapes(spec.native_patches)
        warm_up = shapes[: settings.max_warm_up_shapes]
        under_way = max(2, self.lanes.number)  # with one lane, one batch is filled while the other is in the engine
        buffers = [BatchBuffer() for _ in range(under_way)]
        if self._bound:
            most = max([limits.max_patches, *(images * length for images, length in shapes)]) * spec.patch_dim
            buffers = self._bound.open_buffers(under_way, most, limits.max_images, warm_up)
        return BatchMemory(buffers, buckets, warm_up, spec.patch_dim)


def _lanes_of(settings: EngineSettings) -> Lanes:
    cores = usable_cores()
    return Lanes(settings.lanes(cores), wide=(settings.engine_threads or cores) > 1)


def _read(path: Path, settings: EngineSettings) -> bytes:
    wanted = settings.model_sha256
    expected = "" if wanted is None else f"; the expected SHA-256 is {wanted}"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StartError(f"the model {path} cannot be read: {error.strerror}{expected}") from None
    if not content:
        raise StartError(f"the model {path} is empty{expected}")
    if wanted is not None and (digest := hashlib.sha256(content).hexdigest()) not in wanted.split(","):
        raise StartError(f"the model {path} has SHA-256 {digest}{expected}")
    return content


def _open_session(runtime: Any, content: bytes, path: Path, settings: EngineSettings) -> Any:
    """From bytes, not from the path: so the digest is of what is loaded."""
    check_support(runtime, settings, content, path)
    if settings.provider != "cpu":
        runtime.preload_dlls()  # CUDA and cuDNN from their wheels lie where the dynamic linker does not look
    options = session_options(runtime, settings)
    try:
        return runtime.InferenceSession(content, options, providers=provider_list(settings, content))
    except Exception as error:
        if "graph capture" in str(error):
            raise StartError(
                f"--cuda-graphs is not possible with {path}, start without: {_first_line(error)}"
            ) from error
        digest = hashlib.sha256(content).hexdigest()
        raise StartError(
            f"the model {path} (SHA-256 {digest}) is no single-file ONNX model that this onnxruntime can load: "
            f"{_first_line(error)}"
        ) from error


def _check_single(content: bytes, path: Path) -> None:
    try:
        reason = "it keeps weights in other files" if keeps_weights_elsewhere(content) else ""
    except ValueError as error:
        reason = f"it cannot be read ({error})"
    if reason:
        digest = hashlib.sha256(content).hexdigest()
        raise StartError(f"the model {path} (SHA-256 {digest}) is no single-file ONNX model: {reason}")


def _open_gpu(runtime: Any, settings: EngineSettings) -> Device:
    try:
        return CudaDevice(settings.device_id, cuda_runtime(runtime.cuda_version))
    except OSError as error:
        raise StartError(f"GPU {settings.device_id} cannot be used: {error}") from None


def _check_provider(session: Any, settings: EngineSettings) -> None:
    """ONNX Runtime falls back to the CPU with a warning when a GPU library cannot be loaded; we do not."""
    active = session.get_providers()
    if active[0] != PROVIDERS[settings.provider]:
        raise StartError(
            f"provider {settings.provider} could not be started, onnxruntime chose {active[0]}: check the driver and "
            "the CUDA and cuDNN libraries, or choose --provider cpu"
        )


def _kind_of(text: str) -> type[EngineError]:
    """What an error of ONNX Runtime, CUDA, cuBLAS or cuDNN means for the batches that come after it."""
    if _OUT_OF_MEMORY.search(text):
        return OutOfMemoryError
    return DeviceLostError if _DEVICE_LOST.search(text) else EngineError


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
