"""The registry of all datasets, by name."""

import dataclasses
from collections.abc import Callable
from typing import Any

from genmask_jax.config import DataConfig
from genmask_jax.data.examples import GenerateExample, Mixture, ScoredExample, SegmentExample, Source
from genmask_jax.data.masks import RESIZE_RULE
from genmask_jax.data.prepared import records
from genmask_jax.data.prepared.builders import BUILDERS, ImagesBuilder, has_coco_images, image_name
from genmask_jax.data.prepared.source import (
    PreparedClassPrompts,
    PreparedGenerate,
    PreparedLabelMaps,
    PreparedScored,
    PreparedSegment,
)
from genmask_jax.data.refershapes.hand_drawn import HandDrawn
from genmask_jax.data.refershapes.source import ReferShapesGenerate, ReferShapesSegment
from genmask_jax.data.refershapes.styles import STYLES, Style
from genmask_jax.data.stamps.source import StampsGenerate, StampsSegment
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.paths import need_local

REFCOCO_FAMILY = ("refcoco:unc", "refcocoplus:unc", "refcocog:umd")
"""The RefCOCO family: some training images of one dataset are in the val and test splits of another."""
NO_IMAGES, CLASS_PROMPTS = "none", "classes"
"""Special values of `config.generate`: only masks; prompts that list the classes of an image."""

