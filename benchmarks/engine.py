"""Our artifact in ONNX Runtime beside PyTorch, torch.compile and OpenVINO on two threads of a CPU.

    pip install openvino nncf timm
    python -m benchmarks.engine --prepare-only          # export, quantise and compile into --cache
    python -m benchmarks.engine --variants Ti/16 --batches 1,8,32 --seconds 25

Random weights, 196 patches of random pixels, native grid. Ours: `python -m export.to_onnx --random VARIANT` with the
session options of the service, and with threads that spin while a run lasts (`spin`); int8 by export.quantize,
calibrated on the same random pixels (its accuracy is measured elsewhere, on a trained model). PyTorch and
torch.compile: timm's model of the same architecture, which was faster than ours there. OpenVINO: timm's model by
`convert_model`, and our own artifact; latency hint, float32 and bfloat16 by the inference precision, int8 by NNCF with
its settings for transformers and eight images. OpenVINO and PyTorch begin with normalised float pixels, ours with uint8
patches. `by 8` runs a batch of 32 as four of 8: the service never makes batches over 2,048 patches (10 such images).
`lanes` runs the batch in parts, two at a time on one thread each, as the service does by default (one image alone has
both threads); beside it stand OpenVINO's `streams`, its own way to do so.

Each round visits every engine in turn. A visit sleeps first, so that spinning threads of the one before have stopped,
runs once unmeasured where a run is short, and then for 0.1 s. Printed: the median of images/s, and the median over
rounds of the ratio to ours, int8 against int8 and the rest against float32. Recorded runs are in
docs/performance/engine.md.
"""

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx_ir as ir
import typer
from numpy.typing import NDArray

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

THREADS = 2
_TIMM = {"Ti/16": "vit_tiny_patch16_224", "S/16": "vit_small_patch16_224", "B/16": "vit_base_patch16_224"}
_CACHE = Path(tempfile.gettempdir()) / "patchserve-engines"
_PAUSE_S, _VISIT_S = 0.03, 0.1
Run = Callable[[], Any]


def feed(batch: int) -> dict[str, NDArray[Any]]:
    """Random pixels of 14x14 patches: uint8 `[B, 196, 768]` and the grids."""
    draw = np.random.default_rng(0)
    return {
        "patches": draw.integers(0, 256, (batch, 196, 768), np.uint8),
        "grid": np.full((batch, 2), 14, np.int64),
    }


def pixels(batch: int) -> NDArray[np.float32]:
    """Normalised random images `[B, 3, 224, 224]`."""
    return np.random.default_rng(0).normal(size=(batch, 3, 224, 224)).astype(np.float32)


def artifacts(variant: str, folder: Path) -> dict[str, Path]:
    """Our float32 and int8 files, made if they are not there."""
    from export.artifact import make_manifest  # noqa: PLC0415 - seconds, and not needed once the files are there
    from export.graph import build_graph  # noqa: PLC0415
    from export.quantize import layers, observe, quantize  # noqa: PLC0415
    from export.random_weights import random_source  # noqa: PLC0415

    stem = variant.replace("/", "-")
    exact, rounded = folder / f"{stem}.onnx", folder / f"{stem}-int8.onnx"
    if not rounded.exists():
        source = random_source(variant, None, "float32")
        ir.save(build_graph(source.model, make_manifest(source, "float32"), 24), exact)
        graph, config = ir.load(exact), source.model.config
        names = [str(node.inputs[0].name) for node in layers(graph.graph, config) if node.inputs[0]]
        seen = observe(exact, names, [feed(8)], folder / "scratch.onnx")
        (folder / "scratch.onnx").unlink()
        quantize(graph, config, {name: values.interval() for name, values in seen.items()})
        ir.save(graph, rounded)
    return {"float32": exact, "int8": rounded}


