from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from browsing import MODEL, open_browser
from served_process import ServedProcess, served

if TYPE_CHECKING:  # collected also where Playwright is not installed
    from playwright.sync_api import Browser, BrowserContext, Page

PHONE = {"width": 320, "height": 640}
Opening = Callable[..., "Page"]


@pytest.fixture(scope="session")
def service() -> Iterator[ServedProcess]:
    with served(MODEL, max_body_bytes=100_000) as process:
        yield process


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        yield open_browser(driver)


@pytest.fixture(scope="session")
def context(browser: "Browser") -> "BrowserContext":
    """Where tests open their pages that want nothing special: what has been loaded once is asked for by its ETag."""
    return browser.new_context(reduced_motion="reduce")


@pytest.fixture
def opening(browser: "Browser", context: "BrowserContext", service: ServedProcess) -> Iterator[Opening]:
    """Opens the page, and at the end sees that it has broken none of its own rules."""
    pages: list[Page] = []
    wrong: list[str] = []

    def listen(page: "Page") -> None:
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        # A status of 4xx is logged by the browser too, and is no mistake of the page.
        page.on(
            "console", lambda said: said.type == "error" and "status of" not in said.text and wrong.append(said.text)
        )

    def open_page(path: str = "/", port: int = 0, **options: Any) -> "Page":
        place = browser.new_context(**{"reduced_motion": "reduce"} | options) if options else context
        page = place.new_page()
        pages.append(page)
        listen(page)
        page.goto(f"http://127.0.0.1:{port or service.port}{path}")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not [each for each in wrong if "ERR_INTERNET_DISCONNECTED" not in each]


@pytest.fixture
def page(opening: Opening) -> "Page":
    opened = opening()
    opened.locator("#examples").wait_for()
    return opened
