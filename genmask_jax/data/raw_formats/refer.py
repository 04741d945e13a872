"""REFER's layout: RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO, whose refs have any number of objects.

RAW/refcoco/instances.json          objects, in COCO's format
RAW/refcoco/refs(unc).p             expressions: a pickle; gRefCOCO has grefs(unc).json
RAW/images/mscoco/images/train2014  images
"""

import re
from collections.abc import Iterator
from typing import Any

from etils import epath

from genmask_jax.data import masks
from genmask_jax.data.raw_formats.coco import CocoFile, is_id, is_integer
from genmask_jax.data.raw_formats.layout import read_json
from genmask_jax.data.raw_formats.names import is_text
from genmask_jax.data.raw_formats.pickles import load_plain
from genmask_jax.data.raw_formats.plan import Expression, Plan, PlannedImage, Target
from genmask_jax.data.raw_formats.problems import Problems
from genmask_jax.utils.errors import UserError, first_line, short_repr, short_text
from genmask_jax.utils.paths import listed

FOLDERS = {"refcoco": "refcoco", "refcocoplus": "refcoco+", "refcocog": "refcocog", "grefcoco": "grefcoco"}
IMAGES = epath.Path("images", "mscoco", "images", "train2014")
SPLIT = re.compile(r"\w+")
"""Names of splits, which become names of files."""
NO_TARGET = -1
"""gRefCOCO's object id for expressions without a target."""


def split_bys(raw: epath.Path, name: str) -> list[str]:
    """The splits by unc, google or umd in the raw folder, in alphabetical order.

    Raises:
        UserError: there are none.
    """
    folder = raw / FOLDERS[name]
    start, end = _refs_file(name, "*").split("*")
    names = [p.name[len(start) : -len(end)] for p in listed(folder, end) if p.name.startswith(start)]
    if not names:
        raise UserError(
            f"--raw={raw}: there is no {FOLDERS[name]}/{_refs_file(name, 'unc')}; give the folder with "
            f"{FOLDERS[name]}/ and {IMAGES.parts[0]}/"
        )
    return sorted(names)


def _refs_file(name: str, split_by: str) -> str:
    return f"grefs({split_by}).json" if name == "grefcoco" else f"refs({split_by}).p"


def read(raw: epath.Path, name: str, split_by: str) -> Plan:
    """Reads every sentence of every ref as an expression, lower-cased.

    Raises:
        UserError: a file is missing or invalid.
    """
    folder, problems = raw / FOLDERS[name], Problems()
    path = folder / _refs_file(name, split_by)
    refs = read_json(path, list) if name == "grefcoco" else load_plain(path)
    if not isinstance(refs, list):
        raise UserError(f"{path} is not a list of refs")
    objects = _Objects(folder / "instances.json", raw / IMAGES, problems)
    grouped: dict[str, dict[int, list[tuple[Target, list]]]] = {}
    seen: set[tuple[str, Any]] = set()
    for i, ref in enumerate(refs):
        named = short_text(ref.get("ref_id")) if isinstance(ref, dict) else f"{i} of the list"
        where = f"{path.name}: ref {named}"
        try:
            split, image_id = ref["split"], ref["image_id"]
            if not is_integer(ref["ref_id"]):
                raise TypeError(f"ref_id {short_repr(ref['ref_id'])}")
            if not isinstance(split, str) or not SPLIT.fullmatch(split):
                raise TypeError(f"split {short_repr(split)}")
            if not objects.has_image(image_id, path.name):
                continue
            target = objects.target(ref, where)
            sentences = [(s["sent_id"], s["sent"].lower()) for s in ref["sentences"]]
            valid = list(_valid_sentences(sentences, split, seen, problems, where))
        except (KeyError, TypeError, AttributeError) as error:
            problems.add(f"{where} has a missing or invalid field: {first_line(error)}")
        except ValueError as error:
            problems.add(f"{where} {error}")
        else:
            grouped.setdefault(split, {}).setdefault(image_id, []).append((target, valid))
    return Plan({split: objects.planned(grouped[split]) for split in sorted(grouped)}, problems)


