"""Images with COCO JSON files in other folders, as written by CVAT, Label Studio and labelme.

    RAW/annotations/instances_train2017.json, RAW/train2017/X.jpg       COCO
    RAW/annotations/instances_default.json, RAW/images/default/X.jpg    CVAT
    RAW/result.json, RAW/images/X.jpg                                   Label Studio
    RAW/annotations.json, RAW/JPEGImages/X.jpg                          labelme's data_dataset_coco

JSON files in COCO's format are read anywhere in the folder; images are found by their "file_name". The split
is in the name of the file or of the images' folder. Several files of the same images, such as one for each
class, are united. `folder_objects` describes the meaning of objects.
"""

from collections.abc import Iterable, Iterator

from etils import epath

from genmask_jax.data.raw_formats.coco import CocoFile
from genmask_jax.data.raw_formats.folder_names import files_below, split_of_file
from genmask_jax.data.raw_formats.folder_objects import (
    COCO,
    Objects,
    merge_objects,
    note_without_class,
    objects_of,
)
from genmask_jax.data.raw_formats.image_index import ImageIndex
from genmask_jax.data.raw_formats.layout import captions_of, split_folders
from genmask_jax.data.raw_formats.layout_check import LayoutCheck
from genmask_jax.data.raw_formats.pairs import Pair, group_by_split
from genmask_jax.data.raw_formats.plan import Expression, Plan, PlannedImage
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import SUFFIXES
from genmask_jax.utils.paths import listed

MAX_FILES = 50
"""A folder with more JSON files than this has a file for each image."""


def recognise(raw: epath.Path) -> LayoutCheck:
    """Checks for this layout. Files next to their images belong to `beside`."""
    problems, index = Problems(), ImageIndex(raw)
    files = _files([path for path in _paths(raw) if not _is_next_to_images(path, raw)], problems)
    images_of = {coco.path: _images_found(coco, index) for coco in files}
    usable = [coco.path.relative_to(raw) for coco in files if _has_masks(coco) and images_of[coco.path]]
    if usable:
        names = ", ".join(map(str, usable[:3])) + (f" and {len(usable) - 3} more" if len(usable) > 3 else "")
        count = len(set().union(*(images_of[raw / path] for path in usable)))
        return LayoutCheck(f"{count:,} images with objects in COCO's format, in {names}")
    for coco in files:
        where = f"a COCO file, {coco.path.relative_to(raw)},"
        first_image = next(iter(coco.images.values()), None)
        if first_image is None:
            return LayoutCheck(seen=f"{where} without images", fix="export it with its images")
        if not images_of[coco.path]:
            return LayoutCheck(
                seen=f"{where} whose first image, {first_image.file}, is not found",
                fix=f"put the images that {coco.path.name} lists into images/",
            )
        return LayoutCheck(seen=f"{where} without a mask", fix="export segmentation masks, not boxes")
    if problems.left_out:
        return LayoutCheck(seen=problems.left_out[0], fix="repair this file")
    return LayoutCheck()


def read(raw: epath.Path) -> Plan:
    """Images with the objects from all files.

    Raises:
        UserError: there is no file in COCO's format.
    """
    problems, index = Problems(), ImageIndex(raw)
    classes: dict[str, None] = {}
    by_image: dict[epath.Path, tuple[CocoFile, Objects]] = {}
    files = _files(_paths(raw), problems)
    if not files:
        raise UserError(f"--raw={raw}: there is no JSON file in COCO's format")
    for coco in files:
        where = coco.path.relative_to(raw)
        if not _has_masks(coco):
            problems.note(f"{where} is not read: it has no mask")
            continue
        split = split_of_file(coco.path.stem)
        objects = objects_of(coco, lambda name, split=split: index.find(name, split), classes, problems)
        _add(objects, coco, by_image, problems)
    _report_images_without(index, by_image, files, problems)
    note_without_class((objects for _, objects in by_image.values()), problems)
    planned = [_plan(path, objects, coco, index, problems) for path, (coco, objects) in by_image.items()]
    texts = {expression.text for _, image in planned for expression in image.expressions}
    used = tuple(name for name in classes if name in texts)
    return Plan(group_by_split(raw, planned, problems), problems, used)


