"""The layout of COCO's captions: RAW/annotations/captions_train2017.json, with images in RAW/train2017."""

from etils import epath

from genmask_jax.data.prepared.raw.plan import Plan, PlannedImage, read_json
from genmask_jax.errors import UserError

SPLITS = {"train": "train2017", "val": "val2017"}


def read(raw: epath.Path) -> Plan:
    """Reads images with about five captions each.

    Raises:
        UserError: there is no split, or a file is invalid.
    """
    files = {split: raw / "annotations" / f"captions_{name}.json" for split, name in SPLITS.items()}
    files = {split: path for split, path in files.items() if path.exists()}
    if not files:
        raise UserError(
            f"--raw={raw}: there is no annotations/captions_train2017.json; give the folder that holds "
            "annotations/ and train2017/"
        )
    splits: dict[str, list[PlannedImage]] = {}
    problems: list[str] = []
    for split, path in files.items():
        content, folder = read_json(path, dict), raw / SPLITS[split]
        present = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
        try:
            said: dict[int, list[str]] = {image["id"]: [] for image in content["images"]}
            for annotation in content["annotations"]:
                if annotation["image_id"] not in said:
                    problems.append(f"{path.name}: caption {annotation['id']} is of no image in the file")
                elif annotation["caption"].strip():
                    said[annotation["image_id"]].append(annotation["caption"].strip())
                else:
                    problems.append(f"{path.name}: caption {annotation['id']} is empty")
            images = sorted(content["images"], key=lambda image: image["id"])
            kept = []
            for image in images:
                if image["file_name"] not in present:
                    problems.append(f"an image is missing: {folder / image['file_name']}")
                elif not said[image["id"]]:
                    problems.append(f"{path.name}: image {image['id']} has no caption")
                else:
                    file, size = str(folder / image["file_name"]), (image["height"], image["width"])
                    kept.append(PlannedImage(file, str(image["id"]), size, tuple(said[image["id"]])))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is not in COCO's format of captions: {error!r}") from error
        splits[split] = kept
    return Plan(splits, problems)
