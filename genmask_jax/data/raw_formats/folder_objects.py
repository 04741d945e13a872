"""Objects of a user's images in COCO's format, as masks of expressions or categories.

An annotation's "expressions" (a list) refer to the object. Without them, its category refers to all objects
of the category in the image. The file's height and width decide whether masks are for the image as stored or
after its EXIF orientation is applied.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from etils import epath

from genmask_jax.data import masks
from genmask_jax.data.raw_formats.coco import CocoFile, is_id, is_integer
from genmask_jax.data.raw_formats.image_index import normalised
from genmask_jax.data.raw_formats.names import is_background, is_ignored, is_text, phrase
from genmask_jax.data.raw_formats.plan import NO_CLASS_NOTE, NO_CLASS_TARGETS, Target
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.utils.errors import short_text
from genmask_jax.utils.images import read_frame
from genmask_jax.utils.paths import is_file

COCO = ("annotations.json", "_annotations.coco.json")
"""Names of the file; the second is Roboflow's."""


@dataclasses.dataclass(frozen=True)
class Objects:
    """The annotations of an image.

    size: (height, width).
    turned: whether size and masks are for the image after its EXIF orientation is applied.
    targets: the masks.
    expressions: (text, index of the target, whether it is a sentence).
    void: segmentations of ignored pixels.
    """

    size: masks.Size
    turned: bool
    targets: tuple[Target, ...]
    expressions: tuple[tuple[str, int, bool], ...]
    void: tuple[Any, ...] = ()


@dataclasses.dataclass
class _ImageObjects:
    """Objects of an image that have been read so far.

    size: (height, width).
    annotated: whether the file has an annotation of the image.
    expressions: ids of objects by expression.
    segmentations: segmentations by id.
    void: segmentations of ignored pixels.
    """

    size: masks.Size
    annotated: bool = False
    expressions: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    segmentations: dict[int, Any] = dataclasses.field(default_factory=dict)
    void: list[Any] = dataclasses.field(default_factory=list)


def read_objects(
    folder: epath.Path, files: list[epath.Path], classes: dict[str, None], problems: Problems
) -> dict[str, Objects]:
    """The objects of a folder's images, by file name of the image; {} without a COCO file in the folder.

    Adds the categories that are used as expressions to `classes`.

    Raises:
        UserError: the file is not in COCO's format.
    """
    paths = [folder / name for name in COCO if is_file(folder / name)]
    for path in paths[1:]:
        problems.add(f"{path} is not read, because {paths[0].name} is read")
    if not paths:
        return {}
    by_name = {normalised(path.name): path for path in files}
    objects_by_path = objects_of(
        CocoFile(paths[0], problems), lambda name: by_name.get(normalised(name)), classes, problems
    )
    note_without_class(objects_by_path.values(), problems)
    return {path.name: objects for path, objects in objects_by_path.items()}


def objects_of(
    coco: CocoFile,
    find: Callable[[str], epath.Path | None],
    classes: dict[str, None],
    problems: Problems,
) -> dict[epath.Path, Objects]:
    """The objects of the images in a COCO file, by path of the image.

    Args:
        coco: the file.
        find: returns the path of a "file_name", or None if it is missing; raises ValueError if it is
            ambiguous.
        classes: receives the categories that are used as expressions.
        problems: receives objects and images that are left out.
    """
    by_id, paths = _find_images(coco, find, problems)
    seen: dict[int, Any] = {}
    for annotation in coco.annotations:
        image = by_id.get(annotation["image_id"])
        if image is not None:
            image.annotated = True
            _add(annotation, image, seen, coco, classes, problems)
    # If the file annotates other images, an image without an annotation shows none of the classes.
    some_annotated = bool(classes) and any(image.annotated for image in by_id.values())
    objects: dict[epath.Path, Objects] = {}
    for number, image in by_id.items():
        path = paths[number]
        shows_none = some_annotated and (bool(image.void) or not image.annotated)
        if (image.expressions or shows_none) and path not in objects:
            try:
                objects[path] = _objects(path, image)
            except ValueError as error:
                problems.add(f"{path} {error}")
    return objects


def _find_images(
    coco: CocoFile, find: Callable[[str], epath.Path | None], problems: Problems
) -> tuple[dict[Any, _ImageObjects], dict[Any, epath.Path]]:
    """The existing images and their paths, by id; ids with the same path share one `_ImageObjects`."""
    by_path: dict[epath.Path, _ImageObjects] = {}
    by_id: dict[Any, _ImageObjects] = {}
    paths: dict[Any, epath.Path] = {}
    for number, image in coco.images.items():
        try:
            path = find(image.file)
        except ValueError as error:
            problems.add(f"{coco.path}: image {image.file} {error}")
            continue
        if path is None:
            problems.add(f"{coco.path}: image {image.file} is missing")
            continue
        if path in by_path:
            if by_path[path].size != image.size:
                problems.add(
                    f"{coco.path}: {image.file} is listed twice, with different sizes; the objects of image "
                    f"{number} are left out"
                )
                continue
            problems.note(f"{coco.path}: {image.file} is listed twice; the objects of both entries are used")
        by_id[number] = by_path.setdefault(path, _ImageObjects(image.size))
        paths[number] = path
    return by_id, paths


