"""The page's layout, and which control calls what."""

import contextlib
import html
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from genmask_jax.data.refershapes.styles import STYLES
from genmask_jax.inference.generator import NUM_CANDIDATES
from genmask_jax.inference.segmentation import Segmentation
from genmask_jax.pretrained import PROMPT
from genmask_jax.tools.demo import style, views
from genmask_jax.tools.demo.handlers import NOISES, Handlers
from genmask_jax.tools.demo.limits import (
    IMAGE_STEPS,
    MAX_CANDIDATES,
    MAX_GUIDANCE,
    MAX_LETTERS,
    MAX_PHRASES,
    MAX_SEED,
    MAX_SIDE,
    Rate,
)
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.paths import write_text

STRIP = 8
"""Steps that are shown beside a generated image."""
KEEP_SECONDS = 1800
"""How long a visitor's last image is kept."""
INTRODUCTION = """# GenMask-JAX
One diffusion transformer finds what words name in an image, and draws images. Model: {title}.
"""
SHAPES = """It knows scenes of coloured shapes ({kinds}) and English phrases such as “{phrase}”.
"""
HOW = """
A mask is an image like any other: the same VAE turns it into latents, and the same transformer learns to
remove noise from both. They differ in *how much* noise they are trained at.

A mask has few details, so it can be recovered at noise levels where an image has lost its outlines: move
the slider, and compare what one pass makes of each. The answer can be read off a mask with moderate noise,
which teaches nothing about *which* pixels a phrase means. Masks are therefore trained close to pure noise,
where the answer has to come from the image and the words, and one pass from pure noise gives a mask.

Images take several steps from pure noise to a clean image, and are trained at the levels between: half of
this model's between {low:.2f} and {high:.2f}.
"""
MODEL = {"concurrency_limit": 1, "concurrency_id": "model"}
"""Of events that run the model: one at a time."""


def build(handlers: Handlers, title: str, per_minute: int) -> gr.Blocks:
    """The page for one model.

    Args:
        handlers: what it does.
        title: the model's name.
        per_minute: runs of the model that a visitor may ask for.
    """
    rate = Rate(per_minute)
    gr.set_static_paths([handlers.folder])  # its files are sent as they are, not copied first
    blocks = gr.Blocks(title=f"GenMask-JAX: {title}", analytics_enabled=False, delete_cache=(600, 3600))
    with blocks:
        gr.Markdown(_introduction(handlers, title))
        found = gr.State(None, time_to_live=KEEP_SECONDS)
        with gr.Tab("Segment", id="segment"):
            _segment_tab(handlers, rate, found)
        with gr.Tab("Generate", id="generate"):
            _generate_tab(handlers, rate)
        with gr.Tab("How it works", id="how") as tab:
            _how_tab(handlers, rate, found, tab)
    return blocks


def _introduction(handlers: Handlers, title: str) -> str:
    text = INTRODUCTION.format(title=title)
    if handlers.examples:
        kinds = ", ".join(STYLES[handlers.config.data.scenes].kinds)
        text += SHAPES.format(kinds=kinds, phrase=handlers.examples[0][1])
    return text


def appearance(handlers: Handlers) -> dict[str, Any]:
    """Arguments of `Blocks.launch` for how the page looks."""
    icon = pathlib.Path(handlers.folder) / "icon.svg"
    write_text(icon, style.ICON)
    return {"theme": style.theme(), "css": style.CSS, "favicon_path": icon}


