from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from browsing import DATA, LABELS, LARGE, MODEL, TEXT, best, says
from PIL import Image
from served_process import served

from service.keys import Key, Role, digest_of, line_of, new_key

from .conftest import Opening

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.page


def picture(kind: str) -> dict[str, Any]:
    buffer = BytesIO()
    Image.new("RGB", (30, 30), "red").save(buffer, kind)
    return {"name": f"red.{kind.lower()}", "mimeType": f"image/{kind.lower()}", "buffer": buffer.getvalue()}


def test_refused_files_are_explained_and_the_others_answered(page: "Page") -> None:
    page.set_input_files("#files", [LARGE, TEXT, picture("BMP"), picture("PNG")])
    says(page.locator("#said"), "1 of 4 images answered, 3 failed")
    says(page.locator("#problem"), "larger than 100000 bytes. This file has 200000.")
    says(page.locator("#problem"), "Status 413")
    assert page.get_by_role("button", name="Try again").count() == 0
    for card, words in ((1, "cannot be decoded as an image"), (2, "JPEG, PNG, WEBP")):
        page.locator("#pictures button").nth(card).click()
        says(page.locator("#problem"), words)
    page.locator("#pictures button").nth(3).click()
    says(best(page), "%")
    assert page.locator("#problem").is_hidden()


def test_a_lost_connection_is_said_and_tried_again(page: "Page") -> None:
    page.context.set_offline(True)
    page.set_input_files("#files", DATA / "bag-224x224.jpg")
    says(page.locator("#problem"), "The service cannot be reached.")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    says(best(page), "Bag")


def test_a_key_is_asked_for_kept_in_memory_and_paced(opening: Opening) -> None:
    key = new_key()
    lines = line_of(Key("page", Role.USER, digest_of(key.encode()), "2/second"))
    with served(MODEL, api_keys=lines) as keyed:
        page = opening(port=keyed.port)
        page.locator("#key").wait_for()
        page.set_input_files("#files", [DATA / name for name in list(LABELS)[:4]])
        says(page.locator("#problem"), "API key needed")
        page.fill("#key", "wrong")
        page.keyboard.press("Enter")
        says(page.locator("#notice"), "Send one valid API key")
        page.fill("#key", key)
        page.keyboard.press("Enter")
        says(page.locator("#notice"), "Too many requests with this key. Trying again in 1 second.")
        says(page.locator("#said"), "4 of 4 images answered")
        assert page.locator("#locked").is_hidden()
        assert page.locator("#notice").is_hidden()
        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
        page.reload()
        page.locator("#key").wait_for()


def test_what_a_proxy_says_is_not_taken_for_the_service(page: "Page") -> None:
    page.route("**/classify*", lambda route: route.fulfill(status=502, content_type="text/html", body="<h1>Bad</h1>"))
    page.set_input_files("#files", DATA / "bag-224x224.jpg")
    says(page.locator("#problem"), "something between it and this page")