def _add(
    annotation: Any,
    image: _ImageObjects,
    seen: dict[int, Any],
    coco: CocoFile,
    classes: dict[str, None],
    problems: Problems,
) -> None:
    """Adds an annotation to the objects of its image, if it is valid."""
    number = annotation.get("id")
    where = f"{coco.path.name}: object {short_text(number)}"
    if not is_integer(number):
        problems.add(f"{where}: its id is not an integer")
        return
    if number in seen:
        same = seen[number] == annotation
        (problems.note if same else problems.add)(
            f"{where} occurs twice{'' if same else '; the first is kept'}"
        )
        return
    seen[number] = annotation
    if annotation.get("bbox") and not annotation.get("segmentation"):
        problems.add(f"{coco.path.name}: an object has a box but no mask")
        return
    try:
        texts, category = _texts_of(annotation, coco, where, problems)
    except ValueError as error:
        problems.add(f"{coco.path.name}: {error}")
        return
    if category is not None and is_background(category):
        problems.note(f"{coco.path.name}: an object of category {category!r} is not read")
        return
    try:
        segmentation, complaints = masks.usable(annotation.get("segmentation"), image.size)
    except ValueError as error:
        problems.add(f"{where} has no mask: {error}")
        return
    problems.extend(f"{where}: {complaint}" for complaint in complaints)
    if category is not None and is_ignored(category):
        image.void.append(segmentation)
        return
    image.segmentations[number] = segmentation
    classes |= {} if category is None else {phrase(category): None}
    for text in sorted(texts):
        image.expressions.setdefault(text, []).append(number)


def _texts_of(annotation: Any, coco: CocoFile, where: str, problems: Problems) -> tuple[set[str], str | None]:
    """An annotation's expressions; without them, the phrase of its category, and the category's name.

    Raises:
        ValueError: the category is not in the file.
    """
    texts, category = annotation.get("expressions"), None
    if not texts:
        number = annotation.get("category_id")
        if not is_id(number) or number not in coco.categories:
            raise ValueError(f"an object has category {short_text(number)}, which is not in the file")
        category = coco.categories[number]
        texts = phrase(category)
    texts = [texts] if isinstance(texts, str) else texts if isinstance(texts, list) else [None]
    valid = {text.strip().lower() for text in texts if is_text(text)}
    if len(valid) < len(texts):
        problems.add(f"{where}: some of its expressions are not texts, or are duplicates")
    return valid, category


def _objects(path: epath.Path, image: _ImageObjects) -> Objects:
    """The objects of an image. Raises ValueError if the orientation of the masks is ambiguous."""
    targets = tuple(
        Target(i, tuple(ids), tuple(image.segmentations[j] for j in ids))
        for i, ids in enumerate(image.expressions.values())
    )
    expressions = tuple((text, i, False) for i, text in enumerate(image.expressions))
    return Objects(
        image.size, _is_turned(path, image.size), targets or NO_CLASS_TARGETS, expressions, tuple(image.void)
    )


def note_without_class(objects: Iterable[Objects], problems: Problems) -> None:
    """Notes each image without any class."""
    for one in objects:
        if one.targets == NO_CLASS_TARGETS and not one.expressions:
            problems.note(NO_CLASS_NOTE)


def merge_objects(one: Objects, other: Objects) -> Objects:
    """The objects of an image from two files; objects in both files count once.

    Raises:
        ValueError: the files have different sizes for the image.
    """
    if one.size != other.size:
        raise ValueError(f"{one.size[0]} x {one.size[1]} and {other.size[0]} x {other.size[1]} pixels")
    by_id: dict[int, Any] = {}
    by_text: dict[str, list[int]] = {}
    for objects in (one, other):
        ids: dict[int, int] = {}  # of these objects, in the union
        for text, i, _ in objects.expressions:
            target = objects.targets[i]
            target_ids = by_text.setdefault(text, [])
            for number, segmentation in zip(target.ann_ids, target.segmentations, strict=True):
                equal = (k for k in target_ids if by_id[k] == segmentation)
                free = number if number not in by_id else max(by_id) + 1
                number = ids.setdefault(number, next(equal, free))
                by_id[number] = segmentation
                target_ids += [number] if number not in target_ids else []
    targets = tuple(
        Target(i, tuple(ids), tuple(by_id[k] for k in ids)) for i, ids in enumerate(by_text.values())
    )
    void = (*one.void, *(segmentation for segmentation in other.void if segmentation not in one.void))
    expressions = tuple((text, i, False) for i, text in enumerate(by_text))
    return dataclasses.replace(one, targets=targets or NO_CLASS_TARGETS, expressions=expressions, void=void)


def _is_turned(path: epath.Path, size: masks.Size) -> bool:
    """Whether masks of that size are for the image after its EXIF orientation is applied."""
    frame = read_frame(path)
    if frame is None or frame.orientation == 1:
        return True  # both are the same; an unreadable image is reported when it is written
    fits = {
        turned for turned, frame_size in ((False, frame.stored), (True, frame.upright)) if frame_size == size
    }
    if len(fits) == 2:
        raise ValueError(
            f"has EXIF orientation {frame.orientation}, and its size does not tell whether its objects are "
            "for the stored or the turned image; they are left out (save it without EXIF orientation)"
        )
    return fits != {False}
