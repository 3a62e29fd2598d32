"""Every kind of positions, and a hybrid: exported and served it answers images of two shapes as PyTorch does."""

from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest
import torch

from export.graph import build_graph
from model.headers import ImageLimits
from model.manifest import Manifest, Provenance
from model.preprocess import preprocess
from model.variants import decode_variant
from model.vit import VisionTransformer

from .conftest import Serving, picture

pytestmark = pytest.mark.anyio
UPLOADS = picture((9, 200, 90), (56, 28)), picture((200, 9, 30), (28, 40))


def make_model(variant: str) -> VisionTransformer:
    torch.manual_seed(0)
    config, spec = decode_variant(variant, classes=3)
    spec = replace(spec, resize="aspect", resize_to=None)
    model = VisionTransformer(replace(config, depth=2), spec).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def answer(model: VisionTransformer, upload: bytes) -> list[float]:
    image = preprocess(upload, model.preprocessing, ImageLimits())
    with torch.inference_mode():
        logits, _ = model(torch.from_numpy(image.patches)[None], torch.tensor([image.grid]))
    return logits[0].softmax(-1).tolist()


@pytest.mark.parametrize("variant", ["Femto/7:none", "Femto/7:2d", "Femto/7:relative", "R8+Femto/8:2d"])
async def test_it_is_served(variant: str, serving: Serving, tmp_path: Path) -> None:
    model, path = make_model(variant), tmp_path / "m.onnx"
    mixed = model.config.mixed_grids
    manifest = Manifest("m", "1", tuple("abc"), model.preprocessing, Provenance("random"), mixed_grids=mixed)
    ir.save(build_graph(model, manifest, 24), path)
    async with serving(model=path) as client:
        files = [("file", ("x", each, "image/png")) for each in UPLOADS]
        response = await client.post("/classify?k=3&timeout_ms=10000", files=files)
    assert response.status_code == 200, response.text
    results = response.json()["results"]
    assert results[0]["grid"] != results[1]["grid"]
    for result, upload in zip(results, UPLOADS, strict=True):
        scores = {each["label"]: each["score"] for each in result["predictions"]}
        assert [scores[label] for label in "abc"] == pytest.approx(answer(model, upload), abs=1e-4)
