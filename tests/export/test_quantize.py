"""int8: real images calibrate it, what comes out keeps the contract, and a bad one is refused."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from export import to_onnx
from export.calibration import Quality, QualityLimits, compare_quality
from export.quantize import Observed
from model.checkpoints import native
from model.checkpoints.native import Description
from model.manifest import Manifest
from model.vit import VisionTransformer, decode_variant

LABELS = ("a", "b", "c")


def products_saturate() -> bool:
    """Whether integer products come out wrong for large values: without VNNI two of them meet in 16 bits."""
    node = onnx.helper.make_node("MatMulInteger", ["a", "b"], ["c"])
    shapes = {"a": (onnx.TensorProto.UINT8, [16, 64]), "c": (onnx.TensorProto.INT32, [16, 64])}
    values = {name: onnx.helper.make_tensor_value_info(name, *shape) for name, shape in shapes.items()}
    weight = onnx.numpy_helper.from_array(np.full((64, 64), 127, np.int8), "b")
    graph = onnx.helper.make_graph([node], "product", [values["a"]], [values["c"]], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (product,) = session.run(None, {"a": np.full((16, 64), 255, np.uint8)})
    return bool((product != 64 * 255 * 127).any())


needs_exact_products = pytest.mark.skipif(
    products_saturate(), reason="int8 products saturate on this processor (no VNNI), and the export refuses the model"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint `m.safetensors`, and `images` of one folder a class."""
    root, draw = tmp_path_factory.mktemp("int8"), np.random.default_rng(0)
    torch.manual_seed(0)
    model = VisionTransformer(*decode_variant("Femto/7", classes=3))
    native.save(root / "m.safetensors", model, Description(LABELS, "tiny"))
    for index in range(12):
        path = root / "images" / LABELS[index % 3] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (28 + index, 30, 3), np.uint8)).save(path)
    return root


def export(monkeypatch: pytest.MonkeyPatch, folder: Path, output: Path, *options: str | Path) -> None:
    arguments = [folder / "m.safetensors", "-o", output, "--precision", "int8", "--quick-check", *options]
    monkeypatch.setattr(sys, "argv", ["to_onnx", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        to_onnx.main()
    if stopped.value.code not in (None, 0):
        raise RuntimeError(str(stopped.value.code))


@needs_exact_products
@pytest.mark.parametrize("opset", ["24", "18"])
def test_an_int8_artifact_keeps_the_contract(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, opset: str
) -> None:
    output = tmp_path / "tiny.onnx"
    images = folder / "images"
    explain = ["--explain"] if opset == "24" else []
    export(monkeypatch, folder, output, "--calibrate", images, "--max-accuracy-loss", "100", "--opset", opset, *explain)
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.onnx"]
    model = onnx.load(output)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", int(opset))]
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["QuantizeLinear"] == 4 * 5 + 1  # of 6 blocks; in the last one of the keys and values alone
    session = onnxruntime.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    manifest = Manifest.from_json(session.get_modelmeta().custom_metadata_map["patchserve"])
    assert (manifest.precision, manifest.labels) == ("int8", LABELS)

    draw = np.random.default_rng(0)
    grids = np.array([(4, 4), (1, 1), (2, 9), (8, 8)], np.int64)
    patches = draw.integers(0, 256, (4, 64, 147), np.uint8)
    names = ["logits", "embedding", *(["attention"] if explain else [])]
    assert [each.name for each in session.get_outputs()] == names
    together = session.run(None, {"patches": patches, "grid": grids})
    for index, (rows, columns) in enumerate(grids):
        own = {"patches": patches[index : index + 1, : rows * columns], "grid": grids[index : index + 1]}
        for alone, batched in zip(session.run(None, own), together, strict=True):
            np.testing.assert_allclose(alone[0], batched[index, : alone.shape[1]], atol=1e-4, rtol=0)


def test_a_loss_over_the_limit_is_refused_and_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError, match=r"int8 is not good enough, and nothing was written: top-1 falls by"):
        export(
            monkeypatch, folder, tmp_path / "no.onnx", "--calibrate", folder / "images", "--max-accuracy-loss", "-101"
        )
    assert list(tmp_path.iterdir()) == []
    assert "int8 beside float32 on 12 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name a folder of typical ones with --calibrate"),
        (["--calibrate", "empty"], "empty: no image"),
        (["--calibrate", "empty", "--drop-head"], "a feature extractor has none"),
    ],
)
def test_a_wrong_call_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match=f"^error: .*{message}"):
        export(monkeypatch, folder, tmp_path / "no.onnx", *options)
    assert list(tmp_path.iterdir()) == []


def test_agreement_decides_without_labels_and_top1_with_them() -> None:
    exact, rounded = np.array([0, 1, 2, 2]), np.array([0, 1, 2, 1])
    blind = compare_quality(exact, rounded, None)
    assert blind == Quality(4, 75.0, None)
    assert "--min-agreement" in str(blind.problem(QualityLimits()))
    assert blind.problem(QualityLimits(least_agreement=75)) is None
    better = compare_quality(exact, rounded, [0, 1, 2, 1])
    assert better.top1 == (75.0, 100.0)
    assert better.problem(QualityLimits()) is None
    worse = compare_quality(exact, rounded, [0, 1, 2, 2])
    assert "top-1 falls by 25.00 points" in str(worse.problem(QualityLimits()))


def test_an_interval_cuts_long_tails_and_holds_zero() -> None:
    draw = np.random.default_rng(0)
    tails, positive = Observed(), Observed()
    tails.add(draw.laplace(0, 1, 20_000).astype(np.float32), draw)
    low, high = tails.interval()
    assert tails.low < low < -3
    assert 3 < high < tails.high
    positive.add(draw.uniform(1, 2, 1000).astype(np.float32), draw)
    assert positive.interval() == (0.0, positive.high)
