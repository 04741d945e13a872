"""Draws the contact sheets of docs/your_photographs.md from small folders in the layouts of common tools.

    python docs/draw_layouts.py
    python docs/draw_layouts.py --out=SHEETS --keep=RAW     # keeps the folders in RAW

The images show a drawn road, car and tree. LAYOUTS has a function that writes each layout. The tests read
these folders and compare masks with the drawn shapes.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epath
from PIL import Image, ImageDraw

from genmask_jax.data.prepared.inspect import inspect

WIDTH, HEIGHT = 64, 48
CLASSES = ("road", "car", "tree")
COLOURS = {"road": (96, 96, 104), "car": (200, 44, 52), "tree": (40, 130, 62)}


@dataclasses.dataclass(frozen=True)
class Scene:
    """An image: its name without suffix, its split, and a polygon of (x, y) in pixels per object."""

    name: str
    split: str
    polygons: dict[str, list[tuple[int, int]]]

    def image(self) -> Image.Image:
        """The image, RGB."""
        rows = np.linspace((150, 190, 235), (216, 226, 240), HEIGHT)
        image = Image.fromarray(np.tile(rows[:, None], (1, WIDTH, 1)).astype(np.uint8))
        for name, points in self.polygons.items():
            ImageDraw.Draw(image).polygon(points, fill=COLOURS[name])
        return image

    def mask(self, name: str) -> np.ndarray:
        """The mask of an object, bool `[H, W]`."""
        image = Image.new("L", (WIDTH, HEIGHT))
        ImageDraw.Draw(image).polygon(self.polygons[name], fill=1)
        return np.asarray(image) == 1

    def numbers(self, first: int = 0) -> np.ndarray:
        """Class numbers from `first` on, uint8 `[H, W]`. The sky is 255, or 0 if `first` is 1."""
        numbers = np.full((HEIGHT, WIDTH), 0 if first else 255, np.uint8)
        for i, name in enumerate(CLASSES, first):
            numbers[self.mask(name)] = i
        return numbers


def make_scenes(count: int = 3) -> list[Scene]:
    """Makes images; the last one is in the val split."""
    result = []
    for i in range(count):
        top, left, right = 30 + i % 3, 6 + 9 * i, 40 - 11 * i % 30
        car = [(left, top - 8), (left + 14, top - 8), (left + 14, top - 1), (left, top - 1)]
        angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        tree = [(round(right + 12 + 8 * np.cos(a)), round(10 + 7 * np.sin(a))) for a in angles]
        road = [(0, top), (63, top), (63, 47), (0, 47)]
        result.append(
            Scene(
                f"street{i + 1}",
                "val" if i == count - 1 else "train",
                {"road": road, "car": car, "tree": tree},
            )
        )
    return result


def save(path: pathlib.Path, content: Image.Image | np.ndarray | str) -> None:
    """Writes an image, an array as a PNG, or a text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_text(content)
    else:
        image = content if isinstance(content, Image.Image) else Image.fromarray(content)
        image.save(path, quality=92)


def masks(raw: pathlib.Path, scenes: list[Scene]) -> None:
    """Black-and-white masks next to the images, and a phrase."""
    for scene in scenes:
        save(raw / f"{scene.name}.jpg", scene.image())
        save(raw / f"{scene.name}_mask.png", scene.mask("road").astype(np.uint8) * 255)
    save(raw / "phrases.txt", "the road\n")


def _class_maps(image: str, label: str, lists: str = "") -> Callable[[pathlib.Path, list[Scene]], None]:
    """A writer of class maps; the paths may contain {split} and {name}."""

    def write(raw: pathlib.Path, scenes: list[Scene]) -> None:
        for scene in scenes:
            fields = {"split": scene.split, "name": scene.name}
            save(raw / image.format(**fields), scene.image())
            save(raw / label.format(**fields), scene.numbers())
        save(raw / "classes.txt", "".join(f"{name}\n" for name in CLASSES))
        for split in ("train", "val") if lists else ():
            save(raw / lists.format(split=split), "".join(f"{s.name}\n" for s in scenes if s.split == split))

    return write


