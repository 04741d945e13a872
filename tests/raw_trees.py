"""Raw data in the public layouts, small: ReferShapes images with polygons, and every oddity that occurs."""

import io
import json
import pathlib
import pickle

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco

from genmask_jax.data.refershapes.source import ReferShapesSegment

SIZES = ((96, 128), (128, 96), (100, 100), (75, 120))
"""Heights and widths that images are cut to, in turn."""


def scene(i: int):
    """Image uint8 [H, W, 3] and, of each shape in it that is seen, mask bool [H, W] and name."""
    source = ReferShapesSegment("train", 128, seed=7)
    made = source.compose(i)
    height, width = SIZES[i % len(SIZES)]
    image = np.ascontiguousarray(made.scene.image[:height, :width])
    masks = made.scene.masks[:, :height, :width]
    names = [f"{s.size} {s.colour} {s.kind}" for s in made.scene.shapes]
    return image, [(m, name) for m, name in zip(masks, names, strict=True) if m.sum() > 30]


def polygons(mask: np.ndarray) -> list[list[float]]:
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [c.ravel().astype(float).tolist() for c in found if len(c) >= 3]


def save(path: pathlib.Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=90)


def union(segmentation, size) -> np.ndarray:
    """What an annotation means, polygon by polygon; the independent reference of the tests."""
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            flat = np.repeat(np.arange(len(segmentation["counts"])) % 2, segmentation["counts"])
            return flat.reshape(size[::-1]).T.astype(bool)
        return coco.decode({**segmentation, "counts": segmentation["counts"].encode()}).astype(bool)
    mask = np.zeros(size, bool)
    for polygon in segmentation:
        if len(polygon) >= 6:
            mask |= coco.decode(coco.frPyObjects([polygon], *size))[..., 0].astype(bool)
    return mask


class Objects:
    """COCO's objects of so many images, in RAW/images/mscoco/images/train2014."""

    def __init__(self, raw: pathlib.Path, count: int):
        self.raw, self.images, self.annotations = raw, [], []
        self.folder = raw / "images" / "mscoco" / "images" / "train2014"
        for i in range(count):
            image, shapes = scene(i)
            name = f"COCO_train2014_{1000 + i:012d}.jpg"
            save(self.folder / name, image.mean(-1).astype(np.uint8) if i % 7 == 3 else image)
            height, width = image.shape[:2]
            self.images.append({"id": 1000 + i, "file_name": name, "height": height, "width": width})
            for j, (mask, words) in enumerate(shapes):
                segmentation = polygons(mask)
                if not segmentation:
                    continue
                if (i + j) % 5 == 1:  # a second polygon over the first
                    segmentation = [*segmentation, [x + 3 for x in segmentation[0]]]
                if (i + j) % 11 == 2:
                    segmentation = [[1.0, 1.0, 5.0, 5.0], *segmentation]
                annotation = {
                    "id": 100_000 + 10 * i + j,
                    "image_id": 1000 + i,
                    "category_id": 1 + j,
                    "iscrowd": 0,
                    "segmentation": segmentation,
                    "words": words,
                }
                if (i + j) % 6 == 5:
                    annotation |= {"iscrowd": 1, "segmentation": as_crowd(mask, listed=(i + j) % 12 == 5)}
                self.annotations.append(annotation)

    def of(self, image_id: int) -> list[dict]:
        return [a for a in self.annotations if a["image_id"] == image_id]

    def truth(self, ann_ids) -> np.ndarray:
        """The union of some objects of one image."""
        found = [a for a in self.annotations if a["id"] in ann_ids]
        image = self.images[found[0]["image_id"] - 1000]
        size = (image["height"], image["width"])
        return np.any([union(a["segmentation"], size) for a in found], axis=0)

    def write(self, folder: str) -> None:
        path = self.raw / folder / "instances.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"images": self.images, "annotations": self.annotations}))


def as_crowd(mask: np.ndarray, *, listed: bool) -> dict:
    size = list(mask.shape)
    if not listed:
        rle = coco.encode(np.asfortranarray(mask, np.uint8))
        return {"size": size, "counts": rle["counts"].decode()}
    flat = mask.T.ravel().astype(np.int8)
    ends = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *ends, len(flat)]).tolist()
    return {"size": size, "counts": lengths if not flat[0] else [0, *lengths]}


def split_of(i: int, names: tuple[str, ...], shift: int = 0) -> str:
    """Six of ten images for training, the others in turn."""
    place = (i + shift) % 10
    return "train" if place < 6 else names[(place - 6) % len(names)]


def refs_of(objects: Objects, held_out: tuple[str, ...], shift: int = 0) -> list[dict]:
    """Two sentences for every object of every image."""
    refs = []
    for image in objects.images:
        for annotation in objects.of(image["id"]):
            n = len(refs)
            words = annotation["words"]
            said = [f"The {words.upper()}", f"{words} — número {n}"]
            refs.append(
                {
                    "ref_id": n,
                    "ann_id": annotation["id"],
                    "category_id": annotation["category_id"],
                    "image_id": image["id"],
                    "split": split_of(image["id"] - 1000, held_out, shift),
                    "sent_ids": [2 * n, 2 * n + 1],
                    "sentences": [
                        {"sent_id": 2 * n + k, "sent": s, "raw": s, "tokens": s.split()}
                        for k, s in enumerate(said)
                    ],
                    "file_name": image["file_name"].replace(".jpg", f"_{n}.jpg"),
                }
            )
    return refs


def write_refs(raw: pathlib.Path, folder: str, split_by: str, refs: list[dict], protocol: int = 2) -> None:
    path = raw / folder / f"refs({split_by}).p"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(refs, protocol))


