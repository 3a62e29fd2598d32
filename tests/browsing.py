"""A browser for the tests of the page, what is put into it, and what is read from it."""

import base64
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported also where Playwright is not installed
    from playwright.sync_api import Locator, Page

MODEL = Path(__file__).parents[1] / "model" / "bundled" / "fashion-mnist.onnx"
DATA = Path(__file__).parent / "data"
LABELS = json.loads((DATA / "labels.json").read_text())
LARGE = {"name": "large.jpg", "mimeType": "image/jpeg", "buffer": bytes(200_000)}
TEXT = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"}

# It keeps to itself: the tests are for one page of this machine.
_FLAGS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-sync",
    "--no-first-run",
)
_TRANSFER = """([name, content]) => {
  const transfer = new DataTransfer();
  if (name) transfer.items.add(new File([Uint8Array.from(atob(content), c => c.charCodeAt(0))], name));
  return transfer;
}"""
PASTE = "transfer => document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: transfer, bubbles: true}))"


def open_browser(driver: Any) -> Any:
    """The Chromium of this machine, without a window; `driver` is Playwright's."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        raise RuntimeError("no Chromium: install it (Debian: apt-get install chromium), or name it in CHROMIUM")
    root = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to start as root with it
    return driver.chromium.launch(executable_path=path, args=[*_FLAGS, *root])


def best(page: "Page") -> "Locator":
    """The line of the best label."""
    return page.locator("#bars li").first


def says(locator: "Locator", text: str) -> None:
    """Wait until something contains a text, whatever the space in it."""
    from playwright.sync_api import expect

    expect(locator).to_contain_text(text, timeout=10_000)


def example(page: "Page", name: str) -> None:
    """Classify an example and wait for the answer."""
    page.get_by_role("button", name=name, exact=True).click()
    says(best(page), "%")


def transfer(page: "Page", name: str = "") -> Any:
    """A file of the test images as a drop or the clipboard brings it; without a name, none."""
    content = base64.b64encode((DATA / name).read_bytes()).decode() if name else ""
    return page.evaluate_handle(_TRANSFER, [name, content])
