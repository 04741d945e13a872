"""Images with a class for every pixel: PNG files of class numbers, grey or with a palette, and their names.

    RAW/images/train/X.jpg, RAW/labels/train/X.png, RAW/classes.txt     (for other places see `pairs.py`)

A class means all of its pixels in the image. Pixels of 255, of a class whose name says so (`names.IGNORED`)
and of numbers that have no name are ignored.
"""

import numpy as np
from etils import epath

from genmask_jax.data.masks import IGNORE
from genmask_jax.data.prepared.raw.layout import captions_of
from genmask_jax.data.prepared.raw.names import is_background, is_ignored, phrase, read_names
from genmask_jax.data.prepared.raw.pairs import Pair, Tree, find_pairs, in_splits
from genmask_jax.data.prepared.raw.plan import Expression, LabelFile, Plan, PlannedImage, Target
from genmask_jax.data.prepared.raw.problems import Problems
from genmask_jax.data.prepared.raw.seen import Sighting, count, folders, values
from genmask_jax.errors import UserError
from genmask_jax.images import read_frame

SUFFIXES = (".png",)


def recognise(raw: epath.Path) -> Sighting:
    """What there is of this layout."""
    names, tree = read_names(raw), find_pairs(raw, SUFFIXES, Problems())
    paired = [pair.annotation for pair in tree.pairs if pair.annotation is not None]
    if names and paired:
        return Sighting(f"{len(paired):,} images with a PNG of class numbers, {len(names)} class names")
    if paired:
        return Sighting(
            saw=f"{count(paired, 'PNG')}{folders(paired, raw)} with {values(paired)} and no class list",
            needs="write the names of the classes to classes.txt, a line each from number 0 on",
        )
    if tree.unpaired:
        return Sighting(
            saw=f"{count(tree.unpaired, 'PNG')}{folders(tree.unpaired, raw)} named as no image is, such as "
            f"{tree.unpaired[0].relative_to(raw)}",
            needs="give each image and its PNG the same name, images/X.jpg and masks/X.png",
        )
    if names:
        return Sighting(
            saw=f"a class list of {len(names)} names, and no PNG of class numbers",
            needs="save the class numbers of each images/X.jpg as labels/X.png",
        )
    return Sighting()


def read(raw: epath.Path) -> Plan:
    """Images with the classes that they show, each with its name as its expression.

    Raises:
        UserError: there are no names, or no image with class numbers.
    """
    problems = Problems()
    return read_tree(raw, find_pairs(raw, SUFFIXES, problems), problems)


def read_tree(raw: epath.Path, tree: Tree, problems: Problems) -> Plan:
    """The same of images whose class numbers have been found. Raises UserError."""
    names = read_names(raw)
    if not names:
        raise UserError(f"--raw={raw}: the numbers of the classes have no names; write them to classes.txt")
    for path in tree.unpaired:
        problems.add(f"{path}: class numbers without an image")
    found = [(pair, image) for pair in tree.pairs if (image := _plan(pair, names, problems)) is not None]
    splits = in_splits(raw, found, problems)
    classes = [phrase(name) for name in names.values() if not is_ignored(name) and not is_background(name)]
    return Plan(splits, problems, tuple(dict.fromkeys(classes)))


def _plan(pair: Pair, names: dict[int, str], problems: Problems) -> PlannedImage | None:
    if pair.annotation is None:
        problems.add(f"{pair.image} has no PNG of class numbers")
        return None
    try:
        labels = LabelFile(str(pair.annotation))
        numbers = labels.read()
        turned = oriented(pair.image, numbers.shape)
    except ValueError as error:
        problems.add(str(error))
        return None
    there = [int(number) for number in np.unique(numbers)]
    for number in there:
        if number not in names and number != IGNORE:
            problems.note(f"the number {number} has no name; its pixels are ignored")
    ignored = tuple(n for n in there if n not in names or is_ignored(names[n]))
    of: dict[str, list[int]] = {}
    for number in there:
        if number not in ignored and not is_background(names[number]):
            of.setdefault(phrase(names[number]), []).append(number)
    texts = sorted(of, key=lambda text: of[text])
    captions = captions_of(pair.image, problems)
    if not texts and not captions:
        problems.add(f"{pair.annotation}: none of its pixels has a class that can be asked for")
        return None
    return PlannedImage(
        path=str(pair.image),
        image_id=pair.key,
        size=(int(numbers.shape[0]), int(numbers.shape[1])),
        captions=captions,
        turned=turned,
        targets=tuple(Target(i, numbers=tuple(of[text])) for i, text in enumerate(texts)),
        expressions=tuple(
            Expression(pair.key if i == 0 else f"{pair.key}#{i}", text, i) for i, text in enumerate(texts)
        ),
        labels=LabelFile(str(pair.annotation), ignored=ignored),
    )


def oriented(image: epath.Path, size: tuple[int, ...]) -> bool:
    """Whether labels of that size are of the image as turned by its EXIF orientation.

    Raises:
        ValueError: they fit neither the image as stored nor as turned, or both if it has an orientation.
    """
    frame = read_frame(image)
    if frame is None:
        return True  # it is named when it is written
    fits = [turned for turned, its in ((True, frame.upright), (False, frame.stored)) if its == tuple(size)]
    if not fits:
        raise ValueError(
            f"{image} has {frame.upright[0]} x {frame.upright[1]} pixels, its labels {size[0]} x {size[1]}"
        )
    if frame.orientation != 1 and len(fits) == 2:
        raise ValueError(
            f"{image} has EXIF orientation {frame.orientation}, and its size does not tell whether its "
            "labels are of it as stored or as turned (save it without EXIF orientation)"
        )
    return fits[0]
