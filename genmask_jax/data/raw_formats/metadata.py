"""Hugging Face's imagefolder with a column of masks: metadata.jsonl or metadata.csv, with a row per image.

    RAW/train/metadata.jsonl, RAW/train/images/X.jpg, RAW/train/masks/X.png

    {"file_name": "images/X.jpg", "mask_file_name": "masks/X.png", "label": "leaf"}

File names are relative to the folder of the metadata. The name of the column of masks contains "mask",
"label", "annotation", "segmentation" or the like. The phrase of a mask is the row's "phrase", "expression",
"label" or "class" (a text or a class number). If there is none, it is the "text" or "caption", which
otherwise is a caption. Masks of the background are not read, and pixels of a class such as "ignore" do not
count. A row may have lists of masks and labels, and an image may have several rows. Without any text, masks
have class numbers, or the phrases of phrases.txt.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator
from typing import Any

from etils import epath

from genmask_jax.data.raw_formats import binary_masks, class_maps
from genmask_jax.data.raw_formats.black_and_white import threshold_of
from genmask_jax.data.raw_formats.class_list import read_class_list
from genmask_jax.data.raw_formats.folder_names import (
    ANNOTATION_WORDS,
    WORDS,
    files_below,
    parts_below,
    split_and_key,
)
from genmask_jax.data.raw_formats.layout import METADATA, captions_of_row, lines_of, read_metadata
from genmask_jax.data.raw_formats.layout_check import LayoutCheck
from genmask_jax.data.raw_formats.mask_files import plan_masks
from genmask_jax.data.raw_formats.names import is_class, is_ignored, is_text, phrase
from genmask_jax.data.raw_formats.pairs import Pair, Tree, group_by_split
from genmask_jax.data.raw_formats.plan import Plan
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import SUFFIXES
from genmask_jax.utils.paths import is_file, is_inside

IMAGE_KEYS = ("file_name", "image_file_name", "image")
PHRASE_KEYS = ("phrase", "phrases", "expression", "label", "labels", "class", "category")


@dataclasses.dataclass(frozen=True)
class _Row:
    """A row: its image, masks, the phrase of each mask ([] without phrases), and captions."""

    where: str
    image: epath.Path
    masks: list[epath.Path]
    phrases: list[Any]
    captions: tuple[str, ...]


def recognise(raw: epath.Path) -> LayoutCheck:
    """Checks for a column of masks."""
    with_masks = [row for row in _rows(raw, Problems()) if row.masks]
    complete = [row for row in with_masks if is_file(row.image) and is_file(row.masks[0])]
    if complete:
        return LayoutCheck(f"{len(complete):,} rows of metadata with an image and a mask")
    if with_masks:
        row = with_masks[0]
        missing = row.masks[0] if is_file(row.image) else row.image
        return LayoutCheck(
            seen=f"metadata with a column of masks; {missing.relative_to(raw)} is named there but missing",
            fix="put the files where the metadata says",
        )
    return LayoutCheck()


def recognise_captions(raw: epath.Path) -> LayoutCheck:
    """Checks for captions of images in other folders than the metadata; `beside` reads the others."""
    rows = [row for row in _rows(raw, Problems()) if row.captions and is_file(row.image)]
    folders = {path.parent for path in files_below(raw) if path.name in METADATA}
    apart = [row for row in rows if row.image.parent not in folders]
    return LayoutCheck(f"{len(apart):,} rows of metadata with a caption" if apart else "")


def read(raw: epath.Path) -> Plan:
    """Images with the masks and captions of their rows.

    Raises:
        UserError: there is no metadata, or its masks have neither phrases nor a class list.
    """
    problems = Problems()
    by_image: dict[epath.Path, list[_Row]] = {}
    for row in _rows(raw, problems):
        if is_file(row.image):
            by_image.setdefault(row.image, []).append(row)
        else:
            problems.add(f"{row.where}: {row.image} is missing")
    if not by_image:
        reason = (
            problems.left_out
            or ["there is no metadata.jsonl or metadata.csv with rows that have a file_name"]
        )[0]
        raise UserError(f"--raw={raw}: {reason}")
    rows = [row for image_rows in by_image.values() for row in image_rows]
    class_list = read_class_list(raw)
    if any(row.masks for row in rows) and not any(row.phrases for row in rows):
        pairs = [_pair(path, image_rows, raw) for path, image_rows in by_image.items()]
        return (class_maps if class_list else binary_masks).read_tree(raw, Tree(pairs, []), problems)
    names, ids = class_list.names if class_list else {}, itertools.count()
    threshold = (
        threshold_of([mask for row in rows for mask in row.masks], f"--raw={raw}")
        if any(row.masks for row in rows)
        else 0.0
    )
    planned, classes = [], {}
    for path, image_rows in by_image.items():
        pair = _pair(path, image_rows, raw)
        named = [one for row in image_rows for one in _named(row, names, problems)]
        files = [(phrase(name), mask) for name, mask in named if is_class(name)]
        void = [mask for name, mask in named if is_ignored(name)]
        captions = lines_of(path, problems) + tuple(text for row in image_rows for text in row.captions)
        image = plan_masks(pair, files, captions, ids, threshold, problems, void)
        if image is not None:
            planned.append((pair, image))
            classes |= dict.fromkeys(expression.text for expression in image.expressions)
    return Plan(group_by_split(raw, planned, problems), problems, tuple(classes))


def _pair(image: epath.Path, rows: list[_Row], raw: epath.Path) -> Pair:
    split, key = split_and_key(parts_below(image, raw), image.stem, whole=True)
    return Pair(key, image, tuple(mask for row in rows for mask in row.masks), split)


def _named(row: _Row, names: dict[int, str], problems: Problems) -> Iterator[tuple[str, epath.Path]]:
    """(name, mask) of a row. A single name is used for all masks."""
    phrases = row.phrases * len(row.masks) if len(row.phrases) == 1 else row.phrases
    if len(phrases) != len(row.masks):
        problems.add(f"{row.where} is not read: it has {len(row.masks)} masks and {len(phrases)} phrases")
        return
    for text, mask in zip(phrases, row.masks, strict=True):
        name = names.get(int(text)) if re.fullmatch("[0-9]{1,9}", str(text)) else str(text)
        if name:
            yield name, mask
        else:
            problems.add(f"{row.where}: the class number {text} has no name; write the names to classes.txt")


def _rows(raw: epath.Path, problems: Problems) -> Iterator[_Row]:
    """The rows of all metadata below `raw` that name an image."""
    for path in files_below(raw):
        for i, row in read_metadata(path, problems) if path.name in METADATA else ():
            where = f"{path.relative_to(raw)}: line {i}"
            image = next((row[key] for key in IMAGE_KEYS if isinstance(row.get(key), str)), None)
            if image is None:
                problems.add(f"{where} has no file_name")
                continue
            masks = [
                path.parent / name
                for key, value in row.items()
                if key not in IMAGE_KEYS and _words(key) & ANNOTATION_WORDS
                for name in (value if isinstance(value, list) else [value])
                if isinstance(name, str) and name.lower().endswith(SUFFIXES)
            ]
            outside = [name for name in (path.parent / image, *masks) if not is_inside(name, raw)]
            if outside:
                problems.add(f"{where}: {outside[0]} is not read: it is outside {raw}")
                continue
            captions = captions_of_row(row)
            phrases = next((row[key] for key in PHRASE_KEYS if _is_phrase(row.get(key))), [])
            phrases = phrases if isinstance(phrases, list) else [phrases]
            if masks and not phrases and captions:
                phrases, captions = list(captions), ()
            yield _Row(where, path.parent / image, masks, phrases, captions)


def _words(key: str) -> set[str]:
    return {word.lower().removesuffix("s") for word in WORDS.findall(key)}


def _is_phrase(value: Any) -> bool:
    """Whether a value is a text, a number or a list of them, and not a mask file."""
    if isinstance(value, list):
        return bool(value) and all(_is_phrase(one) for one in value)
    if isinstance(value, str):
        return is_text(value) and not value.lower().endswith(SUFFIXES)
    return isinstance(value, int) and not isinstance(value, bool)
