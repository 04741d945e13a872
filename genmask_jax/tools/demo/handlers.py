"""What the page does, without the page: plain values in, results and paths of pictures out."""

import dataclasses
import functools
import pathlib
import shutil
import tempfile
from collections.abc import Iterable

import numpy as np
from PIL import Image

from genmask_jax.config import TrainConfig
from genmask_jax.data.sources import scored_source
from genmask_jax.inference.generator import Generator
from genmask_jax.inference.segmentation import Segmentation
from genmask_jax.inference.segmenter import Segmenter
from genmask_jax.system import Networks
from genmask_jax.tools.demo.limits import (
    IMAGE_STEPS,
    MAX_CANDIDATES,
    MAX_GUIDANCE,
    MAX_SEED,
    need_short,
    read_phrases,
    reduced,
)
from genmask_jax.tools.demo.noise import NAMES, Noise, densities, spread
from genmask_jax.tools.demo.views import Shown
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import read_named
from genmask_jax.utils.sheets import heat, outlined, with_palette

NOISES = 4
"""Noises whose masks are averaged, and whose spread is the uncertainty."""
EXAMPLES, EXAMPLE_SIDE = 6, 256
LEAST_SIDE = 480
"""Pixels of the long side of a picture on the page."""
LEAST_TOP = 0.02
"""Of the uncertainty's colours: less is not made brighter."""
KEPT = 200
"""Results whose files are kept for download."""
DOWNLOADS = ("mask", "overlay", "label_map", "uncertainty", "rle", "boxes")


