import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from tiny_artifact import MANIFEST, build_model

from model.manifest import METADATA_KEY
from service.onnx_file import metadata_of, opset_of


def model(opsets: list[tuple[str, int]], **properties: str) -> bytes:
    made = build_model()
    del made.opset_import[:]
    made.opset_import.extend(helper.make_opsetid(*each) for each in opsets)
    helper.set_model_props(made, properties)
    return bytes(made.SerializeToString())


@pytest.mark.parametrize(
    ("opsets", "found"),
    [
        ([("", 24)], 24),
        ([("ai.onnx", 18)], 18),
        ([("com.microsoft", 1), ("", 300)], 300),
        ([("com.microsoft", 1)], None),
        ([], None),
    ],
)
def test_the_version_of_the_standard_operators(opsets: list[tuple[str, int]], found: int | None) -> None:
    assert opset_of(model(opsets)) == found


def test_metadata_is_what_was_written() -> None:
    content = model([("", 17)], other="x", **{METADATA_KEY: MANIFEST.to_json()})
    assert metadata_of(content, METADATA_KEY) == MANIFEST.to_json()
    assert metadata_of(content, "missing") is None
    assert onnx.load_from_string(content).metadata_props[0].value == metadata_of(
        content, onnx.load_from_string(content).metadata_props[0].key
    )


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_an_error(content: bytes) -> None:
    assert opset_of(content) is None or isinstance(opset_of(content), int)
    assert metadata_of(content, "key") is None or isinstance(metadata_of(content, "key"), str)


@given(st.integers(0, 300))
def test_a_file_that_ends_early_says_nothing_or_the_truth(cut: int) -> None:
    content = model([("", 24)])
    assert opset_of(content[:-cut] if cut else content) in {24, None}
