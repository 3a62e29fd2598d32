"""Where batches wait for the engine: memory of the host that a device can copy from, and the copy itself.

ONNX Runtime's Python interface allocates device memory, but page-locked memory of the host only for providers that
are registered as plug-ins (`OrtEpDevice.memory_info`), which is not how ours is opened; and its copy to a device
(`OrtValue.update_inplace`) does not release Python's global lock. Both are single calls of the CUDA runtime library,
which the CUDA provider has loaded already; `ctypes` lets other Python threads run meanwhile.
https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__MEMORY.html
"""

import ctypes
import mmap
import weakref
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

_PORTABLE = 1  # cudaHostRegisterPortable: page-locked for every device
_TO_DEVICE = 1  # cudaMemcpyHostToDevice
_NON_BLOCKING = 1  # cudaStreamNonBlocking: does not wait for the default stream, nor the other way round


class Device(Protocol):
    """Memory and copies of one kind of device.

    Attributes:
        kind: as ONNX Runtime calls it, `cpu` or `cuda`.
        number: of the device among its kind.
    """

    kind: str
    number: int

    def host_memory(self, size: int) -> NDArray[np.uint8]:
        """Bytes on the host, 64-byte aligned, from which copies to the device are fast."""

    def copy_in(self, target: int, source: NDArray[Any]) -> None:
        """Copy a C-contiguous array to an address on the device; returns when it is there."""


class HostDevice:
    """The CPU as if it were a device: the same steps, so that they are tested where there is no GPU."""

    kind = "cpu"
    number = 0

    def host_memory(self, size: int) -> NDArray[np.uint8]:
        """Whole pages of its own."""
        return np.frombuffer(mmap.mmap(-1, max(1, size)), np.uint8)[:size]

    def copy_in(self, target: int, source: NDArray[Any]) -> None:
        """Copy memory."""
        ctypes.memmove(target, source.ctypes.data, source.nbytes)


class CudaDevice:
    """An NVIDIA GPU.

    Args:
        number: of the GPU.
        library: the CUDA runtime, see `cuda_runtime`.

    Raises:
        OSError: if the GPU cannot be used.
    """

    kind = "cuda"

    def __init__(self, number: int, library: Any) -> None:
        self.number = number
        self._library = library
        self._stream = ctypes.c_void_p()
        self._call("cudaSetDevice", number)
        self._call("cudaStreamCreateWithFlags", ctypes.byref(self._stream), _NON_BLOCKING)

    def host_memory(self, size: int) -> NDArray[np.uint8]:
        """Page-locked, or ordinary memory where the system allows no more of it: slower, and just as right."""
        pages = mmap.mmap(-1, max(1, size))
        memory = np.frombuffer(pages, np.uint8)[:size]
        address = memory.ctypes.data
        if self._library.cudaHostRegister(ctypes.c_void_p(address), ctypes.c_size_t(len(pages)), _PORTABLE) == 0:
            weakref.finalize(pages, self._library.cudaHostUnregister, ctypes.c_void_p(address)).atexit = False
        return memory

    def copy_in(self, target: int, source: NDArray[Any]) -> None:
        """Copy on a stream of its own, so beside what the engine runs; waits without the global lock.

        Raises:
            OSError: if the GPU fails.
        """
        self._call("cudaSetDevice", self.number)  # holds for the calling thread
        self._call(
            "cudaMemcpyAsync",
            ctypes.c_void_p(target),
            ctypes.c_void_p(source.ctypes.data),
            ctypes.c_size_t(source.nbytes),
            _TO_DEVICE,
            self._stream,
        )
        self._call("cudaStreamSynchronize", self._stream)

    def _call(self, name: str, *arguments: Any) -> None:
        if status := getattr(self._library, name)(*arguments):
            raise OSError(f"{name} failed with CUDA error {status}")


def cuda_runtime(version: str) -> Any:
    """The CUDA runtime library that onnxruntime's CUDA provider is linked with.

    Args:
        version: of CUDA, such as `13.0`.

    Raises:
        OSError: if it cannot be loaded.
    """
    return ctypes.CDLL(f"libcudart.so.{version.split('.', maxsplit=1)[0]}")