def ours(path: Path, batch: int, *, spin: bool, most: int = 32) -> Run:
    """A session as `service.engine` opens it, with or without threads that spin during a run; `most` images at once."""
    session = _session(path, THREADS, spin=spin)
    return lambda: [session.run(["logits"], part) for part in _parts(batch, most)]


def in_lanes(path: Path, batch: int, lanes: ThreadPoolExecutor) -> Run:
    """The same batch as the service runs it by default: in parts, as many at a time as there are cores."""
    session = _session(path, 1, spin=False)
    return lambda: list(lanes.map(lambda part: session.run(["logits"], part), _parts(batch, _share(batch))))


def _session(path: Path, threads: int, *, spin: bool) -> Any:
    import onnxruntime  # noqa: PLC0415 - after ORT_DISABLE_TELEMETRY is set

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@cache
def _parts(batch: int, most: int) -> list[dict[str, NDArray[Any]]]:
    inputs = feed(batch)
    return [{key: array[low : low + most] for key, array in inputs.items()} for low in range(0, batch, most)]


def _share(batch: int) -> int:
    """Images of one lane's run: an equal part, and no more than the service takes."""
    return min(8, batch // THREADS)


def torch_runs(variant: str, batch: int) -> dict[str, Run]:
    """The model of timm, eager and compiled for this batch."""
    import timm  # noqa: PLC0415
    import torch  # noqa: PLC0415

    torch.set_num_threads(THREADS)
    model, images = timm.create_model(_TIMM[variant]).eval(), torch.from_numpy(pixels(batch))
    compiled = torch.compile(model, dynamic=False)

    def run(module: Callable[[Any], Any]) -> Run:
        def forward() -> None:
            with torch.inference_mode():
                module(images)

        return forward

    return {"PyTorch eager": run(model), "torch.compile": run(compiled)}


def openvino_runs(variant: str, batch: int, folder: Path, artifact: Path, lanes: ThreadPoolExecutor) -> dict[str, Run]:
    """The model of timm in three precisions, and our artifact in float32; of two precisions in parts, too."""
    import openvino  # noqa: PLC0415

    core, images, patches = openvino.Core(), pixels(batch), feed(batch)
    exact, rounded = _openvino_models(variant, folder)

    def in_streams(model: Any) -> Run:
        """As `in_lanes`, in its own terms: a stream of one thread for each of several requests at a time."""
        hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": THREADS, "NUM_STREAMS": THREADS}
        compiled = core.compile_model(model, "CPU", hints | {"PERFORMANCE_HINT": "THROUGHPUT"})
        share = _share(batch)
        parts = [images[low : low + share] for low in range(0, batch, share)]
        requests = threading.local()

        def infer(part: NDArray[np.float32]) -> None:
            if not hasattr(requests, "mine"):
                requests.mine = compiled.create_infer_request()
            requests.mine.infer([part], share_inputs=True)

        return lambda: list(lanes.map(infer, parts))

    def run(model: Any, precision: str, inputs: Any) -> Run:
        hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY"}
        request = core.compile_model(model, "CPU", hints).create_infer_request()
        return lambda: request.infer(inputs, share_inputs=True)

    return {
        "OpenVINO f32": run(exact, "f32", [images]),
        "OpenVINO f32, our file": run(artifact, "f32", patches),
        "OpenVINO bf16": run(exact, "bf16", [images]),
        "OpenVINO int8": run(rounded, "f32", [images]),
    } | (
        {"OpenVINO f32, streams": in_streams(exact), "OpenVINO int8, streams": in_streams(rounded)} if batch > 1 else {}
    )


def _openvino_models(variant: str, folder: Path) -> tuple[Path, Path]:
    """The model of timm for OpenVINO in float32 and quantised by NNCF, made if they are not there."""
    stem = variant.replace("/", "-")
    exact, rounded = folder / f"{stem}-openvino.xml", folder / f"{stem}-openvino-int8.xml"
    if not rounded.exists():
        import nncf  # noqa: PLC0415
        import openvino  # noqa: PLC0415
        import timm  # noqa: PLC0415
        import torch  # noqa: PLC0415

        model = timm.create_model(_TIMM[variant]).eval()
        converted = openvino.convert_model(model, example_input=torch.zeros(1, 3, 224, 224))
        openvino.save_model(converted, exact, compress_to_fp16=False)
        data = nncf.Dataset([pixels(1)] * 8)
        quantised = nncf.quantize(converted, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=8)
        openvino.save_model(quantised, rounded, compress_to_fp16=False)
    return exact, rounded


def engines(variant: str, batch: int, folder: Path, lanes: ThreadPoolExecutor) -> dict[str, Run]:
    """Everything that is compared, ours first."""
    paths = artifacts(variant, folder)
    return (
        {
            "ours": ours(paths["float32"], batch, spin=False),
            "ours, spin": ours(paths["float32"], batch, spin=True),
            "ours int8": ours(paths["int8"], batch, spin=False),
            "ours int8, spin": ours(paths["int8"], batch, spin=True),
        }
        | (
            {
                "ours, spin, by 8": ours(paths["float32"], batch, spin=True, most=8),
                "ours int8, spin, by 8": ours(paths["int8"], batch, spin=True, most=8),
            }
            if batch > 8
            else {}
        )
        | (
            {
                "ours, lanes": in_lanes(paths["float32"], batch, lanes),
                "ours int8, lanes": in_lanes(paths["int8"], batch, lanes),
            }
            if batch > 1
            else {}
        )
        | openvino_runs(variant, batch, folder, paths["float32"], lanes)
        | torch_runs(variant, batch)
    )


def measure(runs: Mapping[str, Run], seconds: float) -> dict[str, list[float]]:
    """Seconds of one run, a value a round, until the time is over; at least three rounds."""
    warm = {name: _time(run, 1) for name, run in runs.items() for _ in range(2)}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken["ours"]) < 3:
        for name, run in runs.items():
            time.sleep(_PAUSE_S)
            if warm[name] < _VISIT_S:
                run()
            taken[name].append(_time(run, max(1, int(_VISIT_S / warm[name]))))
    return taken


