"""Images with a black-and-white mask each, and a phrase for all of them or for each.

    RAW/X.jpg, RAW/X_mask.png (or RAW/images/X.jpg, RAW/masks/X.png), RAW/phrases.txt

phrases.txt holds one line, the phrase of all masks, or a line for each image: its name, a tab or a comma, its
phrase. White means the object: a pixel is in it from 128 on, or at any value above 0 in a mask of 0 and 1.
"""

import re

import numpy as np
from etils import epath

from genmask_jax.data.prepared.raw.class_maps import oriented
from genmask_jax.data.prepared.raw.layout import captions_of
from genmask_jax.data.prepared.raw.pairs import Pair, Tree, find_pairs, in_splits
from genmask_jax.data.prepared.raw.plan import Expression, LabelFile, Plan, PlannedImage, Target
from genmask_jax.data.prepared.raw.problems import Problems
from genmask_jax.data.prepared.raw.seen import Sighting
from genmask_jax.errors import UserError
from genmask_jax.images import SUFFIXES, UNREADABLE, decode
from genmask_jax.paths import read_text

PHRASES = "phrases.txt"
LOOKED_AT = 8
"""Masks that tell what all are."""


def recognise(raw: epath.Path) -> Sighting:
    """What there is of this layout; masks that are not black-and-white are `class_maps`."""
    paths = [pair.annotation for pair in find_pairs(raw, SUFFIXES, Problems()).pairs if pair.annotation]
    looked_at = paths[:: max(1, len(paths) // LOOKED_AT)]
    right = any(_is_black_and_white(path) for path in looked_at)
    return Sighting(f"{len(paths):,} images with a black-and-white mask" if right else "")


def _is_black_and_white(path: epath.Path) -> bool:
    """Whether a mask has both values and hardly any between them (as JPEG makes at edges)."""
    try:
        grey = np.asarray(decode(path.read_bytes(), background="black").convert("L"), np.float32)
    except UNREADABLE:
        return False
    share = grey / max(1.0, float(grey.max()))
    return bool(grey.max() > 0 and np.mean(np.minimum(share, 1 - share) < 0.1) > 0.97)


def read(raw: epath.Path) -> Plan:
    """Images with a mask and a phrase; a black mask stays, as that of a phrase for nothing in the image.

    Raises:
        UserError: there is no phrases.txt, or it is invalid.
    """
    problems = Problems()
    return read_tree(raw, find_pairs(raw, SUFFIXES, problems), problems)


def read_tree(raw: epath.Path, tree: Tree, problems: Problems) -> Plan:
    """The same of images whose masks have been found. Raises UserError."""
    phrases = _read_phrases(raw / PHRASES, {pair.key for pair in tree.pairs})
    for path in tree.unpaired:
        problems.add(f"{path}: a mask without an image")
    found = [(pair, image) for pair in tree.pairs if (image := _plan(pair, phrases, problems)) is not None]
    splits = in_splits(raw, found, problems)
    same = phrases.get("")
    return Plan(splits, problems, (same,) if same else ())


def _read_phrases(path: epath.Path, keys: set[str]) -> dict[str, str]:
    """Phrases by the key of an image; that of all images by ""."""
    if not path.exists():
        raise UserError(
            f"{path} is missing: write what the masks show, such as 'the leaf', or a line for each image: "
            "its name, a tab or a comma, its phrase"
        )
    try:
        lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not text in UTF-8 ({error})") from error
    if len(lines) == 1 and not re.search(r"\t", lines[0]) and _split(lines[0])[0] not in keys:
        return {"": lines[0]}
    pairs = [_split(line) for line in lines]
    bad = next((line for line, (_, text) in zip(lines, pairs, strict=True) if not text), None)
    if bad is not None or not lines:
        said = f"{path}: {bad!r} gives no phrase" if lines else f"{path} is empty"
        raise UserError(f"{said}; each line is the name of an image, a tab or a comma, and its phrase")
    return dict(pairs)


def _split(line: str) -> tuple[str, str]:
    """(key, phrase) of a line of phrases.txt."""
    name, _, text = line.partition("\t") if "\t" in line else line.partition(",")
    name = name.strip()
    stem = name[: name.rfind(".")] if name.lower().endswith(SUFFIXES) else name
    return stem, text.strip()


def _plan(pair: Pair, phrases: dict[str, str], problems: Problems) -> PlannedImage | None:
    text = phrases.get(pair.key) or phrases.get(pair.image.stem) or phrases.get("")
    captions = captions_of(pair.image, problems)
    if pair.annotation is None or text is None:
        problems.add(f"{pair.image} has no {'mask' if pair.annotation is None else f'phrase in {PHRASES}'}")
        return None
    labels = LabelFile(str(pair.annotation), binary=True)
    try:
        mask = labels.read()
        turned = oriented(pair.image, mask.shape)
    except ValueError as error:
        problems.add(str(error))
        return None
    if not np.any(mask):
        problems.note(f"{pair.annotation} is black: it is kept with an empty mask")
    return PlannedImage(
        path=str(pair.image),
        image_id=pair.key,
        size=(int(mask.shape[0]), int(mask.shape[1])),
        captions=captions,
        turned=turned,
        targets=(Target(0, numbers=(1,) if np.any(mask) else ()),),
        expressions=(Expression(pair.key, text, 0),),
        labels=labels,
    )
