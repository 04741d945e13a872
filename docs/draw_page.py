"""Takes the screenshots in docs/demo.md of the web page with the packaged model, in Chromium.

python docs/draw_page.py        # needs the extra test, and Chromium on the PATH
"""

import pathlib
import shutil
import socket

from playwright.sync_api import Page, sync_playwright

from genmask_jax import cli
from genmask_jax.inference.load import load
from genmask_jax.pretrained import EXAMPLE_PROMPT
from genmask_jax.tools.demo import page
from genmask_jax.tools.demo.handlers import Handlers

DOCS = pathlib.Path(__file__).parent
SIZES = {"wide": (1280, 900), "phone": (390, 844)}


def main() -> None:
    cli.use_compilation_cache()
    handlers = Handlers(*load("refershapes")[:2])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    blocks = page.build(handlers, "refershapes", per_minute=1000)
    blocks.launch(
        server_port=port, prevent_thread_lock=True, quiet=True, footer_links=[], **page.appearance(handlers)
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (width, height) in SIZES.items():
            tab = browser.new_page(viewport={"width": width, "height": height})
            tab.goto(f"http://127.0.0.1:{port}?__theme=light")
            take_screenshots(tab, name)
            tab.close()
        browser.close()
    blocks.close()


def take_screenshots(tab: Page, name: str) -> None:
    """Saves a screenshot of each of the three tabs."""
    tab.locator("ul.examples button").nth(1).click()
    tab.locator("#overlay img").wait_for()
    save(tab, f"demo_segment_{name}.png")
    tab.get_by_role("tab", name="Generate").click()
    tab.locator("#prompt textarea").fill(EXAMPLE_PROMPT)
    tab.get_by_role("button", name="Generate", exact=True).click()
    tab.locator("#drawn img").last.wait_for()
    save(tab, f"demo_generate_{name}.png")
    tab.get_by_role("tab", name="How it works").click()
    tab.locator("#noise img").last.wait_for()
    save(tab, f"demo_how_{name}.png")


def save(tab: Page, name: str) -> None:
    """Saves a screenshot of the full page, after animations have ended."""
    tab.wait_for_timeout(4000)
    tab.evaluate("document.activeElement.blur()")
    tab.screenshot(path=DOCS / name, full_page=True)
    print(f"docs/{name}")


if __name__ == "__main__":
    main()
