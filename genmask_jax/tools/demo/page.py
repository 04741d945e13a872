"""The page's layout, and the handlers of its controls."""

import contextlib
import html
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import gradio as gr
from gradio.components import Component

from genmask_jax.data.refershapes.styles import STYLES
from genmask_jax.inference.generator import NUM_CANDIDATES
from genmask_jax.inference.segmentation import Segmentation
from genmask_jax.pretrained import EXAMPLE_PROMPT
from genmask_jax.tools.demo import style, views
from genmask_jax.tools.demo.handlers import NUM_NOISES, Handlers
from genmask_jax.tools.demo.limits import (
    IMAGE_STEPS,
    MAX_CANDIDATES,
    MAX_CHARACTERS,
    MAX_GUIDANCE,
    MAX_PHRASES,
    MAX_SEED,
    MAX_SIDE,
    RateLimiter,
)
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.paths import write_text

NUM_FRAMES = 8
"""Number of steps to show of a generated image."""
RESULT_SECONDS = 1800
"""Time after which a visitor's last result is deleted."""
INTRODUCTION = """# GenMask-JAX
One diffusion transformer segments what words name in an image, and generates images. Model: {title}.
"""
SHAPES_INTRODUCTION = """It knows scenes of coloured shapes ({kinds}) and English phrases such as “{phrase}”.
"""
EXPLANATION = """
A mask is an RGB image: the same VAE encodes masks and images, and the same transformer learns to remove noise
from both. They differ in the noise levels that they are trained at.

A mask has few details, so it can be recovered at noise levels where an image has lost its outlines: move
the slider, and compare the predictions of one pass. A mask with moderate noise still shows the answer, so it
does not teach the model *which* pixels a phrase means. Masks are therefore trained close to pure noise, where
the model must use the image and the words. One pass from pure noise then gives a mask.

Images take several steps from pure noise to a clean image, and are trained at the levels between: half of
this model's training levels are between {low:.2f} and {high:.2f}.
"""
MODEL_EVENT = {"concurrency_limit": 1, "concurrency_id": "model"}
"""Options of events that run the model: one at a time."""


def build(handlers: Handlers, title: str, per_minute: int) -> gr.Blocks:
    """Builds the page for one model.

    Args:
        handlers: the model, and the work of the page.
        title: name of the model.
        per_minute: largest number of requests per visitor and minute.
    """
    limiter = RateLimiter(per_minute)
    os.environ["GRADIO_TEMP_DIR"] = str(handlers.uploads)
    os.environ["GRADIO_RUN_HISTORY"] = "False"  # it would send results to Hugging Face
    gr.set_static_paths([handlers.directory])  # serves the files without copying them
    blocks = gr.Blocks(title=f"GenMask-JAX: {title}", analytics_enabled=False)
    with blocks:
        gr.Markdown(_introduction(handlers, title))
        result = gr.State(None, time_to_live=RESULT_SECONDS)
        with gr.Tab("Segment", id="segment"):
            _segment_tab(handlers, limiter, result)
        with gr.Tab("Generate", id="generate"):
            _generate_tab(handlers, limiter)
        with gr.Tab("How it works", id="how") as tab:
            _explanation_tab(handlers, limiter, result, tab)
    for block in blocks.blocks.values():
        if isinstance(block, Component):
            _accept_only_uploads(block)
    return blocks


def _accept_only_uploads(component: Component) -> None:
    """Makes a component refuse the address of a file, which Gradio would download, without a limit."""
    move = component.async_move_resource_to_block_cache

    async def move_upload(url_or_file_path: str | pathlib.Path | None) -> str | None:
        if str(url_or_file_path).startswith(("http://", "https://")):
            raise gr.Error("Upload the file; the page does not load addresses.", print_exception=False)
        return await move(url_or_file_path)

    component.async_move_resource_to_block_cache = move_upload


def _introduction(handlers: Handlers, title: str) -> str:
    text = INTRODUCTION.format(title=title)
    if handlers.examples:
        kinds = ", ".join(STYLES[handlers.config.data.scenes].kinds)
        text += SHAPES_INTRODUCTION.format(kinds=kinds, phrase=handlers.examples[0][1])
    return text


def appearance(handlers: Handlers) -> dict[str, Any]:
    """Returns the arguments of `Blocks.launch` for theme, style sheet and icon."""
    icon = handlers.directory / "icon.svg"
    write_text(icon, style.ICON)
    return {"theme": style.theme(), "css": style.CSS, "favicon_path": icon}


class _SegmentControls(NamedTuple):
    """The left column of the tab "Segment"."""

    image: gr.Image
    text: gr.Textbox
    button: gr.Button
    stop: gr.Button
    examples: gr.HTML


