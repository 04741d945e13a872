"""A user's own images. RAW/{train,val,test}, or RAW itself, holds them, and beside an image X.jpg any of

X.txt               captions, one per line
X.json              an expression and labelled shapes, in ReasonSeg's format
annotations.json    objects of all images, in COCO's format; an annotation's "expressions" (a list) refer to
                    it, else its category's name refers to all objects of that category in the image
"""

from typing import Any

from etils import epath

from genmask_jax.data import masks
from genmask_jax.data.prepared.raw.plan import Expression, Plan, PlannedImage, Target, read_json
from genmask_jax.data.prepared.raw.reasonseg import SPLITS, read_annotation
from genmask_jax.errors import UserError

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
COCO = "annotations.json"


def read(raw: epath.Path) -> Plan:
    """Images with a caption or an expression, or both.

    Raises:
        UserError: there is no image, or annotations.json is invalid.
    """
    if not raw.is_dir():
        raise UserError(f"--raw={raw}: there is no such folder")
    folders = {split: raw / split for split in SPLITS if (raw / split).is_dir()} or {"all": raw}
    problems: list[str] = []
    splits = {split: _read_split(folder, problems) for split, folder in folders.items()}
    if "all" in splits:
        images = splits["all"]
        held_out = set(range(len(images) - 1, 0, -10))
        splits = {
            "train": [image for i, image in enumerate(images) if i not in held_out],
            "val": [images[i] for i in sorted(held_out)],
        }
    if not any(splits.values()):
        raise UserError(
            f"--raw={raw}: there is no image with a caption (X.txt) or an annotation (X.json, {COCO}) "
            f"beside it{'; ' + problems[0] if problems else ''}"
        )
    return Plan(splits, problems)


def _read_split(folder: epath.Path, problems: list[str]) -> list[PlannedImage]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES)
    by_stem: dict[str, epath.Path] = {}
    for path in files:
        if path.stem in by_stem:
            problems.append(f"{path}: another image has that name, {by_stem[path.stem].name}")
        by_stem.setdefault(path.stem, path)
    objects = _coco_objects(folder, set(files), problems)
    images = []
    for path in by_stem.values():
        size, targets, said = objects.get(path.name, (None, [], []))
        targets, said = list(targets), list(said)
        captions = _captions(path.with_suffix(".txt"), problems)
        if path.with_suffix(".json").exists():
            try:
                more, texts = read_annotation(path.with_suffix(".json"), problems)
                said += [(expression.text, len(targets), expression.is_sentence) for expression in texts]
                targets += more
            except (UserError, ValueError) as error:
                problems.append(str(error))
        expressions = tuple(
            Expression(path.stem if i == 0 else f"{path.stem}#{i}", *one) for i, one in enumerate(said)
        )
        if captions or expressions:
            images.append(PlannedImage(str(path), path.stem, size, captions, tuple(targets), expressions))
        else:
            problems.append(f"{path} is an image without a caption or an annotation")
    for path in sorted(folder.glob("*.json")) + sorted(folder.glob("*.txt")):
        if path.stem not in by_stem and path.name != COCO:
            problems.append(f"{path} is an annotation without an image")
    return images


def _captions(path: epath.Path, problems: list[str]) -> tuple[str, ...]:
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines() if path.exists() else []
    except UnicodeDecodeError as error:
        problems.append(f"{path} is not utf-8 ({error})")
        return ()
    return tuple(line.strip() for line in lines if line.strip())


Objects = tuple[masks.Size, list[Target], list[tuple[str, int, bool]]]
"""An image's size, its targets, and its expressions: text, target, whether it is a sentence."""


def _coco_objects(folder: epath.Path, files: set[epath.Path], problems: list[str]) -> dict[str, Objects]:
    """The objects of each image, by the image's file name."""
    path = folder / COCO
    if not path.exists():
        return {}
    content = read_json(path, dict)
    try:
        names = {category["id"]: category["name"] for category in content.get("categories", ())}
        sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
        found = {image["id"]: (str(image["file_name"]), {}, {}) for image in content["images"]}
        for annotation in content["annotations"]:
            _add(annotation, found, sizes, names, problems)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not in COCO's format: {error!r}") from error
    objects: dict[str, Objects] = {}
    for image_id, (file, said, segmentations) in found.items():
        if folder / file not in files:
            problems.append(f"{path}: its image {file} is missing")
            continue
        targets = [
            Target(i, tuple(ids), tuple(segmentations[j] for j in ids)) for i, ids in enumerate(said.values())
        ]
        objects[file] = (sizes[image_id], targets, [(text, i, False) for i, text in enumerate(said)])
    return objects


def _add(annotation: Any, found: Any, sizes: Any, names: Any, problems: list[str]) -> None:
    """Adds an annotation's id to the expressions of its image, and its usable segmentation."""
    number, image_id = annotation["id"], annotation["image_id"]
    where = f"{COCO}: object {number}"
    if not isinstance(number, int):
        problems.append(f"{where}: its id is not an integer")
        return
    if image_id not in found:
        problems.append(f"{where} is of image {image_id}, which is not in the file")
        return
    texts = annotation.get("expressions") or [names[annotation["category_id"]]]
    texts = [texts] if isinstance(texts, str) else texts
    good = {text.strip().lower() for text in texts if isinstance(text, str) and text.strip()}
    if len(good) < len(texts):
        problems.append(f"{where}: some of its expressions are not texts, or are duplicates")
    try:
        segmentation, complaints = masks.usable(annotation["segmentation"], sizes[image_id])
    except ValueError as error:
        problems.append(f"{where} has no mask: {error}")
        return
    problems.extend(f"{where}: {complaint}" for complaint in complaints)
    _, said, segmentations = found[image_id]
    if number in segmentations:
        problems.append(f"{where} occurs twice")
        return
    segmentations[number] = segmentation
    for text in sorted(good):
        said.setdefault(text, []).append(number)
