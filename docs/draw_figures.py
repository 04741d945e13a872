"""Draws the figures of docs/method.md, with the model in the package.

python docs/draw_figures.py
"""

import pathlib

from PIL import Image, ImageDraw

from genmask_jax import Segmenter
from genmask_jax.config import TimestepsConfig
from genmask_jax.curves import plot
from genmask_jax.data.refershapes.source import ReferShapesSegment
from genmask_jax.demo.noise import BINS, NAMES, Noise, densities
from genmask_jax.inference.load import load
from genmask_jax.sheets import font
from genmask_jax.timesteps import Law

FIGURES = pathlib.Path(__file__).parent / "figures"
LEVELS = (0.2, 0.5, 0.7, 0.9, 1.0)
SCENE, SIDE, MARGIN, LABEL, LINE = 1, 128, 8, 190, 26
COLOURS = ("#3b53c4", "#c2410c", "#3b53c4", "#c2410c")
DASHES = ("2 3", "2 3", "none", "none")
"""Of the lines in `draw_laws`: the paper's are dotted."""
HIGHEST = 6.0
"""Density at which the plot is cut off; masks' law has a higher peak."""


def draw_noise() -> None:
    """A mask and its image with noise, and from one pass, at several noise levels."""
    segmenter = Segmenter.from_pretrained("refershapes")
    example = ReferShapesSegment("test", segmenter.networks.size)[SCENE]
    noise = Noise(segmenter.networks)
    columns = [noise(example["image"], example["mask"] == 1, example["text"], t) for t in LEVELS]
    width = LABEL + len(LEVELS) * (SIDE + MARGIN)
    sheet = Image.new("RGB", (width, LINE + len(NAMES) * (SIDE + MARGIN)), "white")
    draw = ImageDraw.Draw(sheet)
    for j, t in enumerate(LEVELS):
        left = LABEL + j * (SIDE + MARGIN)
        draw.text((left + 4, 4), f"t = {t:g}", fill="black", font=font())
        for i in range(len(NAMES)):
            large = Image.fromarray(columns[j][i]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            sheet.paste(large, (left, LINE + i * (SIDE + MARGIN)))
    for i, name in enumerate(NAMES):
        draw.text((4, LINE + i * (SIDE + MARGIN) + SIDE // 2 - 8), name, fill="black", font=font())
    sheet.save(FIGURES / "noise.png", optimize=True)


def draw_laws() -> None:
    """Where the paper's laws and those of the package's model draw noise levels."""
    ours = load("refershapes")[1].timesteps
    paper = TimestepsConfig(segment=Law("long_tail"), generate=Law("logit_normal"))
    both = {"in the paper": densities(paper), "of the model in the package": densities(ours)}
    lines = {
        f"{name}, {whose}": [((i + 0.5) / BINS, min(float(value), HIGHEST)) for i, value in enumerate(values)]
        for whose, laws in both.items()
        for name, values in laws.items()
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
    keys = "".join(
        f"<text x='124' y='{34 + 18 * i}' style='fill:{COLOURS[i]}'>{name}</text>"
        f"<line x1='100' x2='118' y1='{30 + 18 * i}' y2='{30 + 18 * i}'"
        f" stroke='{COLOURS[i]}' stroke-width='2' stroke-dasharray='{DASHES[i]}'/>"
        for i, name in enumerate(lines)
    )
    svg = plot(lines, x_range=(0, 1)).replace(">", f">{style}", 1).replace("</svg>", f"{keys}</svg>")
    (FIGURES / "laws.svg").write_text(svg)


if __name__ == "__main__":
    FIGURES.mkdir(exist_ok=True)
    draw_noise()
    draw_laws()
    print(*sorted(map(str, FIGURES.iterdir())), sep="\n")
