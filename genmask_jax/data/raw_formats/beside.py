"""Images with annotations next to them: RAW/{train,val,test}, or RAW itself, has images X.jpg and any of

X.txt               captions, one per line
X.json              an expression and labelled shapes (ReasonSeg), or only labelled shapes (labelme)
metadata.jsonl      captions of all images (or metadata.csv)
annotations.json    objects of all images, in COCO's format (or _annotations.coco.json); see `folder_objects`
"""

import dataclasses
from typing import Any

from etils import epath

from genmask_jax.data.raw_formats.folder_names import files_below
from genmask_jax.data.raw_formats.folder_objects import COCO, Objects, read_objects
from genmask_jax.data.raw_formats.labelme import read_labelme
from genmask_jax.data.raw_formats.layout import (
    METADATA,
    captions_of,
    image_bytes,
    images_by_stem,
    is_labelme,
    read_json,
    split_folders,
)
from genmask_jax.data.raw_formats.layout_check import SAMPLE_SIZE, LayoutCheck, count, folders
from genmask_jax.data.raw_formats.pairs import NO_VAL_NOTE, find_pairs, group_by_split, hold_out
from genmask_jax.data.raw_formats.plan import (
    NO_CLASS_NOTE,
    NO_CLASS_TARGETS,
    Expression,
    Plan,
    PlannedImage,
    Target,
)
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.data.raw_formats.reasonseg import FALLBACK, read_annotation
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import SUFFIXES, UNREADABLE, decode, read_frame
from genmask_jax.utils.paths import is_file, listed

JSON = (".json",)
SIZE = ("imageHeight", "imageWidth")
"""Keys of the image's size in labelme's files."""


def recognise(raw: epath.Path) -> LayoutCheck:
    """Checks for annotations next to images."""
    found: dict[str, bool] = {}
    for folder in list(split_folders(raw, Problems()).values()) or [raw]:
        stems = {path.stem for path in listed(folder, *SUFFIXES)}
        files = listed(folder, ".json", ".txt", *METADATA)
        names = {path.name for path in files}
        annotations = [path for path in files if path.suffix == ".json" and path.name not in COCO]
        evidence = {
            "objects in COCO's format": bool(stems and names & set(COCO)),
            "captions in metadata files": bool(stems and names & set(METADATA)),
            "captions in text files": any(p.suffix == ".txt" and p.stem in stems for p in files),
            "shapes in JSON files": any(p.stem in stems or image_bytes(p) for p in annotations),
        }
        found = {name: exists or found.get(name, False) for name, exists in evidence.items()}
    return LayoutCheck(", ".join(what for what, exists in found.items() if exists))


def recognise_apart(raw: epath.Path) -> LayoutCheck:
    """Checks for JSON files with shapes, one per image, in other folders than the images."""
    tree = find_pairs(raw, JSON, Problems())
    paired = [pair.annotation for pair in tree.pairs if pair.annotation is not None]
    if any(_has_shapes(path) for path in paired[:SAMPLE_SIZE]):
        return LayoutCheck(f"{count(paired, 'image')} with shapes in a JSON file{folders(paired, raw)}")
    files = [path for path in files_below(raw) if path.name.lower().endswith(JSON)]
    unpaired = next((path for path in files[:SAMPLE_SIZE] if _has_shapes(path)), None)
    if unpaired is None:
        return LayoutCheck()
    description = f"{count(files, 'JSON file')}{folders(files, raw)}, such as {unpaired.name} with shapes"
    return LayoutCheck(
        seen=f"{description}, without an image",
        fix="put each X.json next to its image X.jpg, or put files into labels/ and images into images/",
    )


def _has_shapes(path: epath.Path) -> bool:
    try:
        return isinstance(read_json(path, dict, FALLBACK).get("shapes"), list)
    except UserError:
        return False


@dataclasses.dataclass
class _Reading:
    """State of reading all folders: problems, names of classes, and the number of shapes so far."""

    problems: Problems
    classes: dict[str, None] = dataclasses.field(default_factory=dict)
    shapes: int = 0


def read(raw: epath.Path) -> Plan:
    """Images with a caption or an expression, or both.

    Raises:
        UserError: there is no image, or annotations.json is invalid.
    """
    problems = Problems()
    reading = _Reading(problems)
    folders = split_folders(raw, problems)
    splits = {split: _read_split(folder, reading) for split, folder in folders.items()}
    if not folders:
        splits["train"], splits["val"] = hold_out(_read_split(raw, reading))
    elif "val" not in splits and "train" in splits:
        splits["train"], splits["val"] = hold_out(splits["train"])
        problems.note(NO_VAL_NOTE.format(raw))
    if not any(splits.values()):
        raise UserError(
            f"--raw={raw}: no image has a caption (X.txt) or an annotation (X.json, {COCO[0]}) next to it"
            f"{'; ' + problems.left_out[0] if problems.left_out else ''}"
        )
    return Plan(splits, problems, tuple(reading.classes))


