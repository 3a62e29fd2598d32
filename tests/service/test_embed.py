"""POST /embed in one process: the tiny model's features are the mean colour of the image."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from tiny_artifact import write_artifact

from .conftest import Serving, picture
from .test_explain import ask

pytestmark = pytest.mark.anyio
COLOUR = np.array([220, 20, 20]) / 255


async def test_features_come_with_length_one_or_as_they_are(serving: Serving, red: bytes) -> None:
    async with serving() as client:
        reply = (await ask(client, red, path="/embed")).json()
        raw = (await ask(client, red, path="/embed?normalize=false")).json()["results"][0]
    [result] = reply["results"]
    assert result.pop("embedding") == pytest.approx(COLOUR / np.linalg.norm(COLOUR), abs=1e-6)
    assert raw["embedding"] == pytest.approx(COLOUR, abs=1e-6)
    assert reply.keys() == {"model", "results", "timing_ms", "request_id"}
    assert result == {"patches": 49, "grid": [7, 7], "width": 28, "height": 28, "format": "PNG", "degraded": False}


async def test_nothing_has_no_direction(serving: Serving) -> None:
    async with serving() as client:
        reply = (await ask(client, picture((0, 0, 0)), path="/embed")).json()
    assert reply["results"][0]["embedding"] == [0, 0, 0]


async def test_a_raw_body_a_budget_and_a_bad_upload_are_as_those_of_classify(serving: Serving, red: bytes) -> None:
    async with serving() as client:
        sent = await client.post("/embed?max_patches=9", content=red, headers={"content-type": "image/png"})
        assert sent.json()["results"][0]["grid"] == [3, 3]
        good, bad = (await ask(client, red, b"no image", path="/embed")).json()["results"]
        assert (len(good["embedding"]), bad["error"]["status"]) == (3, 422)
        for query in ("k=1", "normalize=1", "normalize="):
            assert (await ask(client, red, path=f"/embed?{query}")).json()["code"] == "invalid_parameter"


async def test_requests_of_all_kinds_at_once_get_what_each_asked_for(serving: Serving, tmp_path: Path) -> None:
    model = write_artifact(tmp_path / "explained.onnx", attention=True)
    colours = [(220 - 9 * step, 20, 20) for step in range(6)]
    paths = ["/classify", "/embed?normalize=false", "/explain"] * 2
    async with serving(model=model) as client:
        asked = [ask(client, picture(colour), path=path) for colour, path in zip(colours, paths, strict=True)]
        results = [reply.json()["results"][0] for reply in await asyncio.gather(*asked)]
    for result, colour, path in zip(results, colours, paths, strict=True):
        assert ("embedding" in result, "attention" in result) == ("/embed" in path, path == "/explain")
        if "embedding" in result:
            assert result["embedding"] == pytest.approx(np.array(colour) / 255, abs=1e-6)
        if "attention" in result:
            assert np.array(result["attention"]) == pytest.approx(np.full((7, 7), 1 / 49))
