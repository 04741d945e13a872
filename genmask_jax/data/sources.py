"""The registry of all datasets, by name."""

import dataclasses
from collections.abc import Callable

from genmask_jax.config import DataConfig
from genmask_jax.data.examples import Mixture, Source
from genmask_jax.data.prepared import records
from genmask_jax.data.prepared.builders import BUILDERS, image_name, of_coco
from genmask_jax.data.prepared.source import PreparedGenerate, PreparedSegment
from genmask_jax.data.refershapes.source import ReferShapesGenerate, ReferShapesSegment
from genmask_jax.data.stamps.source import StampsGenerate, StampsSegment
from genmask_jax.errors import UserError

FAMILY = ("refcoco:unc", "refcocoplus:unc", "refcocog:umd")
"""The RefCOCO family: images in the train split of one are in the val and test splits of another."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """How a dataset is read.

    segment: (config, split, whether masks are to be scored) -> images with expressions and masks; None if it
        has none.
    generate: (config, split) -> images with prompts; None if it has none.
    embedded: whether it works without `config.path`.
    """

    segment: Callable[[DataConfig, str, bool], Source] | None = None
    generate: Callable[[DataConfig, str], Source] | None = None
    embedded: bool = False


def _joint_segment(config: DataConfig, split: str, scored: bool) -> Source:
    if split != "train":
        return prepared_segment(config.path, FAMILY[0], split, config.size, scored=scored)
    weights, without = joint_weights(config), held_out(config)
    parts = [
        prepared_segment(config.path, name, split, config.size, without=without if of_coco(name) else ())
        for name in weights
    ]
    return Mixture(parts, list(weights.values()))


def _prepared_segment(config: DataConfig, split: str, scored: bool) -> Source:
    return prepared_segment(config.path, config.name, split, config.size, scored=scored)


def _prepared_generate(config: DataConfig, split: str) -> Source:
    name = config.generate or config.name
    without = held_out(config) if name == "coco_captions" and split == "train" else frozenset()
    items = records.Items(records.find(config.path, name), split, "captions", without=without)
    _need_some(items, "captions")
    return PreparedGenerate(items, config.size)


DATASETS: dict[str, Dataset] = {
    "refershapes": Dataset(
        lambda config, split, scored: ReferShapesSegment(split, config.size, config.seed),
        lambda config, split: ReferShapesGenerate(split, config.size, config.seed),
        embedded=True,
    ),
    "stamps": Dataset(
        lambda config, split, scored: StampsSegment(config.path, split, config.size, config.seed),
        lambda config, split: StampsGenerate(config.path, split, config.size, config.seed),
    ),
    "refcoco_joint": Dataset(_joint_segment),
    **{
        name: Dataset(
            _prepared_segment if builder.has_expressions else None,
            _prepared_generate if builder.has_captions else None,
        )
        for name, builder in BUILDERS.items()
    },
}


def segment_source(config: DataConfig, split: str, *, scored: bool = False) -> Source:
    """Images with expressions and masks (`SegmentExample`) of a split.

    Args:
        config: the data config.
        split: train, val or test; the RefCOCO family also has testA and testB.
        scored: whether masks are to be scored: they then keep their own resolution, and examples have the
            extra fields that scores need. Otherwise images and masks are `config.size` square.

    Raises:
        UserError: the dataset or the split does not exist.
    """
    dataset = DATASETS.get(config.name.split(":")[0])
    if dataset is None or dataset.segment is None:
        known = ", ".join(name for name, one in DATASETS.items() if one.segment)
        raise UserError(f"config.data.name: {config.name!r} has no masks to learn; choose one of {known}")
    _need_path(config, dataset)
    return dataset.segment(config, split, scored)


def generate_source(config: DataConfig, split: str) -> Source:
    """Images with prompts (`GenerateExample`) of a split: train or val; test where there is one.

    Raises:
        UserError: see `segment_source`.
    """
    name = config.generate or config.name
    dataset = DATASETS.get(name.split(":")[0])
    if dataset is None or dataset.generate is None:
        known = ", ".join(name for name, one in DATASETS.items() if one.generate)
        raise UserError(f"config.data.generate: {name!r} has no prompts; choose one of {known}")
    _need_path(config, dataset)
    return dataset.generate(config, split)


def _need_path(config: DataConfig, dataset: Dataset) -> None:
    if not dataset.embedded and not config.path:
        raise UserError("config.data.path is empty; give the --out of launch/prepare_data.py")


def joint_weights(config: DataConfig) -> dict[str, float]:
    """The nonzero sampling weights of refcoco_joint, by dataset name, such as "refcoco:unc"."""
    fields = dataclasses.asdict(config.joint)
    names = {f: f.replace("_", ":") if of_coco(f.split("_")[0]) else f for f in fields}
    return {names[field]: weight for field, weight in fields.items() if weight}


def prepared_segment(
    path: str, name: str, split: str, size: int, *, without: frozenset[str] | tuple = (), scored: bool = False
) -> PreparedSegment:
    """The expressions of one prepared dataset; outside training, only the first of each ReasonSeg image.

    Expressions to be scored are shuffled, because validation uses the first ones.
    """
    items = records.Items(
        records.find(path, name),
        split,
        "expressions",
        without=frozenset(without),
        first_only=name == "reasonseg" and split != "train",
        shuffled=scored,
    )
    _need_some(items, "expressions")
    return PreparedSegment(items, size, whole_masks=scored, with_others=scored)


def _need_some(items: records.Items, kind: str) -> None:
    if not len(items):
        raise UserError(f"{items.directory}: the split {items.split} has no {kind} that may be used")


def held_out(config: DataConfig) -> frozenset[str]:
    """COCO ids of the images that must not be trained on, because they are in evaluation splits.

    Raises:
        UserError: a dataset whose splits must be known is not prepared.
    """
    if config.name == "refcoco_joint":
        names = {*FAMILY, *filter(of_coco, joint_weights(config))}
    else:
        names = {config.name} if of_coco(config.name) else set()
    directories = [records.find(config.path, name) for name in sorted(names)]
    return frozenset(
        image_id
        for directory in directories
        for split in records.splits_of(directory)
        if split != "train"
        for image_id in records.read_index(directory, split).image_ids
    )


def learned_from(config: DataConfig) -> frozenset[str] | None:
    """The names (`builders.image_name`) of the images in the train splits that a run samples from.

    None if one of the datasets is not prepared. Composed scenes have no names.
    """
    names = list(joint_weights(config)) if config.name == "refcoco_joint" else [config.name]
    names = [name for name in (*names, config.generate) if name.split(":")[0] in BUILDERS]
    images: set[str] = set()
    try:
        without = {image_name("refcoco", image_id) for image_id in held_out(config)}
        for name in names:
            index = records.read_index(records.find(config.path, name), "train")
            learned = {image_name(name.split(":")[0], image_id) for image_id in index.image_ids}
            left_out = config.name == "refcoco_joint" or name == "coco_captions"
            images |= learned - without if left_out else learned
    except UserError:
        return None
    return frozenset(images)


def check(config: DataConfig) -> None:
    """Raises UserError if the data lacks something that training or the first validation needs."""
    for split in ("train", "val"):
        segment_source(config, split)
        generate_source(config, split)


def texts(config: DataConfig, count: int = 4000) -> list[str]:
    """Texts of both tasks, from the start of the train split, for learning a vocabulary."""
    sources = (segment_source(config, "train"), generate_source(config, "train"))
    return [source[i]["text"] for source in sources for i in range(min(count // 2, len(source)))]
