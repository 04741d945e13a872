"""Objects of a user's images in COCO's format: masks for the expressions, or the category, of each object.

An annotation's "expressions" (a list) refer to it; without them, its category's name refers to all objects of
that category in the image. Masks are of the image as stored or as turned by its EXIF orientation, whichever
has the height and width that the file gives.
"""

import dataclasses
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from etils import epath

from genmask_jax.data import masks
from genmask_jax.data.prepared.raw.coco import CocoFile
from genmask_jax.data.prepared.raw.image_index import normalised
from genmask_jax.data.prepared.raw.names import is_background, is_ignored, phrase
from genmask_jax.data.prepared.raw.plan import NOTHING, NOTHING_NOTE, Target
from genmask_jax.data.prepared.raw.problems import Problems
from genmask_jax.images import read_frame

COCO = ("annotations.json", "_annotations.coco.json")
"""Names of the file; the second is that of a common export."""


@dataclasses.dataclass(frozen=True)
class Objects:
    """What is known of an image.

    size: its height and width.
    turned: whether they, and the masks, are of the image as turned by its EXIF orientation.
    targets: what is referred to.
    said: expressions, each with the number of its target and whether it is a sentence.
    void: segmentations of pixels that do not count.
    """

    size: masks.Size
    turned: bool
    targets: tuple[Target, ...]
    said: tuple[tuple[str, int, bool], ...]
    void: tuple[Any, ...] = ()


@dataclasses.dataclass
class _Found:
    """Objects found so far: ids by expression, and segmentations by id; whether the file has any of it.

    void: segmentations of pixels that do not count.
    """

    size: masks.Size
    annotated: bool = False
    said: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    segmentations: dict[int, Any] = dataclasses.field(default_factory=dict)
    void: list[Any] = dataclasses.field(default_factory=list)


def read_objects(
    folder: epath.Path, files: list[epath.Path], classes: dict[str, None], problems: Problems
) -> dict[str, Objects]:
    """The objects of a folder's images, by the name of the image's file; none if there is no such file.

    Adds the categories that are used as expressions to `classes`.

    Raises:
        UserError: the file is not in COCO's format.
    """
    paths = [folder / name for name in COCO if (folder / name).exists()]
    for path in paths[1:]:
        problems.add(f"{path} is not read, since {paths[0].name} is there")
    if not paths:
        return {}
    by_name = {normalised(path.name): path for path in files}
    found = objects_of(
        CocoFile(paths[0], problems), lambda name: by_name.get(normalised(name)), classes, problems
    )
    note_nothing(found.values(), problems)
    return {path.name: objects for path, objects in found.items()}


def objects_of(
    coco: CocoFile,
    find: Callable[[str], epath.Path | None],
    classes: dict[str, None],
    problems: Problems,
) -> dict[epath.Path, Objects]:
    """The objects of the images that a file in COCO's format lists, by image.

    Args:
        coco: the file.
        find: the image of a "file_name", or None if it is missing; raises ValueError, with what is wrong.
        classes: gets the categories that are used as expressions.
        problems: to report objects and images to that are left out.
    """
    found, paths = _images(coco, find, problems)
    seen: dict[int, Any] = {}
    for annotation in coco.annotations:
        image = found.get(annotation["image_id"])
        if image is not None:
            image.annotated = True
            _add(annotation, image, seen, coco, classes, problems)
    # Without an annotation, an image shows none of the classes, if the file says of others which they show.
    known = bool(classes) and any(image.annotated for image in found.values())
    objects: dict[epath.Path, Objects] = {}
    for number, image in found.items():
        path = paths[number]
        shows_none = known and (bool(image.void) or not image.annotated)
        if (image.said or shows_none) and path not in objects:
            try:
                objects[path] = _objects(path, image)
            except ValueError as error:
                problems.add(f"{path} {error}")
    return objects


def _images(
    coco: CocoFile, find: Callable[[str], epath.Path | None], problems: Problems
) -> tuple[dict[Any, _Found], dict[Any, epath.Path]]:
    """The images that are there, and their paths, by id; ids of the same file share one `_Found`."""
    by_path: dict[epath.Path, _Found] = {}
    found: dict[Any, _Found] = {}
    paths: dict[Any, epath.Path] = {}
    for number, image in coco.images.items():
        try:
            path = find(image.file)
        except ValueError as error:
            problems.add(f"{coco.path}: its image {image.file} {error}")
            continue
        if path is None:
            problems.add(f"{coco.path}: its image {image.file} is missing")
            continue
        if path in by_path:
            if by_path[path].size != image.size:
                problems.add(
                    f"{coco.path}: {image.file} is listed twice, with different sizes; the objects of image "
                    f"{number} are left out"
                )
                continue
            problems.note(f"{coco.path}: {image.file} is listed twice; it has the objects of both")
        found[number] = by_path.setdefault(path, _Found(image.size))
        paths[number] = path
    return found, paths


