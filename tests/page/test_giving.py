import re
from typing import TYPE_CHECKING, Any

import pytest
from browsing import DATA, LABELS, PASTE, best, example, says, transfer

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.page


def test_an_example_is_classified_with_one_click(page: "Page") -> None:
    example(page, "Bag")
    says(best(page), "Bag")
    assert page.locator("#bars li").count() == 5
    assert page.locator("#overlay .line").count() == 1
    assert page.locator("#timing dt").all_text_contents()[-3:] == ["Engine", "Service in all", "As seen from here"]
    assert all(re.fullmatch(r"[\d.]+\sms", each) for each in page.locator("#timing dd").all_text_contents())
    says(page.locator("#said"), "bag.jpg: Bag, ")


def test_many_files_get_a_card_each_and_four_are_asked_for_at_a_time(page: "Page") -> None:
    under_way = most = 0

    def begin(request: Any) -> None:
        nonlocal under_way, most
        under_way += "classify" in request.url
        most = max(most, under_way)

    def end(request: Any) -> None:
        nonlocal under_way
        under_way -= "classify" in request.url

    page.on("request", begin)
    page.on("requestfinished", end)
    page.set_input_files("#files", [DATA / name for name in LABELS])
    says(page.locator("#said"), "8 of 8 images answered")
    cards = page.locator("#pictures li")
    for card, (name, label) in zip(cards.all(), LABELS.items(), strict=True):
        assert (name in card.inner_text(), label in card.inner_text()) == (True, True)
    assert 1 < most <= 4
    cards.nth(2).get_by_role("button").click()
    says(page.locator("#chosen"), list(LABELS)[2])
    says(best(page), list(LABELS.values())[2])
    page.get_by_role("button", name="Clear the list").click()
    says(page.locator("#nothing"), "Nothing is classified yet")
    assert cards.count() == 0


def test_images_are_dropped_and_pasted(page: "Page") -> None:
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer(page, "sneaker-64x48.png")})
    says(best(page), "Sneaker")
    page.evaluate(PASTE, transfer(page, "coat-480x640.webp"))
    says(best(page), "Coat")
    page.evaluate(PASTE, transfer(page))
    says(page.locator("#notice"), "There is no image file in the clipboard.")
