"""What the page does, without the page: plain values in, images, texts and files out."""

import dataclasses
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import numpy as np
from PIL import Image

from genmask_jax.config import TrainConfig
from genmask_jax.data.refershapes.source import ReferShapesSegment
from genmask_jax.demo.limits import IMAGE_STEPS, MAX_GUIDANCE, MAX_SEED, need_short, read_phrases, reduced
from genmask_jax.demo.noise import Noise, densities
from genmask_jax.errors import UserError
from genmask_jax.images import read_named
from genmask_jax.inference.generator import Generator
from genmask_jax.inference.segmentation import Segmentation
from genmask_jax.inference.segmenter import Segmenter
from genmask_jax.sheets import with_legend, with_palette
from genmask_jax.system import Networks

NOISES = 4
"""Noises whose masks are averaged, and whose spread is the uncertainty."""
EXAMPLES, EXAMPLE_SIDE = 6, 256
LEAST_SIDE = 320
"""Pixels of the long side of an image on the page."""
STRIP = 8
"""Steps that are shown beside a generated image."""
KEPT = 200
"""Results whose files are kept for download."""
DOWNLOADS = ("mask", "overlay", "label_map", "uncertainty", "rle", "boxes")

Captioned = list[tuple[str, str]]
"""Paths of images, and their captions."""


@dataclasses.dataclass(frozen=True)
class Shown:
    """The views of a `Segmentation`: paths of images, for each phrase with a caption, and rows of a table.

    Every result has files of its own: Gradio would write equal images of two visitors to one file, while it
    is being read.
    """

    overlay: str
    masks: Captioned
    label_map: str
    uncertainty: Captioned
    table: list[list[str]]
    files: list[str]


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
        """Paths of test scenes, and a phrase or two for each."""
        source, folder = ReferShapesSegment("test", EXAMPLE_SIDE), self._new_folder()
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
        list(self.generate("a phrase", 0, 1.5, self.default_steps))

    @property
    def default_steps(self) -> int:
        """The number of sampling steps on offer that is closest to the model's own."""
        return min(IMAGE_STEPS, key=lambda steps: abs(steps - self.config.sampler.image_steps))

    def segment(self, image: str | Image.Image | None, text: str) -> Segmentation:
        """Finds the phrases of `text` in an image, which is reduced if it is large. Raises UserError."""
        if image is None:
            raise UserError("Drop an image first, or choose an example")
        phrases = read_phrases(text)
        if isinstance(image, str):
            pixels = read_named(image, f"The file {pathlib.Path(image).name} cannot be read")
        else:
            pixels = np.asarray(image)
        return self.segmenter(reduced(pixels), phrases, noises=NOISES)

    def show(self, found: Segmentation, threshold: float) -> Shown:
        """The views at a threshold in (0, 1), without another pass of the model."""
        found = found.at_threshold(threshold)
        folder, large = self._new_folder(), _enlarged(found)
        files = [str(path) for path in found.save(folder, DOWNLOADS)]
        rows = [
            [
                row["phrase"],
                f"{row['area']:,}",
                f"{row['share']:.1%}",
                _box(row["box"]),
                f"{row['score']:.2f}",
            ]
            for row in found.to_dict()["phrases"]
        ]
        return Shown(
            overlay=_save(_with_legend(large), folder / "shown.png"),
            masks=list(zip(_of_view(files, "mask"), found.phrases, strict=True)),
            label_map=_save(with_palette(large.label_map()), folder / "shown_label_map.png"),
            uncertainty=list(zip(_of_view(files, "uncertainty"), found.phrases, strict=True)),
            table=rows,
            files=files,
        )

    def generate(
        self, prompt: str, seed: float, guidance_scale: float, steps: int
    ) -> Iterator[tuple[str, Captioned]]:
        """Paths of what the model takes the image to be, step by step, and of some steps, at the end.

        Raises:
            UserError: a value is not accepted.
        """
        prompt = need_short(prompt)
        if not 0 <= seed <= MAX_SEED:
            raise UserError(f"The seed must be between 0 and {MAX_SEED}")
        if not 0 <= guidance_scale <= MAX_GUIDANCE:
            raise UserError(f"The guidance scale must be between 0 and {MAX_GUIDANCE:g}")
        if steps not in IMAGE_STEPS:
            raise UserError(f"The number of steps must be one of {', '.join(map(str, IMAGE_STEPS))}")
        images = self.generator.steps(prompt, seed=int(seed), steps=steps, guidance_scale=guidance_scale)
        folder = self._new_folder()
        frames = [_save(image, folder / f"step_{i}.png") for i, image in enumerate(images, 1)]
        for frame in frames[:-1]:
            yield frame, []
        chosen = sorted(set(np.linspace(0, len(frames) - 1, STRIP).round().astype(int).tolist()))
        yield frames[-1], [(frames[i], f"{i + 1}/{len(frames)}") for i in chosen]

    def look_at_noise(self, found: Segmentation | None, t: float) -> list[str]:
        """Paths of what `noise.NAMES` lists, of the first phrase's mask and its image at noise level `t`."""
        if found is None:
            raise UserError("Segment an image first: its mask is shown here")
        pictures = self.noise(found.image, found.masks[0], found.phrases[0], float(np.clip(t, 0, 1)))
        folder = self._new_folder()
        return [_save(Image.fromarray(one), folder / f"{i}.png") for i, one in enumerate(pictures)]

    def densities(self) -> list[tuple[float, float, str]]:
        """(noise level, density, law), for a plot of where each task is trained."""
        rows = []
        for law, values in densities(self.config.timesteps).items():
            centres = (np.arange(len(values)) + 0.5) / len(values)
            rows += [(float(t), float(value), law) for t, value in zip(centres, values, strict=True)]
        return rows

    def _new_folder(self) -> pathlib.Path:
        self._folders.append(pathlib.Path(tempfile.mkdtemp(dir=self._folder.name)))
        if len(self._folders) > KEPT:
            shutil.rmtree(self._folders.pop(0), ignore_errors=True)
        return self._folders[-1]


def _save(image: Image.Image, path: pathlib.Path) -> str:
    image.save(path)
    return str(path)


def _of_view(files: list[str], view: str) -> list[str]:
    return [path for path in files if pathlib.Path(path).name.startswith(view)]


def _enlarged(found: Segmentation) -> Segmentation:
    """With every pixel of a small image repeated, so that a legend does not dwarf it."""
    factor = -(-LEAST_SIDE // max(found.image.shape[:2]))

    def grow(array: np.ndarray, axis: int) -> np.ndarray:
        return array.repeat(factor, axis).repeat(factor, axis + 1)

    return dataclasses.replace(
        found,
        image=grow(found.image, 0),
        masks=grow(found.masks, 1),
        probabilities=grow(found.probabilities, 1),
        uncertainty=None,
    )


def _with_legend(found: Segmentation) -> Image.Image:
    shown = found.overlay()
    return shown if len(found) == 1 else Image.fromarray(with_legend(np.asarray(shown), found.phrases))


def _box(box: list[int]) -> str:
    left, top, right, bottom = box
    return f"{left}, {top} to {right}, {bottom}" if right else "none"
