import json
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from browsing import example, says
from PIL import Image

from model import preprocess
from model.manifest import Preprocessing

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.page


def test_the_slider_shows_cost_against_answer(page: "Page") -> None:
    example(page, "Coat")
    says(page.locator("#cost"), "99 patches in ")
    page.locator("#budget").focus()
    page.keyboard.press("Home")
    says(page.locator("#cost"), "1 patch in ")
    says(page.locator("#grid-words"), "1 row of 1 patch")
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    says(page.locator("#cost"), "9 patches in ")
    assert page.locator("#budget").get_attribute("aria-valuetext") == "9 patches"
    marks = page.locator("#curve .same, #curve .other").count()
    assert 3 <= marks == page.locator("#tries tr").count()
    page.get_by_role("button", name="Try ten budgets").click()
    page.locator("#trace:not([aria-disabled])").wait_for()
    says(page.locator("#cost"), "9 patches in ")
    assert page.locator("#tries tr").count() > marks


def test_attention_is_asked_for_when_it_is_wanted(page: "Page") -> None:
    asked: list[str] = []
    page.on("request", lambda request: "/explain" in request.url and asked.append(request.url))
    example(page, "Bag")
    assert not asked
    with page.expect_response("**/explain*") as answered:
        page.get_by_label("Attention").check()
    shares = answered.value.json()["results"][0]["attention"]
    row, column = max(product(range(len(shares)), range(len(shares[0]))), key=lambda at: shares[at[0]][at[1]])
    most = f"Most of it, {100 * shares[row][column]:.1f} %, is on row {row + 1}, column {column + 1}"
    says(page.locator("#attention-words"), most)
    assert page.locator("#overlay .heat").count() == len(shares) * len(shares[0]) == 100
    page.get_by_label("Attention").uncheck()
    assert page.locator("#overlay .heat").count() == 0
    page.get_by_label("Attention").check()
    assert len(asked) == 1


def test_a_model_without_attention_says_what_would_add_it(page: "Page") -> None:
    reply: dict[str, Any] = {}
    page.route("**/explain*", lambda route: route.fulfill(**reply))
    example(page, "Bag")
    for status, detail in ((409, "Export it again with --explain."), (404, "There is nothing at this address.")):
        problem = {"title": "Title", "status": status, "code": "code", "detail": detail, "request_id": "1"}
        reply |= {"status": status, "content_type": "application/problem+json", "body": json.dumps(problem)}
        page.get_by_label("Attention").click()
        says(page.locator("#attention-words"), "with --explain.")
        page.locator("#show-attention:not(:checked)").wait_for()


SPECS = [
    Preprocessing(16, (14, 14), 196, "aspect"),
    Preprocessing(16, (14, 14), 196, "crop", 256),
    Preprocessing(16, (14, 14), 196, "crop-floor", 248),
    Preprocessing(16, (14, 10), 196, "squash", 256),
    Preprocessing(16, (14, 10), 196, "squash"),
]


def test_the_grid_lies_where_the_patches_are(page: "Page", monkeypatch: pytest.MonkeyPatch) -> None:
    # Where the resampler would be told to look.
    monkeypatch.setattr(preprocess, "resample", lambda image, size, kind, source, exact: source)
    for spec, (width, height) in product(SPECS, ((640, 480), (333, 1000), (28, 28))):
        grid = preprocess.choose_grid(width, height, spec)
        left, top, right, bottom = preprocess.resize(Image.new("RGB", (width, height)), spec, grid)
        ask = "async given => (await import('/page/geometry.js')).coverage(...given)"
        box = page.evaluate(ask, [width, height, grid, spec.to_dict()])
        assert box == pytest.approx({"left": left, "top": top, "width": right - left, "height": bottom - top})


def test_the_card_is_that_of_the_model(page: "Page") -> None:
    says(page.locator("#described"), "ten kinds of clothing")
    says(page.locator("#manifest"), "pixels, at most 100 an image, trained on 7")
    says(page.locator("#accuracies"), "90.6 %")
    assert page.locator("#choice").is_hidden()


def test_examples_are_shown_for_their_model_only_and_versions_can_be_chosen(page: "Page") -> None:
    listed = page.request.get(page.url + "models").json()["models"]
    manifest = page.request.get(page.url + "models/fashion-mnist").json()
    birds = [listed[0] | {"name": "birds", "version": "2", "default": False}]
    page.route("**/models", lambda route: route.fulfill(json={"models": listed + birds}))
    page.route("**/models/birds", lambda route: route.fulfill(json=manifest))
    page.reload()
    page.locator("#choice").wait_for()
    assert page.locator("#examples").is_visible()
    page.locator("#models").select_option("birds")
    page.locator("#examples").wait_for(state="hidden")
