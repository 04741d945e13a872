"""Reads prepared datasets: TFDS data sources over ArrayRecord files, without TensorFlow.

A record is an image, but the tasks index expressions and captions. Each split therefore has an index file
next to TFDS's files, with the number of expressions and captions in each record, and the total counts.
"""

import collections
import contextlib
import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from genmask_jax.data import masks
from genmask_jax.utils.digests import check_digests, write_digests
from genmask_jax.utils.errors import DamagedError, UserError, reading
from genmask_jax.utils.images import decode
from genmask_jax.utils.paths import listed, parse_json, read_text, write_text

COUNT_NAMES = ("images", "refs", "expressions", "multi-target", "no-target", "objects", "captions")
ITEM_KINDS = ("expressions", "captions", "targets")
"""Kinds of items that the index counts in each record."""

CLASSES_FILE = "classes.json"
FEATURE_CLASSES = "tensorflow_datasets.core.features."
"""Prefix of the classes that features.json may name."""
FIX = "delete the dataset and prepare it again"


@dataclasses.dataclass(frozen=True)
class Index:
    """Summary of a split.

    image_ids: image id of each record.
    expressions, captions, targets: their number in each record.
    counts: total for each of COUNTS.
    """

    image_ids: list[str]
    expressions: list[int]
    captions: list[int]
    targets: list[int]
    counts: dict[str, int]

    @property
    def classless(self) -> list[int]:
        """1 for each record of an annotated image without any class, else 0."""
        pairs = zip(self.targets, self.expressions, strict=True)
        return [int(bool(targets) and not expressions) for targets, expressions in pairs]


@dataclasses.dataclass(frozen=True)
class Split:
    """A split's undecoded records and its index."""

    records: Any
    index: Index


def index_path(directory: epath.PathLike, split: str) -> epath.Path:
    """The path of a split's index."""
    return epath.Path(directory) / f"index_{split}.json"


def splits_of(directory: epath.PathLike) -> list[str]:
    """The names of the prepared splits: train first, then val."""
    order = ("train", "val")
    names = open_dataset(directory).info.splits
    return sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))


def open_records(directory: epath.PathLike, split: str) -> Any:
    """A split's records in stored order; images stay encoded bytes."""
    builder = open_dataset(directory)
    with _reading(directory):
        return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})


def open_dataset(directory: epath.PathLike) -> Any:
    """The builder of a prepared dataset. Raises DamagedError if its files cannot be read."""
    check_digests(directory, fix=FIX)
    with _reading(directory):
        _need_plain(epath.Path(directory))
        return tfds.builder_from_directory(directory)


def _need_plain(directory: epath.Path) -> None:
    """Raises ValueError if a dataset's description names code to import, or files outside the dataset.

    TFDS imports the module of each class in features.json, and reads the files that dataset_info.json names.
    """
    for name in _class_names(parse_json(read_text(directory / "features.json"))):
        if not name.startswith(FEATURE_CLASSES):
            raise ValueError(f"features.json names {name}, which is not a feature of TFDS")
    for split in parse_json(read_text(directory / "dataset_info.json")).get("splits", []):
        template = split.get("filepathTemplate", "")
        if "/" in f"{template}{split['name']}":
            raise ValueError(f"dataset_info.json names files elsewhere, {template!r} of {split['name']!r}")


def _class_names(features: Any) -> Iterator[str]:
    """The names of all classes in a description of features."""
    for key, value in features.items() if isinstance(features, dict) else enumerate(features):
        if key in ("pythonClassName", "type"):
            yield str(value)
        elif isinstance(value, dict | list):
            yield from _class_names(value)


def _reading(directory: epath.PathLike) -> contextlib.AbstractContextManager[None]:
    return reading(f"the dataset {directory}", FIX)