Segment = Callable[[DataConfig, str], Source[SegmentExample]]
Scored = Callable[[DataConfig, str], Source[ScoredExample]]
Generate = Callable[[DataConfig, str], Source[GenerateExample]]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The sources of a dataset, as functions of the config and the split.

    segment: images with expressions and masks for training; None without masks.
    scored: the same for evaluation.
    generate: images with prompts; None without prompts.
    built_in: whether it needs no `config.path`.
    """

    segment: Segment | None = None
    scored: Scored | None = None
    generate: Generate | None = None
    built_in: bool = False


def _refershapes(config: DataConfig, split: str) -> ReferShapesSegment:
    return ReferShapesSegment(split, config.size, config.seed, _style(config))


def _scored_refershapes(config: DataConfig, split: str) -> Source[ScoredExample]:
    return HandDrawn(config.size, config.seed) if split == "hand_drawn" else _refershapes(config, split)


def _refershapes_images(config: DataConfig, split: str) -> ReferShapesGenerate:
    split = "test" if split == "hand_drawn" else split  # hand_drawn has no prompts
    return ReferShapesGenerate(split, config.size, config.seed, _style(config))


def _style(config: DataConfig) -> Style:
    if config.scenes not in STYLES:
        raise UserError(f"config.data.scenes: {config.scenes!r} is not {' or '.join(STYLES)}")
    return STYLES[config.scenes]


def _stamps(config: DataConfig, split: str) -> StampsSegment:
    return StampsSegment(config.path, split, config.size, config.seed)


def _joint_segment(config: DataConfig, split: str) -> Source[SegmentExample]:
    if split != "train":
        return PreparedSegment(_expressions(config, REFCOCO_FAMILY[0], split), config.size)
    weights, excluded = joint_weights(config), held_out(config)
    parts = [
        PreparedSegment(
            _expressions(config, name, split, excluded if has_coco_images(name) else None),
            config.size,
            config.templates[0],
        )
        for name in weights
    ]
    return Mixture(parts, list(weights.values()))


def _joint_scored(config: DataConfig, split: str) -> Source[ScoredExample]:
    return PreparedScored(_expressions(config, REFCOCO_FAMILY[0], split, shuffled=True), config.size)


def _prepared_segment(config: DataConfig, split: str) -> Source[SegmentExample]:
    return PreparedSegment(_expressions(config, config.name, split), config.size, config.templates[0])


def _prepared_scored(config: DataConfig, split: str) -> Source[ScoredExample]:
    items = _expressions(config, config.name, split, shuffled=True)
    return PreparedScored(items, config.size, config.templates[0])


def _expressions(
    config: DataConfig,
    name: str,
    split: str,
    excluded: frozenset[str] | None = None,
    *,
    shuffled: bool = False,
) -> records.Items:
    """The expressions of a prepared dataset; for evaluation, only the first of each ReasonSeg image.

    Expressions for evaluation are shuffled, because validation uses the first ones.
    """
    items = records.Items(
        records.find(config.path, name),
        split,
        "expressions",
        excluded=excluded or frozenset(),
        first_only=name == "reasonseg" and split != "train",
        shuffled=shuffled,
    )
    _need_some(items, "expressions")
    return items


def _prepared_generate(config: DataConfig, split: str) -> Source[GenerateExample]:
    name = config.generate or config.name
    excluded = held_out(config) if name == "coco_captions" and split == "train" else frozenset()
    items = records.Items(records.find(config.path, name), split, "captions", excluded=excluded)
    _need_some(items, "captions")
    return PreparedGenerate(items, config.size)


def _class_prompts(config: DataConfig, split: str) -> Source[GenerateExample]:
    directory = records.find(config.path, config.name)
    if not records.read_classes(directory):
        raise UserError(f"config.data.generate=classes: {directory} has no classes")
    return PreparedClassPrompts(records.Items(directory, split, "expressions", first_only=True), config.size)


def _need_some(items: records.Items, kind: str) -> None:
    if not len(items):
        fix = '; config.data.generate="none" trains on masks alone' if kind == "captions" else ""
        raise UserError(f"{items.directory}: the split {items.split} has no usable {kind}{fix}")


def _prepared(builder: type[ImagesBuilder]) -> Dataset:
    has_masks = builder.has_expressions
    return Dataset(
        segment=_prepared_segment if has_masks else None,
        scored=_prepared_scored if has_masks else None,
        generate=_prepared_generate if builder.has_captions else None,
    )


DATASETS: dict[str, Dataset] = {
    "refershapes": Dataset(
        segment=_refershapes,
        scored=_scored_refershapes,
        generate=_refershapes_images,
        built_in=True,
    ),
    "stamps": Dataset(
        segment=_stamps,
        scored=_stamps,
        generate=lambda config, split: StampsGenerate(config.path, split, config.size, config.seed),
    ),
    "refcoco_joint": Dataset(segment=_joint_segment, scored=_joint_scored),
    **{name: _prepared(builder) for name, builder in BUILDERS.items()},
}


def segment_source(config: DataConfig, split: str) -> Source[SegmentExample]:
    """Images with expressions and masks for training, all `config.size` square.

    Args:
        config: the data config.
        split: train, val or test; the RefCOCO family also has testA and testB.

    Raises:
        UserError: the dataset or the split does not exist.
    """
    segment = _find_segment(config).segment
    assert segment is not None
    return segment(config, split)


def scored_source(config: DataConfig, split: str) -> Source[ScoredExample]:
    """Images with expressions and masks for evaluation; masks keep their own resolution.

    Raises:
        UserError: see `segment_source`.
    """
    scored = _find_segment(config).scored
    assert scored is not None
    return scored(config, split)


def _find_segment(config: DataConfig) -> Dataset:
    dataset = DATASETS.get(config.name.split(":")[0])
    if dataset is None or dataset.segment is None:
        names = ", ".join(name for name, other in DATASETS.items() if other.segment)
        raise UserError(f"config.data.name: {config.name!r} has no masks; choose one of {names}")
    _need_path(config, dataset)
    return dataset


def generate_source(config: DataConfig, split: str) -> Source[GenerateExample]:
    """Images with prompts (`GenerateExample`) of a split: train, val, or test if the dataset has one.

    Raises:
        UserError: see `segment_source`.
    """
    name = config.generate or config.name
    dataset = DATASETS.get(name.split(":")[0])
    if name == CLASS_PROMPTS:
        return _class_prompts(config, split)
    if name == NO_IMAGES:
        raise UserError('config.data.generate="none" has no prompts; set a dataset with prompts')
    if dataset is None or dataset.generate is None:
        names = ", ".join(
            [*(name for name, other in DATASETS.items() if other.generate), CLASS_PROMPTS, NO_IMAGES]
        )
        raise UserError(f"config.data.generate: {name!r} has no prompts; choose one of {names}")
    _need_path(config, dataset)
    return dataset.generate(config, split)


def label_maps(config: DataConfig, split: str) -> PreparedLabelMaps | None:
    """Annotated images of a split with the class of each pixel; None for datasets without classes."""
    if config.name.split(":")[0] not in BUILDERS:
        return None
    directory = records.find(config.path, config.name)
    if not records.read_classes(directory):
        return None
    items = records.Items(directory, split, "targets", first_only=True, shuffled=split != "train")
    return PreparedLabelMaps(items, config.size, config.templates[0])


def generates(config: DataConfig) -> bool:
    """Whether image generation is trained too."""
    return config.generate != NO_IMAGES


def rows_by_task(config: DataConfig, batch_size: int) -> dict[str, int]:
    """The number of rows of each task, "segment" and "generate", in a batch; masks alone without images."""
    if not generates(config):
        return {"segment": batch_size}
    unit = batch_size // config.mixture.total
    return {"segment": unit * config.mixture.masks, "generate": unit * config.mixture.images}


def _need_path(config: DataConfig, dataset: Dataset) -> None:
    if not dataset.built_in and not config.path:
        raise UserError("config.data.path is empty; set it to the --out of launch/prepare_data.py")
    need_local(config.path, "config.data.path")


def mask_rule(config: DataConfig) -> str:
    """The rule by which training masks are resized; "" for scenes generated at the model's size."""
    return RESIZE_RULE if config.name == "refcoco_joint" or config.name.split(":")[0] in BUILDERS else ""


