"""The page's layout, and which control calls what."""

import contextlib
import html
import time
from collections.abc import Iterator
from typing import Any, no_type_check

import gradio as gr
import pandas as pd
from gradio import themes

from genmask_jax.demo.handlers import Handlers
from genmask_jax.demo.limits import (
    IMAGE_STEPS,
    MAX_GUIDANCE,
    MAX_LETTERS,
    MAX_PHRASES,
    MAX_SEED,
    MAX_SIDE,
    Rate,
)
from genmask_jax.demo.noise import NAMES
from genmask_jax.errors import UserError
from genmask_jax.inference.segmentation import Segmentation

FRAME_SECONDS = 0.05
MAX_DENSITY = 5
"""Of the plot; masks' law has a peak many times as high."""
KEEP_SECONDS = 1800
"""How long a visitor's last image is kept."""
HEADERS = ["phrase", "pixels", "share", "box: left, top to right, bottom", "score"]
CSS = """
.fill img { width: 100%; height: 100%; object-fit: contain; }
.thumbs .grid-container { grid-template-columns: repeat(auto-fill, minmax(120px, 1fr)) !important; }
.thumbs .grid-wrap { min-height: 0 !important; height: auto !important; max-height: 420px; }
.gradio-container { width: 100% !important; max-width: 1200px !important; margin: 0 auto !important; }
"""
HOW = """
A mask is an image like any other: the same VAE turns it into latents, and the same transformer learns to
remove noise from both. They differ in *how much* noise they are trained at. A mask has few details, so it
can be recovered at noise levels where an image has lost its outlines: move the slider, and compare what
one pass makes of them. A mask at moderate noise gives its own answer away, and teaches nothing about
*which* pixels a phrase means. Masks are therefore trained close to pure noise, where the answer has to
come from the image and the words, and one pass from pure noise gives a mask. Images are trained at
moderate noise, and take several steps.
"""


def theme() -> themes.Base:
    """Colours and fonts; none is fetched from elsewhere."""
    return themes.Soft(primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["monospace"])


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """Shows a UserError to the visitor."""
    try:
        yield
    except UserError as error:
        raise gr.Error(html.escape(str(error)), print_exception=False) from error


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
        gr.Markdown(f"# GenMask-JAX\nOne diffusion transformer finds and draws. Model: `{title}`")
        found = gr.State(None, time_to_live=KEEP_SECONDS)
        with gr.Tab("Segment", id="segment"):
            _segment_tab(handlers, rate, found)
        with gr.Tab("Generate", id="generate"):
            _generate_tab(handlers, rate)
        with gr.Tab("How it works", id="how") as tab:
            _how_tab(handlers, rate, found, tab)
    return blocks


