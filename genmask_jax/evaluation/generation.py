"""Scores generated ReferShapes images: one shape by `shape_rule.py`, whole prompts by `scene_rule.py`."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from genmask_jax.data.refershapes.source import ReferShapesGenerate
from genmask_jax.data.refershapes.styles import Style
from genmask_jax.evaluation.scene_rule import named_in, shows
from genmask_jax.evaluation.shape_rule import contains
from genmask_jax.inference.image_sampler import ImageSampler


def shape_prompts(count: int, style: Style) -> list[tuple[str, str]]:
    """`count` pairs (colour, kind), cycling through all of them."""
    return list(itertools.islice(itertools.cycle(itertools.product(style.colours, style.kinds)), count))


def evaluate_generation(
    generator: ImageSampler, source: ReferShapesGenerate, count: int
) -> tuple[dict[str, Any], np.ndarray, list[str]]:
    """Share of images generated for "a COLOUR KIND" that hold a shape of that colour and kind.

    Args:
        generator: the model, at a size for ReferShapes.
        source: its style gives colours and kinds; its real images of one shape are scored by the same rule.
        count: how many generated and how many real images to score.

    Returns:
        Metrics, the generated images uint8 [N, H, W, 3] and their prompts.
    """
    style = source.style
    pairs = shape_prompts(count, style)
    prompts = [f"{'an' if colour == 'orange' else 'a'} {colour} {kind}" for colour, kind in pairs]
    images = generator(prompts)
    hits = [contains(image, *pair, style) for image, pair in zip(images, pairs, strict=True)]
    other = [_next(style.kinds, kind) for _, kind in pairs]
    wrong = [contains(p, c, k, style) for p, (c, _), k in zip(images, pairs, other, strict=True)]
    metrics = {
        "count": count,
        "kinds": _shares(hits, [kind for _, kind in pairs]),
        "colours": _shares(hits, [colour for colour, _ in pairs]),
        "share_right": float(np.mean(hits)),
        "share_right_of_another_kind": float(np.mean(wrong)),
        "share_right_of_real_images": float(np.mean(_score_real(source, count))),
    }
    return metrics, images, prompts


def evaluate_prompts(images: UInt8[np.ndarray, "N S S 3"], source: ReferShapesGenerate) -> dict[str, Any]:
    """Share of images that show exactly what the source's first N prompts name.

    Args:
        images: generated for these prompts.
        source: `GenerateExample`s, whose real images are scored by the same rule.
    """
    examples = [source[i] for i in range(len(images))]
    texts = [example["text"] for example in examples]
    hits = [shows(image, text, source.style) for image, text in zip(images, texts, strict=True)]
    return {
        "count": len(images),
        "share_right": float(np.mean(hits)),
        "objects": _shares(hits, [str(len(named_in(text))) for text in texts]),
        "share_right_of_real_images": float(
            np.mean([shows(e["image"], e["text"], source.style) for e in examples])
        ),
    }


def _next(names: Sequence[str], name: str) -> str:
    return names[(names.index(name) + 1) % len(names)]


def _shares(hits: Sequence[bool], groups: Sequence[str]) -> dict[str, float]:
    """The share of hits in each group, by name."""
    return {
        name: float(np.mean([hit for hit, group in zip(hits, groups, strict=True) if group == name]))
        for name in sorted(set(groups))
    }


def _score_real(source: ReferShapesGenerate, count: int) -> list[bool]:
    hits: list[bool] = []
    for i in range(len(source)):
        example = source[i]
        words = example["text"].split()
        if " and " not in example["text"]:
            hits.append(contains(example["image"], words[-2], words[-1], source.style))
        if len(hits) == count:
            break
    return hits