def write_index(directory: epath.PathLike, split: str) -> Index:
    """Reads all records of a split; writes and returns their index."""
    records = open_records(directory, split)
    columns: dict[str, list] = {name: [] for name in ("image_ids", *ITEM_KINDS)}
    counts: dict[str, int] = dict.fromkeys(COUNT_NAMES, 0)
    objects: set[int] = set()
    for i in range(len(records)):
        record = records[i]
        targets = record["expressions"]["target"]
        num_objects = collections.Counter(int(i) for i in record["annotations"]["target"])
        no_target = record["targets"]["no_target"]
        columns["image_ids"].append(record["image_id"].decode())
        columns["expressions"].append(len(targets))
        columns["captions"].append(len(record["captions"]))
        columns["targets"].append(len(no_target))
        counts["refs"] += len(record["targets"]["ref_id"])
        counts["multi-target"] += sum(num_objects[int(i)] > 1 for i in targets)
        counts["no-target"] += sum(bool(no_target[int(i)]) for i in targets)
        objects.update(int(i) for i in record["annotations"]["ann_id"])
    counts["images"], counts["objects"] = len(set(columns["image_ids"])), len(objects)
    for name in ("expressions", "captions"):
        counts[name] = sum(columns[name])
    index = Index(**columns, counts=counts)
    write_text(index_path(directory, split), json.dumps(dataclasses.asdict(index)))
    return index


def read_index(directory: epath.PathLike, split: str) -> Index:
    """Reads a split's index. Raises UserError if the split does not exist or is incomplete."""
    path = index_path(directory, split)
    try:
        columns = parse_json(read_text(path))
        # Older indices have no "targets": every image with expressions then had as many targets.
        return Index(**{"targets": columns["expressions"], **columns})
    except FileNotFoundError:
        files = (p.name for p in listed(epath.Path(directory), ".json"))
        splits = [name[len("index_") : -len(".json")] for name in files if name.startswith("index_")]
        hint = f"splits: {', '.join(sorted(splits))}" if splits else "prepare it with launch/prepare_data.py"
        raise UserError(f"{directory}: there is no split {split!r}; {hint}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}); delete {directory} and prepare it again") from error


def write_classes(directory: epath.PathLike, classes: tuple[str, ...]) -> None:
    """Writes the expressions that refer to all pixels of a class."""
    write_text(epath.Path(directory) / CLASSES_FILE, json.dumps(classes, ensure_ascii=False))


def write_json_digests(directory: epath.PathLike) -> None:
    """Writes the digests of the JSON files, which describe the records. ArrayRecord checks records itself."""
    write_digests(directory, [path.name for path in listed(epath.Path(directory), ".json")])


def read_classes(directory: epath.PathLike) -> tuple[str, ...]:
    """Reads the classes; () for datasets without classes, and for older ones without this file."""
    path = epath.Path(directory) / CLASSES_FILE
    with reading(str(path), FIX):
        return tuple(parse_json(read_text(path))) if path.exists() else ()


@functools.lru_cache(maxsize=32)
def open_split(directory: str, split: str) -> Split:
    """Opens a split, once per process. Raises UserError as `read_index` does."""
    index = read_index(directory, split)
    records = open_records(directory, split)
    if len(records) != len(index.image_ids):
        raise UserError(
            f"{index_path(directory, split)} does not match its records; delete {directory} and prepare again"
        )
    return Split(records, index)


def find(root: epath.PathLike, name: str, split: str | None = None) -> str:
    """The directory of a dataset in the --out of prepare_data.py.

    Args:
        root: this directory, or one below it.
        name: name of the dataset, such as "reasonseg", or "refcoco:unc" if it is split in several ways;
            ":unc" may be left out if only one way is prepared. "" for the only dataset in `root`.
        split: a split that the dataset must have, to choose from several datasets.

    Raises:
        UserError: there is no such dataset, or several.
    """
    folder = epath.Path(root) / name.replace(":", "/")
    datasets: list[epath.Path] = []
    level = [folder]
    for _ in range(4):  # name / config / version
        datasets += [path for path in level if (path / "dataset_info.json").exists()]
        level = [
            p for path in level if path.is_dir() and path not in datasets for p in sorted(path.iterdir())
        ]
    datasets = [path for path in datasets if not path.name.endswith(".incomplete")]
    if not datasets:
        raise UserError(f"{folder} has no prepared dataset; make it with launch/prepare_data.py")
    if len(datasets) > 1 and split:
        datasets = [path for path in datasets if index_path(path, split).exists()] or datasets
    if len(datasets) > 1:
        raise UserError(f"{folder} has several datasets; give one of {', '.join(map(str, datasets))}")
    return str(datasets[0])