def _add(
    annotation: Any,
    image: _Found,
    seen: dict[int, Any],
    coco: CocoFile,
    classes: dict[str, None],
    problems: Problems,
) -> None:
    """Adds an annotation's id to the expressions of its image, and its usable segmentation."""
    number = annotation.get("id")
    where = f"{coco.path.name}: object {number}"
    if not isinstance(number, int):
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
        problems.add(f"{coco.path.name}: an object has a box and no mask")
        return
    texts, name = annotation.get("expressions"), ""
    if not texts:
        category = annotation.get("category_id")
        if not isinstance(category, Hashable) or category not in coco.categories:
            problems.add(f"{coco.path.name}: an object is of category {category}, which is not in the file")
            return
        name = coco.categories[category]
        if is_background(name):
            problems.note(f"{coco.path.name}: an object is of category {name!r}; it is not read")
            return
        texts = phrase(name)
    texts = [texts] if isinstance(texts, str) else texts if isinstance(texts, list) else [None]
    good = {text.strip().lower() for text in texts if isinstance(text, str) and text.strip()}
    if len(good) < len(texts):
        problems.add(f"{where}: some of its expressions are not texts, or are duplicates")
    try:
        segmentation, complaints = masks.usable(annotation.get("segmentation"), image.size)
    except ValueError as error:
        problems.add(f"{where} has no mask: {error}")
        return
    problems.extend(f"{where}: {complaint}" for complaint in complaints)
    if is_ignored(name):
        image.void.append(segmentation)
        return
    image.segmentations[number] = segmentation
    classes |= {phrase(name): None} if name else {}
    for text in sorted(good):
        image.said.setdefault(text, []).append(number)


def _objects(path: epath.Path, image: _Found) -> Objects:
    """Raises ValueError when it is not known how the masks lie on the image."""
    targets = tuple(
        Target(i, tuple(ids), tuple(image.segmentations[j] for j in ids))
        for i, ids in enumerate(image.said.values())
    )
    said = tuple((text, i, False) for i, text in enumerate(image.said))
    return Objects(image.size, _is_turned(path, image.size), targets or NOTHING, said, tuple(image.void))


def note_nothing(objects: Iterable[Objects], problems: Problems) -> None:
    """Notes each image that shows no class."""
    for its in objects:
        if its.targets == NOTHING and not its.said:
            problems.note(NOTHING_NOTE)


def united(one: Objects, other: Objects) -> Objects:
    """The objects that two files give the same image; those that both have are one.

    Raises:
        ValueError: the files give the image different sizes.
    """
    if one.size != other.size:
        raise ValueError(f"{one.size[0]} x {one.size[1]} and {other.size[0]} x {other.size[1]} pixels")
    known: dict[int, Any] = {}
    by_text: dict[str, list[int]] = {}
    for objects in (one, other):
        ids: dict[int, int] = {}  # of these objects, in the union
        for text, i, _ in objects.said:
            target = objects.targets[i]
            its = by_text.setdefault(text, [])
            for number, segmentation in zip(target.ann_ids, target.segmentations, strict=True):
                same = (k for k in its if known[k] == segmentation)
                free = number if number not in known else max(known) + 1
                number = ids.setdefault(number, next(same, free))
                known[number] = segmentation
                its += [number] if number not in its else []
    targets = tuple(
        Target(i, tuple(ids), tuple(known[k] for k in ids)) for i, ids in enumerate(by_text.values())
    )
    void = (*one.void, *(segmentation for segmentation in other.void if segmentation not in one.void))
    said = tuple((text, i, False) for i, text in enumerate(by_text))
    return dataclasses.replace(one, targets=targets or NOTHING, said=said, void=void)


def _is_turned(path: epath.Path, size: masks.Size) -> bool:
    """Whether masks of that size are of the image as turned by its EXIF orientation."""
    frame = read_frame(path)
    if frame is None or frame.orientation == 1:
        return True  # either is the same; an image that cannot be read is named when it is written
    fits = {turned for turned, its in ((False, frame.stored), (True, frame.upright)) if its == size}
    if len(fits) == 2:
        raise ValueError(
            f"has EXIF orientation {frame.orientation}, and its size does not tell whether its objects are "
            "drawn on it as stored or as turned; they are left out (save it without EXIF orientation)"
        )
    return fits != {False}
