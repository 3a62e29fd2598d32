"""docs/artifact.md: its table is that of the manifest, and its minimal artifact keeps what the page promises."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from page_examples import ROOT, examples

from model.manifest import METADATA_KEY, Manifest
from service.engine import Engine
from service.errors import StartError
from service.settings import EngineSettings

PATH = ROOT / "docs" / "artifact.md"


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that the program of the page writes."""
    folder = tmp_path_factory.mktemp("artifact")
    program = next(each.text for each in examples(PATH) if each.language == "python")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(program, PATH.name, "exec"), {})  # noqa: S102
    return folder / "colours.onnx"


@pytest.fixture(scope="module")
def engine(colours: Path) -> Engine:
    engine = Engine(EngineSettings(model=colours))
    engine.warm_up()
    return engine


def test_the_table_has_the_fields_of_the_manifest(engine: Engine) -> None:
    table = PATH.read_text("utf-8").partition("| field |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == {
        *json.loads(engine.model.manifest.to_json()),
        "explain",
    }


def test_it_is_served(engine: Engine) -> None:
    red = np.zeros((1, 6, 48), np.uint8)
    red[..., ::3] = 255
    assert engine.run(red, np.array([[2, 3]])).tolist() == [[10, 0, 0]]


def test_neither_neighbours_nor_padding_change_an_answer(engine: Engine) -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (1, 6, 48), np.uint8)
    batch = rng.integers(0, 256, (3, 20, 48), np.uint8)
    batch[1, :6] = first[0]
    grid = np.array([[4, 5], [2, 3], [1, 1]])
    np.testing.assert_array_equal(engine.run(first, grid[1:2])[0], engine.run(batch, grid)[1])


@pytest.mark.parametrize("field", ["schema", "labels", "provenance"])
def test_a_manifest_without_a_field_is_refused(colours: Path, tmp_path: Path, field: str) -> None:
    model = onnx.load(colours)
    manifest = json.loads(model.metadata_props[0].value)
    del manifest[field]
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(manifest)})
    onnx.save(model, tmp_path / "wrong.onnx")
    with pytest.raises(StartError, match=field):
        Engine(EngineSettings(model=tmp_path / "wrong.onnx"))


def test_golden_alone_may_be_missing(colours: Path) -> None:
    text = onnx.load(colours).metadata_props[0].value
    assert "golden" not in json.loads(text)
    assert Manifest.from_json(text).golden == ()