def decode_image(record: Mapping[str, Any]) -> np.ndarray:
    """A record's image, uint8 [H, W, 3]."""
    return np.asarray(decode(record["image"], upright=bool(record["turned"])))


@dataclasses.dataclass(frozen=True)
class ReferringExpression:
    """An expression of a record.

    id: unique in the split.
    text: the expression.
    target: index of its target in the record.
    mask: mask of the target, uint8 [H, W]: 1, 0, and 255 at ignored pixels.
    no_target: whether the expression refers to nothing in the image.
    """

    id: str
    text: str
    target: int
    mask: np.ndarray
    no_target: bool


class Items:
    """Expressions, captions or images of a split; an item is (record, index in the record).

    Args:
        directory: the dataset's directory.
        split: name of the split.
        kind: "expressions", "captions", "targets" (with `first_only`, all annotated images), or "classless"
            (the annotated images without any class).
        excluded: ids of images to leave out.
        first_only: only the first item of each image.
        shuffled: in a fixed random order, so that the first items come from many images; otherwise in the
            order of the records.

    Raises:
        UserError: see `read_index`.
    """

    def __init__(
        self,
        directory: str,
        split: str,
        kind: str,
        *,
        excluded: frozenset[str] = frozenset(),
        first_only: bool = False,
        shuffled: bool = False,
    ):
        self.directory, self.split = str(directory), split
        index = open_split(self.directory, split).index
        counts = np.asarray(getattr(index, kind), int)
        included = np.asarray([image_id not in excluded for image_id in index.image_ids], bool)
        counts = np.where(included, np.minimum(counts, 1) if first_only else counts, 0)
        self._ends, self._starts = np.cumsum(counts), np.cumsum(counts) - counts
        self._order = np.random.default_rng(0).permutation(len(self)) if shuffled else None

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, i: int) -> tuple[Mapping[str, Any], int]:
        if not 0 <= i < len(self):
            raise IndexError(i)
        i = i if self._order is None else int(self._order[i])
        record = int(np.searchsorted(self._ends, i, side="right"))
        split = open_split(self.directory, self.split)
        try:
            with _reading(self.directory):
                return split.records[record], int(i - self._starts[record])
        except DamagedError as error:
            raise DamagedError(f"{_file_of(self.directory, self.split, record)}: {error}") from error


def _file_of(directory: str, split: str, record: int) -> epath.Path:
    """The ArrayRecord file that holds a record."""
    info = open_dataset(directory).info.splits[split]
    return info.filepaths[int(np.searchsorted(np.cumsum(info.shard_lengths), record, side="right"))]


def read_expression(record: Mapping[str, Any], number: int) -> ReferringExpression:
    """The expression `number` of a record."""
    expressions = record["expressions"]
    target = int(expressions["target"][number])
    return ReferringExpression(
        id=read_id(record, number),
        text=expressions["text"][number].decode(),
        target=target,
        mask=read_mask(record, target),
        no_target=bool(record["targets"]["no_target"][target]),
    )


def read_id(record: Mapping[str, Any], number: int) -> str:
    """The id of the expression `number` of a record."""
    return record["expressions"]["id"][number].decode()


def read_mask(record: Mapping[str, Any], target: int) -> np.ndarray:
    """The mask of a record's target, uint8 [H, W]: 1, 0, and 255 at ignored pixels."""
    counts, ignored = (record["targets"][name][target].decode() for name in ("counts", "ignored"))
    return masks.with_ignored(counts, ignored, (int(record["height"]), int(record["width"])))
