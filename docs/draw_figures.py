"""Draws the figures of README.md and docs/method.md with the model in the package.

python docs/draw_figures.py
"""

import pathlib
import textwrap

import numpy as np
from PIL import Image, ImageDraw

from genmask_jax import Generator, Segmenter
from genmask_jax.config import TimestepsConfig
from genmask_jax.data.refershapes.hand_drawn import HandDrawn
from genmask_jax.data.refershapes.source import ReferShapesSegment
from genmask_jax.inference.load import load
from genmask_jax.timesteps import TimestepDistribution
from genmask_jax.tools.demo.noise import NUM_BINS, PICTURE_NAMES, NoisePreview, densities
from genmask_jax.utils.curves import plot
from genmask_jax.utils.sheets import font

FIGURES = pathlib.Path(__file__).parent / "figures"
LEVELS = (0.2, 0.5, 0.7, 0.9, 1.0)
SCENE, SIDE, MARGIN, LABEL_WIDTH, LINE_HEIGHT = 1, 128, 8, 190, 26
CAPTION_WIDTH = 20
"""Characters in a line below a picture."""
COLOURS = ("#3b53c4", "#c2410c", "#3b53c4", "#c2410c")
DASHES = ("2 3", "2 3", "none", "none")
"""Colours and dashes of the lines in `draw_timesteps`; lines of the paper are dotted."""
MAX_DENSITY = 6.0
"""Density at which the plot is cut off; the distribution of masks has a higher peak."""
PROMPT, SEED = "a large green circle", 2
"""Prompt and seed of the generated image in `draw_method`."""
PICTURE_LEFTS, BOX_EDGES = (20, 180, 610), (375, 535)
"""Left edges of the pictures in `draw_method`, and left and right edge of the transformer's box."""

PROMPTS = (
    "a large red circle",
    "a small blue circle",
    "a large purple diamond",
    "a yellow ring",
    "a large yellow circle and a small purple diamond",
    "a small green diamond and a large red circle",
)
"""Prompts of `draw_examples`, drawn with EXAMPLE_SEED."""
EXAMPLE_SEED = 1


def draw_examples() -> None:
    """Masks of the first scenes of `hand_drawn`, and images of PROMPTS, by the packaged model."""
    segmenter = Segmenter.from_pretrained("refershapes")
    scenes = HandDrawn(segmenter.networks.size)
    square = [i for i in range(40) if len({*scenes.image(i).shape[:2]}) == 1][: len(PROMPTS)]
    images = [scenes.image(i) for i in square]
    texts = [scenes[i]["text"] for i in square]
    masks = [segmenter(*one).masks[0] for one in zip(images, texts, strict=True)]
    generated = Generator(segmenter.networks, segmenter.sampler)(list(PROMPTS), seed=EXAMPLE_SEED)
    step, second = SIDE + MARGIN, 2 * (SIDE + MARGIN) + 2 * LINE_HEIGHT
    size = (MARGIN + len(PROMPTS) * step, second + step + 3 * LINE_HEIGHT)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for i, text in enumerate(texts):
        rows = [
            (0, images[i]),
            (step, masks[i].astype(np.uint8) * 255),
            (second, np.asarray(generated[i])),
        ]
        for top, picture in rows:
            large = Image.fromarray(picture).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            sheet.paste(large, (MARGIN + i * step, MARGIN + top))
        for top, words in ((step, text), (second, PROMPTS[i])):
            lines = "\n".join(textwrap.wrap(words, CAPTION_WIDTH))
            draw.multiline_text((MARGIN + i * step, MARGIN + top + SIDE + 4), lines, "black", font(12))
    sheet.save(FIGURES / "examples.png", optimize=True)


