"""From prompts to images: what a user of the library calls."""

from collections.abc import Sequence
from typing import Any, overload

from jax.sharding import Mesh
from PIL import Image

from genmask_jax.config import SamplerConfig, with_given
from genmask_jax.errors import ArgumentError, shown
from genmask_jax.inference.arguments import read_integer, read_seed, read_texts, warn_of_unknown_words
from genmask_jax.inference.batching import bucket_size
from genmask_jax.inference.image_sampler import ImageSampler
from genmask_jax.inference.load import load
from genmask_jax.instruction.base import unknown_words
from genmask_jax.pretrained import PROMPT
from genmask_jax.system import Networks

BATCH_SIZE = 8
"""Images per batch; at most half as many are generated one by one."""
CANDIDATES = 4
"""How many images of a prompt there are to choose from."""


class Generator:
    """Generates images.

    generator = Generator.from_pretrained("refershapes")
    generator("a large red circle", seed=1).save("circle.png")
    generator.candidates("a large red circle", 4)    # four images, of seeds 0 to 3

    All generators of models of one shape share their compiled programs, which are kept on disk
    (`inference/programs.py`).
    """

    def __init__(self, networks: Networks, sampler: SamplerConfig):
        """`networks` and `sampler` as from `load`."""
        self.networks, self.sampler = networks, sampler
        self._samplers: dict[tuple[int, int], ImageSampler] = {}

    @classmethod
    def from_pretrained(cls, name: str, *, step: str | int = "last", mesh: Mesh | None = None) -> "Generator":
        """Loads a model; for the arguments see `Segmenter.from_pretrained`. Raises UserError."""
        networks, config, _ = load(name, str(step), mesh)
        return cls(networks, config.sampler)

    @overload
    def __call__(
        self, prompts: str, *, seed: int = 0, steps: int | None = None, guidance_scale: float | None = None
    ) -> Image.Image: ...

    @overload
    def __call__(
        self,
        prompts: Sequence[str],
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance_scale: float | None = None,
    ) -> list[Image.Image]: ...

    def __call__(self, prompts, *, seed=0, steps=None, guidance_scale=None):
        """One image, or one for each prompt of a list.

        A prompt with words that the model cannot know causes an `UnknownWordWarning`.

        Args:
            prompts: what to draw.
            seed: of the noise, 0 to 2^32 - 1; the n-th image of a list depends on the seed and n alone.
            steps: of the sampler; the model's own if None.
            guidance_scale: of classifier-free guidance; 1 is none; the model's own if None.

        Raises:
            UserError: a value is out of range, or there is no prompt.
        """
        texts, sampler = self._prepare(prompts, seed, steps, guidance_scale)
        warn_of_unknown_words(self.networks.preparer, texts)
        images = sampler(texts, seed=int(seed), guidance_scale=guidance_scale)
        pictures = [Image.fromarray(image) for image in images]
        return pictures[0] if isinstance(prompts, str) else pictures

    def candidates(
        self,
        prompt: str,
        count: int = CANDIDATES,
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance_scale: float | None = None,
    ) -> list[Image.Image]:
        """Several images of one prompt, to choose from: those of `seed`, `seed + 1` and so on.

        Each is the image that a call with its seed alone gives, up to rounding in another batch size.

        Args:
            prompt: what to draw.
            count: how many images.
            seed: of the first image; for the other arguments and errors see `__call__`.
        """
        _need_text(prompt)
        count = read_integer("count", count, 1)
        read_seed(seed)
        read_seed(seed + count - 1, "seed + count - 1")
        texts, sampler = self._prepare([prompt] * count, seed, steps, guidance_scale)
        warn_of_unknown_words(self.networks.preparer, [prompt])
        found = sampler(texts, seed=range(int(seed), int(seed) + count), guidance_scale=guidance_scale)
        return [Image.fromarray(image) for image in found]

    def steps(
        self, prompt: str, *, seed: int = 0, steps: int | None = None, guidance_scale: float | None = None
    ) -> list[Image.Image]:
        """What the model takes the image to be after each step, the last being the image itself.

        For the arguments and errors see `__call__`.
        """
        _need_text(prompt)
        texts, sampler = self._prepare(prompt, seed, steps, guidance_scale)
        warn_of_unknown_words(self.networks.preparer, texts)
        found = sampler.steps(prompt, seed=int(seed), guidance_scale=guidance_scale)
        return [Image.fromarray(image) for image in found]

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """The words of a prompt that the model cannot know; see `Segmentation.unknown_words`."""
        return unknown_words(self.networks.preparer, prompt)

    def _prepare(
        self, prompts: Any, seed: Any, steps: Any, guidance_scale: Any
    ) -> tuple[list[str], ImageSampler]:
        """The prompts as a list, and the sampler for them, after all arguments were checked."""
        texts = read_texts("prompts", prompts, PROMPT)
        read_seed(seed)
        if steps is not None:
            steps = read_integer("steps", steps, 1)
        with_given(self.sampler, guidance_scale=guidance_scale)  # in range?
        sampler = with_given(self.sampler, image_steps=steps)
        size = bucket_size(len(texts), BATCH_SIZE, self.networks.mesh)
        if (sampler.image_steps, size) not in self._samplers:
            made = ImageSampler(self.networks, sampler, batch_size=size)
            self._samplers[sampler.image_steps, size] = made
        return texts, self._samplers[sampler.image_steps, size]


def _need_text(prompt: Any) -> None:
    if not isinstance(prompt, str):
        raise ArgumentError("prompt", f"={shown(prompt)} is not a text; give one prompt, such as {PROMPT!r}")
