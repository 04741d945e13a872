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
BORDER_RATIO = 150
"""Long side of an image divided by the width of a border."""
LABEL_COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (204, 121, 167),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
)
"""Colours of the first labels, which colour-blind readers can distinguish (Okabe and Ito, 2008)."""
HUE_STEP = 0.618034
"""Step between the hues of further labels, as a share of the circle: the golden ratio spreads them."""
HEAT = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
"""Colours of `heat` from the smallest to the largest value."""
IGNORE_GREY = 128
BLACK, GREY, GREEN, RED, WHITE = "#202020", "#808080", "#00783c", "#be1e1e", "#ffffff"

MIN_SIDE, MAX_SIDE = 128, 256
"""Range of an image's long side on a sheet, pixels."""
TEXT_WIDTH, FONT_SIZE, LINE_HEIGHT, GAP, MARGIN = 160, 15, 20, 6, 20
LEGEND_RATIO = 40
"""Width of a large image divided by the line height of its legend."""
HEADINGS = ("expression", "image", "truth", "probability", "prediction")


def overlay(
    image: UInt8[np.ndarray, "H W 3"],
    mask: Bool[np.ndarray, "H W"],
    colour: tuple[int, int, int] = PREDICTION_COLOUR,
) -> UInt8[np.ndarray, "H W 3"]:
    """`outlined` for a single mask, with a border of `colour` (RGB, 0 to 255)."""
    return outlined(image, mask.astype(int) - 1, [colour])