def _segment_tab(handlers: Handlers, rate: Rate, found: gr.State) -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            image = gr.Image(
                label="Image",
                type="filepath",
                sources=["upload", "clipboard", "webcam"],
                height=260,
                placeholder=f"Drop an image here, or click. Sides of more than {MAX_SIDE:,} px are reduced.",
                alt_text="The image to segment",
            )
            # Gradio would open the file; our own reader also says why one cannot be read.
            image.preprocess = lambda payload: payload and payload.path
            text = gr.Textbox(
                label="What to find",
                info=f"A phrase, or up to {MAX_PHRASES} with semicolons between them",
                placeholder="the red star; the large circle",
                max_length=MAX_PHRASES * (MAX_LETTERS + 2),
                elem_id="phrases",
            )
            with gr.Row():
                button = gr.Button("Segment", variant="primary", scale=3, min_width=120)
                stop = gr.Button("Stop", scale=1, min_width=80)
            chosen = gr.HTML(
                views.examples(handlers.examples), js_on_load=style.CHOOSE, visible=bool(handlers.examples)
            )
        with gr.Column(scale=3, min_width=280, elem_id="results"):
            message = gr.HTML(views.message("The masks appear here."), js_on_load=style.ANNOUNCE)
            overlay = gr.HTML(min_height=80, elem_id="overlay")
            threshold = gr.Slider(
                0.05,
                0.95,
                value=handlers.threshold,
                step=0.05,
                label="Threshold",
                info="The probability above which a pixel belongs to a mask; it moves without another run",
                elem_id="threshold",
            )
            details = gr.HTML(elem_id="details")
            with gr.Accordion("Download", open=False):
                files = gr.File(
                    label="Pictures as PNG, numbers as JSON, masks as COCO's RLE", interactive=False
                )
    results = [message, overlay, details, files]

    def show(found: Segmentation | None, threshold: float) -> tuple:
        if found is None:
            return tuple(gr.skip() for _ in results)
        shown = handlers.show(found, threshold)
        said = views.message(*views.summary(shown.found))
        return said, views.overlay(shown), views.details(shown, NOISES), shown.files

    def find(image: str | None, text: str, threshold: float, request: gr.Request) -> tuple:
        try:
            rate.count(visitor(request))
            found = handlers.segment(image, text)
        except UserError as error:
            return None, views.message(str(error), problem=True), "", "", None
        return found, *show(found, threshold)

    def choose(event: gr.EventData) -> tuple[str, str]:
        return handlers.examples[event.index]

    inputs, outputs = [image, text, threshold], [found, *results]
    private = {"api_visibility": "private", "show_progress_on": overlay}
    asked = gr.on([button.click, text.submit], find, inputs, outputs, **private, **MODEL)
    picked = chosen.click(choose, None, [image, text], api_visibility="private", show_progress="hidden")
    tried = picked.then(find, inputs, outputs, **private, **MODEL)
    for event in (asked, tried):
        event.then(None, js=style.SHOW_RESULTS % "#results")
    stop.click(lambda: views.message("Stopped."), None, message, cancels=[asked, tried], queue=False,
               api_visibility="private")  # fmt: skip
    threshold.change(
        show, [found, threshold], results, trigger_mode="always_last", show_progress="hidden",
        concurrency_limit=2, api_visibility="private",
    )  # fmt: skip

    def segment(image: str | None, text: str, threshold: float, request: gr.Request):
        with raising():
            rate.count(visitor(request))
            shown = handlers.show(handlers.segment(image, text), threshold)
        return shown.found.to_dict(), shown.files

    _for_scripts(
        segment, inputs, [gr.JSON(visible=False), gr.File(visible=False, file_count="multiple")],
        "Finds phrases in an image: areas, boxes and scores, and files of masks and pictures.",
    )  # fmt: skip


