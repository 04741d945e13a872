"""Targets of `fuzz.py`: readers of raw data, one folder for each layout."""

import dataclasses
import functools
import json
import pathlib
import pickle
import random
from collections.abc import Callable
from typing import Any

import tensorflow_datasets as tfds
from etils import epath
from PIL import Image
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from genmask_jax.data import masks
from genmask_jax.data.prepared.builders import FEATURES
from genmask_jax.data.raw_formats import (
    beside,
    binary_masks,
    class_maps,
    coco_tree,
    folder,
    metadata,
    reasonseg,
    refer,
    yolo,
)
from genmask_jax.data.raw_formats.class_list import read_class_list
from genmask_jax.data.raw_formats.plan import Plan
from tests.faults import corpus
from tests.faults.mutations import mutate_file
from tests.faults.target import Target

# Folders of images with annotations


@dataclasses.dataclass
class Folder:
    """A folder of raw data, some of whose files are damaged.

    root: an empty folder.
    files: its files.
    damaged: names of those to damage.
    read: reads the folder.
    """

    root: pathlib.Path
    files: dict[str, bytes]
    damaged: tuple[str, ...]
    read: Callable[[epath.Path], Plan]

    def __post_init__(self) -> None:
        for name, content in self.files.items():
            self._write(name, content)

    def _write(self, name: str, content: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def make(self, rng: random.Random) -> tuple[str, bytes]:
        name = rng.choice(self.damaged)
        return name, mutate_file(rng, name, self.files[name], rng.choice(corpus.images_list()))

    def check(self, made: tuple[str, bytes]) -> None:
        name, content = made
        self._write(name, content)
        try:
            plan = self.read(epath.Path(self.root)).without_empty_splits()
            need_usable(plan, self.root)
            if not name.endswith(".p"):  # images without a ref are not read
                need_reasons(plan)
        finally:
            self._write(name, self.files[name])


def need_usable(plan: Plan, root: pathlib.Path) -> None:
    """Makes all records of a plan as `prepare` does."""
    serializer = _serializer()
    for image in (image for images in plan.splits.values() for image in images):
        try:
            example = image.example()
        except ValueError as error:
            need_named(error, root)
            continue
        features: Any = tfds.features.FeaturesDict(FEATURES)
        serializer.get_tf_example(features.encode_example(example)).SerializeToString(deterministic=True)
        for target in example["targets"]:
            masks.need_valid(target["counts"], (example["height"], example["width"]))


def need_reasons(plan: Plan) -> None:
    """Fails if one of the two images of a folder is missing without a reason."""
    count = sum(map(len, plan.splits.values()))
    if count < 2 and not plan.problems.left_out and not plan.problems.notes:
        raise AssertionError("an image is missing without a reason")


def need_named(error: Exception, path: pathlib.Path) -> None:
    """Fails if the message of an error does not name a path."""
    if str(path) not in str(error):
        raise AssertionError(f"it does not name {path}: {error}")


@functools.cache
def _serializer() -> ExampleSerializer:
    return ExampleSerializer(tfds.features.FeaturesDict(FEATURES).get_serialized_info())


Layout = tuple[dict[str, bytes], tuple[str, ...], Callable[[epath.Path], Plan]]
"""Files of a folder, names of those to damage, and what reads the folder."""


def _annotated_images() -> dict[str, Layout]:
    """Layouts with polygons or run lengths."""
    image = corpus.images()["RGB.png"]
    pair, apart = {"a.png": image, "b.png": image}, {"images/a.png": image, "images/b.png": image}
    coco, labelme, reason = (
        json.dumps(v).encode() for v in (corpus.coco(), corpus.labelme(), corpus.reasonseg())
    )
    polygons, metadata_lines = corpus.YOLO.encode(), corpus.METADATA.encode()
    train2014 = {f"images/mscoco/images/train2014/{name}": image for name in pair}
    train = {f"train/{name}": image for name in pair} | {"train/a.json": reason, "train/b.json": reason}
    refs, instances = "refcoco/refs(unc).p", "refcoco/instances.json"
    return {
        "coco": ({**pair, "annotations.json": coco}, ("annotations.json",), beside.read),
        "coco_tree": ({**apart, "result.json": coco}, ("result.json",), coco_tree.read),
        "labelme": (
            {**pair, "a.json": labelme, "b.txt": b"a cat"},
            ("a.json", "a.json", "b.txt"),
            beside.read,
        ),
        "reasonseg": (train, ("train/a.json", "train/b.json"), reasonseg.read),
        "yolo": (
            {
                **apart,
                "labels/a.txt": polygons,
                "labels/b.txt": polygons,
                "data.yaml": corpus.YOLO_LIST.encode(),
            },
            ("labels/a.txt", "labels/a.txt", "data.yaml"),
            yolo.read,
        ),
        "refcoco": (
            {**train2014, instances: coco, refs: pickle.dumps(corpus.refs())},
            (refs, refs, instances),
            lambda raw: refer.read(raw, "refcoco", "unc"),
        ),
        "any_layout": (
            {**pair, "annotations.json": coco, "a.json": reason, "b.txt": b"two\nlines"}
            | {"metadata.jsonl": metadata_lines},
            ("annotations.json", "a.json", "b.txt", "metadata.jsonl"),
            folder.read,
        ),
    }


def _images_with_masks() -> dict[str, Layout]:
    """Layouts with files of masks."""
    image = corpus.images()["RGB.png"]
    pair, apart = {"a.png": image, "b.png": image}, {"images/a.png": image, "images/b.png": image}
    mask, numbers = (corpus.encoded(Image.fromarray(corpus.MASK * white), "PNG") for white in (255, 1))
    listed = {**pair, **{f"masks/{name}.png": mask for name in "abc"}, "classes.txt": b"none\ncat\n"}
    return {
        "metadata": (
            {**listed, "metadata.jsonl": corpus.METADATA.encode()},
            ("metadata.jsonl", "metadata.jsonl", "masks/a.png"),
            metadata.read,
        ),
        "metadata_csv": ({**listed, "metadata.csv": corpus.TABLE.encode()}, ("metadata.csv",), metadata.read),
        "masks": (
            {**apart, "masks/a.png": mask, "masks/b.png": mask, "phrases.txt": corpus.PHRASES.encode()},
            ("masks/a.png", "phrases.txt", "images/a.png"),
            binary_masks.read,
        ),
        "class_maps": (
            {**apart, "labels/a.png": numbers, "labels/b.png": numbers, "classes.txt": b"background\ncat\n"},
            ("labels/a.png", "classes.txt", "images/b.png"),
            class_maps.read,
        ),
    }


def layouts() -> dict[str, Layout]:
    """All layouts, by name."""
    return {**_annotated_images(), **_images_with_masks()}


def layout(name: str, root: pathlib.Path) -> Target:
    """The target of a layout, in an empty folder."""
    one = Folder(root, *layouts()[name])
    return Target(one.make, one.check)


# Class lists


def class_lists(root: pathlib.Path) -> Target:
    """Class lists and colour tables in all forms."""

    def make(rng: random.Random) -> tuple[str, bytes]:
        name = rng.choice(list(corpus.CLASS_LISTS))
        return name, mutate_file(rng, name, corpus.CLASS_LISTS[name].encode())

    def read(made: tuple[str, bytes]) -> None:
        path = root / made[0]
        path.write_bytes(made[1])
        try:
            classes = read_class_list(epath.Path(root))
        finally:
            path.unlink()
        if classes is None:
            return
        assert all(isinstance(number, int) for number in classes.names)
        assert all(0 <= colour <= 0xFFFFFF for colour in classes.colours)
        assert all(name.strip() for name in (*classes.names.values(), *classes.colours.values()))

    return Target(make, read)
