"""Runs on a device with every address bound beforehand.

`B` images, `N` patches, `C` classes, `D` width of the embedding, `P*P*3` values of a patch.

A buffer is one block of page-locked host memory and blocks on the device: patches, grid, logits. A batch is filled on
the host, copied by the thread that filled it while the device computes another one, and bound as [B, N, P*P*3] at the
same address whatever its shape, which is also what a CUDA graph needs.

All runs happen on one thread: ONNX Runtime's CUDA provider keeps its library handles and captured graphs per thread,
and a capture must not meet another one. `runtime` is the onnxruntime module.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.buffers import BatchBuffer
from service.devices import Device
from service.errors import EngineError
from service.extras import Answers, Extras, answers_of, output_names

# onnxruntime_run_options_config_keys.h: a graph for each id; -1 runs without one, 0 is taken.
_GRAPH_ID, _NO_GRAPH = "gpu_graph_id", "-1"


class BoundBuffer(BatchBuffer):
    """Memory of one batch on the host and on the device.

    Args:
        runtime: onnxruntime.
        device: where it runs.
        most_values: values of the largest batch, B * N * P*P*3; a larger one gets ordinary memory.
        max_images: B of the largest batch.
        classes: C.
    """

    def __init__(self, runtime: Any, device: Device, most_values: int, max_images: int, classes: int) -> None:
        super().__init__()
        self._device = device
        self._most = (max_images, most_values)
        self._host_grid = device.host_memory(max_images * 16).view(np.int64).reshape(max_images, 2)
        self._host_patches = device.host_memory(most_values)
        sizes = {"patches": most_values, "grid": max_images * 16, "logits": max_images * classes * 4}
        self._blocks = {
            name: runtime.OrtValue.ortvalue_from_shape_and_type([size], np.uint8, device.kind, device.number)
            for name, size in sizes.items()
        }
        self._on_device: tuple[int, ...] = ()  # shape of the patches that have been copied and not yet run

    def shaped(self, images: int, length: int, patch_dim: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """As every buffer's."""
        size = images * length * patch_dim
        if images > self._most[0] or size > self._most[1]:
            return super().shaped(images, length, patch_dim)
        return self._host_patches[:size].reshape(images, length, patch_dim), self._host_grid[:images]

    def owns(self, patches: NDArray[np.uint8], grid: NDArray[np.int64]) -> bool:
        """Whether these are arrays of `shaped` in page-locked memory."""
        addresses = (patches.ctypes.data, grid.ctypes.data)
        return addresses == (self._host_patches.ctypes.data, self._host_grid.ctypes.data)

    def ready(self, patches: NDArray[np.uint8], grid: NDArray[np.int64]) -> None:
        """Copy to the device."""
        if not self.owns(patches, grid):
            return
        try:
            self._device.copy_in(self._blocks["patches"].data_ptr(), patches)
            self._device.copy_in(self._blocks["grid"].data_ptr(), grid)
        except OSError as error:
            raise EngineError(str(error)) from error
        self._on_device = patches.shape

    def bind(self, binding: Any, patches: NDArray[np.uint8], grid: NDArray[np.int64], classes: int) -> None:
        """Bind inputs and output for one run, copied now if `ready` was not called for these arrays."""
        if self._on_device != patches.shape:
            self.ready(patches, grid)
        self._on_device = ()
        where = (self._device.kind, self._device.number)
        at = {name: block.data_ptr() for name, block in self._blocks.items()}
        binding.bind_input("patches", *where, np.uint8, patches.shape, at["patches"])
        binding.bind_input("grid", *where, np.int64, grid.shape, at["grid"])
        binding.bind_output("logits", *where, np.float32, (len(patches), classes), at["logits"])


class BoundSession:
    """A session whose runs are bound to a device.

    Args:
        runtime: onnxruntime.
        session: of onnxruntime.
        device: where it runs.
        classes: C.
        graphs: capture and replay a CUDA graph for each shape named in `open_buffers`.
        whole: a session with the output `attention` too; None: there is no such output.
    """

    def __init__(
        self, runtime: Any, session: Any, device: Device, classes: int, *, graphs: bool, whole: Any = None
    ) -> None:
        self._runtime = runtime
        self._session = session
        self._whole = whole or session
        self._device = device
        self._classes = classes
        self._graphs = graphs
        self._bindings: dict[BoundBuffer, Any] = {}
        self._graph_ids: dict[tuple[BoundBuffer, tuple[int, int]], str] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device")

    def open_buffers(
        self, number: int, most_values: int, max_images: int, shapes: Sequence[tuple[int, int]]
    ) -> list[BatchBuffer]:
        """Buffers whose batches run without another copy.

        Args:
            number: of buffers.
            most_values: values of the largest batch, B * N * P*P*3.
            max_images: B of the largest batch.
            shapes: [B, N] that get a CUDA graph at their first run, in each buffer: graphs keep addresses.
        """
        buffers = [
            BoundBuffer(self._runtime, self._device, most_values, max_images, self._classes) for _ in range(number)
        ]
        self._bindings |= {buffer: self._session.io_binding() for buffer in buffers}
        if self._graphs:
            ids = count(len(self._graph_ids) + 1)
            self._graph_ids |= {(buffer, shape): str(next(ids)) for buffer in buffers for shape in shapes}
        return list(buffers)

    def run(self, patches: NDArray[np.uint8], grid: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits, float32 [B, C]; arrays of one of our buffers are not copied again."""
        return self._thread.submit(self._run, patches, grid).result()

    def infer(self, patches: NDArray[np.uint8], grid: NDArray[np.int64], extras: Extras) -> Answers:
        """Logits and what else is wanted; the arrays are copied once more."""
        return self._thread.submit(self._infer, patches, grid, extras).result()

    def close(self) -> None:
        """Give the memory on the device back; nothing may run any more."""
        self._thread.shutdown(wait=True)
        self._bindings.clear()
        self._session = self._whole = None

    def _run(self, patches: NDArray[np.uint8], grid: NDArray[np.int64]) -> NDArray[np.float32]:
        buffer = next((each for each in self._bindings if each.owns(patches, grid)), None)
        if buffer is None:
            binding = self._copied(self._session, patches, grid, ["logits"])
            graph = _NO_GRAPH
        else:
            binding = self._bindings[buffer]
            buffer.bind(binding, patches, grid, self._classes)
            graph = self._graph_ids.get((buffer, patches.shape[:2]), _NO_GRAPH)
        self._session.run_with_iobinding(binding, self._options(graph))
        logits: NDArray[np.float32] = binding.copy_outputs_to_cpu()[0]
        return logits

    def _infer(self, patches: NDArray[np.uint8], grid: NDArray[np.int64], extras: Extras) -> Answers:
        session = self._whole if Extras.ATTENTION in extras else self._session
        binding = self._copied(session, patches, grid, output_names(extras))
        session.run_with_iobinding(binding, self._options(_NO_GRAPH))
        return answers_of(extras, binding.copy_outputs_to_cpu())

    def _copied(self, session: Any, patches: NDArray[np.uint8], grid: NDArray[np.int64], outputs: Sequence[str]) -> Any:
        """A binding for arrays anywhere on the host."""
        binding = session.io_binding()
        binding.bind_cpu_input("patches", np.ascontiguousarray(patches))
        binding.bind_cpu_input("grid", np.ascontiguousarray(grid))
        for output in outputs:
            binding.bind_output(output, self._device.kind, self._device.number)
        return binding

    def _options(self, graph: str) -> Any:
        options = self._runtime.RunOptions()
        if self._graphs:
            options.add_run_config_entry(_GRAPH_ID, graph)
        return options