def _generate_tab(handlers: Handlers, rate: Rate) -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            prompt, *others = _generate_controls(handlers)
            inputs = [prompt, *others]
            with gr.Row():
                button = gr.Button("Generate", variant="primary", scale=3, min_width=120)
                stop = gr.Button("Stop", scale=1, min_width=80)
        with gr.Column(scale=3, min_width=280, elem_id="drawing"):
            message = gr.HTML(views.message("The images appear here."), js_on_load=style.ANNOUNCE)
            result = gr.HTML(min_height=120, elem_id="drawn")

    def draw(prompt: str, seed: float, count: float, guidance: float, steps: int, request: gr.Request):
        try:
            rate.count(visitor(request))
            drawn = handlers.generate(prompt, seed, count, guidance, steps)
        except UserError as error:
            return views.message(str(error), problem=True), ""
        unknown = views.of_unknown(handlers.generator.unknown_words(prompt))
        return views.message(f"Done, in {steps} steps.", *unknown), views.drawn(drawn, prompt, STRIP)

    asked = gr.on(
        [button.click, prompt.submit], draw, inputs, [message, result], show_progress_on=result,
        api_visibility="private", **MODEL,
    )  # fmt: skip
    asked.then(None, js=style.SHOW_RESULTS % "#drawing")
    stop.click(lambda: views.message("Stopped."), None, message, cancels=asked, queue=False,
               api_visibility="private")  # fmt: skip

    def generate(prompt: str, seed: float, count: float, guidance: float, steps: int, request: gr.Request):
        with raising():
            rate.count(visitor(request))
            drawn = handlers.generate(prompt, seed, count, guidance, steps)
        return list(drawn), [frames[-1] for frames in drawn.values()]

    _for_scripts(
        generate, inputs, [gr.JSON(visible=False), gr.File(visible=False, file_count="multiple")],
        "Draws images of a prompt: their seeds, and a file for each.",
    )  # fmt: skip


def _generate_controls(handlers: Handlers) -> tuple[gr.Textbox, gr.Number, gr.Slider, gr.Slider, gr.Radio]:
    """Prompt, seed, number of images, guidance scale and steps."""
    prompt = gr.Textbox(
        label="What to draw",
        placeholder=PROMPT,
        max_length=MAX_LETTERS,
        elem_id="prompt",
    )
    seed = gr.Number(
        0,
        label="Seed",
        info="Of the first image; the others have the seeds after it",
        precision=0,
        minimum=0,
        maximum=MAX_SEED,
    )
    count = gr.Slider(
        1,
        MAX_CANDIDATES,
        value=NUM_CANDIDATES,
        step=1,
        label="Images",
        info="To choose from; set 1 and a seed to draw one of them again",
    )
    guidance = gr.Slider(
        0,
        MAX_GUIDANCE,
        value=handlers.config.sampler.guidance_scale,
        step=0.5,
        label="Guidance scale",
        info="How strongly the image follows the words",
    )
    steps = gr.Radio(IMAGE_STEPS, value=handlers.default_steps, label="Steps")
    return prompt, seed, count, guidance, steps


def _how_tab(handlers: Handlers, rate: Rate, found: gr.State, tab: gr.Tab) -> None:
    low, high = handlers.image_levels()
    gr.Markdown(HOW.format(low=low, high=high))
    t = gr.Slider(
        0, 1, value=0.6, step=0.05, label="Noise level t", info="0 is clean, 1 is pure noise", elem_id="t"
    )
    pictures = gr.HTML(min_height=160, elem_id="noise")
    gr.Markdown("## Where training draws noise levels")
    gr.HTML(views.densities(handlers.densities()))

    def look(found: Segmentation | None, t: float, request: gr.Request) -> str:
        try:
            rate.count(visitor(request))
            shown = found or handlers.first
            if shown is None:
                return views.message("Segment an image first: its mask is shown here.")
            return views.noise(handlers.look_at_noise(shown, t), shown.phrases[0], t)
        except UserError as error:
            return views.message(str(error), problem=True)

    gr.on(
        [tab.select, t.change], look, [found, t], pictures, trigger_mode="always_last",
        show_progress="hidden", api_visibility="private", **MODEL,
    )  # fmt: skip


def _for_scripts(fn: Callable, inputs: list, outputs: list, description: str) -> None:
    """A call of the API, by the function's name, that nothing on the page makes."""
    gr.Button(visible=False).click(fn, inputs, outputs, api_description=description, **MODEL)


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """Sends a UserError to a script."""
    try:
        yield
    except UserError as error:
        raise gr.Error(html.escape(str(error)), print_exception=False) from error


def visitor(request: gr.Request | None) -> str:
    """Who asks, as far as the network tells."""
    return request.client.host if request and request.client else ""
