"""The masks of an image's phrases: what `Segmenter` returns."""

import dataclasses
import functools
import json
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from genmask_jax.data import masks as rle
from genmask_jax.errors import UserError
from genmask_jax.inference.masks import most_probable
from genmask_jax.paths import make_directory, replacing
from genmask_jax.sheets import overlay, paint_labels, with_legend, with_palette

VIEWS = ("mask", "overlay", "probability", "uncertainty", "label_map", "rle", "boxes")
"""What `Segmentation.save` can write."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """Masks of K phrases at the image's own size.

    image: uint8 [H, W, 3].
    phrases: K texts.
    masks: bool [K, H, W].
    probabilities: float32 [K, H, W] in [0, 1].
    scores: float32 [K], the mean probability of each mask's pixels; 0 for an empty mask.
    uncertainty: float32 [K, H, W], the standard deviation over several noises; None if not asked for.
    threshold: the probability above which a pixel is in a mask.
    """

    image: UInt8[np.ndarray, "H W 3"]
    phrases: tuple[str, ...]
    masks: Bool[np.ndarray, "K H W"]
    probabilities: Float[np.ndarray, "K H W"]
    scores: Float[np.ndarray, " K"]
    uncertainty: Float[np.ndarray, "K H W"] | None
    threshold: float

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        found = ", ".join(f"{p!r}: {a:,} px" for p, a in zip(self.phrases, self.areas, strict=True))
        return f"Segmentation of {width} x {height} px ({found})"

    @functools.cached_property
    def areas(self) -> Int[np.ndarray, " K"]:
        """The number of pixels of each mask."""
        return self.masks.sum((1, 2))

    @functools.cached_property
    def boxes(self) -> Int[np.ndarray, "K 4"]:
        """Left, top, right, bottom of each mask, in pixels; right and bottom lie outside. 0 if empty."""
        found = np.zeros((len(self.masks), 4), int)
        for i, mask in enumerate(self.masks):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            if rows.size:
                found[i] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        return found

    def at_threshold(self, threshold: float) -> "Segmentation":
        """The masks of the same probabilities at another threshold; no rule empties them."""
        masks = self.probabilities > threshold
        pairs = zip(self.probabilities, masks, strict=True)
        scores = [float(one[mask].mean(dtype=np.float64)) if mask.any() else 0.0 for one, mask in pairs]
        return dataclasses.replace(
            self, masks=masks, scores=np.asarray(scores, np.float32), threshold=threshold
        )

    def label_map(self) -> Int[np.ndarray, "H W"]:
        """The number of the most probable phrase at each pixel; -1 where none is above the threshold."""
        return most_probable(self.probabilities, self.threshold)

    def overlay(self) -> Image.Image:
        """The image with its mask shown; of several phrases, with their label map and a legend."""
        if len(self.phrases) == 1:
            return Image.fromarray(overlay(self.image, self.masks[0]))
        return Image.fromarray(with_legend(paint_labels(self.image, self.label_map()), self.phrases))

    def to_rle(self) -> list[dict[str, Any]]:
        """Each mask as COCO's RLE: {"size": [H, W], "counts": text}."""
        size = list(self.masks.shape[1:])
        return [{"size": size, "counts": rle.encode(mask)} for mask in self.masks]

    def to_dict(self) -> dict[str, Any]:
        """Numbers of each phrase, for JSON: phrase, area (pixels and share), box, score."""
        pixels = self.masks[0].size
        rows = zip(self.phrases, self.areas.tolist(), self.boxes.tolist(), self.scores.tolist(), strict=True)
        return {
            "size": list(self.masks.shape[1:]),
            "phrases": [
                {"phrase": text, "area": area, "share": area / pixels, "box": box, "score": score}
                for text, area, box, score in rows
            ],
        }

    def save(
        self, directory: epath.PathLike, views: tuple[str, ...] = ("mask", "overlay"), name: str = ""
    ) -> list[epath.Path]:
        """Writes `views` (of VIEWS) as PNG and JSON files to a directory and returns their paths.

        Files are VIEW.png, or NAME_VIEW.png; those of a phrase among several have its number, from 1 on.
        label_map.png is paletted: its values are the phrases' numbers, 0 for none.

        Raises:
            UserError: a view does not exist or was not computed, or the directory cannot be made.
        """
        for view in views:
            if view not in VIEWS:
                raise UserError(f"there is no view {view!r}; there are {', '.join(VIEWS)}")
            if view == "uncertainty" and self.uncertainty is None:
                raise UserError("uncertainty needs several noises: call the segmenter with noises=8")
        out, stem, written = make_directory(directory, "directory"), f"{name}_" if name else "", []
        for view in views:
            for end, content in self._files(view):
                written.append(out / f"{stem}{end}")
                with replacing(written[-1]) as beside, beside.open("wb") as file:
                    if isinstance(content, bytes):
                        file.write(content)
                    else:
                        content.save(file, format="PNG")
        return written

    def _files(self, view: str) -> list[tuple[str, Any]]:
        """Endings of names, and images or bytes."""
        if view == "rle":
            content = dict(zip(self.phrases, self.to_rle(), strict=True))
            return [("rle.json", json.dumps(content, ensure_ascii=False).encode())]
        if view == "boxes":
            return [("boxes.json", json.dumps(self.to_dict(), ensure_ascii=False).encode())]
        if view == "overlay":
            return [("overlay.png", self.overlay())]
        if view == "label_map":
            return [("label_map.png", with_palette(self.label_map()))]
        arrays = {"mask": self.masks, "probability": self.probabilities, "uncertainty": self.uncertainty}
        scale = 510 if view == "uncertainty" else 255  # a standard deviation is at most 0.5
        many = len(self.phrases) > 1
        return [
            (f"{view}{f'_{i}' if many else ''}.png", _grey(array * float(scale)))
            for i, array in enumerate(arrays[view], 1)
        ]


def _grey(levels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.round(levels).astype(np.uint8))
