"""Data sets by name: the one place that knows them all."""

from genmask_jax.config import DataConfig
from genmask_jax.data import refershapes, stamps
from genmask_jax.data.examples import Source


def segment_source(config: DataConfig, split: str) -> Source:
    """Pictures with expressions and masks (`SegmentExample`) of a split: train, val or test."""
    if config.name == "stamps":
        return stamps.StampsSegment(config.path, split, config.size, config.seed)
    return refershapes.ReferShapesSegment(split, config.size, config.seed)


def generate_source(config: DataConfig, split: str) -> Source:
    """Pictures with prompts (`GenerateExample`) of a split: train, val or test."""
    if config.name == "stamps":
        return stamps.StampsGenerate(config.path, split, config.size, config.seed)
    return refershapes.ReferShapesGenerate(split, config.size, config.seed)


def texts(config: DataConfig, count: int = 4000) -> list[str]:
    """Texts of both tasks, from the start of the train split, to learn a vocabulary from."""
    sources = (segment_source(config, "train"), generate_source(config, "train"))
    return [source[i]["text"] for source in sources for i in range(count // 2)]
