"""Scores generated ReferShapes images: one shape by `shape_rule.py`, whole prompts by `scene_rule.py`."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from genmask_jax.data.refershapes.source import ReferShapesGenerate
from genmask_jax.data.refershapes.styles import Style
from genmask_jax.evaluation.scene_rule import found_objects, matches_prompt, parse_prompt
from genmask_jax.evaluation.shape_rule import contains_shape
from genmask_jax.inference.image_sampler import ImageSampler


def shape_prompts(count: int, style: Style) -> list[tuple[str, str]]:
    """Returns `count` pairs (colour, kind), cycling through all combinations."""
    return list(itertools.islice(itertools.cycle(itertools.product(style.colours, style.kinds)), count))


def evaluate_generation(
    generator: ImageSampler, source: ReferShapesGenerate, count: int
) -> tuple[dict[str, Any], np.ndarray, list[str]]:
    """Generates images for "a COLOUR KIND" and scores how many show a shape of that colour and kind.

    Args:
        generator: the model, at a size for ReferShapes.
        source: gives colours and kinds, and real images of one shape, which the same rule scores.
        count: number of generated images, and of real images, to score.

    Returns:
        Metrics, the generated images uint8 [N, H, W, 3] and their prompts.
    """
    style = source.style
    pairs = shape_prompts(count, style)
    prompts = [f"{'an' if colour == 'orange' else 'a'} {colour} {kind}" for colour, kind in pairs]
    images = generator(prompts)
    hits = [contains_shape(image, *pair, style) for image, pair in zip(images, pairs, strict=True)]
    other_kinds = [_next(style.kinds, kind) for _, kind in pairs]
    wrong = [contains_shape(p, c, k, style) for p, (c, _), k in zip(images, pairs, other_kinds, strict=True)]
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
    """Scores how many images show exactly the objects of their prompt, and how many objects they show.

    Args:
        images: images generated for the source's first N prompts.
        source: gives the prompts, and real images, which the same rule scores.
    """
    examples = [source[i] for i in range(len(images))]
    texts = [example["text"] for example in examples]
    hits = [matches_prompt(image, text, source.style) for image, text in zip(images, texts, strict=True)]
    found = [found_objects(image, text, source.style) for image, text in zip(images, texts, strict=True)]
    return {
        "count": len(images),
        "share_right": float(np.mean(hits)),
        "objects_f1": float(np.mean([scores["objects"] for scores in found])),
        "colours_f1": float(np.mean([scores["colours"] for scores in found])),
        "objects": _shares(hits, [str(len(parse_prompt(text))) for text in texts]),
        "share_right_of_real_images": float(
            np.mean([matches_prompt(e["image"], e["text"], source.style) for e in examples])
        ),
    }


def _next(names: Sequence[str], name: str) -> str:
    return names[(names.index(name) + 1) % len(names)]


def _shares(hits: Sequence[bool], groups: Sequence[str]) -> dict[str, float]:
    """The share of hits in each group, by name of the group."""
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
            hits.append(contains_shape(example["image"], words[-2], words[-1], source.style))
        if len(hits) == count:
            break
    return hits
