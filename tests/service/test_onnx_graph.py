import contextlib
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tiny_artifact import build_model

import service
from service.onnx_graph import Value, read_graph

BUNDLED = Path(service.__file__).parents[1] / "model" / "bundled" / "fashion-mnist.onnx"


@pytest.mark.parametrize("content", [build_model().SerializeToString(), BUNDLED.read_bytes()], ids=["tiny", "bundled"])
def test_the_graph_is_what_the_onnx_package_reads(content: bytes) -> None:
    graph, expected = read_graph(content), onnx.load_from_string(content)
    assert graph.ir_version == expected.ir_version
    assert graph.opsets == {each.domain or "ai.onnx": each.version for each in expected.opset_import}
    kinds = [
        node.op_type if node.domain in {"", "ai.onnx"} else f"{node.domain}.{node.op_type}"
        for node in expected.graph.node
    ]
    assert dict(graph.operators) == {kind: kinds.count(kind) for kind in kinds}
    assert [(weight.name, weight.shape, weight.type, weight.bytes) for weight in graph.weights] == [
        (
            each.name,
            tuple(each.dims),
            onnx.numpy_helper.to_array(each).dtype.name,
            onnx.numpy_helper.to_array(each).nbytes,
        )
        for each in expected.graph.initializer
    ]
    assert [value.name for value in graph.inputs] == [each.name for each in expected.graph.input]
    assert [value.name for value in graph.outputs] == [each.name for each in expected.graph.output]


def test_axes_have_lengths_or_names() -> None:
    graph = read_graph(build_model(length=9).SerializeToString())
    assert graph.inputs[0] == Value("patches", "uint8", ("batch", 9, 48))
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 0, "n"])
    model = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [info], []))
    assert read_graph(model.SerializeToString()).inputs == (Value("x", "float32", ("?", 0, "n")),)


def test_operators_of_others_are_told_apart() -> None:
    nodes = [helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft"), helper.make_node("Gelu", ["y"], ["z"])]
    graph = read_graph(helper.make_model(helper.make_graph(nodes, "g", [], [])).SerializeToString())
    assert dict(graph.operators) == {"com.microsoft.Gelu": 1, "Gelu": 1}


def test_packed_shapes_are_read_too() -> None:
    tensor = bytes([10, 2, 2, 3, 16, 1, 66, 1, 119])  # dims 2 and 3 packed, float32, named w
    graph = bytes([10, 4, 34, 2, 79, 112, 42, len(tensor)]) + tensor
    [weight] = read_graph(bytes([58, len(graph)]) + graph).weights
    assert (weight.name, weight.shape, weight.bytes, weight.values) == ("w", (2, 3), 24, 6)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_a_value_error(content: bytes) -> None:
    with contextlib.suppress(ValueError):
        read_graph(content)


@given(st.data())
def test_a_damaged_model_is_read_or_a_value_error(data: st.DataObject) -> None:
    content = bytearray(build_model().SerializeToString())
    for _ in range(3):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        read_graph(bytes(content))


@pytest.mark.parametrize("content", [b"", b"plain text", b"\xff\xd8\xff\xe0", bytes([58, 0])])
def test_what_is_no_model_is_said(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"graph|field|number|wire"):
        read_graph(content)