class _SegmentOutputs(NamedTuple):
    """The right column of the tab "Segment"."""

    message: gr.HTML
    overlay: gr.HTML
    threshold: gr.Slider
    details: gr.HTML
    files: gr.File


def _segment_tab(handlers: Handlers, limiter: RateLimiter, result: gr.State) -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            controls = _segment_controls(handlers)
        with gr.Column(scale=3, min_width=280, elem_id="results"):
            outputs = _segment_outputs(handlers)
    _connect_segment_events(handlers, limiter, result, controls, outputs)

    def segment(image: str | None, text: str, threshold: float, request: gr.Request):
        with user_errors_as_gradio_errors():
            limiter.count(get_visitor(request))
            view = handlers.render(handlers.segment(image, text), threshold)
        return view.result.to_dict(), view.files

    _add_endpoint(
        segment, [controls.image, controls.text, outputs.threshold],
        [gr.JSON(visible=False), gr.File(visible=False, file_count="multiple")],
        "Finds phrases in an image: areas, boxes and scores, and files of masks and pictures.",
    )  # fmt: skip


def _segment_controls(handlers: Handlers) -> _SegmentControls:
    image = gr.Image(
        label="Image",
        type="filepath",
        sources=["upload", "clipboard", "webcam"],
        height=260,
        placeholder=f"Drop an image here, or click. Sides of more than {MAX_SIDE:,} px are reduced.",
        alt_text="The image to segment",
    )
    # Gradio would open the file; `Handlers.segment` opens it instead, with better error messages.
    image.preprocess = lambda payload: payload and payload.path
    text = gr.Textbox(
        label="What to find",
        info=f"A phrase, or up to {MAX_PHRASES} with semicolons between them",
        placeholder="the red star; the circle",
        max_length=MAX_PHRASES * (MAX_CHARACTERS + 2),
        elem_id="phrases",
    )
    with gr.Row():
        button = gr.Button("Segment", variant="primary", scale=3, min_width=120)
        stop = gr.Button("Stop", scale=1, min_width=80)
    examples = gr.HTML(
        views.examples(handlers.examples), js_on_load=style.TRIGGER_EXAMPLE, visible=bool(handlers.examples)
    )
    return _SegmentControls(image, text, button, stop, examples)


def _segment_outputs(handlers: Handlers) -> _SegmentOutputs:
    message = gr.HTML(views.message("The masks appear here."), js_on_load=style.ANNOUNCE_CHANGES)
    overlay = gr.HTML(min_height=80, elem_id="overlay")
    threshold = gr.Slider(
        0.05,
        0.95,
        value=handlers.threshold,
        step=0.05,
        label="Threshold",
        info="Pixels with a higher probability belong to the mask; changing it does not run the model again",
        elem_id="threshold",
    )
    details = gr.HTML(elem_id="details")
    with gr.Accordion("Download", open=False):
        files = gr.File(label="Pictures as PNG, numbers as JSON, masks as COCO RLE", interactive=False)
    return _SegmentOutputs(message, overlay, threshold, details, files)


def _connect_segment_events(
    handlers: Handlers,
    limiter: RateLimiter,
    result: gr.State,
    controls: _SegmentControls,
    outputs: _SegmentOutputs,
) -> None:
    image, text, button, stop, examples = controls
    message, overlay, threshold, details, files = outputs
    result_outputs = [message, overlay, details, files]

    def show(result: Segmentation | None, threshold: float) -> tuple:
        if result is None:
            return tuple(gr.skip() for _ in result_outputs)
        view = handlers.render(result, threshold)
        summary = views.message(*views.summarize(view.result))
        return summary, views.overlay(view), views.details(view, NUM_NOISES), view.files

    def run(image: str | None, text: str, threshold: float, request: gr.Request) -> tuple:
        try:
            limiter.count(get_visitor(request))
            result = handlers.segment(image, text)
        except UserError as error:
            return None, views.message(str(error), problem=True), "", "", None
        return result, *show(result, threshold)

    def choose_example(event: gr.EventData) -> tuple[str, str]:
        return handlers.examples[event.index]

    inputs, all_outputs = [image, text, threshold], [result, *result_outputs]
    options = {"api_visibility": "private", "show_progress_on": overlay}
    submitted = gr.on([button.click, text.submit], run, inputs, all_outputs, **options, **MODEL_EVENT)
    chosen = examples.click(
        choose_example, None, [image, text], api_visibility="private", show_progress="hidden"
    )
    example_submitted = chosen.then(run, inputs, all_outputs, **options, **MODEL_EVENT)
    for event in (submitted, example_submitted):
        event.then(None, js=style.SHOW_RESULTS % "#results")
    stop.click(
        lambda: views.message("Stopped."), None, message, cancels=[submitted, example_submitted], queue=False,
        api_visibility="private",
    )  # fmt: skip
    threshold.change(
        show, [result, threshold], result_outputs, trigger_mode="always_last", show_progress="hidden",
        concurrency_limit=2, api_visibility="private",
    )  # fmt: skip


