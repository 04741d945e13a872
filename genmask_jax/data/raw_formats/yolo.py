"""YOLO's segmentation layout: labels/X.txt for images/X.jpg, and data.yaml with the names.

A line is a class number and a polygon: x and y in turn, as fractions of the upright image's width and height.
A class refers to all of its polygons in the image.
"""

import dataclasses
import itertools
from collections.abc import Iterator

from etils import epath

from genmask_jax.data import masks
from genmask_jax.data.raw_formats.class_list import read_class_list, report_unused
from genmask_jax.data.raw_formats.layout import captions_of
from genmask_jax.data.raw_formats.layout_check import LayoutCheck, count, folders
from genmask_jax.data.raw_formats.names import is_background, is_class, is_ignored, phrase
from genmask_jax.data.raw_formats.pairs import Pair, find_pairs, group_by_split
from genmask_jax.data.raw_formats.plan import (
    NO_CLASS_NOTE,
    NO_CLASS_TARGETS,
    Expression,
    Plan,
    PlannedImage,
    Target,
)
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import read_frame
from genmask_jax.utils.paths import read_text

SUFFIXES = (".txt",)
SAMPLE_SIZE = 20
"""Number of lines that are read to recognise a file."""


def recognise(raw: epath.Path) -> LayoutCheck:
    """Checks for this layout."""
    tree = find_pairs(raw, SUFFIXES, Problems())
    paired = [pair.annotation for pair in tree.pairs if pair.annotation is not None]
    kinds = {path: _kind(path) for path in (*paired, *tree.unpaired)}
    readable = [path for path in paired if kinds[path]]
    if any(kinds[path] == "polygons" for path in paired):
        return LayoutCheck(f"{count(readable, 'image')} with a file of polygons{folders(readable, raw)}")
    if readable:
        return LayoutCheck(
            seen=f"{count(readable, 'YOLO file')} of boxes{folders(readable, raw)}, without a polygon",
            fix="export segmentation polygons instead of boxes",
        )
    unpaired = [path for path in tree.unpaired if kinds[path]]
    if unpaired:
        return LayoutCheck(
            seen=f"{count(unpaired, 'YOLO file')}{folders(unpaired, raw)} without an image of that name, "
            f"such as {unpaired[0].relative_to(raw)}",
            fix="put the images into images/, with the same names as the files in labels/",
        )
    return LayoutCheck()


def _kind(path: epath.Path) -> str:
    """The content of a file's first lines, "polygons" or "boxes"; "" if it is neither."""
    kind = ""
    try:
        for line in read_text(path).splitlines()[:SAMPLE_SIZE]:
            words = line.split()
            if len(words) < 5 or not words[0].isdigit() or any(float(word) > 1.5 for word in words[1:]):
                break
            kind = "boxes" if len(words) == 5 and kind != "polygons" else "polygons"
    except (OSError, ValueError):
        pass
    return kind


def read(raw: epath.Path) -> Plan:
    """Images with their classes; an empty file means no class.

    Raises:
        UserError: the classes have no names.
    """
    classes = read_class_list(raw)
    if classes is None or not classes.names:
        raise UserError(
            f"--raw={raw}: the classes have no names; write data.yaml, or one name per line to classes.txt"
        )
    problems = Problems()
    tree = find_pairs(raw, SUFFIXES, problems)
    for path in tree.unpaired:
        if _kind(path):
            problems.add(f"{path} has polygons but no image")
    reading = _Reading(classes.names, problems)
    planned = [(pair, image) for pair in tree.pairs if (image := _plan(pair, reading)) is not None]
    report_unused(classes.names, reading.seen, classes.source, problems)
    splits = group_by_split(raw, planned, problems)
    names = [phrase(name) for name in classes.names.values() if is_class(name)]
    return Plan(splits, problems, tuple(dict.fromkeys(names)))


@dataclasses.dataclass
class _Reading:
    """State of reading all files: problems, ids of polygons, and the class numbers that occur."""

    names: dict[int, str]
    problems: Problems
    ids: Iterator[int] = dataclasses.field(default_factory=itertools.count)
    seen: set[int] = dataclasses.field(default_factory=set)


def _plan(pair: Pair, reading: _Reading) -> PlannedImage | None:
    problems, ids = reading.problems, reading.ids
    captions = captions_of(pair.image, problems)
    frame = read_frame(pair.image)
    if pair.annotation is None:
        problems.add(f"{pair.image} has no file of polygons")
        return None
    if frame is None:
        problems.add(f"{pair.image}: this image cannot be read")
        return None
    try:
        by_phrase, void = _polygons(pair.annotation, frame.upright, reading)
        nothing = not read_text(pair.annotation).strip()
    except (OSError, UnicodeDecodeError) as error:
        problems.add(f"{pair.annotation} is not text in UTF-8 ({error})")
        return None
    for other in pair.annotations[1:]:
        problems.add(f"{other} is not read, because {pair.annotation} has the polygons of the image")
    if nothing:
        problems.note(NO_CLASS_NOTE)
    elif not by_phrase and not captions:
        problems.add(f"{pair.annotation} has no usable polygon")
        return None
    return PlannedImage(
        path=str(pair.image),
        image_id=pair.key,
        size=frame.upright,
        captions=captions,
        turned=True,
        void=tuple(void),
        targets=tuple(
            Target(i, tuple(itertools.islice(ids, len(one))), tuple(one))
            for i, one in enumerate(by_phrase.values())
        )
        or (NO_CLASS_TARGETS if nothing else ()),
        expressions=tuple(
            Expression(pair.key if i == 0 else f"{pair.key}#{i}", text, i) for i, text in enumerate(by_phrase)
        ),
    )


def _polygons(path: epath.Path, size: masks.Size, reading: _Reading) -> tuple[dict[str, list], list]:
    """Segmentations (`masks.usable`) by phrase, in the order of class numbers, and of ignored pixels."""
    names, problems = reading.names, reading.problems
    by_number: dict[int, list] = {}
    for i, line in enumerate(read_text(path).splitlines(), 1):
        where, words = f"{path}: line {i}", line.split()
        if not words:
            continue
        try:
            number, shares = int(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            problems.add(f"{where} is not a class number and a polygon")
            continue
        if number not in names:
            problems.add(f"the class number {number} has no name; its polygons are left out")
            continue
        if len(shares) == 4:
            problems.add(f"{where} is a box, not a polygon")
            continue
        scaled = [share * (size[1] if k % 2 == 0 else size[0]) for k, share in enumerate(shares)]
        try:
            segmentation, _ = masks.usable([scaled], size)
        except ValueError as error:
            problems.add(f"{where}: {error}")
        else:
            by_number.setdefault(number, []).append(segmentation)
    reading.seen.update(by_number)
    by_phrase: dict[str, list] = {}
    void: list = []
    for number in sorted(by_number):
        if is_ignored(names[number]):
            void.extend(by_number[number])
        elif not is_background(names[number]):
            by_phrase.setdefault(phrase(names[number]), []).extend(by_number[number])
    return by_phrase, void