def roboflow_masks(raw: pathlib.Path, scenes: list[Scene]) -> None:
    """Roboflow's semantic segmentation masks."""
    for scene in scenes:
        folder = raw / {"val": "valid"}.get(scene.split, scene.split)
        save(folder / f"{scene.name}.jpg", scene.image())
        save(folder / f"{scene.name}_mask.png", scene.numbers(first=1))
        rows = [f"{i}, {name}" for i, name in enumerate(("background", *CLASSES))]
        save(folder / "_classes.csv", "\n".join(["Pixel Value, Class", *rows, ""]))


def yolo(raw: pathlib.Path, scenes: list[Scene]) -> None:
    """YOLO's polygons."""
    for scene in scenes:
        save(raw / "images" / scene.split / f"{scene.name}.jpg", scene.image())
        lines = []
        for i, name in enumerate(CLASSES):
            shares = [f"{x / WIDTH:.3f} {y / HEIGHT:.3f}" for x, y in scene.polygons[name]]
            lines.append(" ".join([str(i), *shares]))
        save(raw / "labels" / scene.split / f"{scene.name}.txt", "\n".join([*lines, ""]))
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(CLASSES))
    save(raw / "data.yaml", f"train: images/train\nval: images/val\nnames:\n{names}")


def coco_content(scenes: list[Scene], file_name: str = "{name}.jpg") -> dict[str, Any]:
    """A file in COCO's format."""
    images, objects = [], []
    for i, scene in enumerate(scenes, 1):
        file = file_name.format(name=scene.name)
        images.append({"id": i, "file_name": file, "width": WIDTH, "height": HEIGHT})
        for k, name in enumerate(CLASSES, 1):
            flat = [float(value) for point in scene.polygons[name] for value in point]
            ids = {"id": len(objects) + 1, "image_id": i, "category_id": k}
            objects.append({**ids, "segmentation": [flat], "iscrowd": 0})
    categories = [{"id": k, "name": name} for k, name in enumerate(CLASSES, 1)]
    return {"images": images, "annotations": objects, "categories": categories}


def _coco(
    json_file: str, image: str, file_name: str = "{name}.jpg"
) -> Callable[[pathlib.Path, list[Scene]], None]:
    """A writer of COCO JSON, one file per split if its path contains {split}."""

    def write(raw: pathlib.Path, scenes: list[Scene]) -> None:
        for split in ("train", "val") if "{" in json_file else ("",):
            split_scenes = [scene for scene in scenes if split in ("", scene.split)]
            folder = {"val": "valid"}.get(split, split) if "{split}/" in json_file else split
            save(raw / json_file.format(split=folder), json.dumps(coco_content(split_scenes, file_name)))
            for scene in split_scenes:
                save(raw / image.format(split=folder, name=scene.name), scene.image())

    return write


