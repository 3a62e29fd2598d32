from typing import TYPE_CHECKING

import pytest
from browsing import LARGE, PASTE, TEXT, best, example, says, transfer

from .conftest import PHONE, Opening

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.page


def violations(page: "Page") -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]


def test_axe_finds_nothing(opening: Opening) -> None:
    page = opening()
    page.locator("#examples").wait_for()
    assert violations(page) == []
    example(page, "Coat")
    page.get_by_text("As a table").click()
    page.get_by_text("10 labels").click()
    page.set_input_files("#files", [TEXT, LARGE])
    says(page.locator("#said"), "0 of 2 images answered, 2 failed")
    page.evaluate(PASTE, transfer(page))
    assert violations(page) == []
    page.locator("#pictures button").first.click()
    page.evaluate("document.getElementById('locked').hidden = false")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert violations(page) == []


def test_axe_finds_nothing_on_a_phone_and_in_the_interface(opening: Opening) -> None:
    page = opening(viewport=PHONE)
    page.locator("#examples").wait_for()
    example(page, "Dress")
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.locator("#chosen").bounding_box()["y"] < PHONE["height"]  # scrolled to the answer
    docs = opening("/docs", viewport=PHONE)
    docs.get_by_text("POST /classify").wait_for()
    assert violations(docs) == []
    assert docs.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_everything_is_reached_with_the_keyboard(page: "Page") -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the answer"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.keyboard.press("Tab")
    with page.expect_file_chooser() as choosing:
        page.evaluate("1")  # answered when Chromium knows that somebody waits for its dialog
        page.keyboard.press("Enter")
    assert choosing.value.is_multiple()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText").strip() == "Ankle boot"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.keyboard.press("Enter")
    says(best(page), "Ankle boot")


def test_the_theme_is_that_of_the_system_until_it_is_switched(opening: Opening) -> None:
    page = opening(color_scheme="dark")
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(colour)
    page.get_by_role("button", name="Dark", pressed=True).click()
    light = page.evaluate(colour)
    assert page.get_by_role("button", name="Dark", pressed=False).count() == 1
    assert dark == "rgb(20, 25, 29)"
    assert light == "rgb(246, 245, 241)"
