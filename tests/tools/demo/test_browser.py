"""The page in headless Chromium: keyboard, narrow screens, contrast, names, wrong files, hostile texts."""

import pathlib
import re
import shutil
import threading

import numpy as np
import pytest
from PIL import Image

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCENE = pathlib.Path(__file__).parents[3] / "docs" / "scene.png"
LOW_CONTRAST_TEXTS = """() => {
  const parse = colour => (colour.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const luminance = rgb => rgb.slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const texts = [...element.childNodes].filter(n => n.nodeType === 3 && n.textContent.trim());
    const typed = element.matches('textarea, input:not([type=range], [type=file], [type=radio])');
    if (!(texts.length || typed) || !element.checkVisibility({opacityProperty: true})) continue;
    if (!element.getBoundingClientRect().width) continue;
    for (const part of typed ? [null, '::placeholder'] : [null]) {
      const [a, b] = [luminance(parse(getComputedStyle(element, part).color)), luminance(behind(element))];
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${element.className}: ${element.textContent.trim()}`);
    }
  }
  return found;
}"""
"""Visible texts whose contrast is below WCAG's 4.5 : 1."""
UNNAMED_CONTROL = re.compile(r"^\s*- (button|textbox|slider|spinbutton|radio|tab|link)(:| \[|$)", re.M)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[1280, 390, 320], ids=["wide", "phone", "narrow"])
def tab(browser, address, request):
    page = browser.new_page(viewport={"width": request.param, "height": 800})
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("dialog", lambda dialog: (page.errors.append(dialog.message), dialog.dismiss()))
    page.goto(address)
    page.get_by_role("button", name="Segment", exact=True).wait_for()
    yield page
    assert not page.errors
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()


def source(tab) -> str:
    image = tab.locator("#overlay img")
    return image.first.get_attribute("src") if image.count() else ""


def wait_for_another(tab, before: str) -> str:
    tab.wait_for_function(
        "before => { const i = document.querySelector('#overlay img');"
        " return i && i.getAttribute('src') !== before; }",
        arg=before,
    )
    return source(tab)


def upload(tab, path: pathlib.Path) -> None:
    clear = tab.get_by_role("button", name=re.compile("clear|remove", re.I))
    if clear.count():
        clear.first.click()
    with tab.expect_response(re.compile("upload")):
        tab.locator("input[type=file]").first.set_input_files(path)
    tab.wait_for_timeout(500)


def submit(tab, text: str) -> None:
    box = tab.locator("#phrases textarea")
    box.fill(text)
    box.press("Enter")


def test_an_example_is_chosen_by_keyboard_and_its_result_is_seen(tab):
    tab.locator("#phrases textarea").focus()
    for _ in range(3):  # Segment, Stop, the first example
        tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.closest('.examples') !== null")
    assert tab.locator("ul.examples").bounding_box()["y"] < 800
    tab.keyboard.press("Enter")
    first = wait_for_another(tab, "")
    tab.wait_for_timeout(1000)  # for the scrolling to end
    assert tab.locator("#overlay img").evaluate("i => i.getBoundingClientRect().top < innerHeight - 100")
    for figure in tab.locator("#overlay figure, #details figure").all():
        image, caption = figure.locator("img").bounding_box(), figure.locator("figcaption").bounding_box()
        assert caption["y"] >= image["y"] + image["height"]
    tab.locator("#threshold input[type=range]").focus()
    tab.keyboard.press("ArrowRight")
    wait_for_another(tab, first)


@pytest.mark.parametrize("tab", [1280], indirect=True)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_have_contrast_and_controls_have_names(tab, theme):
    tab.goto(f"{tab.url.split('?')[0]}?__theme={theme}")
    assert tab.evaluate("document.documentElement.lang") == "en"
    playwright.expect(tab).to_have_title("GenMask-JAX: micro")
    upload(tab, SCENE)
    submit(tab, "the star; the circle")
    wait_for_another(tab, "")
    for name, wait_for in (
        ("Segment", "#overlay img"),
        ("Generate", "#prompt"),
        ("How it works", "#noise img"),
    ):
        tab.get_by_role("tab", name=name).click()
        if name == "Generate":
            tab.locator("#prompt textarea").fill("a red star")
            tab.get_by_role("button", name="Generate", exact=True).click()
            tab.locator("#drawn img").last.wait_for()
        tab.locator(wait_for).first.wait_for()
        tab.wait_for_timeout(500)  # for fades to end
        assert tab.evaluate(LOW_CONTRAST_TEXTS) == []
        tree = tab.locator("body").aria_snapshot()
        assert not UNNAMED_CONTROL.findall(tree), tree
        assert tab.locator("img:not([alt])").count() == 0