class Handlers:
    """The page's work on one model. Files for download lie in a directory that goes with the process."""

    def __init__(self, networks: Networks, config: TrainConfig):
        """`networks` and `config` as from `load`."""
        self.config = config
        self.segmenter = Segmenter(networks, config.sampler)
        self.generator = Generator(networks, config.sampler)
        self.noise = Noise(networks)
        self.threshold = config.sampler.mask_threshold
        self._folder = tempfile.TemporaryDirectory(prefix="genmask_demo_")
        self.folder = self._folder.name
        self._folders: list[pathlib.Path] = []
        self.examples = self._draw_examples() if config.data.name == "refershapes" else []

    def _draw_examples(self) -> list[tuple[str, str]]:
        """Paths of test scenes in the style of the model's own, and a phrase or two for each."""
        data = dataclasses.replace(self.config.data, size=EXAMPLE_SIDE)
        source, folder = scored_source(data, "test"), self._new_folder()
        self._folders.clear()  # these stay
        examples = []
        for i in range(EXAMPLES):
            example, path = source[i], folder / f"scene_{i + 1}.png"
            Image.fromarray(example["image"]).save(path)
            other = f"; {example['other_text']}" if i % 2 and example["other_text"] else ""
            examples.append((str(path), example["text"] + other))
        return examples

    def warm_up(self) -> None:
        """Compiles what most visitors ask for first."""
        side = self.segmenter.networks.size
        found = self.segment(Image.new("RGB", (side, side), "grey"), "a phrase")
        self.segment(Image.new("RGB", (side, side), "grey"), "a phrase; another")
        self.look_at_noise(found, 0.5)
        self.generate("a phrase", 0, 1, 1.5, self.default_steps)

    @property
    def default_steps(self) -> int:
        """The number of sampling steps on offer that is closest to the model's own."""
        return min(IMAGE_STEPS, key=lambda steps: abs(steps - self.config.sampler.image_steps))

    @functools.cached_property
    def first(self) -> Segmentation | None:
        """The first example, for visitors who have segmented nothing yet; None if there are no examples."""
        return self.segment(*self.examples[0]) if self.examples else None

    def segment(self, image: str | Image.Image | None, text: str) -> Segmentation:
        """Finds the phrases of `text` in an image, which is reduced if it is large. Raises UserError."""
        if image is None:
            raise UserError("Add an image first, or choose an example.")
        phrases = read_phrases(text)
        if isinstance(image, str):
            pixels = read_named(image, f"The file {pathlib.Path(image).name} cannot be read")
        else:
            pixels = np.asarray(image)
        return self.segmenter(reduced(pixels), phrases, noises=NOISES)

    def show(self, found: Segmentation, threshold: float) -> Shown:
        """The views at a threshold in (0, 1), without another pass of the model."""
        found = found.at_threshold(threshold)
        folder, factor = self._new_folder(), -(-LEAST_SIDE // max(found.image.shape[:2]))
        assert found.uncertainty is not None  # `segment` asks for several noises
        top = max(LEAST_TOP, float(found.uncertainty.max()))
        image, labels = (_enlarged(one, factor) for one in (found.image, found.label_map()))

        def save(pictures: Iterable[np.ndarray], name: str) -> list[str]:
            images = (Image.fromarray(_enlarged(one, factor)) for one in pictures)
            return [_save(one, folder / f"shown_{name}_{i}.png") for i, one in enumerate(images, 1)]

        return Shown(
            found=found,
            overlay=_save(Image.fromarray(outlined(image, labels)), folder / "shown_overlay.png"),
            label_map=_save(with_palette(labels), folder / "shown_label_map.png"),
            masks=save(found.masks, "mask"),
            uncertainty=save((heat(one, top) for one in found.uncertainty), "uncertainty"),
            top=top,
            files=[str(path) for path in found.save(folder, DOWNLOADS)],
        )

    def generate(
        self, prompt: str, seed: float | None, count: float | None, guidance_scale: float, steps: int
    ) -> dict[int, list[str]]:
        """Draws `count` candidates of a prompt, with seeds from `seed` on.

        Returns:
            By seed, paths of what the model takes the image to be after each step, the last being the image.

        Raises:
            UserError: a value is not accepted.
        """
        prompt = need_short(prompt)
        if count is None or int(count) not in range(1, MAX_CANDIDATES + 1):
            raise UserError(f"The number of images must be between 1 and {MAX_CANDIDATES}.")
        if seed is None or not 0 <= seed <= MAX_SEED + 1 - count:
            raise UserError(f"The seeds must be between 0 and {MAX_SEED:,}.")
        if not 0 <= guidance_scale <= MAX_GUIDANCE:
            raise UserError(f"The guidance scale must be between 0 and {MAX_GUIDANCE:g}.")
        if steps not in IMAGE_STEPS:
            raise UserError(f"The number of steps must be one of {', '.join(map(str, IMAGE_STEPS))}.")
        folder, drawn = self._new_folder(), {}
        for one in range(int(seed), int(seed) + int(count)):
            images = self.generator.steps(prompt, seed=one, steps=steps, guidance_scale=guidance_scale)
            paths = (folder / f"seed_{one}_step_{i}.png" for i in range(1, steps + 1))
            drawn[one] = [_save(image, path) for image, path in zip(images, paths, strict=True)]
        return drawn

    def look_at_noise(self, found: Segmentation, t: float) -> dict[str, str]:
        """Paths of the first phrase's mask and image at noise level `t`, by the names of `noise.NAMES`."""
        pictures = self.noise(found.image, found.masks[0], found.phrases[0], float(np.clip(t, 0, 1)))
        folder = self._new_folder()
        paths = [_save(Image.fromarray(one), folder / f"noise_{i}.png") for i, one in enumerate(pictures)]
        return dict(zip(NAMES, paths, strict=True))

    def densities(self) -> dict[str, np.ndarray]:
        """Where this model's training drew noise levels (see `noise.densities`)."""
        return densities(self.config.timesteps)

    def image_levels(self) -> tuple[float, float]:
        """The noise levels between which half of this model's images were trained."""
        return spread(self.config.timesteps.generate)

    def _new_folder(self) -> pathlib.Path:
        self._folders.append(pathlib.Path(tempfile.mkdtemp(dir=self._folder.name)))
        while len(self._folders) > KEPT:
            shutil.rmtree(self._folders.pop(0), ignore_errors=True)
        return self._folders[-1]


def _save(image: Image.Image, path: pathlib.Path) -> str:
    image.save(path)
    return str(path)


def _enlarged(array: np.ndarray, factor: int) -> np.ndarray:
    """With every pixel repeated, so that a browser does not blur a small image."""
    return array.repeat(factor, 0).repeat(factor, 1)
