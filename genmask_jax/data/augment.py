"""Random augmentation of training examples: template of a class, then crop, flip and colours of the image.

Every augmentation is drawn from the generator that Grain seeds by the example's position in training. It does
not depend on workers or hosts, and a resumed run continues with the same augmentations.

- **Crop**: a box with a share of `crop` to 1 of the image's area and an aspect ratio changed by at most 4/3,
  which keeps at least half of the target's pixels. After MAX_TRIES failed boxes, the whole image is used.
  Images are not cropped if their words name a place or compare ("on the left", "the largest"), or if a word
  is unknown, except in the name of a class. Images with prompts are not cropped.
- **Flip**: mirrors the image and its words ("left" becomes "right"). Images are not mirrored if their words
  may become wrong ("right behind", "clockwise", other languages than English; see `mirror.py`).
- **Colours**: brightness, contrast and saturation, each by up to `jitter`. Hues stay, because words name
  them.
"""

import dataclasses
from typing import Any

import grain
import numpy as np
from PIL import Image, ImageEnhance

from genmask_jax.config import AugmentConfig, DataConfig
from genmask_jax.data.english import word_set
from genmask_jax.data.masks import to_model_mask
from genmask_jax.data.mirror import SWAPS, mirror, unknown_word, unmirrorable_words, words
from genmask_jax.utils.images import to_model_size

MAX_TRIES = 10
MIN_TARGET_SHARE = 0.5
"""Smallest share of a target's pixels that a crop keeps."""
MAX_ASPECT_CHANGE = 4 / 3
PLACE_WORDS = SWAPS.keys() | word_set("""
top bottom middle center centre mid corner upper lower above below under over first second third fourth
fifth last front back rear behind ahead near nearer nearest far farther further furthest farthest closer
closest large larger largest big bigger biggest small smaller smallest tall taller tallest short shorter
shortest long longer longest wide wider widest high higher highest low lower lowest most least edge side
half between next beside background foreground only other another both whole all full
""")
"""Words that a crop can make wrong: places and comparisons."""


@dataclasses.dataclass(frozen=True)
class AugmentSegment(grain.transforms.RandomMap):
    """Augments `FullSizeExample`s to `SegmentExample`s at the model's size.

    with_text: whether texts are used and must stay true; False for a VAE.
    """

    config: DataConfig
    with_text: bool = True

    def random_map(self, example: Any, rng: np.random.Generator) -> dict[str, Any]:
        """See `grain.transforms.RandomMap`."""
        if rng.random() < self.config.absent_share:
            example = make_negative(example, rng)
        text, mask = example["text"], example["mask"]
        if example["is_class"]:
            text = self.config.templates[rng.integers(len(self.config.templates))].format(text)
        image, size, options = example["image"], self.config.size, self.config.augment
        text = text if self.with_text else ""
        words_known = example["is_class"] or unknown_word(text, frozenset(options.flip_words)) is None
        if options.crop < 1 and words_known and PLACE_WORDS.isdisjoint(words(text)):
            box = crop_box(mask, options.crop, rng)
            image, mask = image[box], mask[box]
        image, mask, text = maybe_flip(image, mask, text, options, rng)
        image = jitter(to_model_size(image, size), options.jitter, rng)
        return {"image": image, "mask": to_model_mask(mask, size), "text": text, "id": example["id"]}


def make_negative(example: Any, rng: np.random.Generator) -> Any:
    """An example that asks for something that the image does not show, with an empty mask.

    The image is that of the example, or an image without any class, as often as such images occur in the
    dataset. If the example has no absent class and there are no such images, the example is returned.
    """
    classless = example["classless"]
    if len(classless) and (not example["absent"] or rng.random() < classless.share):
        example = classless[int(rng.integers(len(classless)))]
    absent = example["absent"]
    if not absent:
        return example
    text = absent[rng.integers(len(absent))]
    return {**example, "text": text, "mask": np.zeros_like(example["mask"]), "is_class": True}


@dataclasses.dataclass(frozen=True)
class AugmentGenerate(grain.transforms.RandomMap):
    """Augments images with prompts to `GenerateExample`s at the model's size, without cropping."""

    config: DataConfig

    def random_map(self, example: Any, rng: np.random.Generator) -> dict[str, Any]:
        """See `grain.transforms.RandomMap`."""
        image, text, options = example["image"], example["text"], self.config.augment
        image, _, text = maybe_flip(image, image[..., 0], text, options, rng)
        image = jitter(to_model_size(image, self.config.size), options.jitter, rng)
        return {"image": image, "text": text, "id": example["id"]}


def crop_box(mask: np.ndarray, smallest: float, rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a random box that keeps at least half of the target.

    Args:
        mask: uint8 [H, W], 1 at the target; it may be empty.
        smallest: smallest share of the image's area, in (0, 1].
        rng: random generator.
    """
    height, width = mask.shape
    target = mask == 1
    total = np.count_nonzero(target)
    for _ in range(MAX_TRIES):
        area, stretch = rng.uniform(smallest, 1.0), np.exp(rng.uniform(-1, 1) * np.log(MAX_ASPECT_CHANGE))
        rows = min(height, max(1, round(height * np.sqrt(area / stretch))))
        columns = min(width, max(1, round(width * np.sqrt(area * stretch))))
        top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
        box = slice(int(top), int(top) + rows), slice(int(left), int(left) + columns)
        if np.count_nonzero(target[box]) >= MIN_TARGET_SHARE * total:
            return box
    return slice(0, height), slice(0, width)


def maybe_flip(
    image: np.ndarray, mask: np.ndarray, text: str, options: AugmentConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, str]:
    """Mirrors image, mask and words with probability `options.flip`, if the words allow it."""
    if rng.random() >= options.flip or unmirrorable_words(text, frozenset(options.flip_words)) is not None:
        return image, mask, text
    return image[:, ::-1], mask[:, ::-1], mirror(text)


def jitter(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Scales brightness, contrast and saturation by 1 - amount to 1 + amount each, in random order."""
    if not amount:
        return np.ascontiguousarray(image)
    enhanced = Image.fromarray(np.ascontiguousarray(image))
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for i in rng.permutation(len(enhancers)):
        enhanced = enhancers[i](enhanced).enhance(rng.uniform(1 - amount, 1 + amount))
    return np.asarray(enhanced)
