"""The page in headless Chromium: drop, type, keyboard, narrow screens, wrong files, hostile texts."""

import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCENE = pathlib.Path(__file__).parents[2] / "docs" / "scene.png"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[1280, 390], ids=["wide", "phone"])
def tab(browser, address, request):
    page = browser.new_page(viewport={"width": request.param, "height": 900})
    page.alarms = []
    page.on("pageerror", lambda error: page.alarms.append(str(error)))
    page.on("dialog", lambda dialog: (page.alarms.append(dialog.message), dialog.dismiss()))
    page.goto(address)
    page.get_by_role("button", name="Segment", exact=True).wait_for()
    yield page
    assert not page.alarms
    page.close()


def shown(tab) -> str:
    return (
        tab.locator("#overlay img").first.get_attribute("src") if tab.locator("#overlay img").count() else ""
    )


def wait_for_another(tab, before: str) -> str:
    tab.wait_for_function(
        "before => { const i = document.querySelector('#overlay img'); return i && i.src !== before; }",
        arg=before,
    )
    return shown(tab)


def drop(tab, path: pathlib.Path) -> None:
    clear = tab.locator("button[aria-label=Clear], button[title=Clear], [aria-label='Remove Image']")
    if clear.count():
        clear.first.click()
    tab.locator("input[type=file]").first.set_input_files(path)
    tab.wait_for_timeout(2000)


def ask(tab, text: str) -> None:
    box = tab.locator("#phrases textarea, #phrases input").first
    box.fill(text)
    box.press("Enter")


def test_drop_type_and_move_the_threshold_by_keyboard(tab, tmp_path):
    drop(tab, SCENE)
    ask(tab, "the star; the circle")
    first = wait_for_another(tab, "")
    assert tab.locator("#masks img").count() == 2
    tab.locator("#threshold input[type=range]").focus()
    tab.keyboard.press("ArrowRight")
    second = wait_for_another(tab, first)
    ask(tab, "<img src=x onerror=alert(1)>; <script>alert(2)</script>")
    wait_for_another(tab, second)
    tab.wait_for_timeout(1000)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tab.screenshot(path=tmp_path / "segment.png", full_page=True)


def test_wrong_input_is_said(tab, tmp_path):
    ask(tab, "a star")
    tab.get_by_text("Drop an image first").first.wait_for()
    (tmp_path / "no.png").write_text("hello")
    drop(tab, tmp_path / "no.png")
    ask(tab, "a star")
    tab.get_by_text("it is not an image").first.wait_for()
    drop(tab, SCENE)
    ask(tab, "a" * 5000)
    tab.get_by_text("is too long").first.wait_for()


def test_twenty_megapixels_are_reduced(tab, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (39, 52, 3), np.uint8)
    Image.fromarray(pixels).resize((5200, 3900)).save(tmp_path / "large.jpg")
    drop(tab, tmp_path / "large.jpg")
    ask(tab, "a star")
    wait_for_another(tab, "")


def test_an_image_emerges_and_noise_is_shown(tab):
    tab.get_by_role("tab", name="Generate").click()
    tab.locator("#prompt textarea, #prompt input").first.fill("a red star")
    tab.keyboard.press("Enter")
    tab.locator("#drawn img").first.wait_for()
    tab.get_by_role("tab", name="How it works").click()
    tab.get_by_text("Segment an image first").first.wait_for()
