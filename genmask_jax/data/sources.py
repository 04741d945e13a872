"""Data sets by name: the one place that knows them all."""

import dataclasses

from genmask_jax.config import DataConfig
from genmask_jax.data import prepared, refershapes, stamps
from genmask_jax.data.examples import Mixture, Source
from genmask_jax.data.pictures import PreparedGenerate, PreparedSegment
from genmask_jax.errors import UserError

FAMILY = ("refcoco:unc", "refcocoplus:unc", "refcocog:umd")
"""RefCOCO and its kin: pictures of one's train split are in another's val and test splits."""


def segment_source(config: DataConfig, split: str, *, scored: bool = False) -> Source:
    """Pictures with expressions and masks (`SegmentExample`) of a split.

    Args:
        config: of the data.
        split: train, val or test; of the RefCOCO family testA and testB as well.
        scored: whether masks are to be scored: they keep their own resolution, and what scores need beside
            them comes along. Otherwise pictures and masks are `config.size` square.

    Raises:
        UserError: the data set, or the split, is not there.
    """
    if config.name == "refershapes":
        return refershapes.ReferShapesSegment(split, config.size, config.seed)
    if config.name == "stamps":
        return stamps.StampsSegment(config.path, split, config.size, config.seed)
    if config.name != "refcoco_joint":
        return prepared_segment(config.path, config.name, split, config.size, scored=scored)
    if split != "train":
        return prepared_segment(config.path, FAMILY[0], split, config.size, scored=scored)
    weights, without = joint_weights(config), held_out(config)
    parts = [
        prepared_segment(config.path, name, split, config.size, without=without if _of_coco(name) else ())
        for name in weights
    ]
    return Mixture(parts, list(weights.values()))


def joint_weights(config: DataConfig) -> dict[str, float]:
    """Of refcoco_joint, by the data sets' names, such as "refcoco:unc"; those that are drawn from."""
    fields = dataclasses.asdict(config.joint)
    names = {f: f.replace("_", ":") if _of_coco(f.split("_")[0]) else f for f in fields}
    return {names[field]: weight for field, weight in fields.items() if weight}


def prepared_segment(
    path: str, name: str, split: str, size: int, *, without: frozenset[str] | tuple = (), scored: bool = False
) -> PreparedSegment:
    """One prepared data set's expressions; of ReasonSeg's, but in training, each picture's first.

    Those to be scored are shuffled: validation looks at the first of them.
    """
    items = prepared.Items(
        prepared.find(path, name),
        split,
        "expressions",
        without=frozenset(without),
        first_only=name == "reasonseg" and split != "train",
        shuffled=scored,
    )
    _need_some(items, "expressions")
    return PreparedSegment(items, size, whole_masks=scored, with_others=scored)


def _need_some(items: prepared.Items, kind: str) -> None:
    if not len(items):
        raise UserError(f"{items.directory}: the split {items.split} has no {kind} that may be used")


def _of_coco(name: str) -> bool:
    return name.split(":")[0] in prepared.OF_COCO


def held_out(config: DataConfig) -> frozenset[str]:
    """COCO's numbers of the pictures that nothing may be learned from: those that are evaluated on.

    Raises:
        UserError: a data set that says so is not prepared.
    """
    if config.name == "refcoco_joint":
        names = {*FAMILY, *filter(_of_coco, joint_weights(config))}
    else:
        names = {config.name} if _of_coco(config.name) else set()
    directories = [prepared.find(config.path, name) for name in sorted(names)]
    return frozenset(
        image_id
        for directory in directories
        for split in prepared.splits_of(directory)
        if split != "train"
        for image_id in prepared.read_index(directory, split).image_ids
    )


def generate_source(config: DataConfig, split: str) -> Source:
    """Pictures with prompts (`GenerateExample`) of a split: train or val; test where there is one."""
    name = config.generate or config.name
    if name == "refershapes":
        return refershapes.ReferShapesGenerate(split, config.size, config.seed)
    if name == "stamps":
        return stamps.StampsGenerate(config.path, split, config.size, config.seed)
    without = held_out(config) if name == "coco_captions" and split == "train" else frozenset()
    items = prepared.Items(prepared.find(config.path, name), split, "captions", without=without)
    _need_some(items, "captions")
    return PreparedGenerate(items, config.size)


def learned_from(config: DataConfig) -> frozenset[str] | None:
    """The names (`prepared.picture_name`) of the pictures in the train splits that a run draws from.

    None where a data set of them is not there to say so; composed scenes have no names.
    """
    names = list(joint_weights(config)) if config.name == "refcoco_joint" else [config.name]
    names = [name for name in (*names, config.generate) if name not in ("", "refershapes", "stamps")]
    pictures: set[str] = set()
    try:
        without = {prepared.picture_name("refcoco", image_id) for image_id in held_out(config)}
        for name in names:
            index = prepared.read_index(prepared.find(config.path, name), "train")
            learned = {prepared.picture_name(name.split(":")[0], image_id) for image_id in index.image_ids}
            left_out = config.name == "refcoco_joint" or name == "coco_captions"
            pictures |= learned - without if left_out else learned
    except UserError:
        return None
    return frozenset(pictures)


def check(config: DataConfig) -> None:
    """Raises UserError when training on the data would miss something, now or at the first validation."""
    for split in ("train", "val"):
        segment_source(config, split)
        generate_source(config, split)


def texts(config: DataConfig, count: int = 4000) -> list[str]:
    """Texts of both tasks, from the start of the train split, to learn a vocabulary from."""
    sources = (segment_source(config, "train"), generate_source(config, "train"))
    return [source[i]["text"] for source in sources for i in range(min(count // 2, len(source)))]