def labelme(raw: pathlib.Path, scenes: list[Scene], images: str = "", labels: str = "") -> None:
    """labelme's JSON next to each image, or in another folder."""
    for scene in scenes:
        save(raw / images / f"{scene.name}.jpg", scene.image())
        shapes = [
            {
                "label": name,
                "points": scene.polygons[name],
                "group_id": None,
                "shape_type": "polygon",
                "flags": {},
            }
            for name in CLASSES
        ]
        content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{scene.name}.jpg"}
        content |= {"imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH}
        save(raw / labels / f"{scene.name}.json", json.dumps(content, indent=2))


def label_studio(raw: pathlib.Path, scenes: list[Scene]) -> None:
    """Label Studio's brush labels as PNG, with its JSON export and the images that were uploaded."""
    tasks = []
    for i, scene in enumerate(scenes, 1):
        upload = f"{0x4E1A77C0 + i:08x}-{scene.name}.jpg"
        tasks.append({"id": i, "data": {"image": f"/data/upload/1/{upload}"}, "file_upload": upload})
        save(raw / "images" / f"{scene.name}.jpg", scene.image())
        for name in CLASSES:
            file = f"task-{i}-annotation-{i + 4}-by-1-tag-{name.title()}-0.png"
            save(raw / file, scene.mask(name).astype(np.uint8) * 255)
    save(raw / "project-1-at-2026-01-31.json", json.dumps(tasks))


def metadata(raw: pathlib.Path, scenes: list[Scene]) -> None:
    """Hugging Face's imagefolder with a column of masks."""
    for split in ("train", "val"):
        rows = []
        for scene in (s for s in scenes if s.split == split):
            save(raw / split / "images" / f"{scene.name}.jpg", scene.image())
            save(raw / split / "masks" / f"{scene.name}.png", scene.mask("car").astype(np.uint8) * 255)
            row = {"file_name": f"images/{scene.name}.jpg", "mask_file_name": f"masks/{scene.name}.png"}
            rows.append(json.dumps({**row, "label": "the red car"}))
        save(raw / split / "metadata.jsonl", "\n".join([*rows, ""]))


LAYOUTS: dict[str, Callable[[pathlib.Path, list[Scene]], None]] = {
    "masks": masks,
    "class_maps": _class_maps("images/{split}/{name}.jpg", "labels/{split}/{name}.png"),
    "mmsegmentation": _class_maps("img_dir/{split}/{name}.jpg", "ann_dir/{split}/{name}.png"),
    "camvid": _class_maps("{split}/{name}.png", "{split}annot/{name}.png"),
    "voc": _class_maps(
        "JPEGImages/{name}.jpg", "SegmentationClass/{name}.png", "ImageSets/Segmentation/{split}.txt"
    ),
    "roboflow_masks": roboflow_masks,
    "yolo": yolo,
    "coco": _coco("annotations/instances_{split}2017.json", "{split}2017/{name}.jpg"),
    "cvat": _coco("annotations/instances_default.json", "images/default/{name}.jpg"),
    "roboflow_coco": _coco("{split}/_annotations.coco.json", "{split}/{name}.jpg"),
    "labelme_coco": _coco("annotations.json", "JPEGImages/{name}.jpg", "JPEGImages/{name}.jpg"),
    "label_studio_coco": _coco("result.json", "images/{name}.jpg", "images\\4e1a77c1-{name}.jpg"),
    "labelme": labelme,
    "labelme_output": functools.partial(labelme, images="images", labels="labels"),
    "label_studio": label_studio,
    "metadata": metadata,
}
"""Functions that write a folder, by the name of the layout."""


FILES_PER_KIND = 1
"""Number of files with the same ending that a tree shows per folder."""


def tree(folder: pathlib.Path, indent: str = "") -> Iterator[str]:
    """The lines of a folder's tree, as the page shows it: folders first, with a trailing slash."""
    counts: dict[str, int] = {}
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_file(), path.suffix, path.name)):
        kind = (
            path.name
            if path.is_dir()
            else path.stem[-5:] + path.suffix
            if "_mask" in path.name
            else path.suffix
        )
        counts[kind] = counts.get(kind, 0) + 1
        if counts[kind] <= FILES_PER_KIND:
            yield f"{indent}{path.name}{'/' * path.is_dir()}"
        elif counts[kind] == FILES_PER_KIND + 1:
            yield f"{indent}..."
        if path.is_dir():
            yield from tree(path, indent + "    ")


SAMPLES = {
    "masks": "phrases.txt",
    "class_maps": "classes.txt",
    "roboflow_masks": "train/_classes.csv",
    "yolo": "labels/train/street1.txt",
    "coco": "annotations/instances_train2017.json",
    "labelme": "street1.json",
    "label_studio": "project-1-at-2026-01-31.json",
    "metadata": "train/metadata.jsonl",
}
"""The annotation file that the page quotes, by layout; these layouts also have a contact sheet."""


def sample(raw: pathlib.Path, name: str) -> str:
    """The part of an annotation file that the page quotes: its first object or its first lines."""
    text = (raw / SAMPLES[name]).read_text()
    if name in ("coco", "labelme", "label_studio"):
        content = json.loads(text)
        first = (
            content[0] if isinstance(content, list) else (content.get("annotations") or content["shapes"])[0]
        )
        return json.dumps(first)
    return "\n".join(text.splitlines()[: 1 if name in ("yolo", "metadata") else 4])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "layouts")
    parser.add_argument("--keep", type=pathlib.Path, help="folder to write the inspected folders to")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        for name, write in LAYOUTS.items():
            raw = (arguments.keep or pathlib.Path(temporary)) / name
            write(raw, make_scenes())
            if name in SAMPLES:
                inspect("image_folder", epath.Path(raw), epath.Path(arguments.out / f"{name}.png"))


if __name__ == "__main__":
    main()
