"""The path of a GPU, for real on the CPU as the device, and with a recording session where order is what matters."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.batching import BatchLimits
from service.binding import BoundSession
from service.devices import HostDevice
from service.engine import Engine
from service.errors import EngineError
from service.settings import EngineSettings

LIMITS = BatchLimits(max_patches=200, max_images=8, overhead_patches=0)


@pytest.fixture(scope="module")
def plain(artifact: Path) -> Engine:
    return Engine(EngineSettings(model=artifact))


@pytest.fixture(scope="module")
def bound(artifact: Path) -> Engine:
    return Engine(EngineSettings(model=artifact, length_buckets="auto"), HostDevice())


def batch(seed: int, images: int, length: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (images, length, 48), np.uint8), np.tile(np.array([[1, length]]), (images, 1))


def test_any_arrays_get_the_answers_of_the_plain_path(plain: Engine, bound: Engine) -> None:
    bound.warm_up()
    for seed, (images, length) in enumerate([(1, 49), (3, 20), (8, 25), (2, 1)]):
        arrays = batch(seed, images, length)
        np.testing.assert_array_equal(bound.run(*arrays), plain.run(*arrays))


def test_both_buffers_keep_their_own_batch_in_every_shape(plain: Engine, bound: Engine) -> None:
    memory = bound.open_memory(LIMITS)
    assert len(memory.buffers) == 2
    for seed, (images, length) in enumerate([(8, 25), (1, 100), (3, 2), (2, 100), (1, 1)]):
        held = []
        for number, buffer in enumerate(memory.buffers):
            source = batch(2 * seed + number, images, length)
            patches, grid = buffer.shaped(images, length, 48)
            patches[:], grid[:] = source
            buffer.ready(patches, grid)
            held.append((patches, grid, source))
        for patches, grid, source in held:
            assert patches.flags.c_contiguous
            np.testing.assert_array_equal(bound.run(patches, grid), plain.run(*source))


def test_arrays_that_were_not_made_ready_are_copied_by_the_run(plain: Engine, bound: Engine) -> None:
    buffer = bound.open_memory(LIMITS).buffers[0]
    for seed in (1, 2):
        patches, grid = buffer.shaped(2, 10, 48)
        patches[:], grid[:] = batch(seed, 2, 10)
        np.testing.assert_array_equal(bound.run(patches, grid), plain.run(*batch(seed, 2, 10)))


def test_a_batch_over_the_limits_runs_from_memory_of_its_own(plain: Engine, bound: Engine) -> None:
    buffer = bound.open_memory(LIMITS).buffers[0]
    for images, length in [(9, 4), (8, 100)]:
        patches, grid = buffer.shaped(images, length, 48)
        patches[:], grid[:] = batch(3, images, length)
        buffer.ready(patches, grid)
        np.testing.assert_array_equal(bound.run(patches, grid), plain.run(*batch(3, images, length)))


class BrokenDevice(HostDevice):
    def copy_in(self, target: int, source: NDArray[Any]) -> None:
        raise OSError("cudaMemcpyAsync failed with CUDA error 700")


def test_a_device_that_fails_is_a_failed_batch(artifact: Path) -> None:
    engine = Engine(EngineSettings(model=artifact), BrokenDevice())
    buffer = engine.open_memory(LIMITS).buffers[0]
    arrays = buffer.shaped(1, 4, 48)
    with pytest.raises(EngineError, match="700"):
        buffer.ready(*arrays)
    with pytest.raises(EngineError, match="700"):
        engine.run(*arrays)


class Recorder:
    """Stands for onnxruntime, its session, its bindings and its run options, and writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.OrtValue = self
        self._addresses = iter(range(1000, 10_000, 1000))

    def ortvalue_from_shape_and_type(self, shape: list[int], _: Any, kind: str, number: int) -> Any:
        address = next(self._addresses)
        self.calls.append(("allocate", kind, number, shape[0]))
        return type("Block", (), {"data_ptr": lambda _: address})()

    def io_binding(self) -> "Recorder":
        return self

    def RunOptions(self) -> "Recorder":  # noqa: N802 - onnxruntime's name
        return self

    def add_run_config_entry(self, key: str, value: str) -> None:
        self.calls.append((key, value))

    def bind_input(self, name: str, kind: str, number: int, _: Any, shape: tuple[int, ...], address: int) -> None:
        self.calls.append(("input", name, kind, number, shape, address))

    def bind_cpu_input(self, name: str, array: NDArray[Any]) -> None:
        self.calls.append(("input", name, "copied", array.shape))

    def bind_output(self, name: str, kind: str, number: int, *memory: Any) -> None:
        self.calls.append(("output", name, kind, number, *memory[1:]))

    def run_with_iobinding(self, *_: Any) -> None:
        self.calls.append(("run",))

    def copy_outputs_to_cpu(self) -> list[NDArray[np.float32]]:
        self.calls.append(("fetch",))
        return [np.zeros((2, 3), np.float32)]


class RecordedGpu(HostDevice):
    kind = "cuda"
    number = 5

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def copy_in(self, target: int, source: NDArray[Any]) -> None:
        self._recorder.calls.append(("copy", target, source.shape))


def test_a_run_on_a_gpu_copies_then_binds_then_runs_then_fetches() -> None:
    recorder = Recorder()
    session = BoundSession(recorder, recorder, RecordedGpu(recorder), classes=3, graphs=False)
    [buffer] = session.open_buffers(1, 96, 4, [])
    assert recorder.calls == [("allocate", "cuda", 5, 96), ("allocate", "cuda", 5, 64), ("allocate", "cuda", 5, 48)]
    recorder.calls.clear()
    arrays = buffer.shaped(2, 4, 12)
    buffer.ready(*arrays)
    session.run(*arrays)
    assert recorder.calls == [
        ("copy", 1000, (2, 4, 12)),
        ("copy", 2000, (2, 2)),
        ("input", "patches", "cuda", 5, (2, 4, 12), 1000),
        ("input", "grid", "cuda", 5, (2, 2), 2000),
        ("output", "logits", "cuda", 5, (2, 3), 3000),
        ("run",),
        ("fetch",),
    ]


def test_each_shape_of_each_buffer_has_a_graph_of_its_own_and_other_shapes_none() -> None:
    recorder = Recorder()
    session = BoundSession(recorder, recorder, RecordedGpu(recorder), classes=3, graphs=True)
    buffers = session.open_buffers(2, 96, 4, [(2, 4), (1, 4)])
    for buffer in buffers:
        for shape in [(2, 4), (1, 4), (1, 3), (2, 4)]:
            session.run(*buffer.shaped(*shape, 12))
    session.run(np.zeros((2, 4, 12), np.uint8), np.ones((2, 2), np.int64))
    ids = [value for key, *value in recorder.calls if key == "gpu_graph_id"]
    assert ids == [["1"], ["2"], ["-1"], ["1"], ["3"], ["4"], ["-1"], ["3"], ["-1"]]
    assert "0" not in {each for [each] in ids}, "reserved by onnxruntime"