def _add(
    objects: dict[epath.Path, Objects],
    coco: CocoFile,
    by_image: dict[epath.Path, tuple[CocoFile, Objects]],
    problems: Problems,
) -> None:
    """Adds a file's objects to those of earlier files. An image belongs to the split of its first file."""
    shared: dict[tuple[epath.Path, bool], int] = {}
    for path, new in objects.items():
        if path not in by_image:
            by_image[path] = coco, new
            continue
        first_file, earlier = by_image[path]
        same_split = split_of_file(first_file.path.stem) == split_of_file(coco.path.stem)
        shared[first_file.path, same_split] = shared.get((first_file.path, same_split), 0) + 1
        try:
            by_image[path] = first_file, merge_objects(earlier, new) if same_split else earlier
        except ValueError as error:
            problems.add(
                f"{coco.path.name}: {path.name} is also in {first_file.path.name}, with another size "
                f"({error}); the objects in {first_file.path.name} are used"
            )
    for (first_file, same_split), count in shared.items():
        both = f"{coco.path.name}: {count:,} of its images are also in {first_file.name}"
        if same_split:
            problems.note(f"{both}; the objects of both are used")
        else:
            problems.add(f"{both}, which is another split and is used")


def _paths(raw: epath.Path) -> Iterator[epath.Path]:
    """Files that look like COCO's format."""
    by_folder: dict[epath.Path, list[epath.Path]] = {}
    for path in files_below(raw):
        if path.name.lower().endswith(".json"):
            by_folder.setdefault(path.parent, []).append(path)
    for folder, paths in by_folder.items():
        images = {path.stem for path in listed(folder, *SUFFIXES)}
        for path in paths if len(paths) <= MAX_FILES else ():
            content = path.read_bytes() if path.stem not in images else b""
            if b'"images"' in content and b'"annotations"' in content:
                yield path


def _files(paths: Iterable[epath.Path], problems: Problems) -> list[CocoFile]:
    """The readable files; the others are reported."""
    files = []
    for path in paths:
        try:
            files.append(CocoFile(path, problems))
        except UserError as error:
            problems.add(str(error))
    return files


def _is_next_to_images(path: epath.Path, raw: epath.Path) -> bool:
    """Whether `beside` reads the file: it is next to images, in RAW or in the folder of a split."""
    folders = {raw, *split_folders(raw, Problems()).values()}
    return path.name in COCO and path.parent in folders and bool(listed(path.parent, *SUFFIXES))


def _has_masks(coco: CocoFile) -> bool:
    return any(annotation.get("segmentation") for annotation in coco.annotations)


def _images_found(coco: CocoFile, index: ImageIndex) -> set[str]:
    """The existing images of a file: by path, or by name if several have the name."""

    def resolve(name: str) -> str | None:
        try:
            path = index.find(name, split_of_file(coco.path.stem))
        except ValueError:
            return name  # reported when the images are read
        return path and str(path)

    return {path for image in coco.images.values() if (path := resolve(image.file))}


def _plan(
    path: epath.Path, objects: Objects, coco: CocoFile, index: ImageIndex, problems: Problems
) -> tuple[Pair, PlannedImage]:
    split, (of_folder, key) = split_of_file(coco.path.stem), index.split_and_key(path)
    pair = Pair(key, path, (coco.path.relative_to(index.raw),), split or of_folder)
    image = PlannedImage(
        path=str(path),
        image_id=key,
        size=objects.size,
        captions=captions_of(path, problems),
        turned=objects.turned,
        targets=objects.targets,
        void=objects.void,
        expressions=tuple(
            Expression(key if i == 0 else f"{key}#{i}", *one) for i, one in enumerate(objects.expressions)
        ),
    )
    return pair, image


def _report_images_without(
    index: ImageIndex, used: Iterable[epath.Path], files: list[CocoFile], problems: Problems
) -> None:
    """Reports folders with images that have no object in any file."""
    without: dict[epath.Path, list[str]] = {}
    for path in index.paths:
        if path not in used:
            without.setdefault(path.parent, []).append(path.name)
    names = " or ".join(coco.path.name for coco in files[:3])
    for folder, images in without.items():
        problems.add(f"{folder}: {len(images):,} images have no object in {names}, such as {images[0]}")
