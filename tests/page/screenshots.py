"""Takes the screenshots of docs/page.md from a running service: `make page-screenshots`.

    python tests/page/screenshots.py docs/page

Needs Chromium, Playwright and Pillow. The service is that of the tests: the bundled model on a free port.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))

from browsing import DATA, LARGE, MODEL, TEXT, open_browser
from served_process import ServedProcess, served

GIVEN = ("bag-224x224.jpg", "dress-300x400.jpg", "trouser-120x200.webp", "sneaker-64x48.png")
DESKTOP, PHONE = {"width": 1200, "height": 860}, {"width": 390, "height": 1180}


@contextmanager
def opened(browser: Browser, service: ServedProcess, size: dict[str, int], theme: str) -> Iterator[Page]:
    """The page in a window of this size."""
    with browser.new_context(viewport=size, color_scheme=theme, reduced_motion="reduce") as context:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{service.port}/")
        page.locator("#examples").wait_for()
        yield page


def answer(page: Page, example: str) -> None:
    """Classify an example at several budgets."""
    page.get_by_role("button", name=example, exact=True).click()
    page.get_by_role("button", name="Try ten budgets").click()
    page.locator("#trace:not([aria-disabled])").wait_for()


def show_attention(page: Page) -> None:
    """Where the model looked, over the picture."""
    page.get_by_label("Attention").check()
    page.get_by_text("attention rollout").wait_for()


def save(page: Page, file: Path, *, whole: bool) -> None:
    """A PNG of 256 colours, of the whole page or of what the window shows."""
    shot = Image.open(BytesIO(page.screenshot(full_page=whole))).convert("RGB")
    shot.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file.name}: {file.stat().st_size // 1000} kB")  # noqa: T201


def main(folder: Path) -> None:
    """Write all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    with served(MODEL, max_body_bytes=100_000) as service, sync_playwright() as driver:
        browser = open_browser(driver)
        for theme in ("light", "dark"):
            with opened(browser, service, DESKTOP, theme) as page:
                page.set_input_files("#files", [DATA / name for name in GIVEN])
                page.get_by_text("4 of 4 images answered").first.wait_for()
                answer(page, "Ankle boot" if theme == "light" else "Sneaker")
                show_attention(page)
                save(page, folder / f"{theme}.png", whole=True)
        with opened(browser, service, PHONE, "light") as page:
            answer(page, "Trouser")
            page.locator("#answer").evaluate("answer => answer.scrollIntoView()")
            save(page, folder / "phone.png", whole=False)
        with opened(browser, service, DESKTOP, "light") as page:
            page.set_input_files("#files", [LARGE, TEXT])
            page.get_by_text("2 failed").first.wait_for()
            save(page, folder / "error.png", whole=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
