"""Random variations of training examples: the words of a class, then crop, flip and colours of the image.

Every variation is drawn from the generator that Grain seeds by the example's position in training, so that it
does not depend on workers or hosts, and a resumed run goes on with the same ones.

- **Crop**: a box of `crop` to all of the image's area, its sides stretched by at most 4/3 against each other,
  which keeps at least half of the target's pixels. After TRIES boxes that do not, the image stays whole.
  Images whose words name a place ("on the left", "the largest") stay whole too, as do those with prompts,
  which would no longer describe them.
- **Flip**: left and right, which changes places in the words ("left" becomes "right"). Images whose words
  cannot be changed so ("clockwise", "the word STOP", any script but Latin) are left alone.
- **Colours**: brightness, contrast and saturation, each by up to `jitter`; hues stay, since words name them.
"""

import dataclasses
import re
import unicodedata
from typing import Any

import grain
import numpy as np
from PIL import Image, ImageEnhance

from genmask_jax.config import DataConfig
from genmask_jax.data.masks import to_model_mask
from genmask_jax.images import to_model_size

TRIES = 10
KEPT = 0.5
"""The least share of a target's pixels that a crop keeps."""
ASPECT = 4 / 3
SWAPS = {"left": "right", "right": "left", "leftmost": "rightmost", "rightmost": "leftmost"} | {
    **{"lefthand": "righthand", "righthand": "lefthand", "leftward": "rightward", "rightward": "leftward"},
    **{"lefts": "rights", "rights": "lefts"},
}
_FIXED = """
clockwise counterclockwise anticlockwise o'clock oclock east west eastern western word words text letter
letters number numbers digit sign reads read reading says written spelled logo jersey
"""
FIXED = frozenset(_FIXED.split())
"""Words that a mirrored image would make wrong, and that no other word replaces."""
_PLACES = """
top bottom middle center centre corner upper lower above below first second third last front back behind near
nearest far furthest farthest closest large larger largest big bigger biggest small smaller smallest tallest
edge side between next only whole all full
"""
PLACES = frozenset(_PLACES.split())
"""Words that a crop can make wrong: places and comparisons."""


@dataclasses.dataclass(frozen=True)
class VarySegment(grain.transforms.RandomMap):
    """Whole examples with masks (`WholeExample`) as varied `SegmentExample`s at the model's size."""

    config: DataConfig

    def random_map(self, example: Any, rng: np.random.Generator) -> dict[str, Any]:
        """See `grain.transforms.RandomMap`."""
        text, mask = example["text"], example["mask"]
        if example["absent"] and rng.random() < self.config.absent_share:
            text = example["absent"][rng.integers(len(example["absent"]))]
            mask = np.zeros_like(mask)
        if example["is_class"]:
            text = self.config.templates[rng.integers(len(self.config.templates))].format(text)
        image, size, options = example["image"], self.config.size, self.config.augment
        if options.crop < 1 and not words(text) & (PLACES | SWAPS.keys()):
            box = crop_box(mask, options.crop, rng)
            image, mask = image[box], mask[box]
        image, mask, text = maybe_flip(image, mask, text, options.flip, rng)
        image = jitter(to_model_size(image, size), options.jitter, rng)
        return {"image": image, "mask": to_model_mask(mask, size), "text": text, "id": example["id"]}


@dataclasses.dataclass(frozen=True)
class VaryGenerate(grain.transforms.RandomMap):
    """Whole images with prompts as varied `GenerateExample`s at the model's size; they are not cropped."""

    config: DataConfig

    def random_map(self, example: Any, rng: np.random.Generator) -> dict[str, Any]:
        """See `grain.transforms.RandomMap`."""
        image, text, options = example["image"], example["text"], self.config.augment
        image, _, text = maybe_flip(image, image[..., 0], text, options.flip, rng)
        image = jitter(to_model_size(image, self.config.size), options.jitter, rng)
        return {"image": image, "text": text, "id": example["id"]}


def words(text: str) -> frozenset[str]:
    """The words of a text, in lower case."""
    return frozenset(re.findall(r"[a-z']+", text.lower()))


def crop_box(mask: np.ndarray, smallest: float, rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a random box that keeps most of the target.

    Args:
        mask: uint8 [H, W], 1 at the target; it may be empty.
        smallest: the smallest share of the image's area, in (0, 1].
        rng: to draw from.
    """
    height, width = mask.shape
    target = mask == 1
    total = np.count_nonzero(target)
    for _ in range(TRIES):
        area, stretch = rng.uniform(smallest, 1.0), np.exp(rng.uniform(-1, 1) * np.log(ASPECT))
        rows = min(height, max(1, round(height * np.sqrt(area / stretch))))
        columns = min(width, max(1, round(width * np.sqrt(area * stretch))))
        top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
        box = slice(int(top), int(top) + rows), slice(int(left), int(left) + columns)
        if np.count_nonzero(target[box]) >= KEPT * total:
            return box
    return slice(0, height), slice(0, width)


def maybe_flip(
    image: np.ndarray, mask: np.ndarray, text: str, probability: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, str]:
    """Mirrors image, mask and words with this probability, if the words can be mirrored."""
    mirrored = mirror_words(text)
    if not (rng.random() < probability and mirrored is not None):
        return image, mask, text
    return image[:, ::-1], mask[:, ::-1], mirrored


def mirror_words(text: str) -> str | None:
    """The text with left and right exchanged; None if mirroring the image would make its words wrong."""
    if any(letter.isalpha() and "LATIN" not in unicodedata.name(letter, "") for letter in text):
        return None
    if words(text) & FIXED:
        return None
    return re.sub(r"[A-Za-z]+", lambda match: _swapped(match[0]), text)


def _swapped(word: str) -> str:
    """The word for the other side, in the same case; other words as they are."""
    other = SWAPS.get(word.lower(), word)
    return other if other == word else other.capitalize() if word[0].isupper() else other


def jitter(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast and saturation times 1 - amount to 1 + amount each, in random order."""
    if not amount:
        return np.ascontiguousarray(image)
    changed = Image.fromarray(np.ascontiguousarray(image))
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for i in rng.permutation(len(kinds)):
        changed = kinds[i](changed).enhance(rng.uniform(1 - amount, 1 + amount))
    return np.asarray(changed)
