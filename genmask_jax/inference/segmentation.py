"""`Segmentation`: the masks of an image's phrases, as returned by `Segmenter`."""

import dataclasses
import functools
import json
import operator
import os
from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex

import numpy as np
from etils import epath
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from genmask_jax.config import SamplerConfig
from genmask_jax.data import masks as rle
from genmask_jax.inference.masks import most_probable, to_mask
from genmask_jax.utils.errors import ArgumentError, UserError
from genmask_jax.utils.images import SUFFIXES
from genmask_jax.utils.paths import make_directory, replacing, to_path
from genmask_jax.utils.sheets import label_image, legend, outlined, overlay

VIEWS = ("mask", "overlay", "probability", "uncertainty", "label_map", "rle", "boxes")
"""The views that `Segmentation.save` can write."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """Masks of K phrases at the image's own size. It is a sequence of K results with one phrase each.

    Attributes:
        image: uint8 `[H, W, 3]`, RGB.
        phrases: K texts.
        masks: bool `[K, H, W]`.
        probabilities: float32 `[K, H, W]` in [0, 1].
        scores: float32 `[K]`, the mean probability of the pixels above the threshold; 0 without such pixels.
        uncertainty: float32 `[K, H, W]` in [0, 0.5], the standard deviation over several noises; None without
            `noises`.
        threshold: the probability above which a pixel is in a mask.
        unknown_words: for each phrase, the words that the model was not trained on; the mask of such a phrase
            is unreliable. Empty if the model's vocabulary is open.
        no_target_area: masks that cover at most this share of the image are empty.
        no_target_score: masks with a lower score are empty.
    """

    image: UInt8[np.ndarray, "H W 3"]
    phrases: tuple[str, ...]
    masks: Bool[np.ndarray, "K H W"]
    probabilities: Float[np.ndarray, "K H W"]
    scores: Float[np.ndarray, " K"]
    uncertainty: Float[np.ndarray, "K H W"] | None
    threshold: float
    unknown_words: tuple[tuple[str, ...], ...] = ()
    no_target_area: float = 0.0
    no_target_score: float = 0.0

    def __post_init__(self) -> None:
        if not self.unknown_words:
            object.__setattr__(self, "unknown_words", ((),) * len(self.phrases))

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        areas = [f"{area:,} px" if area else "nothing found" for area in self.areas.tolist()]
        masks = ", ".join(f"{p!r}: {area}" for p, area in zip(self.phrases, areas, strict=True))
        return f"Segmentation of {width} x {height} px ({masks})"

    def __len__(self) -> int:
        return len(self.phrases)

    def __getitem__(self, index: SupportsIndex | slice) -> "Segmentation":
        """Returns the result of one phrase, or of a slice of phrases.

        Raises:
            IndexError: there is no phrase with this index.
        """
        if isinstance(index, slice):
            return self._select(index)
        i, count = operator.index(index), len(self)
        if not -count <= i < count:
            raise IndexError(f"[{i}]: the result has {count} phrase{'s' if count != 1 else ''}")
        return self._select(slice(i % count, i % count + 1))

    def _select(self, phrases: slice) -> "Segmentation":
        return dataclasses.replace(
            self,
            phrases=self.phrases[phrases],
            masks=self.masks[phrases],
            probabilities=self.probabilities[phrases],
            scores=self.scores[phrases],
            uncertainty=None if self.uncertainty is None else self.uncertainty[phrases],
            unknown_words=self.unknown_words[phrases],
        )

    def __iter__(self) -> Iterator["Segmentation"]:
        return (self[i] for i in range(len(self)))

    @functools.cached_property
    def found(self) -> Bool[np.ndarray, " K"]:
        """Bool `[K]`: False for an empty mask."""
        return self.areas > 0

    @functools.cached_property
    def areas(self) -> Int[np.ndarray, " K"]:
        """Int `[K]`: the number of pixels of each mask."""
        return self.masks.sum((1, 2))

    @functools.cached_property
    def boxes(self) -> Int[np.ndarray, "K 4"]:
        """Int `[K, 4]`: left, top, right and bottom of each mask in pixels; right and bottom are exclusive.

        All four are 0 for an empty mask.
        """
        boxes = np.zeros((len(self.masks), 4), int)
        for i, mask in enumerate(self.masks):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            if rows.size:
                boxes[i] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        return boxes

    def at_threshold(self, threshold: float) -> "Segmentation":
        """Returns the masks of the same probabilities at another threshold, with the no-target rule applied.

        Raises:
            UserError: `threshold` is not between 0 and 1.
        """
        if not 0 < threshold < 1:
            raise ArgumentError("threshold", f"={threshold!r} must be between 0 and 1")
        sampler = SamplerConfig(
            mask_threshold=threshold,
            no_target_area=self.no_target_area,
            no_target_score=self.no_target_score,
        )
        shape = self.masks.shape[1:]
        masks, scores = zip(*(to_mask(p, shape, sampler) for p in self.probabilities), strict=True)
        return dataclasses.replace(
            self, masks=np.stack(masks), scores=np.asarray(scores, np.float32), threshold=threshold
        )

    def label_map(self) -> Int[np.ndarray, "H W"]:
        """Returns int `[H, W]`: the index of the most probable phrase at each pixel.

        Pixels where no phrase is above the threshold are -1. Phrases with an empty mask have no pixels.
        """
        return most_probable(self.probabilities * self.found[:, None, None], self.threshold)

    def overlay(self) -> Image.Image:
        """Returns the image at its own size, dark grey outside the masks, with a border around each mask.

        With several phrases, a pixel belongs to the most probable phrase, as in `label_map`, and borders have
        the colours of `legend`.
        """
        if len(self.phrases) == 1:
            return Image.fromarray(overlay(self.image, self.masks[0]))
        return Image.fromarray(outlined(self.image, self.label_map()))

    def legend(self) -> Image.Image:
        """Returns an image of the phrases with their colours in `overlay`, about as wide as `image`."""
        return Image.fromarray(legend(self.phrases, self.image.shape[1]))

    def to_rle(self) -> list[dict[str, Any]]:
        """Returns each mask as a COCO RLE: `{"size": [H, W], "counts": text}`."""
        size = list(self.masks.shape[1:])
        return [{"size": size, "counts": rle.encode(mask)} for mask in self.masks]

    def to_dict(self) -> dict[str, Any]:
        """Returns numbers for JSON: `width` and `height` of the image in pixels, and `phrases`, a list with

        - `phrase`: the text;
        - `found`: whether the mask has any pixel;
        - `unknown_words`: see the class;
        - `area`, `share`: pixels of the mask, and their share of the image;
        - `box`: `[left, top, right, bottom]` in pixels, see `boxes`;
        - `score`: see the class.
        """
        height, width = self.image.shape[:2]
        columns = (self.phrases, self.found, self.unknown_words, self.areas, self.boxes, self.scores)
        return {
            "width": width,
            "height": height,
            "phrases": [
                {
                    "phrase": text,
                    "found": bool(found),
                    "unknown_words": list(words),
                    "area": int(area),
                    "share": int(area) / (width * height),
                    "box": box.tolist(),
                    "score": float(score),
                }
                for text, found, words, area, box, score in zip(*columns, strict=True)
            ],
        }

    def save(
        self, directory: epath.PathLike, views: str | Sequence[str] = ("mask", "overlay"), name: str = ""
    ) -> list[epath.Path]:
        """Writes views as PNG and JSON files to a directory and returns their paths.

        Files are VIEW.png, or NAME_VIEW.png. With several phrases, the files of a phrase have its number,
        from 1, and overlay_legend.png is written with overlay.png. label_map.png is paletted: its values are
        the numbers of the phrases, from 1, and 0 for none. It has 16 bits for more than 255 phrases.

        Args:
            directory: directory to write to; it is created if it is missing.
            views: one or several of "mask", "overlay", "probability", "uncertainty", "label_map", "rle" and
                "boxes".
            name: prefix of the file names.

        Raises:
            UserError: a view does not exist or was not computed, or the directory cannot be created.
        """
        views = (views,) if isinstance(views, str) else views
        for view in views:
            if view not in VIEWS:
                raise UserError(f"there is no view {view!r}; choose from {', '.join(VIEWS)}")
            if view == "uncertainty" and self.uncertainty is None:
                raise UserError("uncertainty needs several noises: call the segmenter with noises=8")
        if not isinstance(name, str) or "/" in name or os.sep in name:
            raise ArgumentError("name", f"={name!r} must be a prefix of file names, without a directory")
        if to_path(directory, "directory").suffix.lower() in SUFFIXES:
            raise ArgumentError(
                "directory",
                f"={directory} is the name of a file; give a directory, or save one image: "
                f"result.overlay().save({str(directory)!r})",
            )
        out, prefix, paths = make_directory(directory, "directory"), f"{name}_" if name else "", []
        for view in views:
            for suffix, content in zip(file_suffixes(view, len(self)), self._contents(view), strict=True):
                paths.append(out / f"{prefix}{suffix}")
                with replacing(paths[-1]) as temporary, temporary.open("wb") as file:
                    if isinstance(content, bytes):
                        file.write(content)
                    else:
                        content.save(file, format="PNG")
        return paths

    def _contents(self, view: str) -> list[Any]:
        """Images or bytes, in the order of `file_suffixes`."""
        if view == "rle":
            content = dict(zip(self.phrases, self.to_rle(), strict=True))
            return [json.dumps(content, ensure_ascii=False).encode()]
        if view == "boxes":
            return [json.dumps(self.to_dict(), ensure_ascii=False).encode()]
        if view == "overlay":
            return [self.overlay(), self.legend()] if len(self) > 1 else [self.overlay()]
        if view == "label_map":
            return [label_image(self.label_map(), len(self))]
        arrays = {"mask": self.masks, "probability": self.probabilities, "uncertainty": self.uncertainty}
        scale = 510 if view == "uncertainty" else 255  # a standard deviation is at most 0.5
        return [_grey(array * float(scale)) for array in arrays[view]]


def file_suffixes(view: str, count: int) -> list[str]:
    """Returns the names of a view's files for `count` phrases, without prefix; see `Segmentation.save`."""
    if view in ("rle", "boxes"):
        return [f"{view}.json"]
    if view in ("overlay", "label_map") or count == 1:
        has_legend = view == "overlay" and count > 1
        return [f"{view}.png", *(["overlay_legend.png"] if has_legend else [])]
    return [f"{view}_{i}.png" for i in range(1, count + 1)]


def _grey(levels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.round(levels).astype(np.uint8))
