"""The layout of COCO's captions: RAW/annotations/captions_train2017.json, with images in RAW/train2017."""

from etils import epath

from genmask_jax.data.raw_formats.coco import CocoFile
from genmask_jax.data.raw_formats.names import is_text
from genmask_jax.data.raw_formats.plan import Plan, PlannedImage
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.paths import is_file, listed

SPLITS = {"train": "train2017", "val": "val2017"}


def read(raw: epath.Path) -> Plan:
    """Reads images with about five captions each.

    Raises:
        UserError: there are no captions, or a file is invalid.
    """
    files = {split: raw / "annotations" / f"captions_{name}.json" for split, name in SPLITS.items()}
    files = {split: path for split, path in files.items() if is_file(path)}
    if not files:
        raise UserError(
            f"--raw={raw}: there is no annotations/captions_train2017.json; give the folder that holds "
            "annotations/ and train2017/"
        )
    problems = Problems()
    splits = {split: _read_split(path, raw / SPLITS[split], problems) for split, path in files.items()}
    return Plan(splits, problems)


def _read_split(path: epath.Path, folder: epath.Path, problems: Problems) -> list[PlannedImage]:
    coco = CocoFile(path, problems)
    present = {file.name for file in listed(folder)}
    captions: dict[int, list[str]] = {number: [] for number in coco.images}
    for annotation in coco.annotations:
        caption = annotation.get("caption")
        if is_text(caption):
            captions[annotation["image_id"]].append(caption.strip())
        else:
            problems.add(f"{path.name}: caption {annotation.get('id')} is empty or not a text")
    planned = []
    for number in sorted(coco.images, key=lambda number: (isinstance(number, str), number)):
        image = coco.images[number]
        if image.file not in present:
            problems.add(f"an image is missing: {folder / image.file}")
        elif not captions[number]:
            problems.add(f"{path.name}: image {number} has no caption")
        else:
            planned.append(
                PlannedImage(str(folder / image.file), str(number), image.size, tuple(captions[number]))
            )
    return planned