def _time(run: Run, times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - started) / times


def _show(variant: str, batch: int, taken: dict[str, list[float]]) -> None:
    rounds = len(taken["ours"])
    for name, times in taken.items():
        rate = batch / statistics.median(times)
        ours = "ours int8" if "int8" in name else "ours"
        bases = [base for base in (ours, f"{ours}, spin", f"{ours}, lanes") if base in taken]
        ratios = " | ".join(f"{statistics.median(map(_ratio, times, taken[base])):.2f}" for base in bases)
        print(f"{variant} | {batch} | {rounds} | {name} | {rate:.1f} | {ratios}", flush=True)


def _ratio(theirs_s: float, ours_s: float) -> float:
    return theirs_s / ours_s


def command(
    variants: Annotated[str, typer.Option(help="Separated by commas.")] = "Ti/16,S/16,B/16",
    batches: Annotated[str, typer.Option(help="Separated by commas.")] = "1,8,32",
    seconds: Annotated[float, typer.Option(help="Of measuring, for each variant and batch.")] = 25,
    folder: Annotated[Path, typer.Option("--cache", help="Where models are kept.")] = _CACHE,
    prepare_only: Annotated[bool, typer.Option("--prepare-only", help="Make the models, measure nothing.")] = False,
) -> None:
    """Measure every engine on every variant and batch."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
    print("variant | batch | rounds | engine | images/s | ours is x faster | ours with spin | ours in lanes")
    lanes = ThreadPoolExecutor(THREADS)
    for variant in variants.split(","):
        for batch in map(int, batches.split(",")):
            runs = engines(variant, batch, folder, lanes)
            if prepare_only:
                for run in runs.values():
                    run()
            else:
                _show(variant, batch, measure(runs, seconds))


if __name__ == "__main__":
    typer.run(command)
