"""From prompts to images: what a user of the library calls."""

from collections.abc import Sequence
from typing import overload

from jax.sharding import Mesh
from PIL import Image

from genmask_jax.config import SamplerConfig, with_given
from genmask_jax.errors import UserError
from genmask_jax.inference.batching import bucket_size
from genmask_jax.inference.image_sampler import ImageSampler
from genmask_jax.inference.load import load
from genmask_jax.system import Networks

BATCH_SIZE = 16
"""Images per batch; fewer are generated in smaller batches."""


class Generator:
    """Generates images.

    generator = Generator.from_pretrained("refershapes")
    generator("a red star", seed=1).save("star.png")
    """

    def __init__(self, networks: Networks, sampler: SamplerConfig):
        """`networks` and `sampler` as from `load`."""
        self.networks, self.sampler = networks, sampler
        self._samplers: dict[tuple[int, int], ImageSampler] = {}

    @classmethod
    def from_pretrained(cls, name: str, *, step: str = "last", mesh: Mesh | None = None) -> "Generator":
        """Loads a model; for the arguments see `Segmenter.from_pretrained`. Raises UserError."""
        networks, config, _ = load(name, step, mesh)
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

        Args:
            prompts: what to draw.
            seed: of the noise; the n-th image of a list depends on the seed and n alone.
            steps: of the sampler; the model's own if None.
            guidance_scale: of classifier-free guidance; 1 is none; the model's own if None.

        Raises:
            UserError: a value is out of range, or there is no prompt.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        sampler = self._sampler(texts, steps, guidance_scale)
        images = sampler(texts, seed=seed, guidance_scale=guidance_scale)
        pictures = [Image.fromarray(image) for image in images]
        return pictures[0] if isinstance(prompts, str) else pictures

    def steps(
        self, prompt: str, *, seed: int = 0, steps: int | None = None, guidance_scale: float | None = None
    ) -> list[Image.Image]:
        """What the model takes the image to be after each step, the last being the image itself.

        For the arguments and errors see `__call__`.
        """
        sampler = self._sampler([prompt], steps, guidance_scale)
        found = sampler.steps(prompt, seed=seed, guidance_scale=guidance_scale)
        return [Image.fromarray(image) for image in found]

    def _sampler(self, texts: list[str], steps: int | None, guidance_scale: float | None) -> ImageSampler:
        if not texts:
            raise UserError("there is nothing to generate: give at least one prompt")
        with_given(self.sampler, guidance_scale=guidance_scale)  # in range?
        sampler = with_given(self.sampler, image_steps=steps)
        size = bucket_size(len(texts), BATCH_SIZE, self.networks.mesh)
        if (sampler.image_steps, size) not in self._samplers:
            made = ImageSampler(self.networks, sampler, batch_size=size)
            self._samplers[sampler.image_steps, size] = made
        return self._samplers[sampler.image_steps, size]
