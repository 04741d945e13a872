"""A user's own images. RAW/{train,val,test}, or RAW itself, holds them, and beside an image X.jpg any of

X.txt               captions, one per line
X.json              an expression and labelled shapes, in ReasonSeg's format
annotations.json    objects of all images, in COCO's format (or _annotations.coco.json); see `folder_objects`
"""

from etils import epath

from genmask_jax.data.prepared.raw.folder_objects import COCO, Objects, read_objects
from genmask_jax.data.prepared.raw.layout import images_by_stem, split_folders
from genmask_jax.data.prepared.raw.plan import Expression, Plan, PlannedImage
from genmask_jax.data.prepared.raw.problems import Problems
from genmask_jax.data.prepared.raw.reasonseg import read_annotation
from genmask_jax.errors import UserError
from genmask_jax.images import read_frame
from genmask_jax.paths import listed, read_text


def read(raw: epath.Path) -> Plan:
    """Images with a caption or an expression, or both.

    Raises:
        UserError: there is no image, or annotations.json is invalid.
    """
    if not raw.is_dir():
        raise UserError(f"--raw={raw}: there is no such folder")
    problems = Problems()
    folders = split_folders(raw, problems)
    if folders:
        splits = {split: _read_split(folder, problems) for split, folder in folders.items()}
    else:
        images = _read_split(raw, problems)
        held_out = set(range(len(images) - 1, 0, -10))
        splits = {
            "train": [image for i, image in enumerate(images) if i not in held_out],
            "val": [images[i] for i in sorted(held_out)],
        }
    if not any(splits.values()):
        raise UserError(
            f"--raw={raw}: there is no image with a caption (X.txt) or an annotation (X.json, {COCO[0]}) "
            f"beside it{'; ' + problems.left_out[0] if problems.left_out else ''}"
        )
    return Plan(splits, problems)


def _read_split(folder: epath.Path, problems: Problems) -> list[PlannedImage]:
    by_stem = images_by_stem(folder, problems)
    objects = read_objects(folder, list(by_stem.values()), problems)
    images = []
    for path in by_stem.values():
        image = _plan_image(path, objects.get(path.name), problems)
        if image.captions or image.expressions:
            images.append(image)
        else:
            problems.add(f"{path} is an image without a caption or an annotation")
    for path in listed(folder, ".json", ".txt"):
        if path.stem not in by_stem and path.name not in COCO:
            problems.add(f"{path} is an annotation without an image")
    return images


def _plan_image(path: epath.Path, objects: Objects | None, problems: Problems) -> PlannedImage:
    """An image with all that is said of it, which may be nothing."""
    targets, said = (list(objects.targets), list(objects.said)) if objects else ([], [])
    turned = objects is None or objects.turned
    annotation = path.with_suffix(".json")
    if annotation.exists():
        try:
            frame = read_frame(path)
            if not turned:
                raise ValueError(
                    f"{annotation} is of the image as turned by EXIF, {COCO[0]} of the image as stored; the "
                    "former is not used"
                )
            more, texts = read_annotation(annotation, frame and frame.upright, problems)
            said += [(expression.text, len(targets), expression.is_sentence) for expression in texts]
            targets += more
        except (UserError, ValueError) as error:
            problems.add(str(error))
    return PlannedImage(
        path=str(path),
        image_id=path.stem,
        size=objects and objects.size,
        captions=_captions(path.with_suffix(".txt"), problems),
        turned=turned,
        targets=tuple(targets),
        expressions=tuple(
            Expression(path.stem if i == 0 else f"{path.stem}#{i}", *one) for i, one in enumerate(said)
        ),
    )


def _captions(path: epath.Path, problems: Problems) -> tuple[str, ...]:
    try:
        lines = read_text(path).splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        problems.add(f"{path} is not text in UTF-8 ({error})")
        return ()
    return tuple(line.strip() for line in lines if line.strip())
