"""Contact sheets of segmented and generated images."""

import colorsys
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Bool, Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from genmask_jax.paths import replacing

PREDICTION_COLOUR = (255, 0, 200)
GOLDEN = 0.618034  # of the hues' circle: no two of a few labels come close
IGNORE_GREY = 128
INK, FAINT, GOOD, BAD, PAPER = "#202020", "#808080", "#00783c", "#be1e1e", "#ffffff"

MIN_SIDE, MAX_SIDE = 128, 256  # of an image's long side on a sheet, in pixels
TEXT_WIDTH, FONT_SIZE, LINE, GAP, MARGIN = 160, 15, 20, 6, 20
HEADINGS = ("expression", "image", "truth", "probability", "prediction")


def overlay(
    image: UInt8[np.ndarray, "H W 3"],
    mask: Bool[np.ndarray, "H W"],
    colour: tuple[int, int, int] = PREDICTION_COLOUR,
) -> UInt8[np.ndarray, "H W 3"]:
    """The image, dark grey outside the mask, with the mask's border in `colour` (RGB, 0 to 255).

    A tint would not show on objects of the tint's own colour.
    """
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    drawn = np.where(mask[..., None], image, image.mean(-1, keepdims=True) / 2).astype(np.uint8)
    drawn[mask & ~inside] = colour
    return drawn


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
    """The colour (RGB) of the `number`-th label: hues far apart, in alternating brightness."""
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
    """Labels from -1 on as a paletted image: value 0 is black and means none, others have their colours."""
    image = Image.fromarray((labels + 1).astype(np.uint8)).convert("P")
    image.putdata((labels + 1).astype(np.uint8).ravel().tolist())
    image.putpalette([0, 0, 0, *(level for i in range(255) for level in label_colour(i))])
    return image


def with_legend(image: UInt8[np.ndarray, "H W 3"], names: Sequence[str]) -> UInt8[np.ndarray, "_ _ 3"]:
    """The image above the names of all labels, each beside its colour."""
    lines: list[list[int]] = [[]]
    widths = [2 * LINE + int(font().getlength(name)) for name in names]
    limit = max(image.shape[1], *widths)
    for i, width in enumerate(widths):
        if lines[-1] and sum(widths[j] for j in lines[-1]) + width > limit:
            lines.append([])
        lines[-1].append(i)
    card = _paper(limit, image.shape[0] + GAP + LINE * len(lines))
    card.paste(Image.fromarray(image), (0, 0))
    draw = ImageDraw.Draw(card)
    for row, line in enumerate(lines):
        x, y = 0, image.shape[0] + GAP + row * LINE
        for i in line:
            draw.rectangle([x, y + 2, x + LINE - 8, y + LINE - 6], fill=label_colour(i))
            _write(card, x + LINE - 4, y, [(names[i], INK)])
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
def font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The lettering of all sheets."""
    return ImageFont.load_default(size=FONT_SIZE)


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
