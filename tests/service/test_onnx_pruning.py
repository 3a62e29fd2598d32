from collections import Counter

import onnx
import pytest
from tiny_artifact import build_model

from service.onnx_pruning import without_output


def test_an_output_goes_with_the_nodes_that_nothing_else_needs() -> None:
    whole, plain = build_model(attention=True), build_model()
    pruned = onnx.load_from_string(without_output(whole.SerializeToString(), "attention"))
    onnx.checker.check_model(pruned, full_check=True)
    assert pruned.graph.node == plain.graph.node
    assert pruned.graph.output == plain.graph.output
    assert pruned.graph.input == whole.graph.input
    assert pruned.graph.initializer == whole.graph.initializer
    assert (pruned.opset_import, pruned.ir_version) == (whole.opset_import, whole.ir_version)


def test_nodes_that_another_output_needs_stay() -> None:
    pruned = onnx.load_from_string(without_output(build_model(attention=True).SerializeToString(), "logits"))
    gone = Counter(node.output[0] for node in build_model(attention=True).graph.node)
    gone.subtract(node.output[0] for node in pruned.graph.node)
    assert +gone == {"logits": 1}


@pytest.mark.parametrize("content", [build_model().SerializeToString(), b"", b"no model", b"\x3a\x05ab", b"\x38\x01"])
def test_what_has_no_such_output_or_is_no_model_stays_as_it_is(content: bytes) -> None:
    assert without_output(content, "attention") is content
