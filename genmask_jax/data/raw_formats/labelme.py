"""labelme's annotations: X.json next to X.jpg (or with the image inside), with labelled shapes.

A label is a class and refers to all of its shapes in the image. A shape's description refers to that shape,
or to all shapes of its group. Pixels of shapes labelled `__ignore__` do not count. Shapes are drawn as by
labelme's `shape_to_mask`, on the upright image.
"""

import base64
import binascii
import dataclasses
import math
from typing import Any

import numpy as np
from etils import epath
from PIL import Image, ImageDraw

from genmask_jax.data import masks
from genmask_jax.data.raw_formats.layout import read_json
from genmask_jax.data.raw_formats.names import is_background, is_ignored, is_text, phrase
from genmask_jax.data.raw_formats.plan import Target
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.utils.images import UNREADABLE, load_image


@dataclasses.dataclass(frozen=True)
class LabelmeTargets:
    """The targets and texts of an image's shapes.

    targets: the masks.
    texts: the text of each target.
    classes: the texts that are classes.
    void: segmentations of ignored pixels.
    """

    targets: list[Target]
    texts: list[str]
    classes: list[str]
    void: list[str]


def read_labelme(path: epath.Path, size: masks.Size, first_id: int, problems: Problems) -> LabelmeTargets:
    """Reads the shapes of an annotation.

    Args:
        path: path of the annotation.
        size: (height, width) of its image.
        first_id: id of the first shape; the others follow.
        problems: receives shapes that are left out.

    Raises:
        UserError: the file cannot be read.
    """
    by_label: dict[str, list[int]] = {}
    described: dict[str, list[int]] = {}
    drawn: dict[int, str] = {}
    groups: dict[Any, list[int]] = {}
    void: list[str] = []
    shapes = read_json(path, dict)["shapes"]
    for i, shape in enumerate(shapes):
        where = f"{path}: shape {i}"
        label = shape.get("label") if isinstance(shape, dict) else None
        if not is_text(label) or not phrase(label):
            problems.add(f"{where} has no label")
            continue
        if is_background(label):
            problems.note(f"{path.parent}: shapes labelled {label!r} are not read")
            continue
        try:
            mask = _draw(shape, size)
        except ValueError as error:
            problems.add(f"{where} ({label}) {error}")
            continue
        if is_ignored(label):
            void.append(masks.encode(mask))
            continue
        drawn[i] = masks.encode(mask)
        by_label.setdefault(phrase(label), []).append(i)
        if isinstance(shape.get("group_id"), int | str):
            groups.setdefault((label, shape["group_id"]), []).append(i)
    for i in drawn:
        description = shapes[i].get("description")
        if is_text(description):
            group_id = shapes[i].get("group_id")
            group = (
                groups.get((shapes[i]["label"], group_id), [i]) if isinstance(group_id, int | str) else [i]
            )
            ids = described.setdefault(description.strip(), [])
            ids.extend(j for j in group if j not in ids)
    ids_by_text = {**described, **{text: ids for text, ids in by_label.items() if text not in described}}
    targets = [
        Target(k, tuple(first_id + i for i in ids), tuple(drawn[i] for i in ids))
        for k, ids in enumerate(ids_by_text.values())
    ]
    return LabelmeTargets(
        targets, list(ids_by_text), [text for text in by_label if text not in described], void
    )


def _draw(shape: Any, size: masks.Size) -> np.ndarray:
    """The pixels of a shape, bool [H, W]. Raises ValueError if it has none."""
    kind = str(shape.get("shape_type") or "polygon")[:60]
    try:
        points = [(float(x), float(y)) for x, y in shape["points"]]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError("has points that are not pairs of numbers") from None
    if not all(
        math.isfinite(value) and abs(value) <= masks.MAX_COORDINATE for point in points for value in point
    ):
        raise ValueError("has points far outside any image")
    if kind == "mask":
        mask = _paste(shape.get("mask"), points, size)
    else:
        mask = _outline(kind, points, size)
    if not mask.any():
        raise ValueError("covers no pixel of the image")
    return mask


def _outline(kind: str, points: list[tuple[float, float]], size: masks.Size) -> np.ndarray:
    canvas = Image.new("L", (size[1], size[0]), 0)
    draw = ImageDraw.Draw(canvas)
    needed = {"polygon": 3, "rectangle": 2, "circle": 2}
    if kind not in needed:
        raise ValueError(f"is a {kind}, which has no area")
    if len(points) < needed[kind] or (kind != "polygon" and len(points) > 2):
        raise ValueError(f"is a {kind} of {len(points)} points")
    if kind == "polygon":
        draw.polygon(points, fill=1, outline=1)
    elif kind == "rectangle":
        (x0, y0), (x1, y1) = points
        draw.rectangle([min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)], fill=1, outline=1)
    else:
        (x, y), edge = points
        r = math.dist((x, y), edge)
        draw.ellipse([x - r, y - r, x + r, y + r], fill=1, outline=1)
    return np.asarray(canvas) > 0


def _paste(data: Any, points: list[tuple[float, float]], size: masks.Size) -> np.ndarray:
    """A mask shape: a base64 PNG whose upper left corner is at the first point."""
    try:
        image = load_image(base64.b64decode(data, validate=True))
        pixels = np.asarray(image.convert("L")) > 0
        left, top = (round(value) for value in points[0])
    except (*UNREADABLE, binascii.Error, TypeError, IndexError) as error:
        raise ValueError(f"has a mask that cannot be read ({error})") from error
    mask = np.zeros(size, bool)
    if top >= size[0] or left >= size[1]:
        return mask
    y0, x0 = max(top, 0), max(left, 0)
    part = pixels[y0 - top : size[0] - top, x0 - left : size[1] - left]
    mask[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]] = part
    return mask
