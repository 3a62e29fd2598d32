"""Whatever the bytes are, reading a request ends with a request or a refusal."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from infer_bodies import binary_images, binary_patches, json_images, json_patches, packed, with_binary
from tiny_artifact import MANIFEST

from service.errors import BadInference
from service.v2 import tensors
from service.v2.body import json_length, read_request
from service.v2.documents import MOST_LISTS, MOST_MEMBERS, MOST_VALUES, read_document
from service.v2.inputs import read_inputs

SPEC = MANIFEST.preprocessing
EXAMPLES = max(300, settings().max_examples)
PATCHES = np.arange(2 * 6 * SPEC.patch_dim, dtype=np.uint8).reshape(2, 6, SPEC.patch_dim)
SEEDS = [
    (json.dumps(json_images(b"a", b"bc")).encode(), {}),
    (json.dumps(json_patches(PATCHES[:, :2, :], [(1, 2), (1, 1)])).encode(), {}),
    binary_images(b"a", b"bc", b""),
    binary_patches(PATCHES, [(2, 3), (1, 4)]),
    (packed(b"a"), {"Inference-Header-Content-Length": "0"}),
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([0, 1, 2, 6, SPEC.patch_dim, 2**31, 2**63, "image", "patches", "grid", "BYTES", "UINT8", "INT64"]),
    st.text(max_size=8),
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner)
)


def read(body: bytes, headers: dict[str, str]) -> int:
    """As the service does it; the number of images."""
    lower = {name.lower(): value for name, value in headers.items()}
    _, found = read_request(body, json_length(lower, len(body)))
    images, sequences = read_inputs(found, SPEC, 4)
    for each in sequences:
        assert each.patches.shape == (each.grid[0] * each.grid[1], SPEC.patch_dim)
        assert len(each.patches) <= SPEC.max_patches
    assert not (images and sequences)
    return len(images) + len(sequences)


def survive(body: bytes, headers: dict[str, str]) -> None:
    try:
        assert 1 <= read(body, headers) <= 4
    except BadInference:
        return


def test_the_seeds_are_good() -> None:
    assert [read(*seed) for seed in SEEDS] == [2, 2, 3, 2, 1]


@settings(max_examples=EXAMPLES)
@given(st.sampled_from(SEEDS), st.data())
def test_changed_bytes(seed: tuple[bytes, dict[str, str]], data: st.DataObject) -> None:
    body, headers = bytearray(seed[0]), dict(seed[1])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        new = data.draw(st.binary(max_size=6) | st.sampled_from([b",", b"[", b"]", b'"', b"NaN", b"-1", b"9" * 30]))
        body[at : at + data.draw(st.integers(0, 8))] = new
    if data.draw(st.booleans()):
        headers["Inference-Header-Content-Length"] = data.draw(st.text(max_size=4) | st.integers(-2, 5000).map(str))
    survive(bytes(body), headers)


@settings(max_examples=EXAMPLES)
@given(st.sampled_from([0, 1]), st.data())
def test_a_changed_member(which: int, data: st.DataObject) -> None:
    document = json.loads(SEEDS[which][0])
    place: Any = document
    while isinstance(place, dict | list) and place:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else list(range(min(3, len(place))))))
        if data.draw(st.booleans()) or not isinstance(place[key], dict | list):
            place[key] = data.draw(ANYTHING)
            break
        place = place[key]
    survive(json.dumps(document).encode(), {})


@settings(max_examples=EXAMPLES)
@given(st.lists(st.integers(-(2**65), 2**65), max_size=4), st.integers(-(2**65), 2**65), st.binary(max_size=64))
@example([2**31 - 1] * 3, 0, b"")
@example([1, 1, SPEC.patch_dim], SPEC.patch_dim, bytes(SPEC.patch_dim))
def test_any_shape_and_size(shape: list[int], size: int, blob: bytes) -> None:
    inputs = [
        {"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": size}}
        for name, kind in (("patches", "UINT8"), ("grid", "INT64"))
    ]
    survive(*with_binary({"inputs": inputs}, blob))
    survive(*with_binary({"inputs": inputs[:1]}, blob))


@given(ANYTHING)
def test_any_document(document: Any) -> None:
    survive(json.dumps(document).encode(), {})


def test_binary_patches_are_not_copied() -> None:
    body, headers = SEEDS[3]
    _, found = read_request(body, int(headers["Inference-Header-Content-Length"]))
    _, sequences = read_inputs(found, SPEC, 4)
    whole = np.frombuffer(body, np.uint8)
    assert all(np.shares_memory(each.patches, whole) for each in sequences)
    np.testing.assert_array_equal(sequences[1].patches, PATCHES[1, :4])


def test_json_of_too_many_values_is_refused_before_it_is_read() -> None:
    with pytest.raises(BadInference) as caught:
        read_document(b"," * MOST_VALUES)
    assert str(MOST_VALUES) in caught.value.detail
    with pytest.raises(BadInference, match="bad_inference") as caught:
        read_document(b"," * (MOST_VALUES - 1))
    assert "cannot be read" in caught.value.detail


def test_json_of_too_many_lists_or_members_is_refused_before_it_is_read() -> None:
    for text in (b":" * (MOST_MEMBERS + 1), b"[" * (MOST_LISTS + 1), b"{" * (MOST_LISTS + 1)):
        with pytest.raises(BadInference, match="bad_inference") as caught:
            read_document(text)
        assert str(MOST_MEMBERS) in caught.value.detail
    good = json.dumps(json_images(b"a") | {"own": {str(each): 0 for each in range(MOST_MEMBERS - 10)}})
    assert read_document(good.encode()).inputs[0].name == "image"


def test_an_escape_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a reader that lets a foreign error through."""
    monkeypatch.setattr(tensors, "_BASE64", None)
    monkeypatch.setattr(tensors, "_flat", lambda _: {}[0])
    with pytest.raises(KeyError):
        survive(*SEEDS[0])