def joint_weights(config: DataConfig) -> dict[str, float]:
    """The nonzero sampling weights of refcoco_joint, by dataset name, such as "refcoco:unc"."""
    fields = dataclasses.asdict(config.joint)
    names = {f: f.replace("_", ":") if has_coco_images(f.split("_")[0]) else f for f in fields}
    return {names[field]: weight for field, weight in fields.items() if weight}


def held_out(config: DataConfig) -> frozenset[str]:
    """COCO ids of images in evaluation splits, which are excluded from training.

    Raises:
        UserError: a dataset of the mixture is not prepared.
    """
    if config.name == "refcoco_joint":
        names = {*REFCOCO_FAMILY, *filter(has_coco_images, joint_weights(config))}
    else:
        names = {config.name} if has_coco_images(config.name) else set()
    directories = [records.find(config.path, name) for name in sorted(names)]
    return frozenset(
        image_id
        for directory in directories
        for split in records.splits_of(directory)
        if split != "train"
        for image_id in records.read_index(directory, split).image_ids
    )


def learned_from(config: DataConfig) -> frozenset[str] | None:
    """Names (`builders.image_name`) of the images in a run's training data; generated scenes have no names.

    None if one of the datasets is not prepared.
    """
    names = list(joint_weights(config)) if config.name == "refcoco_joint" else [config.name]
    names = [name for name in (*names, config.generate) if name.split(":")[0] in BUILDERS]
    images: set[str] = set()
    try:
        evaluated = {image_name("refcoco", image_id) for image_id in held_out(config)}
        for name in names:
            index = records.read_index(records.find(config.path, name), "train")
            train_images = {image_name(name.split(":")[0], image_id) for image_id in index.image_ids}
            is_filtered = config.name == "refcoco_joint" or name == "coco_captions"
            images |= train_images - evaluated if is_filtered else train_images
    except UserError:
        return None
    return frozenset(images)


def check(config: DataConfig) -> None:
    """Raises UserError if data for training or validation is missing."""
    for split in ("train", "val"):
        segment_source(config, split)
        if generates(config):
            generate_source(config, split)


def validation_prompts(config: DataConfig) -> list[str]:
    """The prompts of the images that validation generates; [] if only masks are trained."""
    if not generates(config):
        return []
    source = generate_source(config, "val")
    return [source[i]["text"] for i in range(min(16, len(source)))]


def texts(config: DataConfig, count: int = 4000) -> list[str]:
    """Texts of both tasks and all classes, for learning a vocabulary; see `texts_of_split`."""
    classes = dict.fromkeys(getattr(segment_source(config, "train"), "classes", ()))
    prompts = [text for group in texts_of_split(config, count).values() for text in group]
    return prompts + [template.format(name) for template in config.templates for name in classes]


def texts_of_split(config: DataConfig, count: int = 4000) -> dict[str, list[str]]:
    """Texts of "masks" and "images" at the start of the train split, `count` of both together."""
    segments = segment_source(config, "train")
    texts = {"masks": [_text(segments, i) for i in range(min(count // 2, len(segments)))]}
    if generates(config):
        images = generate_source(config, "train")
        texts["images"] = [images[i]["text"] for i in range(min(count // 2, len(images)))]
    return texts


def _text(source: Source[Any], index: int) -> str:
    """An example's text, without reading its image if possible."""
    read_text = getattr(source, "text", None)
    return read_text(index) if read_text else source[index]["text"]