def test_one_mistake_gives_one_message(tab, tmp_path):
    def expect_problem(text: str) -> None:
        problem = tab.locator(".problem").locator("visible=true")
        problem.filter(has_text=text).wait_for()
        assert problem.count() == 1
        assert tab.get_by_text(text).locator("visible=true").count() == 1
        assert tab.locator("[data-testid=toast-body]").count() == 0
        playwright.expect(problem).to_be_in_viewport()

    submit(tab, "a star")
    expect_problem("Add an image first")
    (tmp_path / "no.png").write_text("hello")
    upload(tab, tmp_path / "no.png")
    submit(tab, "a star")
    expect_problem("it is not an image")
    upload(tab, SCENE)
    submit(tab, "")
    expect_problem("Type what to find")
    submit(tab, "a; b; c; d; e; f; g")
    expect_problem("give at most 6")
    submit(tab, "a" * 500)
    expect_problem("is too long")
    tab.get_by_role("tab", name="Generate").click()
    tab.get_by_role("button", name="Generate", exact=True).click()
    expect_problem("Type what to draw")


@pytest.mark.parametrize("tab", [1280], indirect=True)
def test_hostile_texts_stay_texts(tab):
    upload(tab, SCENE)
    submit(tab, "<img src=x onerror=alert(1)>; <script>alert(2)</script>; ${alert(3)}; {{value}}; {{#each}}")
    wait_for_another(tab, "")
    shown = tab.locator("#details h2").all_inner_texts()
    assert shown[0] == "<img src=x onerror=alert(1)>"
    assert shown[2:] == ["${alert(3)}", "{{value}}", "{{#each}}"]
    tab.wait_for_timeout(500)


@pytest.mark.parametrize("tab", [1280], indirect=True)
def test_odd_images_are_shown(tab, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (39, 52, 4), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    Image.fromarray(pixels, "CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(pixels[..., :3]).resize((5200, 3900)).save(tmp_path / "large.jpg")
    before = ""
    for name in ("rgba.png", "cmyk.jpg", "deep.png", "large.jpg"):
        upload(tab, tmp_path / name)
        submit(tab, "a star")
        before = wait_for_another(tab, before)


@pytest.mark.parametrize("tab", [1280], indirect=True)
def test_a_run_can_be_stopped(tab, handlers, monkeypatch):
    monkeypatch.setattr(handlers, "segment", lambda *_: released.wait(20))
    released = threading.Event()
    upload(tab, SCENE)
    submit(tab, "a star")
    tab.wait_for_timeout(1000)
    tab.get_by_role("button", name="Stop").first.click()
    tab.get_by_text("Stopped.").wait_for()
    released.set()
    tab.wait_for_timeout(1000)
    assert source(tab) == ""
    assert tab.get_by_text("Stopped.").is_visible()


@pytest.mark.parametrize("tab", [1280, 390], indirect=True)
def test_images_are_generated_and_noise_is_shown(tab, handlers):
    tab.get_by_role("tab", name="Generate").click()
    tab.locator("#prompt textarea").fill("a red star")
    tab.keyboard.press("Enter")
    tab.get_by_alt_text("Drawn with seed 0: a red star").wait_for()
    seeds = tab.locator("#drawn figcaption").filter(has_text=re.compile(r"^seed \d+$"))
    assert seeds.all_inner_texts() == ["seed 0", "seed 1", "seed 2", "seed 3"]
    steps = tab.locator("#drawn figcaption").filter(has_text=re.compile(r"^\d+ of \d+$"))
    assert steps.count() == min(8, handlers.default_steps)
    tab.get_by_role("tab", name="How it works").click()
    tab.locator("#noise img").first.wait_for()
    before = tab.locator("#noise img").first.get_attribute("src")
    tab.locator("#t input[type=range]").focus()
    tab.keyboard.press("ArrowRight")
    tab.wait_for_function(
        "before => document.querySelector('#noise img').getAttribute('src') !== before", arg=before
    )