def write_grefs(raw: pathlib.Path, refs: list[dict]) -> None:
    path = raw / "grefcoco" / "grefs(unc).json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(refs))


def generalized(objects: Objects, held_out: tuple[str, ...]) -> list[dict]:
    """gRefCOCO's refs: of every image each object, all objects, and nothing."""
    refs = []
    for image in objects.images:
        ids = [a["id"] for a in objects.of(image["id"])]
        for ann_ids in [*([i] for i in ids), ids, [-1]]:
            n = len(refs)
            if ann_ids == [-1]:
                text = f"the invisible pink unicorn {n}"
            else:
                text = " and ".join(a["words"] for a in objects.annotations if a["id"] in ann_ids)
            refs.append(
                {
                    "ref_id": n,
                    "ann_id": ann_ids,
                    "category_id": [1],
                    "image_id": image["id"],
                    "no_target": ann_ids == [-1],
                    "split": split_of(image["id"] - 1000, held_out),
                    "sentences": [{"sent_id": n, "sent": text, "raw": text, "tokens": text.split()}],
                    "file_name": image["file_name"],
                }
            )
    return refs


def refer_tree(raw: pathlib.Path, count: int = 40) -> Objects:
    """RefCOCO by unc and google, RefCOCO+, RefCOCOg by umd and google, and gRefCOCO."""
    objects = Objects(raw, count)
    for folder in ("refcoco", "refcoco+", "refcocog", "grefcoco"):
        objects.write(folder)
    abc = ("val", "testA", "testB")
    write_refs(raw, "refcoco", "unc", refs_of(objects, abc))
    write_refs(raw, "refcoco", "google", refs_of(objects, ("val", "test"), 2), protocol=0)
    write_refs(raw, "refcoco+", "unc", refs_of(objects, abc))
    write_refs(raw, "refcocog", "umd", refs_of(objects, ("val", "test"), 5), protocol=4)
    write_refs(raw, "refcocog", "google", refs_of(objects, ("val",), 1))
    write_grefs(raw, generalized(objects, abc))
    return objects


def reasonseg_tree(raw: pathlib.Path, counts: dict[str, int]) -> dict[str, dict]:
    """Images and annotations; returns the latter by split and stem."""
    written, i = {}, 0
    for split, count in counts.items():
        for n in range(count):
            image, shapes = scene(i)
            stem = f"{n:04d}_{split}"
            save(raw / split / f"{stem}.jpg", image)
            drawn = [
                {"label": name, "points": np.array(p).reshape(-1, 2).tolist()}
                for mask, name in shapes
                for p in polygons(mask)[:1]
            ]
            half = image.shape[0] / 2
            drawn += [
                {"label": "Ignored region", "points": [[2.9, 2.9], [60.5, 4.2], [30.0, half]]},
                {"label": "target", "points": [[0.2, half], [50.9, half + 0.9], [20.5, half + 20.7]]},
                {"label": "FLAG", "points": [[0, 0]]},
            ]
            content = {"is_sentence": n % 2 == 0, "shapes": drawn}
            questions = [f"Which of these would roll? It’s number {n}.", "What is round?"]
            content["text"] = questions if n % 2 == 0 else [f"the café’s thing {n}"]
            text = json.dumps(content, ensure_ascii=False)
            (raw / split / f"{stem}.json").write_bytes(text.encode("cp1252" if n % 3 == 1 else "utf-8"))
            written[f"{split}/{stem}"] = content
            i += 1
    return written


def captions_tree(raw: pathlib.Path, counts: dict[str, int], first: int = 1000) -> None:
    """Images with two captions each, numbered as those of `refer_tree` are."""
    i = 0
    for name, count in counts.items():
        content = {"images": [], "annotations": []}
        for _ in range(count):
            image, shapes = scene(i)
            file = f"{first + i:012d}.jpg"
            save(raw / name / file, image)
            height, width = image.shape[:2]
            content["images"].append({"id": first + i, "file_name": file, "height": height, "width": width})
            words = " and ".join(f"a {w}" for _, w in shapes) or "a ground"
            for k, text in enumerate((words, f" An image of {words}. ")):
                content["annotations"].append({"id": 2 * i + k, "image_id": first + i, "caption": text})
            i += 1
        path = raw / "annotations" / f"captions_{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


def folder_tree(raw: pathlib.Path, count: int) -> None:
    """A user's folder: captions beside all images, ReasonSeg's form for some, COCO's for others."""
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "Shape"}]}
    for i in range(count):
        image, shapes = scene(i)
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        raw.mkdir(parents=True, exist_ok=True)
        (raw / f"p{i}.png").write_bytes(buffer.getvalue())
        (raw / f"p{i}.txt").write_text("\n".join(["a scene", " and ".join(w for _, w in shapes)]))
        if i % 3 == 0:
            points = [{"label": "x", "points": [[5, 5], [40, 5], [40, 40]]}]
            (raw / f"p{i}.json").write_text(json.dumps({"text": ["the corner"], "shapes": points}))
        if i % 3 == 1:
            height, width = image.shape[:2]
            content["images"].append({"id": i, "file_name": f"p{i}.png", "height": height, "width": width})
            for j, (mask, words) in enumerate(shapes):
                annotation = {"id": 10 * i + j, "image_id": i, "category_id": 1}
                annotation |= {"segmentation": polygons(mask)} | ({"expressions": [words]} if j == 0 else {})
                content["annotations"].append(annotation)
    (raw / "annotations.json").write_text(json.dumps(content))