def _generate_tab(handlers: Handlers, limiter: RateLimiter) -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            inputs = _generate_controls(handlers)
            prompt = inputs[0]
            with gr.Row():
                button = gr.Button("Generate", variant="primary", scale=3, min_width=120)
                stop = gr.Button("Stop", scale=1, min_width=80)
        with gr.Column(scale=3, min_width=280, elem_id="drawing"):
            message = gr.HTML(views.message("The images appear here."), js_on_load=style.ANNOUNCE_CHANGES)
            result = gr.HTML(min_height=120, elem_id="drawn")

    def run(prompt: str, seed: float, count: float, guidance: float, steps: int, request: gr.Request):
        try:
            limiter.count(get_visitor(request))
            frames = handlers.generate(prompt, seed, count, guidance, steps)
        except UserError as error:
            return views.message(str(error), problem=True), ""
        unknown = views.describe_unknown_words(handlers.generator.unknown_words(prompt))
        message = views.message(f"Done, in {steps} steps.", *unknown)
        return message, views.candidates(frames, prompt, NUM_FRAMES)

    submitted = gr.on(
        [button.click, prompt.submit], run, inputs, [message, result], show_progress_on=result,
        api_visibility="private", **MODEL_EVENT,
    )  # fmt: skip
    submitted.then(None, js=style.SHOW_RESULTS % "#drawing")
    stop.click(lambda: views.message("Stopped."), None, message, cancels=submitted, queue=False,
               api_visibility="private")  # fmt: skip

    def generate(prompt: str, seed: float, count: float, guidance: float, steps: int, request: gr.Request):
        with user_errors_as_gradio_errors():
            limiter.count(get_visitor(request))
            frames = handlers.generate(prompt, seed, count, guidance, steps)
        return list(frames), [paths[-1] for paths in frames.values()]

    _add_endpoint(
        generate, inputs, [gr.JSON(visible=False), gr.File(visible=False, file_count="multiple")],
        "Generates images from a prompt: their seeds, and a file for each.",
    )  # fmt: skip


def _generate_controls(handlers: Handlers) -> tuple[gr.Textbox, gr.Number, gr.Slider, gr.Slider, gr.Radio]:
    """Returns the controls of prompt, seed, number of images, guidance scale and steps."""
    prompt = gr.Textbox(
        label="What to draw",
        placeholder=EXAMPLE_PROMPT,
        max_length=MAX_CHARACTERS,
        elem_id="prompt",
    )
    seed = gr.Number(
        0,
        label="Seed",
        info="Seed of the first image; the other images have the next seeds",
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
        info="Number of images; to repeat one of them, set 1 image and its seed",
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


def _explanation_tab(handlers: Handlers, limiter: RateLimiter, result: gr.State, tab: gr.Tab) -> None:
    low, high = handlers.image_level_quartiles()
    gr.Markdown(EXPLANATION.format(low=low, high=high))
    t = gr.Slider(
        0, 1, value=0.6, step=0.05, label="Noise level t", info="0 is clean, 1 is pure noise", elem_id="t"
    )
    pictures = gr.HTML(min_height=160, elem_id="noise")
    gr.Markdown("## Noise levels in training")
    gr.HTML(views.densities(handlers.densities()))

    def preview(result: Segmentation | None, t: float, request: gr.Request) -> str:
        try:
            limiter.count(get_visitor(request))
            current = result or handlers.example_result
            if current is None:
                return views.message("Segment an image first; its mask is then shown here.")
            return views.noise(handlers.preview_noise(current, t), current.phrases[0], t)
        except UserError as error:
            return views.message(str(error), problem=True)

    gr.on(
        [tab.select, t.change], preview, [result, t], pictures, trigger_mode="always_last",
        show_progress="hidden", api_visibility="private", **MODEL_EVENT,
    )  # fmt: skip


def _add_endpoint(fn: Callable, inputs: Sequence[Any], outputs: Sequence[Any], description: str) -> None:
    """Adds an API endpoint with the function's name; no control of the page calls it."""
    gr.Button(visible=False).click(fn, inputs, outputs, api_description=description, **MODEL_EVENT)


@contextlib.contextmanager
def user_errors_as_gradio_errors() -> Iterator[None]:
    """Converts a UserError to the error that Gradio sends to API clients."""
    try:
        yield
    except UserError as error:
        raise gr.Error(html.escape(str(error)), print_exception=False) from error


def get_visitor(request: gr.Request | None) -> str:
    """Returns the network address of a visitor; "" if it is unknown."""
    return request.client.host if request and request.client else ""
