"""Scenes of Stamps: loads the prepared images, places objects and composes the image."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from etils import epath
from PIL import Image

from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import load_image
from genmask_jax.utils.paths import is_inside, need_regular, parse_json, read_text

SPLITS = {"train": 1_000_000, "val": 2048, "test": 4096}
STAMP_SIDES, BACKGROUND_SIDES = (192, 80), (640, 280)
"""Sizes in which images are kept (long side, pixels), so that composing shrinks them only a little."""


@dataclasses.dataclass(frozen=True)
class Stamp:
    """One cut-out: its name, colour word, shares of colours, and image (premultiplied RGBA) in each size."""

    name: str
    colour: str | None
    shares: dict[str, float]
    seen: bool
    images: tuple[Image.Image, ...]


@dataclasses.dataclass(frozen=True)
class Scene:
    """Placed stamps, from back to front.

    stamps: the N stamps.
    masks: bool [N, S, S], the visible parts.
    full_areas: float [N], number of pixels of each stamp in the image, including hidden ones.
    layers: rows, columns and pixels (uint8, premultiplied RGBA) of each stamp.
    """

    stamps: tuple[Stamp, ...]
    masks: np.ndarray
    full_areas: np.ndarray
    layers: tuple[tuple[slice, slice, np.ndarray], ...]

    @functools.cached_property
    def areas(self) -> np.ndarray:
        """Number of visible pixels of each stamp, float [N], at least 1."""
        return np.maximum(1.0, self.masks.sum((1, 2)))

    @functools.cached_property
    def centres(self) -> np.ndarray:
        """Centres (x, y) of the visible parts, as shares of the side, [N, 2]; (0, 0) for a hidden stamp."""
        side = self.masks.shape[1]
        axis = (np.arange(side) + 0.5) / side
        moments = np.stack([self.masks.sum(1) @ axis, self.masks.sum(2) @ axis], axis=1)
        return moments / self.areas[:, None]


Background = tuple[Image.Image, ...]  # one photograph, RGB, in two sizes


@functools.lru_cache(maxsize=2)
def load(path: str) -> tuple[tuple[Stamp, ...], dict[str, list[Background]]]:
    """Stamps, and backgrounds by split, of a prepared directory; read once per process.

    Raises:
        UserError: the directory does not exist or was not made by launch/prepare_data.py.
    """
    folder = epath.Path(path)
    try:
        index = parse_json(read_text(folder / "index.json"))
        stamps = tuple(
            Stamp(e["name"], e["colour"], e["colour_shares"], e["seen"], _sizes(folder, e["file"], "RGBa"))
            for e in index["objects"]
        )
        backgrounds: dict[str, list[Background]] = {split: [] for split in SPLITS}
        for entry in index[
            "backgrounds" if "backgrounds" in index else "grounds"
        ]:  # key in older directories
            backgrounds[entry["split"]].append(_sizes(folder, entry["file"], "RGB"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"config.data.path={path} has no Stamps dataset ({type(error).__name__}); make one with "
            f"python launch/prepare_data.py stamps --out=DIR"
        ) from error
    return stamps, backgrounds


def _sizes(folder: epath.Path, name: str, mode: str) -> tuple[Image.Image, ...]:
    """An image in several sizes. Raises ValueError if it is outside the folder or cannot be read."""
    if not is_inside(folder / name, folder):
        raise ValueError(f"{name} is outside the folder")
    need_regular(folder / name)
    image, sizes = load_image((folder / name).read_bytes()).convert(mode), []
    for side in STAMP_SIDES if mode == "RGBa" else BACKGROUND_SIDES:
        image.thumbnail((side, side))
        sizes.append(image.copy())
    return tuple(sizes)


def place_stamps(rng: np.random.Generator, stamps: list[Stamp], size: int) -> Scene:
    """Places stamps at random places and sizes, partly overlapping; later ones are in front."""
    masks, full_areas, layers = np.zeros((len(stamps), size, size), bool), np.zeros(len(stamps)), []
    for i, stamp in enumerate(stamps):
        side = size * rng.uniform(0.25, 0.6 if len(stamps) < 4 else 0.5)
        image = _smallest(stamp.images, side)
        scale = side / max(image.size)
        width, height = (max(1, round(n * scale)) for n in image.size)
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
        if rng.random() < 0.5:
            pixels = pixels[:, ::-1]
        # Up to a tenth of an object may be outside of the image.
        left, top = (int(rng.integers(-(n // 10), size - n + n // 10 + 1)) for n in (width, height))
        rows, columns = slice(max(0, top), top + height), slice(max(0, left), left + width)
        pixels = pixels[rows.start - top : size - top, columns.start - left : size - left]
        covered = pixels[..., 3] > 127
        masks[:i, rows, columns] &= ~covered
        masks[i, rows, columns] = covered
        full_areas[i] = covered.sum()
        layers.append((rows, columns, pixels))
    return Scene(tuple(stamps), masks, full_areas, tuple(layers))


def compose(rng: np.random.Generator, scene: Scene, backgrounds: list[Background]) -> np.ndarray:
    """Composes a scene on a random crop of a background, with slightly changed light: uint8 [S, S, 3]."""
    size, background = scene.masks.shape[1], backgrounds[rng.integers(len(backgrounds))]
    share = rng.uniform(0.4, 1.0)
    photo = _smallest(background, size / share * max(background[0].size) / min(background[0].size))
    side = min(photo.size) * share
    left, top = (rng.uniform(0, n - side) for n in photo.size)
    box = (left, top, left + side, top + side)
    image = np.asarray(photo.resize((size, size), Image.Resampling.BILINEAR, box=box), np.float32)
    if rng.random() < 0.5:
        image = image[:, ::-1]
    light = rng.uniform(0.85, 1.12, 3), rng.uniform(-12, 12)
    image = np.clip(image * light[0].astype(np.float32) + np.float32(light[1]), 0, 255)
    for rows, columns, pixels in scene.layers:  # colours are already multiplied by alpha
        image[rows, columns] *= 1 - pixels[..., 3:] * np.float32(1 / 255)
        image[rows, columns] += pixels[..., :3]
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def _smallest(images: Sequence[Image.Image], side: float) -> Image.Image:
    """The smallest of images (largest first) with a long side of at least `side`, else the largest."""
    return next((image for image in reversed(images) if max(image.size) >= side), images[0])
