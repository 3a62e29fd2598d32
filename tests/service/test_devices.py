import ctypes
import gc
from typing import Any

import numpy as np
import pytest

from service.devices import CudaDevice, HostDevice, cuda_runtime


class FakeCudart:
    """The CUDA runtime on ordinary memory; `failing` names a function that returns an error."""

    def __init__(self, failing: str = "") -> None:
        self.calls: list[str] = []
        self.registered: set[int] = set()
        self._failing = failing

    def _note(self, name: str) -> int:
        self.calls.append(name)
        return 2 if name == self._failing else 0

    def cudaSetDevice(self, number: int) -> int:  # noqa: N802 - CUDA's name
        return self._note("cudaSetDevice")

    def cudaStreamCreateWithFlags(self, stream: Any, flags: int) -> int:  # noqa: N802
        assert flags == 1
        return self._note("cudaStreamCreateWithFlags")

    def cudaHostRegister(self, address: Any, size: Any, flags: int) -> int:  # noqa: N802
        assert address.value % 4096 == 0
        if status := self._note("cudaHostRegister"):
            return status
        self.registered.add(address.value)
        return 0

    def cudaHostUnregister(self, address: Any) -> int:  # noqa: N802
        self.registered.remove(address.value)
        return self._note("cudaHostUnregister")

    def cudaMemcpyAsync(self, target: Any, source: Any, size: Any, kind: int, stream: Any) -> int:  # noqa: N802
        assert kind == 1
        ctypes.memmove(target, source, size.value)
        return self._note("cudaMemcpyAsync")

    def cudaStreamSynchronize(self, stream: Any) -> int:  # noqa: N802
        return self._note("cudaStreamSynchronize")


@pytest.mark.parametrize("device", [HostDevice(), CudaDevice(0, FakeCudart())])
def test_what_is_copied_in_arrives(device: HostDevice | CudaDevice) -> None:
    source = device.host_memory(5000)
    source[:] = np.arange(5000) % 251
    target = np.zeros(6000, np.uint8)
    device.copy_in(target.ctypes.data, source.reshape(50, 100)[:40])
    assert (target[:4000] == source[:4000]).all()
    assert not target[4000:].any()


def test_a_copy_to_a_gpu_ends_before_it_returns_whatever_thread_calls() -> None:
    library = FakeCudart()
    device = CudaDevice(1, library)
    library.calls.clear()
    device.copy_in(np.zeros(8, np.uint8).ctypes.data, np.ones(8, np.uint8))
    assert library.calls == ["cudaSetDevice", "cudaMemcpyAsync", "cudaStreamSynchronize"]


def test_memory_is_page_locked_as_long_as_it_lives() -> None:
    library = FakeCudart()
    memory = CudaDevice(0, library).host_memory(10_000)
    assert library.registered == {memory.ctypes.data}
    part = memory[:100]
    del memory
    gc.collect()
    assert library.registered, "a part of it lives"
    del part
    gc.collect()
    assert not library.registered


def test_memory_that_cannot_be_page_locked_is_ordinary_memory() -> None:
    library = FakeCudart("cudaHostRegister")
    memory = CudaDevice(0, library).host_memory(10_000)
    assert memory.shape == (10_000,)
    del memory
    gc.collect()
    assert "cudaHostUnregister" not in library.calls


@pytest.mark.parametrize("failing", ["cudaSetDevice", "cudaStreamCreateWithFlags"])
def test_a_gpu_that_cannot_be_used_says_why(failing: str) -> None:
    with pytest.raises(OSError, match=f"{failing} failed with CUDA error 2"):
        CudaDevice(0, FakeCudart(failing))


def test_a_runtime_library_that_is_missing_is_named() -> None:
    with pytest.raises(OSError, match=r"libcudart\.so\.7"):
        cuda_runtime("7.5")
