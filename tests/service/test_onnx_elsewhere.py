"""Whatever holds a tensor may hold one whose values are in another file."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper
from tiny_artifact import build_model

from service.onnx_elsewhere import keeps_weights_elsewhere


def elsewhere() -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights")
    return tensor


def constant(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=tensor)


def in_a_subgraph(model: ModelProto) -> None:
    inner = helper.make_graph([constant(elsewhere())], "inner", [], [])
    outer = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=inner)], "outer", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], else_branch=outer))


def in_a_function(model: ModelProto) -> None:
    opset = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "f", [], ["c"], [constant(elsewhere())], opset))


def in_a_list(model: ModelProto) -> None:
    tensors = AttributeProto(name="values", type=AttributeProto.TENSORS, tensors=[elsewhere()])
    model.graph.node[0].attribute.append(tensors)


def in_a_sparse_tensor(model: ModelProto) -> None:
    model.graph.sparse_initializer.add().values.CopyFrom(elsewhere())


PLACES: dict[str, Callable[[ModelProto], object]] = {
    "a weight": lambda model: model.graph.initializer.append(elsewhere()),
    "a constant": lambda model: model.graph.node.append(constant(elsewhere())),
    "a subgraph of a subgraph": in_a_subgraph,
    "a function": in_a_function,
    "a list of tensors": in_a_list,
    "a sparse tensor": in_a_sparse_tensor,
    "a graph for training": lambda model: model.training_info.add().algorithm.initializer.append(elsewhere()),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_it_is_found_wherever_it_is(place: Callable[[ModelProto], object]) -> None:
    model = build_model(attention=True)
    model.graph.node.append(constant(numpy_helper.from_array(np.ones(3, np.float32))))
    assert not keeps_weights_elsewhere(model.SerializeToString())
    place(model)
    assert keeps_weights_elsewhere(model.SerializeToString())


@pytest.mark.parametrize("content", [b"this is no model", b"\x0b\x0c"])
def test_what_cannot_be_read_is_no_model(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        keeps_weights_elsewhere(content)