def _valid_sentences(
    sentences: list, split: str, seen: set, problems: Problems, where: str
) -> Iterator[tuple]:
    for number, text in sentences:
        if not is_text(text) or not is_id(number):
            problems.add(f"{where}: sentence {short_text(number)} is empty")
        elif (split, number) in seen:
            problems.add(f"{where}: sentence {number} occurs twice in {split}")
        else:
            seen.add((split, number))
            yield number, text


class _Objects:
    """The images and annotated objects of an instances.json."""

    def __init__(self, path: epath.Path, folder: epath.Path, problems: Problems):
        coco = CocoFile(path, problems)
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder; COCO's train2014 images belong there")
        self.images, self._problems = coco.images, problems
        self.annotations: dict[Any, Any] = {}
        ambiguous = set()
        for annotation in coco.annotations:
            number = annotation.get("id")
            if not is_integer(number):
                problems.add(f"{path.name}: object {short_text(number)}: its id is not an integer")
                continue
            if self.annotations.setdefault(number, annotation) != annotation:
                problems.add(f"{path.name}: object {number} is two objects; refs to it are left out")
                ambiguous.add(number)
        for number in ambiguous:
            del self.annotations[number]
        self.folder, self.files = folder, {file.name for file in listed(folder)}
        self._usable: dict[int, Any] = {}

    def has_image(self, image_id: Any, name: str) -> bool:
        """Whether an image exists; a missing image is reported for the refs in the file `name`."""
        image = self.images.get(image_id)
        if image is None:
            self._problems.add(
                f"{name}: a ref has image {short_text(image_id)}, which is not in instances.json"
            )
            return False
        if image.file not in self.files:
            self._problems.add(f"an image is missing: {self.folder / image.file}")
            return False
        return True

    def target(self, ref: dict[str, Any], where: str) -> Target:
        """The target of a ref. Raises ValueError if it is missing or invalid."""
        ann_ids = ref["ann_id"] if isinstance(ref["ann_id"], list) else [ref["ann_id"]]
        ann_ids = tuple(i for i in ann_ids if i != NO_TARGET)
        if "no_target" in ref and bool(ref["no_target"]) != (not ann_ids):
            raise ValueError("has no_target set and also a target, or neither")
        segmentations: dict[int, Any] = {}
        for i in ann_ids:
            try:
                segmentations[i] = self._segmentation(i, ref["image_id"])
            except ValueError as error:
                if len(ann_ids) == 1:
                    raise
                self._problems.add(f"{where} {error}")  # the other objects are kept
        if ann_ids and not segmentations:
            raise ValueError(f"has no valid object of {len(ann_ids)}")
        return Target(ref["ref_id"], tuple(segmentations), segmentations=tuple(segmentations.values()))

    def _segmentation(self, ann_id: int, image_id: Any) -> Any:
        annotation = self.annotations.get(ann_id)
        if annotation is None:
            raise ValueError(f"refers to object {short_text(ann_id)}, which is not in instances.json")
        if annotation["image_id"] != image_id:
            raise ValueError(
                f"refers to object {ann_id}, which is in another image: {annotation['image_id']}"
            )
        if ann_id not in self._usable:
            size = self.images[image_id].size
            try:
                self._usable[ann_id], complaints = masks.usable(annotation.get("segmentation"), size)
            except ValueError as error:
                raise ValueError(f"refers to object {ann_id}, which has no mask: {error}") from error
            self._problems.extend(f"instances.json: object {ann_id}: {complaint}" for complaint in complaints)
        return self._usable[ann_id]

    def planned(self, refs: dict[int, list[tuple[Target, list]]]) -> list[PlannedImage]:
        """The images by id; targets and expressions in the order of the file."""
        return [
            self._image(image_id, refs[image_id])
            for image_id in sorted(refs, key=lambda one: (isinstance(one, str), one))
        ]

    def _image(self, image_id: int, refs: list[tuple[Target, list]]) -> PlannedImage:
        image = self.images[image_id]
        expressions = [
            Expression(str(number), text, i)
            for i, (_, sentences) in enumerate(refs)
            for number, text in sentences
        ]
        return PlannedImage(
            path=str(self.folder / image.file),
            image_id=str(image_id),
            size=image.size,
            targets=tuple(target for target, _ in refs),
            expressions=tuple(expressions),
        )
