"""POST /explain in one process, against an artifact whose attention is the brightness of patches."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiny_artifact import MANIFEST, renamed, write_artifact

from model.headers import ImageLimits, read_header
from model.manifest import Preprocessing
from service.errors import DeadlineExceeded
from service.explain import wants_picture
from service.overlay import MOST_SIDE
from service.painting import Painter
from service.pixels import PixelBudget
from service.settings import Settings

from .conftest import Serving, picture

pytestmark = pytest.mark.anyio
PNG = {"accept": "image/png"}


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("model") / "explained.onnx", attention=True)


def half_lit(size: tuple[int, int], orientation: int = 1, kind: str = "PNG") -> bytes:
    """Grey, its left half brighter as it is stored."""
    image = Image.new("RGB", size, (40, 40, 40))
    image.paste((120, 120, 120), (0, 0, size[0] // 2, size[1]))
    exif = Image.Exif()
    exif[274] = orientation
    file = BytesIO()
    image.save(file, kind, exif=exif)
    return file.getvalue()


async def ask(
    client: httpx.AsyncClient, *uploads: bytes, path: str = "/explain?timeout_ms=10000", **headers: str
) -> httpx.Response:
    return await client.post(path, files=[("file", ("x", each, "image/png")) for each in uploads], headers=headers)


def pixels_of(response: httpx.Response) -> NDArray[np.int64]:
    assert (response.status_code, response.headers["content-type"]) == (200, "image/png")
    return np.asarray(Image.open(BytesIO(response.content)), np.int64)


async def test_the_reply_is_that_of_classify_and_the_share_of_each_patch(serving: Serving, explained: Path) -> None:
    uploads = half_lit((32, 16)), picture((9, 200, 9), (8, 40))
    async with serving(model=explained) as client:
        reply = (await ask(client, *uploads, path="/explain?k=2")).json()
        plain = (await ask(client, *uploads, path="/classify?k=2")).json()
    assert reply.keys() == plain.keys()
    wide, tall = reply["results"]
    shares = np.array(wide.pop("attention"))
    assert shares.shape == (4, 8)
    assert shares.sum() == pytest.approx(1)
    np.testing.assert_allclose(shares[:, :4] / shares[:, 4:], 3, rtol=0.001)
    assert np.array(tall.pop("attention")) == pytest.approx(np.full((10, 2), 0.05))
    assert (wide.pop("region"), tall.pop("region")) == ([0, 0, 32, 16], [0, 0, 8, 40])
    assert [wide, tall] == plain["results"]


async def test_a_bad_upload_fails_alone_and_as_the_only_one_is_the_reply(serving: Serving, explained: Path) -> None:
    async with serving(model=explained) as client:
        good, bad = (await ask(client, half_lit((16, 16)), b"no image")).json()["results"]
        assert good["attention"]
        assert bad["error"]["code"] == "invalid_image"
        only = await ask(client, b"no image", **PNG)
        assert (only.status_code, only.json()["code"]) == (422, "invalid_image")


async def test_what_classify_refuses_is_refused(serving: Serving, explained: Path, red: bytes) -> None:
    async with serving(model=explained) as client:
        for query in ("k=4", "k=0", "max_patches=0", "normalize=true", "timeout_ms=999999999"):
            refused = await ask(client, red, path=f"/explain?{query}")
            assert (refused.status_code, refused.json()["code"]) == (422, "invalid_parameter"), query
        assert (await ask(client, red, path="/explain?model=unknown")).status_code == 404
        small = (await ask(client, red, path="/explain?max_patches=9")).json()["results"][0]
        assert np.array(small["attention"]).shape == (3, 3)


async def test_a_model_without_attention_is_refused_before_the_body_and_says_what_to_do(
    serving: Serving, red: bytes
) -> None:
    async with serving() as client:
        refused = await ask(client, red)
        assert (await ask(client, red, path="/classify")).status_code == 200
        assert (
            'patchserve_requests_total{outcome="explain_not_available",route="/explain"} 1.0'
            in (await client.get("/metrics")).text
        )
    assert (refused.status_code, refused.json()["code"]) == (409, "explain_not_available")
    assert "--explain" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("size", "orientation", "expected"),
    [((60, 30), 1, (60, 30)), ((60, 30), 6, (30, 60)), ((3000, 1200), 1, (1024, 410)), ((1, 3), 1, (1, 3))],
)
async def test_the_picture_has_the_uploads_own_aspect_upright_and_not_more_pixels_than_it_may(
    serving: Serving, explained: Path, size: tuple[int, int], orientation: int, expected: tuple[int, int]
) -> None:
    async with serving(model=explained) as client:
        found = pixels_of(await ask(client, half_lit(size, orientation), **PNG))
    assert (found.shape[1], found.shape[0]) == expected
    assert max(expected) <= MOST_SIDE


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("isolation", ["thread", "process"])
async def test_what_the_model_looks_at_is_painted_and_the_rest_is_as_it_was(
    serving: Serving, explained: Path, kind: str, isolation: str
) -> None:
    """Turned by EXIF the bright half is the upper one."""
    upload = half_lit((64, 32), 6, kind)
    async with serving(model=explained, decode_isolation=isolation, decode_threads=1) as client:
        found = pixels_of(await ask(client, upload, **PNG))
    upper, lower = found[:24], found[40:]
    assert np.ptp(upper.reshape(-1, 3).mean(0)) > 50, "the heat is a colour"
    assert abs(lower - 40).max() < 6, "what has least attention is not painted"


async def test_edges_that_a_model_does_not_see_are_as_they_were(serving: Serving, tmp_path: Path) -> None:
    spec = replace(MANIFEST.preprocessing, resize="crop", resize_to=32)
    model = write_artifact(tmp_path / "crop.onnx", renamed(preprocessing=spec), attention=True)
    async with serving(model=model) as client:
        upload = half_lit((96, 32))
        region = (await ask(client, upload)).json()["results"][0]["region"]
        found = pixels_of(await ask(client, upload, **PNG))
    assert region == [34, 2, 62, 30]
    assert (found[:, :34] == [120, 120, 120]).all()
    assert (found[:2] == found[:1, :]).all()
    assert np.ptp(found[16, 36]) > 50


async def test_a_picture_of_several_is_refused(serving: Serving, explained: Path, red: bytes) -> None:
    async with serving(model=explained) as client:
        refused = await ask(client, red, red, **PNG)
        assert (refused.status_code, refused.json()["code"]) == (406, "not_acceptable")
        text = (await client.get("/metrics")).text
    assert 'patchserve_images_total{outcome="ok"}' not in text, "nothing was worked on"


async def test_an_image_whose_picture_alone_fails_is_counted_as_failed(
    serving: Serving, explained: Path, red: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def paint(*_: object) -> bytes:
        raise DeadlineExceeded

    monkeypatch.setattr(Painter, "paint", paint)
    async with serving(model=explained) as client:
        refused = await ask(client, red, **PNG)
        text = (await client.get("/metrics")).text
    assert (refused.status_code, refused.json()["code"]) == (504, "deadline_exceeded")
    assert 'patchserve_images_total{outcome="deadline_exceeded"} 1.0' in text
    assert 'patchserve_images_total{outcome="ok"}' not in text


async def test_a_picture_that_nobody_waits_for_any_more_is_not_begun(red: bytes) -> None:
    begun: list[Preprocessing] = []
    go_on = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(go_on.wait)
        painter = Painter(Settings(), pool, PixelBudget(10**9), begun.append, time.monotonic)  # type: ignore[arg-type]
        header, shares = read_header(red, ImageLimits()), np.ones((7, 7), np.float32)
        work = painter.paint(red, header, (0, 0, 0), shares, (0, 0, 28, 28), time.monotonic() + 60)
        painting = asyncio.create_task(work)
        await asyncio.sleep(0.01)
        painting.cancel()
        await asyncio.gather(painting, return_exceptions=True)
        go_on.set()
    assert begun == []


async def test_a_picture_for_which_there_is_no_memory_is_refused(serving: Serving, explained: Path) -> None:
    """A large picture may come of a small upload, and counts with the uploads."""
    upload = half_lit((1000, 1000))
    assert len(upload) < 100_000
    async with serving(model=explained, max_upload_memory_bytes=1_000_000) as client:
        refused = await ask(client, upload, **PNG)
        assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
        assert (await ask(client, upload)).status_code == 200
        assert pixels_of(await ask(client, half_lit((300, 300)), **PNG)).shape == (300, 300, 3)
        assert "patchserve_upload_bytes 0.0" in (await client.get("/metrics")).text


@pytest.mark.parametrize(
    ("accept", "picture"),
    [
        ("", False),
        ("*/*", False),
        ("image/png", True),
        ("text/html, IMAGE/PNG;q=0.9, */*", True),
        ("application/json, image/png", False),
        ("image/png, application/json", True),
        ("image/*", False),
    ],
)
def test_who_names_png_first_gets_it(accept: str, picture: bool) -> None:
    assert wants_picture(accept) == picture