def read_apart(raw: epath.Path) -> Plan:
    """Images with the shapes of JSON files in other folders, `images/X.jpg` and `labels/X.json`.

    Raises:
        UserError: there are none.
    """
    reading = _Reading(Problems())
    tree = find_pairs(raw, JSON, reading.problems)
    for path in tree.unpaired:
        reading.problems.add(f"{path} is an annotation without an image")
    planned = []
    for pair in tree.pairs:
        image = _plan_image(pair.image, None, reading, pair.annotation, pair.key)
        if _is_annotated(image):
            planned.append((pair, image))
        else:
            reading.problems.add(f"{pair.image} is an image without a caption or an annotation")
    if not planned:
        raise UserError(f"--raw={raw}: there is no image with shapes in a JSON file, such as labels/X.json")
    return Plan(group_by_split(raw, planned, reading.problems), reading.problems, tuple(reading.classes))


def _read_split(folder: epath.Path, reading: _Reading) -> list[PlannedImage]:
    problems = reading.problems
    by_stem = images_by_stem(folder, problems)
    objects = read_objects(folder, list(by_stem.values()), reading.classes, problems)
    images = []
    for path in by_stem.values():
        image = _plan_image(path, objects.get(path.name), reading, path.with_suffix(".json"), path.stem)
        if _is_annotated(image):
            images.append(image)
        else:
            problems.add(f"{path} is an image without a caption or an annotation")
    for path in listed(folder, ".json", ".txt"):
        if path.stem in by_stem or path.name in COCO:
            continue
        if path.name.lower().endswith(".json") and image_bytes(path):
            images.append(_plan_image(path, None, reading, path, path.stem))
        else:
            problems.add(f"{path} is an annotation without an image")
    return images


def _is_annotated(image: PlannedImage) -> bool:
    return bool(image.captions or image.expressions or image.targets == NO_CLASS_TARGETS)


def _plan_image(
    path: epath.Path, objects: Objects | None, reading: _Reading, annotation: epath.Path | None, key: str
) -> PlannedImage:
    """An image with its objects, its own annotation and its captions, if there are any."""
    problems = reading.problems
    targets, expressions = (list(objects.targets), list(objects.expressions)) if objects else ([], [])
    turned, void = objects is None or objects.turned, list(objects.void) if objects else []
    if annotation is not None and is_file(annotation):
        try:
            if not turned:
                raise ValueError(
                    f"{annotation} is not read: it is for the image after its EXIF orientation is applied, "
                    f"but {COCO[0]} for the image as stored"
                )
            new_targets, texts, new_void = _read_json(annotation, path, reading)
            void += new_void
            expressions += [(text, len(targets) + target, sentence) for text, target, sentence in texts]
            targets += [dataclasses.replace(t, ref_id=len(targets) + i) for i, t in enumerate(new_targets)]
        except (UserError, ValueError) as error:
            problems.add(str(error))
    captions = captions_of(path, problems)
    return PlannedImage(
        path=str(path),
        image_id=key,
        size=objects and objects.size,
        captions=captions,
        turned=turned,
        targets=tuple(targets),
        expressions=tuple(
            Expression(key if i == 0 else f"{key}#{i}", *one) for i, one in enumerate(expressions)
        ),
        void=tuple(void),
    )


def _read_json(
    annotation: epath.Path, image: epath.Path, reading: _Reading
) -> tuple[list[Target], list[tuple[str, int, bool]], list[str]]:
    """Targets, (text, index of the target, is_sentence), and ignored pixels of an annotation."""
    content: Any = read_json(annotation, dict, FALLBACK)
    if not is_labelme(content):
        frame = read_frame(image)
        targets, texts = read_annotation(annotation, frame and frame.upright, reading.problems)
        return list(targets), [(one.text, one.target, one.is_sentence) for one in texts], []
    try:
        width, height = decode(image_bytes(image)).size
    except UNREADABLE:
        return [], [], []  # reported when the image is written
    if not content["shapes"]:
        reading.problems.note(NO_CLASS_NOTE)
        return list(NO_CLASS_TARGETS), [], []
    drawn_on = tuple(content.get(key) or size for key, size in zip(SIZE, (height, width), strict=True))
    if drawn_on != (height, width):
        raise ValueError(
            f"{annotation} is not read: the image has {height} x {width} pixels, its shapes are for "
            f"{drawn_on[0]} x {drawn_on[1]}"
        )
    labelme = read_labelme(annotation, (height, width), reading.shapes, reading.problems)
    reading.shapes += len(content["shapes"])
    reading.classes |= dict.fromkeys(labelme.classes)
    return labelme.targets, [(text, i, False) for i, text in enumerate(labelme.texts)], labelme.void
