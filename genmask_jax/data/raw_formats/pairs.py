"""Pairs images with their annotations in the folder trees of common tools.

Two files belong together if their paths are equal apart from the names of folders of images, annotations or
splits (`folder_names`) and the usual endings of their stems:

    images/train/a.jpg            labels/train/a.png          (or train/images/a.jpg, train/labels/a.txt)
    a.jpg                         a_mask.png                  (or masks/a.png)
    JPEGImages/a.jpg              SegmentationClass/a.png     (VOC)
    leftImg8bit/train/x/a_leftImg8bit.png   gtFine/train/x/a_gtFine_labelIds.png    (Cityscapes)

The remaining files are paired by stem, if one image and one annotation have the stem. An image may have
several annotations (`versions`).
"""

import collections
import dataclasses
import re
from collections.abc import Iterable
from typing import TypeVar

from etils import epath

from genmask_jax.data.raw_formats.folder_names import (
    SPLIT_NAMES,
    among_annotations,
    files_below,
    is_annotation,
    parts_below,
    split_and_key,
)
from genmask_jax.data.raw_formats.layout import SPLITS
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.data.raw_formats.versions import COLOUR_ENDING, base_stem, number_of, skip_reason
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import SUFFIXES
from genmask_jax.utils.paths import listed, read_text

NUMBER_PREFIX = re.compile(r"^(image|img|mask|label|seg|gt)[ _-]?(?=\d)", re.I)
NUMBER_ENDING = re.compile(r"([_-]\d+| ?\(\d+\))$")
T = TypeVar("T")
SplitAndKey = tuple[str, str]
"""(split, key)."""
HOLD_OUT_PERIOD = 10
"""Without a val split, every tenth image is held out."""
NO_VAL_NOTE = "{}: there is no val split; every tenth image of train is held out"


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image, its annotations, and the split of its folder or ""."""

    key: str
    image: epath.Path
    annotations: tuple[epath.Path, ...]
    split: str

    @property
    def annotation(self) -> epath.Path | None:
        """The first of the annotations; None if there is none."""
        return self.annotations[0] if self.annotations else None


@dataclasses.dataclass(frozen=True)
class Tree:
    """Images of a folder tree, each with its annotations, and annotations without an image."""

    pairs: list[Pair]
    unpaired: list[epath.Path]


def find_pairs(raw: epath.Path, suffixes: tuple[str, ...], problems: Problems) -> Tree:
    """Pairs all images below `raw` with annotations that end in `suffixes`, such as (".png",).

    If two images have the same key, the first is used and the second reported.
    """
    images: dict[SplitAndKey, epath.Path] = {}
    annotations: list[epath.Path] = []
    skipped: collections.Counter[tuple[str, str]] = collections.Counter()
    files = [(path, parts_below(path, raw)) for path in files_below(raw)]
    stems = {(*parts[:-1], path.stem) for path, parts in files}
    apart = any(path.name.lower().endswith(suffixes) and among_annotations(parts) for path, parts in files)
    for path, parts in files:
        name = path.name.lower()
        if reason := skip_reason(parts, path.stem, stems):
            skipped[reason] += name.endswith((*suffixes, *SUFFIXES))
        elif is_annotation(parts, base_stem(path.stem), apart):
            annotations += [path] if name.endswith(suffixes) else []
        elif name.endswith(SUFFIXES):
            place = split_and_key(parts, path.stem, whole=True)
            if place in images:
                problems.add(f"{path} is not read: {images[place]} has the same name and split")
            images.setdefault(place, path)
    for (place, reason), count in skipped.items():
        if count:
            problems.note(f"{raw}: {count:,} files {place} are not read; {reason}")
    grouped = _group_annotations(images, annotations, raw)
    _pair_by_stem(images, grouped, raw, problems)
    pairs = [
        Pair(key, path, tuple(grouped.get((split, key), ())), split) for (split, key), path in images.items()
    ]
    unpaired = [path for place, paths in grouped.items() if place not in images for path in paths]
    return Tree(sorted(pairs, key=lambda pair: (pair.split, pair.key)), unpaired)


def _group_annotations(
    images: dict[SplitAndKey, epath.Path], annotations: list[epath.Path], raw: epath.Path
) -> dict[SplitAndKey, list[epath.Path]]:
    """The annotations of each image by its place; annotations without an image get a place of their own.

    A number after the ending of a mask is the number of an image if images are numbered (leaf_1.jpg), else
    the number of a part of the annotation.
    """
    siblings: dict[
        SplitAndKey, dict[int, SplitAndKey]
    ] = {}  # leaf_1 and leaf_2, by the place of leaf, and their number
    for split, key in images:
        if match := NUMBER_ENDING.search(key):
            number = int(re.sub(r"[^0-9]", "", match[0]))
            siblings.setdefault((split, key[: match.start()]), {})[number] = split, key
    grouped: dict[SplitAndKey, list[epath.Path]] = {}
    numbered: list[tuple[int, SplitAndKey, epath.Path]] = []
    for path in annotations:
        parts, number = parts_below(path, raw), number_of(path.stem)
        place = split_and_key(parts, base_stem(path.stem))
        exact = split_and_key(parts, path.stem, whole=True)
        if among_annotations(parts) and exact in images:
            grouped.setdefault(exact, []).append(path)
        elif number is not None:
            numbered.append((number, place, path))
        else:
            grouped.setdefault(_find_image(place, images, siblings), []).append(path)
    direct = set(grouped)
    for number, (split, key), path in numbered:
        place, numbered_images = (split, key), siblings.get((split, key), {})
        is_part = place in images and direct & set(numbered_images.values())  # leaf_1.jpg has leaf_1_mask.png
        if numbered_images and not is_part:
            place = numbered_images.get(number, (split, f"{key}_{number}"))
        elif place not in images:
            place = _find_image(place, images, siblings)
        grouped.setdefault(place, []).append(path)
    return grouped


def _find_image(
    place: SplitAndKey,
    images: dict[SplitAndKey, epath.Path],
    siblings: dict[SplitAndKey, dict[int, SplitAndKey]],
) -> SplitAndKey:
    """The place of the annotation's image: the same, without an ending or a number, or its folder."""
    split, key = place
    unnumbered = split, NUMBER_ENDING.sub("", key)
    folder = key.rpartition("/")[0]
    candidates = [
        place,
        (split, COLOUR_ENDING.sub("", key)),
        *([] if unnumbered in siblings else [unnumbered]),
    ]
    candidates += [
        (split, folder),
        (split, f"{folder}/{folder.rpartition('/')[2]}"),
    ]  # X/0.png, X/images/X.jpg
    return next((candidate for candidate in candidates if candidate in images), place)