def _segment_tab(handlers: Handlers, rate: Rate, found: gr.State) -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            image = gr.Image(
                label="Image",
                type="filepath",
                sources=["upload", "clipboard", "webcam"],
                height=300,
                placeholder=f"Drop an image here, or click. More than {MAX_SIDE} px a side are reduced.",
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
            button = gr.Button("Segment", variant="primary")
            threshold = gr.Slider(
                0.05,
                0.95,
                value=handlers.threshold,
                step=0.05,
                label="Threshold",
                info="The probability above which a pixel belongs to a mask",
                elem_id="threshold",
            )
        with gr.Column(scale=3, min_width=300):
            overlay = picture("Found", 380, elem_id="overlay")
            table = gr.Dataframe(headers=HEADERS, label="Areas", interactive=False, wrap=True)
            gr.Markdown("**Masks**")
            masks = gallery("Masks", elem_id="masks")
            with gr.Row():
                with gr.Column(min_width=200):
                    gr.Markdown("**Label map**: the most probable phrase at each pixel")
                    label_map = picture("Label map", 200, show_label=False)
                with gr.Column(min_width=200):
                    gr.Markdown("**Uncertainty**: how far four noises disagree")
                    uncertainty = gallery("Uncertainty")
            with gr.Accordion("Download", open=False):
                files = gr.File(label="PNG, and RLE as COCO writes it", interactive=False)
    examples = None
    if handlers.examples:
        examples = gr.Examples([list(one) for one in handlers.examples], [image, text])
    views = [overlay, table, masks, label_map, uncertainty, files]

    def show(found: Segmentation | None, threshold: float):
        if found is None:
            return tuple(gr.skip() for _ in views)
        with telling():
            s = handlers.show(found, threshold)
        return s.overlay, s.table, s.masks, s.label_map, s.uncertainty, s.files

    def segment(image: str | None, text: str, threshold: float, request: gr.Request):
        with telling():
            rate.count(visitor(request))
            found = handlers.segment(image, text)
        return found, *show(found, threshold)

    inputs, outputs = [image, text, threshold], [found, *views]
    run = {"concurrency_limit": 1, "concurrency_id": "model", "scroll_to_output": False}
    gr.on(
        [button.click, text.submit], segment, inputs, outputs, api_name="segment",
        api_description="Finds phrases in an image.", **run,
    )  # fmt: skip
    threshold.change(
        show, [found, threshold], views, trigger_mode="always_last", show_progress="hidden",
        concurrency_limit=2, api_visibility="private",
    )  # fmt: skip
    if examples:
        examples.load_input_event.then(segment, inputs, outputs, api_visibility="private", **run)


def _generate_tab(handlers: Handlers, rate: Rate) -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            prompt = gr.Textbox(
                label="What to draw",
                placeholder="a large red circle",
                max_length=MAX_LETTERS,
                elem_id="prompt",
            )
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED)
            guidance = gr.Slider(
                0,
                MAX_GUIDANCE,
                value=handlers.config.sampler.guidance_scale,
                step=0.5,
                label="Guidance scale",
            )
            steps = gr.Radio(IMAGE_STEPS, value=handlers.default_steps, label="Steps")
            button = gr.Button("Generate", variant="primary")
        with gr.Column(scale=3, min_width=300):
            image = picture("Drawn", 380, elem_id="drawn")
    gr.Markdown("What the model takes the image to be, step by step")
    strip = gallery("Steps")

    @no_type_check  # a wrapper that checks types would hide from Gradio that this is a generator
    def generate(prompt: str, seed: float, guidance: float, steps: int, request: gr.Request):
        with telling():
            rate.count(visitor(request))
            for image, shown in handlers.generate(prompt, seed, guidance, steps):
                yield image, shown
                time.sleep(0 if shown else FRAME_SECONDS)

    gr.on(
        [button.click, prompt.submit], generate, [prompt, seed, guidance, steps], [image, strip],
        api_name="generate", api_description="Draws an image.", concurrency_limit=1, concurrency_id="model",
    )  # fmt: skip


def _how_tab(handlers: Handlers, rate: Rate, found: gr.State, tab: gr.Tab) -> None:
    gr.Markdown(HOW)
    t = gr.Slider(0, 1, value=0.6, step=0.05, label="Noise level t: 0 is clean, 1 is pure noise", elem_id="t")
    pictures = []
    with gr.Row():
        for name in NAMES:
            with gr.Column(min_width=160):
                gr.Markdown(f"**{name}**")
                pictures.append(picture(name, 220, show_label=False))
    rows = pd.DataFrame(handlers.densities(), columns=["noise level t", "density", "timestep law"])
    gr.Markdown(f"**Where training draws noise levels**: density, cut off at {MAX_DENSITY}")
    plot = gr.LinePlot(
        x="noise level t",
        y="density",
        color="timestep law",
        height=280,
        y_lim=[0, MAX_DENSITY],
        show_label=False,
    )

    tab.select(lambda: rows, None, plot, api_visibility="private")  # as wide as the tab, now that it is seen

    def look(found: Segmentation | None, t: float, request: gr.Request):
        with telling():
            rate.count(visitor(request))
            return handlers.look_at_noise(found, t)

    run = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private"}
    gr.on(
        [tab.select, t.change], look, [found, t], pictures, trigger_mode="always_last",
        show_progress="hidden", **run,
    )  # fmt: skip


def picture(label: str, height: int, **options: Any) -> gr.Image:
    """An image that is shown as large as its frame allows, and can be downloaded."""
    return gr.Image(
        label=label,
        format="png",
        height=height,
        interactive=False,
        buttons=["download", "fullscreen"],
        elem_classes="fill",
        **options,
    )


def gallery(label: str, **options: Any) -> gr.Gallery:
    """Captioned images."""
    return gr.Gallery(
        label=label,
        show_label=False,
        height="auto",
        elem_classes="thumbs",
        format="png",
        object_fit="contain",
        interactive=False,
        **options,
    )


def visitor(request: gr.Request | None) -> str:
    """Who asks, as far as the network tells."""
    return request.client.host if request and request.client else ""
