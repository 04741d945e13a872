"""Contact sheets of segmented and generated images."""

import colorsys
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from genmask_jax.utils.paths import replacing

PREDICTION_COLOUR = (255, 0, 200)
OUTLINE = 150
"""Of these parts of an image's long side, a border is one wide."""
DISTINCT = (
    (230, 159, 0),
    (86, 180, 233),
    (204, 121, 167),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
)
"""Colours of the first labels, which the colour-blind can tell apart (Okabe and Ito, 2008)."""
GOLDEN = 0.618034  # of the hues' circle: no two of a few further labels come close
HEAT = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
"""Colours from the least to the largest value."""
IGNORE_GREY = 128
INK, FAINT, GOOD, BAD, PAPER = "#202020", "#808080", "#00783c", "#be1e1e", "#ffffff"

MIN_SIDE, MAX_SIDE = 128, 256  # of an image's long side on a sheet, in pixels
TEXT_WIDTH, FONT_SIZE, LINE, GAP, MARGIN = 160, 15, 20, 6, 20
LEGEND_LINES = 40
"""Below large images, a line of the legend is this part of their width."""
HEADINGS = ("expression", "image", "truth", "probability", "prediction")


def overlay(
    image: UInt8[np.ndarray, "H W 3"],
    mask: Bool[np.ndarray, "H W"],
    colour: tuple[int, int, int] = PREDICTION_COLOUR,
) -> UInt8[np.ndarray, "H W 3"]:
    """`outlined` with one region, whose border has `colour` (RGB, 0 to 255)."""
    return outlined(image, mask.astype(int) - 1, [colour])