def outlined(
    image: UInt8[np.ndarray, "H W 3"],
    labels: Int[np.ndarray, "H W"],
    colours: Sequence[tuple[int, int, int]] | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """Outlines the labelled regions, keeps their colours, and turns the rest of the image dark grey.

    A tint would change the colours of objects, and be invisible on objects of the same colour. In large
    images, a dark line between border and region keeps borders of the object's colour visible.

    Args:
        image: the segmented image.
        labels: label of each pixel, from 0 on; negative for none.
        colours: RGB of each label's border, 0 to 255; `label_colour` if None.
    """
    width = max(1, round(max(labels.shape) / BORDER_RATIO))
    drawn = np.where(labels[..., None] >= 0, image, image.mean(-1, keepdims=True) / 2).astype(np.uint8)
    border = _border(labels, width)
    if width > 1:
        drawn[_border(labels, width + width // 2) & (labels >= 0)] = 0
    for number in np.unique(labels[labels >= 0]).tolist():
        drawn[border & (labels == number)] = colours[number] if colours else label_colour(number)
    return drawn


def _border(labels: Int[np.ndarray, "H W"], width: int) -> Bool[np.ndarray, "H W"]:
    """Pixels within `width` of another label or of the edge of the image."""
    padded = np.pad(labels, 1, constant_values=-2)
    centre = padded[1:-1, 1:-1]
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    border = np.logical_or.reduce([centre != neighbour for neighbour in neighbours])
    radius = width - 1
    for axis in (0, 1):  # dilates by a square, at a cost that does not depend on its width
        padding = [(radius + 1, radius) if i == axis else (0, 0) for i in (0, 1)]
        counts = np.moveaxis(np.cumsum(np.pad(border, padding), axis), axis, 0)
        border = np.moveaxis(counts[2 * radius + 1 :] > counts[: len(counts) - 2 * radius - 1], 0, axis)
    return border


def heat(values: Float[np.ndarray, "H W"], top: float) -> UInt8[np.ndarray, "H W 3"]:
    """A heat map of values from 0 (black) to `top` (pale yellow); lightness increases with the value."""
    positions = np.clip(values / top, 0, 1)
    stops = np.linspace(0, 1, len(HEAT))
    channels = [np.interp(positions, stops, [colour[i] for colour in HEAT]) for i in range(3)]
    return np.round(np.stack(channels, -1)).astype(np.uint8)


def segmentation_sheet(rows: Sequence[Mapping[str, Any]], path: epath.PathLike, columns: int = 2) -> None:
    """Writes a PNG with expression, IoU, image, truth, probability and prediction of each example.

    Args:
        rows: one or more examples of any sizes: `image` uint8 `[H, W, 3]`, `text`, `mask` uint8
            `[H, W]` (1: the object, 255: ignored, drawn in grey), `probability` float `[H, W]` in [0, 1],
            `prediction` bool `[H, W]`, `iou` float in [0, 1].
        path: path of the PNG, in an existing directory.
        columns: examples per row of the sheet.
    """
    columns = min(columns, len(rows))
    panels = [_panels(row) for row in rows]
    width = max(panel.width for row in panels for panel in row)
    cards = [_heading_card(width)] * columns
    for row, images in zip(rows, panels, strict=True):
        score = (f"IoU {row['iou']:.2f}", GREEN if row["iou"] >= 0.5 else RED)
        lines = [(line, BLACK) for line in _wrap(row["text"], TEXT_WIDTH)]
        card = _blank_card(_panel_left(4, width), max(images[0].height, LINE_HEIGHT * (len(lines) + 1)))
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
    """Writes a PNG of images, each above its prompt.

    Args:
        images: one or more images of any sizes, uint8 `[H, W, 3]`.
        prompts: one prompt per image.
        path: path of the PNG, in an existing directory.
        columns: images per row of the sheet.
    """
    cards = []
    for image, prompt in zip(images, prompts, strict=True):
        panel = Image.fromarray(_resize(image))
        lines = _wrap(prompt, panel.width)
        card = _blank_card(panel.width, panel.height + GAP + LINE_HEIGHT * len(lines))
        card.paste(panel, (0, 0))
        _write(card, 0, panel.height + GAP, [(line, BLACK) for line in lines])
        cards.append(card)
    _save_grid(cards, min(columns, len(cards)), path)


def label_colour(number: int) -> tuple[int, int, int]:
    """The colour (RGB) of a label: one of LABEL_COLOURS, then spread hues of alternating brightness."""
    if number < len(LABEL_COLOURS):
        return LABEL_COLOURS[number]
    hue, value = (number * HUE_STEP) % 1.0, (0.95, 0.7)[number // 7 % 2]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def paint_labels(
    image: UInt8[np.ndarray, "H W 3"], labels: Int[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W 3"]:
    """Tints a grey copy of the image with the colours of its labels; negative labels stay grey."""
    grey = np.repeat(image.mean(-1, keepdims=True), 3, axis=-1)
    painted = grey.copy()
    for number in np.unique(labels[labels >= 0]).tolist():
        region = labels == number
        painted[region] = 0.35 * grey[region] + 0.65 * np.asarray(label_colour(number))
    return painted.astype(np.uint8)


def with_palette(labels: Int[np.ndarray, "H W"]) -> Image.Image:
    """Converts labels from -1 on to a paletted image; value 0 is black and means no label.

    From the 256th label on, colours repeat.
    """
    values = np.where(labels < 0, 0, labels % 255 + 1).astype(np.uint8)
    image = Image.fromarray(values).convert("P")
    image.putdata(values.ravel().tolist())
    image.putpalette([0, 0, 0, *(level for i in range(255) for level in label_colour(i))])
    return image


def label_image(labels: Int[np.ndarray, "H W"], count: int) -> Image.Image:
    """Converts labels from -1 to count - 1 to values from 0 to count, of 16 bits if 8 are too few."""
    if count <= 255:
        return with_palette(labels)
    return Image.fromarray((labels + 1).astype(np.uint16))


def with_legend(image: UInt8[np.ndarray, "H W 3"], names: Sequence[str]) -> UInt8[np.ndarray, "_ _ 3"]:
    """The image at its own size, above a `legend` of all labels."""
    below = legend(names, image.shape[1])
    size = max(image.shape[1], below.shape[1]), image.shape[0] + GAP + below.shape[0]
    card = _blank_card(*size)
    card.paste(Image.fromarray(image), (0, 0))
    card.paste(Image.fromarray(below), (0, image.shape[0] + GAP))
    return np.asarray(card)


def legend(names: Sequence[str], width: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """The names of all labels, each next to its colour.

    Args:
        names: names of the labels, in order.
        width: width of the image above the legend, pixels. Text grows with large images. The legend is at
            least as wide as its longest name, so it may be wider than a small image.
    """
    line = max(LINE_HEIGHT, width // LEGEND_RATIO)
    text_font = font(line * FONT_SIZE // LINE_HEIGHT)
    widths = [2 * line + int(text_font.getlength(name)) for name in names]
    limit = max(width, *widths)
    rows: list[list[int]] = [[]]
    for i, name_width in enumerate(widths):
        if rows[-1] and sum(widths[j] for j in rows[-1]) + name_width > limit:
            rows.append([])
        rows[-1].append(i)
    card = _blank_card(limit, line * len(rows))
    draw, side = ImageDraw.Draw(card), line * 3 // 5
    for row, numbers in enumerate(rows):
        x, y = 0, row * line
        for i in numbers:
            top = y + (line - side) // 2
            draw.rectangle([x, top, x + side, top + side], fill=label_colour(i))
            draw.text((x + line * 4 // 5, y), names[i], fill=BLACK, font=text_font)
            x += widths[i]
    return np.asarray(card)


def label_sheet(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    truths: Sequence[Int[np.ndarray, "_ _"]],
    predictions: Sequence[Int[np.ndarray, "_ _"]],
    names: Sequence[str],
    path: epath.PathLike,
) -> None:
    """Writes a PNG with each image, its true and its predicted label map side by side, above a legend."""
    cards = []
    for image, truth, predicted in zip(images, truths, predictions, strict=True):
        parts = [image, paint_labels(image, truth), paint_labels(image, predicted)]
        cards.append(Image.fromarray(np.concatenate([_resize(part) for part in parts], axis=1)))
    legend = with_legend(np.full((1, cards[0].width, 3), 255, np.uint8), names)
    _save_grid([*cards, Image.fromarray(legend)], 1, path)


def _panels(row: Mapping[str, Any]) -> list[Image.Image]:
    """Image, truth, probability and prediction at the size of the sheet."""
    image = _resize(row["image"])
    truth = np.select([row["mask"] == 1, row["mask"] == 255], [255, IGNORE_GREY], 0).astype(np.uint8)
    probability = np.round(255 * np.asarray(row["probability"], np.float32)).astype(np.uint8)
    prediction = _resize(row["prediction"].astype(np.uint8) * 255) >= 128
    arrays = (image, _resize(truth), _resize(probability), overlay(image, prediction))
    return [Image.fromarray(array).convert("RGB") for array in arrays]


def _resize(image: UInt8[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Resizes to MIN_SIDE..MAX_SIDE: repeats pixels of small images, shrinks large images."""
    height, width = image.shape[:2]
    side = max(height, width)
    if side <= MAX_SIDE:
        factor = -(-MIN_SIDE // side)
        return image.repeat(factor, axis=0).repeat(factor, axis=1)
    size = [max(1, round(n * MAX_SIDE / side)) for n in (width, height)]
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def _heading_card(width: int) -> Image.Image:
    card = _blank_card(_panel_left(4, width), LINE_HEIGHT)
    for i, heading in enumerate(HEADINGS):
        _write(card, 0 if i == 0 else _panel_left(i - 1, width), 0, [(heading, GREY)])
    return card


def _panel_left(i: int, width: int) -> int:
    return TEXT_WIDTH + GAP + i * (width + GAP)


def _blank_card(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), WHITE)


def _write(card: Image.Image, x: int, y: int, lines: Sequence[tuple[str, str]]) -> None:
    """Writes lines of (text, colour), one below the other."""
    draw, text_font = ImageDraw.Draw(card), font()
    for i, (text, colour) in enumerate(lines):
        draw.text((x, y + i * LINE_HEIGHT), text, fill=colour, font=text_font)


def _wrap(text: str, width: int) -> list[str]:
    """Breaks a text into lines of at most `width` pixels; a longer word gets its own line."""
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
    """The font of all sheets."""
    return ImageFont.load_default(size=size)


def _save_grid(cards: Sequence[Image.Image], columns: int, path: epath.PathLike) -> None:
    """Saves cards in a grid; rows are as high as their highest card, columns as wide as the widest card."""
    width = max(card.width for card in cards)
    lines = [cards[i : i + columns] for i in range(0, len(cards), columns)]
    heights = [max(card.height for card in line) for line in lines]
    sheet = _blank_card(columns * (width + MARGIN) + MARGIN, sum(heights) + (len(lines) + 1) * MARGIN)
    top = MARGIN
    for line, height in zip(lines, heights, strict=True):
        for i, card in enumerate(line):
            sheet.paste(card, (MARGIN + i * (width + MARGIN), top))
        top += height + MARGIN
    with replacing(path) as temporary, temporary.open("wb") as file:
        sheet.save(file, format="PNG")
