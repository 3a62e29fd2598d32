"""Attention is added to an artifact without its checkpoint: to the bundled model, as it was before it had any."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_artifact import write_artifact

from export.attention_output import add_attention
from export.graph import ExportError
from export.verify import open_session
from model.manifest import METADATA_KEY, Manifest
from service.engine import bundled_model
from service.onnx_pruning import without_output


def test_it_is_what_it_was_and_has_attention(tmp_path: Path) -> None:
    plain = onnx.load_from_string(without_output(bundled_model().read_bytes(), "attention"))
    whole = open_session(bundled_model())
    manifest = Manifest.from_json(whole.get_modelmeta().custom_metadata_map[METADATA_KEY])
    onnx.helper.set_model_props(plain, {METADATA_KEY: replace(manifest, explain=False).to_json()})
    onnx.save(add_attention(plain), tmp_path / "added.onnx")
    added = open_session(tmp_path / "added.onnx")
    assert Manifest.from_json(added.get_modelmeta().custom_metadata_map[METADATA_KEY]) == manifest
    patches = np.random.default_rng(0).integers(0, 256, (2, 20, 48), np.uint8)
    feed = {"patches": patches, "grid": np.array([[4, 5], [2, 1]])}
    for found, expected in zip(added.run(None, feed), whole.run(None, feed), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_attention_that_is_no_operator_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="exports of opset 24"):
        add_attention(onnx.load(write_artifact(tmp_path / "tiny.onnx")))