def _pair_by_stem(
    images: dict[SplitAndKey, epath.Path],
    annotations: dict[SplitAndKey, list[epath.Path]],
    raw: epath.Path,
    problems: Problems,
) -> None:
    """Pairs remaining annotations with the only image of their stem, in their split or in all splits."""
    moved = []
    for with_split in (True, False):
        free = [
            _by_stem(files.keys() - others.keys(), with_split)
            for files, others in ((images, annotations), (annotations, images))
        ]
        for stem in sorted(free[0].keys() & free[1].keys()):
            (place, *more), (other, *others) = free[0][stem], free[1][stem]
            if not more and not others and (with_split or "" in (place[0], other[0])):
                annotations[place] = annotations.pop(other)
                moved.append(place)
    if moved:
        image, annotation = (path.relative_to(raw) for path in (images[moved[0]], annotations[moved[0]][0]))
        problems.note(
            f"{raw}: {len(moved):,} annotations are paired with images by name alone, such as {annotation} "
            f"with {image}"
        )


def _by_stem(places: Iterable[tuple[str, str]], with_split: bool) -> dict[tuple[str, str], list]:
    """Places by split (or "") and stem, without a prefix such as "img_" or "mask_"."""
    by_stem: dict[tuple[str, str], list] = {}
    for split, key in places:
        stem = NUMBER_PREFIX.sub("", key.rsplit("/", 1)[-1])
        by_stem.setdefault((split if with_split else "", stem), []).append((split, key))
    return by_stem


def group_by_split(raw: epath.Path, planned: list[tuple[Pair, T]], problems: Problems) -> dict[str, list[T]]:
    """Groups the items of pairs by split: by folder, or by list files (train.txt, ...).

    List files are in `raw` or in VOC's ImageSets/Segmentation, with a stem, file name or path per line.
    Without a val split, every tenth image of train is held out.

    Raises:
        UserError: a list file cannot be read.
    """
    splits: dict[str, list[T]] = {}
    in_folders, lists = any(pair.split for pair, _ in planned), _list_files(raw)
    keys_by_split = {split: set().union(*map(_listed_keys, paths)) for split, paths in lists.items()}
    for pair, item in planned:
        named = [pair.split] if pair.split else []
        if not in_folders:
            names = {pair.key, epath.Path(pair.key).name, pair.image.stem}
            named = [split for split, keys in keys_by_split.items() if names & keys] if lists else ["train"]
        if not named:
            which = "its folder is not a split" if in_folders else "it is in no list of a split"
            problems.add(f"{pair.image} is not read: {which}")
        if len(named) > 1:
            problems.add(f"{pair.image} is in the lists of {' and '.join(named)}; {named[0]} is used")
        for split in named[:1]:
            splits.setdefault(split, []).append(item)
    if "val" not in splits and "train" in splits:
        splits["train"], splits["val"] = hold_out(splits["train"])
        if in_folders or lists:
            problems.note(NO_VAL_NOTE.format(raw))
    return {split: splits[split] for split in SPLITS if split in splits}


def hold_out(items: list) -> tuple[list, list]:
    """(kept, held out): holds out every tenth item, from the end; none of a single item."""
    indices = set(range(len(items) - 1, 0, -HOLD_OUT_PERIOD))
    return [x for i, x in enumerate(items) if i not in indices], [items[i] for i in sorted(indices)]


def _list_files(raw: epath.Path) -> dict[str, list[epath.Path]]:
    """The list files of each split, from the first folder that has any; names are in any case."""
    voc = [path for path in listed(raw) if path.name.lower() == "imagesets"]
    segmentation = [path for folder in voc for path in listed(folder) if path.name.lower() == "segmentation"]
    for folder in (raw, *segmentation, *voc):
        files: dict[str, list[epath.Path]] = {}
        for path in listed(folder, ".txt"):
            if split := SPLIT_NAMES.get(path.stem.lower()):
                files.setdefault(split, []).append(path)
        if files:
            return {split: files[split] for split in SPLITS if split in files}
    return {}


def _listed_keys(path: epath.Path) -> set[str]:
    """The stems in a list's first column, with and without their folders."""
    try:
        lines = [line.split()[0] for line in read_text(path).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a list of images in UTF-8 ({error})") from error
    suffixes = tuple(SUFFIXES)
    stems = [line[: line.rfind(".")] if line.lower().endswith(suffixes) else line for line in lines]
    return {*stems, *(stem.rsplit("/", 1)[-1] for stem in stems)}
