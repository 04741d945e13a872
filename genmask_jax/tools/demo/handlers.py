"""The work of the page, without its layout: takes plain values, returns results and paths of pictures."""

import dataclasses
import functools
import math
import pathlib
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable
from typing import Any

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
    ModelThread,
    check_pixels,
    limit_size,
    normalize_text,
    read_number,
    read_phrases,
)
from genmask_jax.tools.demo.noise import PICTURE_NAMES, NoisePreview, densities, quartiles
from genmask_jax.tools.demo.views import ResultView
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import read_named
from genmask_jax.utils.sheets import heat, outlined, with_palette

NUM_NOISES = 4
"""Number of noises whose masks are averaged; their standard deviation is the uncertainty."""
NUM_EXAMPLES, EXAMPLE_SIZE = 6, 256
MIN_DISPLAY_SIZE = 480
"""Smallest long side of a picture on the page, in pixels; smaller images are enlarged."""
MIN_COLOUR_RANGE = 0.02
"""Smallest value of the uncertainty that has the brightest colour."""
MAX_RESULTS = 200
"""Number of results whose files remain available for download."""
DOWNLOAD_VIEWS = ("mask", "overlay", "label_map", "uncertainty", "rle", "boxes")


class Handlers:
    """Runs one model for the page. Files are in a temporary directory that is deleted with the process.

    directory: files of results.
    uploads: files of visitors.
    """

    def __init__(self, networks: Networks, config: TrainConfig):
        """Takes the networks and the config of a model, as returned by `load`."""
        self.config = config
        self.segmenter = Segmenter(networks, config.sampler)
        self.generator = Generator(networks, config.sampler)
        self.noise_preview = NoisePreview(networks)
        self.max_seconds = math.inf
        """Longest time of a request; `warm_up`, which compiles, comes before there is a limit."""
        self._model = ModelThread()
        self.threshold = config.sampler.mask_threshold
        self._temporary = tempfile.TemporaryDirectory(prefix="genmask_demo_")
        folders = [pathlib.Path(self._temporary.name) / name for name in ("results", "uploads")]
        for folder in folders:
            folder.mkdir()
        self.directory, self.uploads = folders
        self._directories: list[pathlib.Path] = []
        self._lock = threading.Lock()
        self.examples = self._draw_examples() if config.data.name == "refershapes" else []

    def _draw_examples(self) -> list[tuple[str, str]]:
        """Returns paths of test scenes in the style of the training data, each with one or two phrases."""
        data = dataclasses.replace(self.config.data, size=EXAMPLE_SIZE)
        source, directory = scored_source(data, "test"), self._new_directory()
        self._directories.clear()  # the examples are never deleted
        examples = []
        for i in range(NUM_EXAMPLES):
            example, path = source[i], directory / f"scene_{i + 1}.png"
            Image.fromarray(example["image"]).save(path)
            other = f"; {example['other_text']}" if i % 2 and example["other_text"] else ""
            examples.append((str(path), example["text"] + other))
        return examples

    def warm_up(self) -> None:
        """Compiles the programs that most requests need."""
        side = self.segmenter.networks.size
        grey = Image.new("RGB", (side, side), "grey")
        result = self.segment(grey, "a phrase")
        self.segment(grey, "a phrase; another")
        self.preview_noise(result, 0.5)
        self.generate("a phrase", 0, 1, 1.5, self.default_steps)

    @property
    def default_steps(self) -> int:
        """The offered number of sampling steps that is closest to the model's own."""
        return min(IMAGE_STEPS, key=lambda steps: abs(steps - self.config.sampler.image_steps))

    @functools.cached_property
    def example_result(self) -> Segmentation | None:
        """The result of the first example, shown before a visitor's first result; None without examples."""
        return self.segment(*self.examples[0]) if self.examples else None

    def segment(self, image: str | Image.Image | None, text: Any) -> Segmentation:
        """Segments an image, reduced if it is large, by the phrases of `text`. Raises UserError."""
        if image is None:
            raise UserError("Add an image first, or choose an example.")
        phrases = read_phrases(text)
        if isinstance(image, str):
            name = f"The file {pathlib.Path(image).name} cannot be read"
            check_pixels(image, name)
            pixels = read_named(image, name)
        else:
            pixels = np.asarray(image)
        return self._model.run(self._end(), self.segmenter, limit_size(pixels), phrases, noises=NUM_NOISES)

    def render(self, result: Segmentation, threshold: Any) -> ResultView:
        """Draws a result at a threshold, without another pass of the model.

        Raises:
            UserError: the threshold is not in [0.01, 0.99].
        """
        result = result.at_threshold(read_number(threshold, "The threshold", 0.01, 0.99))
        directory, factor = self._new_directory(), -(-MIN_DISPLAY_SIZE // max(result.image.shape[:2]))
        assert result.uncertainty is not None  # `segment` uses several noises
        colour_range = max(MIN_COLOUR_RANGE, float(result.uncertainty.max()))
        image, labels = _enlarge(result.image, factor), _enlarge(result.label_map(), factor)

        def save(arrays: Iterable[np.ndarray], name: str) -> list[str]:
            images = (Image.fromarray(_enlarge(array, factor)) for array in arrays)
            return [_save(image, directory / f"shown_{name}_{i}.png") for i, image in enumerate(images, 1)]

        return ResultView(
            result=result,
            overlay=_save(Image.fromarray(outlined(image, labels)), directory / "shown_overlay.png"),
            label_map=_save(with_palette(labels), directory / "shown_label_map.png"),
            masks=save(result.masks, "mask"),
            uncertainty=save((heat(array, colour_range) for array in result.uncertainty), "uncertainty"),
            colour_range=colour_range,
            files=[str(path) for path in result.save(directory, DOWNLOAD_VIEWS)],
        )

    def generate(
        self, prompt: Any, seed: Any, count: Any, guidance_scale: Any, steps: Any
    ) -> dict[int, list[str]]:
        """Generates `count` candidate images of a prompt, with the seeds `seed`, `seed + 1`, ...

        Returns:
            For each seed, paths of the predicted image after each step; the last is the result.

        Raises:
            UserError: a value is out of range, or the images take longer than `max_seconds`.
        """
        prompt = normalize_text(prompt)
        number = int(read_number(count, "The number of images", 1, MAX_CANDIDATES))
        first = int(read_number(seed, "The seeds", 0, MAX_SEED))
        read_number(first + number - 1, "The seeds", 0, MAX_SEED)
        guidance_scale = read_number(guidance_scale, "The guidance scale", 0, MAX_GUIDANCE)
        if not isinstance(steps, int) or steps not in IMAGE_STEPS:
            raise UserError(f"The number of steps must be one of {', '.join(map(str, IMAGE_STEPS))}.")
        directory, frames, end = self._new_directory(), {}, self._end()
        options = {"steps": steps, "guidance_scale": guidance_scale}
        for candidate in range(first, first + number):
            images = self._model.run(end, self.generator.steps, prompt, seed=candidate, **options)
            paths = (directory / f"seed_{candidate}_step_{i}.png" for i in range(1, steps + 1))
            frames[candidate] = [_save(image, path) for image, path in zip(images, paths, strict=True)]
        return frames

    def preview_noise(self, result: Segmentation, t: Any) -> dict[str, str]:
        """Returns paths of the four pictures at noise level `t`, by name (`noise.PICTURE_NAMES`)."""
        level = read_number(t, "The noise level", 0, 1)
        inputs = result.image, result.masks[0], result.phrases[0], level
        pictures = self._model.run(self._end(), self.noise_preview, *inputs)
        directory = self._new_directory()
        paths = [_save(Image.fromarray(p), directory / f"noise_{i}.png") for i, p in enumerate(pictures)]
        return dict(zip(PICTURE_NAMES, paths, strict=True))

    def densities(self) -> dict[str, np.ndarray]:
        """Returns the density of noise levels in this model's training (see `noise.densities`)."""
        return densities(self.config.timesteps)

    def image_level_quartiles(self) -> tuple[float, float]:
        """Returns the quartiles of the noise levels that images were trained at."""
        return quartiles(self.config.timesteps.generate)

    def _end(self) -> float:
        """The time at which a request that starts now has taken too long."""
        return time.monotonic() + self.max_seconds

    def _new_directory(self) -> pathlib.Path:
        directory = pathlib.Path(tempfile.mkdtemp(dir=self.directory))
        with self._lock:  # threshold changes are drawn while the model runs
            self._directories.append(directory)
            while len(self._directories) > MAX_RESULTS:
                shutil.rmtree(self._directories.pop(0), ignore_errors=True)
        return directory


def _save(image: Image.Image, path: pathlib.Path) -> str:
    image.save(path)
    return str(path)


def _enlarge(array: np.ndarray, factor: int) -> np.ndarray:
    """Repeats every pixel, so that browsers do not blur small images."""
    return array.repeat(factor, 0).repeat(factor, 1)