def outlined(
    image: UInt8[np.ndarray, "H W 3"],
    labels: Int[np.ndarray, "H W"],
    colours: Sequence[tuple[int, int, int]] | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """The image, dark grey where a label is negative; the others' regions keep their colours inside a border.

    A tint would change the colours of objects, and would not show on objects of the tint's own colour. In
    large images a dark line separates border and region, so that a border of the object's colour shows, too.

    Args:
        image: what was segmented.
        labels: the region of each pixel, from 0 on; none if negative.
        colours: RGB of each region's border, 0 to 255; those of `label_colour` if None.
    """
    width = max(1, round(max(labels.shape) / OUTLINE))
    drawn = np.where(labels[..., None] >= 0, image, image.mean(-1, keepdims=True) / 2).astype(np.uint8)
    border = _border(labels, width)
    if width > 1:
        drawn[_border(labels, width + width // 2) & (labels >= 0)] = 0
    for number in np.unique(labels[labels >= 0]).tolist():
        drawn[border & (labels == number)] = colours[number] if colours else label_colour(number)
    return drawn


def _border(labels: Int[np.ndarray, "H W"], width: int) -> Bool[np.ndarray, "H W"]:
    """Pixels within `width` of another label or of the image's edge."""
    padded = np.pad(labels, 1, constant_values=-2)
    centre = padded[1:-1, 1:-1]
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    found = np.logical_or.reduce([centre != one for one in neighbours])
    reach = width - 1
    for axis in (0, 1):  # spread as a square, at the same cost for every width
        around = [(reach + 1, reach) if i == axis else (0, 0) for i in (0, 1)]
        counts = np.moveaxis(np.cumsum(np.pad(found, around), axis), axis, 0)
        found = np.moveaxis(counts[2 * reach + 1 :] > counts[: len(counts) - 2 * reach - 1], 0, axis)
    return found


def heat(values: Float[np.ndarray, "H W"], top: float) -> UInt8[np.ndarray, "H W 3"]:
    """Values from 0 (black) to `top` (pale yellow) in the colours of HEAT, whose lightness only grows."""
    places = np.clip(values / top, 0, 1)
    stops = np.linspace(0, 1, len(HEAT))
    channels = [np.interp(places, stops, [colour[i] for colour in HEAT]) for i in range(3)]
    return np.round(np.stack(channels, -1)).astype(np.uint8)


def segmentation_sheet(rows: Sequence[Mapping[str, Any]], path: epath.PathLike, columns: int = 2) -> None:
    """Writes a PNG that shows, for each example, expression, IoU, image, truth, probability, prediction.

    Args:
        rows: one or more examples, whose sizes may differ: `image` uint8 `[H, W, 3]`, `text`, `mask` uint8
            `[H, W]` (1: the object, 255: ignored, drawn in grey), `probability` float `[H, W]` in [0, 1],
            `prediction` bool `[H, W]`, `iou` float in [0, 1].
        path: of the PNG, in a directory that exists.
        columns: examples side by side.
    """
    columns = min(columns, len(rows))
    panels = [_panels(row) for row in rows]
    width = max(panel.width for row in panels for panel in row)
    cards = [_heading_card(width)] * columns
    for row, images in zip(rows, panels, strict=True):
        score = (f"IoU {row['iou']:.2f}", GOOD if row["iou"] >= 0.5 else BAD)
        lines = [(line, INK) for line in _wrap(row["text"], TEXT_WIDTH)]
        card = _paper(_panel_left(4, width), max(images[0].height, LINE * (len(lines) + 1)))
        _write(card, 0, 0, [*lines, score])
        for i, image in enumerate(images):
            card.paste(image, (_panel_left(i, width), 0))
        cards.append(card)
    _save_grid(cards, columns, path)


def generation_sheet(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    prompts: Sequence[str],
    path: epath.PathLike,
    columns: int = 6,
) -> None:
    """Writes a PNG of one or more images (uint8 `[H, W, 3]` each), each above its prompt.

    Args:
        images: images, whose sizes may differ.
        prompts: one text per image.
        path: of the PNG, in a directory that exists.
        columns: images side by side.
    """
    cards = []
    for image, prompt in zip(images, prompts, strict=True):
        panel = Image.fromarray(_resize(image))
        lines = _wrap(prompt, panel.width)
        card = _paper(panel.width, panel.height + GAP + LINE * len(lines))
        card.paste(panel, (0, 0))
        _write(card, 0, panel.height + GAP, [(line, INK) for line in lines])
        cards.append(card)
    _save_grid(cards, min(columns, len(cards)), path)


def label_colour(number: int) -> tuple[int, int, int]:
    """The colour (RGB) of the `number`-th label: DISTINCT, then hues far apart in alternating brightness."""
    if number < len(DISTINCT):
        return DISTINCT[number]
    hue, value = (number * GOLDEN) % 1.0, (0.95, 0.7)[number // 7 % 2]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def paint_labels(
    image: UInt8[np.ndarray, "H W 3"], labels: Int[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W 3"]:
    """The image in grey under the colours of its labels; pixels with a negative label stay grey."""
    grey = np.repeat(image.mean(-1, keepdims=True), 3, axis=-1)
    painted = grey.copy()
    for number in np.unique(labels[labels >= 0]).tolist():
        there = labels == number
        painted[there] = 0.35 * grey[there] + 0.65 * np.asarray(label_colour(number))
    return painted.astype(np.uint8)


def with_palette(labels: Int[np.ndarray, "H W"]) -> Image.Image:
    """Labels from -1 on as a paletted image: value 0 is black and means none, others have their colours.

    From the 256th label on, colours are used again.
    """
    values = np.where(labels < 0, 0, labels % 255 + 1).astype(np.uint8)
    image = Image.fromarray(values).convert("P")
    image.putdata(values.ravel().tolist())
    image.putpalette([0, 0, 0, *(level for i in range(255) for level in label_colour(i))])
    return image


def label_image(labels: Int[np.ndarray, "H W"], count: int) -> Image.Image:
    """Labels from -1 to count - 1 as values from 0 (none) to count: of 16 bits where 8 are too few."""
    if count <= 255:
        return with_palette(labels)
    return Image.fromarray((labels + 1).astype(np.uint16))


def with_legend(image: UInt8[np.ndarray, "H W 3"], names: Sequence[str]) -> UInt8[np.ndarray, "_ _ 3"]:
    """The image, at its own size, above the `legend` of all labels."""
    below = legend(names, image.shape[1])
    size = max(image.shape[1], below.shape[1]), image.shape[0] + GAP + below.shape[0]
    card = _paper(*size)
    card.paste(Image.fromarray(image), (0, 0))
    card.paste(Image.fromarray(below), (0, image.shape[0] + GAP))
    return np.asarray(card)


def legend(names: Sequence[str], width: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """The names of all labels, each beside its colour.

    Args:
        names: of the labels, by number.
        width: of the image below which it is to be read, pixels. Letters grow with large images; the legend
            is wider than a small image, and never narrower than its longest name.
    """
    line = max(LINE, width // LEGEND_LINES)
    letters = font(line * FONT_SIZE // LINE)
    widths = [2 * line + int(letters.getlength(name)) for name in names]
    limit = max(width, *widths)
    rows: list[list[int]] = [[]]
    for i, taken in enumerate(widths):
        if rows[-1] and sum(widths[j] for j in rows[-1]) + taken > limit:
            rows.append([])
        rows[-1].append(i)
    card = _paper(limit, line * len(rows))
    draw, side = ImageDraw.Draw(card), line * 3 // 5
    for row, numbers in enumerate(rows):
        x, y = 0, row * line
        for i in numbers:
            top = y + (line - side) // 2
            draw.rectangle([x, top, x + side, top + side], fill=label_colour(i))
            draw.text((x + line * 4 // 5, y), names[i], fill=INK, font=letters)
            x += widths[i]
    return np.asarray(card)


def label_sheet(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    truths: Sequence[Int[np.ndarray, "_ _"]],
    predictions: Sequence[Int[np.ndarray, "_ _"]],
    names: Sequence[str],
    path: epath.PathLike,
) -> None:
    """Writes a PNG of each image, its true and its predicted label map side by side, above a legend."""
    cards = []
    for image, truth, predicted in zip(images, truths, predictions, strict=True):
        parts = [image, paint_labels(image, truth), paint_labels(image, predicted)]
        cards.append(Image.fromarray(np.concatenate([_resize(part) for part in parts], axis=1)))
    legend = with_legend(np.full((1, cards[0].width, 3), 255, np.uint8), names)
    _save_grid([*cards, Image.fromarray(legend)], 1, path)


def _panels(row: Mapping[str, Any]) -> list[Image.Image]:
    """Image, truth, probability and prediction, at their size on the sheet."""
    image = _resize(row["image"])
    truth = np.select([row["mask"] == 1, row["mask"] == 255], [255, IGNORE_GREY], 0).astype(np.uint8)
    probability = np.round(255 * np.asarray(row["probability"], np.float32)).astype(np.uint8)
    prediction = _resize(row["prediction"].astype(np.uint8) * 255) >= 128
    arrays = (image, _resize(truth), _resize(probability), overlay(image, prediction))
    return [Image.fromarray(array).convert("RGB") for array in arrays]


def _resize(image: UInt8[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Resizes to MIN_SIDE..MAX_SIDE: repeats the pixels of small images, shrinks large ones."""
    height, width = image.shape[:2]
    side = max(height, width)
    if side <= MAX_SIDE:
        factor = -(-MIN_SIDE // side)
        return image.repeat(factor, axis=0).repeat(factor, axis=1)
    size = [max(1, round(n * MAX_SIDE / side)) for n in (width, height)]
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def _heading_card(width: int) -> Image.Image:
    card = _paper(_panel_left(4, width), LINE)
    for i, heading in enumerate(HEADINGS):
        _write(card, 0 if i == 0 else _panel_left(i - 1, width), 0, [(heading, FAINT)])
    return card


def _panel_left(i: int, width: int) -> int:
    return TEXT_WIDTH + GAP + i * (width + GAP)


def _paper(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), PAPER)


def _write(card: Image.Image, x: int, y: int, lines: Sequence[tuple[str, str]]) -> None:
    """Writes lines of (text, colour), one below the other."""
    draw, letters = ImageDraw.Draw(card), font()
    for i, (text, colour) in enumerate(lines):
        draw.text((x, y + i * LINE), text, fill=colour, font=letters)


def _wrap(text: str, width: int) -> list[str]:
    """Breaks a text at spaces into lines of at most `width` pixels; a longer word gets its own line."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font().getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


@functools.cache
def font(size: int = FONT_SIZE) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The lettering of all sheets."""
    return ImageFont.load_default(size=size)


def _save_grid(cards: Sequence[Image.Image], columns: int, path: epath.PathLike) -> None:
    """Saves cards in rows of `columns`, each row as high as its highest card, each column as the widest."""
    width = max(card.width for card in cards)
    lines = [cards[i : i + columns] for i in range(0, len(cards), columns)]
    heights = [max(card.height for card in line) for line in lines]
    sheet = _paper(columns * (width + MARGIN) + MARGIN, sum(heights) + (len(lines) + 1) * MARGIN)
    top = MARGIN
    for line, height in zip(lines, heights, strict=True):
        for i, card in enumerate(line):
            sheet.paste(card, (MARGIN + i * (width + MARGIN), top))
        top += height + MARGIN
    with replacing(path) as beside, beside.open("wb") as file:
        sheet.save(file, format="PNG")