def draw_method() -> None:
    """The inputs and the output of the transformer for both tasks."""
    segmenter = Segmenter.from_pretrained("refershapes")
    example = ReferShapesSegment("test", 2 * SIDE)[SCENE]
    result = segmenter(example["image"], example["text"])
    generated = Generator(segmenter.networks, segmenter.sampler)(PROMPT, seed=SEED)
    noise = NoisePreview(segmenter.networks)(result.image, result.masks[0], example["text"], 1.0)[0]
    rows = (
        ("Segment, 1 pass", example["text"], (result.image, noise, result.masks[0].astype(np.uint8) * 255)),
        ("Generate, 20 steps", PROMPT, (None, noise, np.asarray(generated))),
    )
    height = 72 + SIDE
    sheet = Image.new("RGB", (PICTURE_LEFTS[-1] + SIDE + 20, len(rows) * height + 10), "white")
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((BOX_EDGES[0], 44, BOX_EDGES[1], sheet.height - 20), outline="#3b53c4", width=2)
    middle = (sum(BOX_EDGES) // 2, sheet.height // 2)
    draw.multiline_text(middle, "one\ndiffusion\ntransformer", "#3b53c4", font(), "mm", align="center")
    for i, (task, text, pictures) in enumerate(rows):
        top = i * height + 44
        draw.text((PICTURE_LEFTS[0], top - 36), f"{task}:  “{text}”", "black", font())
        names = ("image", "noise", ("mask", "image")[i])
        for left, picture, name in zip(PICTURE_LEFTS, pictures, names, strict=True):
            if picture is None:
                draw.text((left + SIDE // 2, top + SIDE // 2), "(no image)", "#808080", font(), "mm")
                continue
            large = Image.fromarray(picture).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            sheet.paste(large, (left, top))
            draw.text((left + SIDE // 2, top + SIDE + 4), name, "#808080", font(), "ma")
        for start, end in ((PICTURE_LEFTS[1] + SIDE, BOX_EDGES[0]), (BOX_EDGES[1], PICTURE_LEFTS[2])):
            _arrow(draw, start + MARGIN, end - MARGIN, top + SIDE // 2)
    sheet.save(FIGURES / "method.png", optimize=True)


def _arrow(draw: ImageDraw.ImageDraw, start: int, end: int, y: int) -> None:
    draw.line((start, y, end, y), "black", 2)
    draw.polygon([(end, y), (end - 9, y - 5), (end - 9, y + 5)], "black")


def draw_noise() -> None:
    """Noisy masks and images, and their predictions in one pass, at several noise levels."""
    segmenter = Segmenter.from_pretrained("refershapes")
    example = ReferShapesSegment("test", segmenter.networks.size)[SCENE]
    noise = NoisePreview(segmenter.networks)
    columns = [noise(example["image"], example["mask"] == 1, example["text"], t) for t in LEVELS]
    width = LABEL_WIDTH + len(LEVELS) * (SIDE + MARGIN)
    sheet = Image.new("RGB", (width, LINE_HEIGHT + len(PICTURE_NAMES) * (SIDE + MARGIN)), "white")
    draw = ImageDraw.Draw(sheet)
    for j, t in enumerate(LEVELS):
        left = LABEL_WIDTH + j * (SIDE + MARGIN)
        draw.text((left + 4, 4), f"t = {t:g}", fill="black", font=font())
        for i in range(len(PICTURE_NAMES)):
            large = Image.fromarray(columns[j][i]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            sheet.paste(large, (left, LINE_HEIGHT + i * (SIDE + MARGIN)))
    for i, name in enumerate(PICTURE_NAMES):
        draw.text((4, LINE_HEIGHT + i * (SIDE + MARGIN) + SIDE // 2 - 8), name, fill="black", font=font())
    sheet.save(FIGURES / "noise.png", optimize=True)


def draw_timesteps() -> None:
    """Densities of the noise levels in training, in the paper and of the packaged model."""
    ours = load("refershapes")[1].timesteps
    paper = TimestepsConfig(
        segment=TimestepDistribution("long_tail"), generate=TimestepDistribution("logit_normal")
    )
    sources = {"in the paper": densities(paper), "of the model in the package": densities(ours)}
    lines = {
        f"{name}, {source}": [
            ((i + 0.5) / NUM_BINS, min(float(y), MAX_DENSITY)) for i, y in enumerate(values)
        ]
        for source, distributions in sources.items()
        for name, values in distributions.items()
    }
    rules = "".join(
        f".line{i}{{color:{colour};stroke-dasharray:{dash}}}"
        for i, (colour, dash) in enumerate(zip(COLOURS, DASHES, strict=True))
    )
    style = (
        "<style>text{font:11px sans-serif;fill:#333}.grid{stroke:#ddd}"
        f".line polyline{{fill:none;stroke-width:2;stroke:currentColor}}{rules}</style>"
        "<rect width='100%' height='100%' fill='white'/>"
    )
    legend = "".join(
        f"<text x='124' y='{34 + 18 * i}' style='fill:{COLOURS[i]}'>{name}</text>"
        f"<line x1='100' x2='118' y1='{30 + 18 * i}' y2='{30 + 18 * i}'"
        f" stroke='{COLOURS[i]}' stroke-width='2' stroke-dasharray='{DASHES[i]}'/>"
        for i, name in enumerate(lines)
    )
    svg = plot(lines, x_range=(0, 1)).replace(">", f">{style}", 1).replace("</svg>", f"{legend}</svg>")
    (FIGURES / "timesteps.svg").write_text(svg)


if __name__ == "__main__":
    FIGURES.mkdir(exist_ok=True)
    draw_examples()
    draw_method()
    draw_noise()
    draw_timesteps()
    print(*sorted(map(str, FIGURES.iterdir())), sep="\n")
