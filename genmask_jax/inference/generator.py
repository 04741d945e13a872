"""`Generator`: generates images from prompts."""

from collections.abc import Sequence
from typing import Any, overload

from jax.sharding import Mesh
from PIL import Image

from genmask_jax.config import SamplerConfig
from genmask_jax.config.checks import with_given
from genmask_jax.inference.arguments import read_integer, read_seed, read_texts, warn_of_unknown_words
from genmask_jax.inference.batching import bucket_size
from genmask_jax.inference.image_sampler import ImageSampler
from genmask_jax.inference.load import load
from genmask_jax.instruction.base import unknown_words
from genmask_jax.pretrained import EXAMPLE_PROMPT
from genmask_jax.system import Networks
from genmask_jax.utils.errors import ArgumentError, short_repr

BATCH_SIZE = 8
"""Images per batch; half as many or fewer are generated one by one."""
NUM_CANDIDATES = 4
"""Default number of candidate images of a prompt."""


class Generator:
    """Generates images.

        generator = Generator.from_pretrained("refershapes")
        generator("a large red circle", seed=1).save("circle.png")
        generator.candidates("a large red circle", 4)    # four images, with seeds 0 to 3

    Generators of models of the same shape share their compiled programs, which are also cached on disk.
    """

    def __init__(self, networks: Networks, sampler: SamplerConfig):
        """Makes a generator from loaded networks; most users call `from_pretrained`.

        Args:
            networks: the networks of a model, such as `Segmenter.networks`.
            sampler: how images are sampled, such as `Segmenter.sampler`.
        """
        self.networks, self.sampler = networks, sampler
        self._samplers: dict[tuple[int, int], ImageSampler] = {}

    @classmethod
    def from_pretrained(cls, name: str, *, step: str | int = "last", mesh: Mesh | None = None) -> "Generator":
        """Loads a model.

        Args:
            name: the name of a model in the package ("refershapes"), or the directory of a run or of an
                exported model.
            step: checkpoint of a run: "last", "best" or a number.
            mesh: devices to load the model on; JAX's default device if None.

        Raises:
            UserError: the model does not exist.
        """
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
        """Generates one image, or one for each prompt of a list.

        Prompts with words that the model was not trained on cause an `UnknownWordWarning`.

        Args:
            prompts: one text, or a list of texts.
            seed: seed of the noise, 0 to 2^32 - 1; the n-th image of a list depends only on the seed and n.
            steps: sampling steps; the model's own if None.
            guidance_scale: scale of classifier-free guidance; 1 is no guidance; the model's own if None.

        Returns:
            A square RGB image at the model's size, or a list of them for a list of prompts.

        Raises:
            UserError: a value is out of range, or a prompt is empty.
        """
        texts, sampler = self._prepare(prompts, seed, steps, guidance_scale)
        warn_of_unknown_words(self.networks.preparer, texts)
        images = sampler(texts, seed=int(seed), guidance_scale=guidance_scale)
        generated = [Image.fromarray(image) for image in images]
        return generated[0] if isinstance(prompts, str) else generated

    def candidates(
        self,
        prompt: str,
        count: int = NUM_CANDIDATES,
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance_scale: float | None = None,
    ) -> list[Image.Image]:
        """Generates several images of one prompt, with the seeds `seed`, `seed + 1`, ...

        A call with one of these seeds generates the same image, up to rounding.

        Args:
            prompt: a text.
            count: number of images.
            seed: seed of the first image.
            steps: see `__call__`.
            guidance_scale: see `__call__`.

        Raises:
            UserError: a value is out of range, or the prompt is empty.
        """
        _need_text(prompt)
        count = read_integer("count", count, 1)
        read_seed(seed)
        read_seed(seed + count - 1, "seed + count - 1")
        texts, sampler = self._prepare([prompt] * count, seed, steps, guidance_scale)
        warn_of_unknown_words(self.networks.preparer, [prompt])
        images = sampler(texts, seed=range(int(seed), int(seed) + count), guidance_scale=guidance_scale)
        return [Image.fromarray(image) for image in images]

    def steps(
        self, prompt: str, *, seed: int = 0, steps: int | None = None, guidance_scale: float | None = None
    ) -> list[Image.Image]:
        """Generates one image, and returns the predicted image after each step; the last is the result.

        For the arguments and errors see `__call__`.
        """
        _need_text(prompt)
        texts, sampler = self._prepare(prompt, seed, steps, guidance_scale)
        warn_of_unknown_words(self.networks.preparer, texts)
        predictions = sampler.steps(prompt, seed=int(seed), guidance_scale=guidance_scale)
        return [Image.fromarray(image) for image in predictions]

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """Returns the words of a prompt that are unknown to the model; see `Segmentation.unknown_words`."""
        return unknown_words(self.networks.preparer, prompt)

    def _prepare(
        self, prompts: Any, seed: Any, steps: Any, guidance_scale: Any
    ) -> tuple[list[str], ImageSampler]:
        """Checks all arguments; returns the prompts as a list, and the sampler for them."""
        texts = read_texts("prompts", prompts, EXAMPLE_PROMPT)
        read_seed(seed)
        if steps is not None:
            steps = read_integer("steps", steps, 1)
        with_given(self.sampler, guidance_scale=guidance_scale)  # raises if out of range
        config = with_given(self.sampler, image_steps=steps)
        size = bucket_size(len(texts), BATCH_SIZE, self.networks.mesh)
        key = config.image_steps, size
        if key not in self._samplers:
            self._samplers[key] = ImageSampler(self.networks, config, batch_size=size)
        return texts, self._samplers[key]


def _need_text(prompt: Any) -> None:
    if not isinstance(prompt, str):
        raise ArgumentError(
            "prompt", f"={short_repr(prompt)} is not a text; give one prompt, such as {EXAMPLE_PROMPT!r}"
        )
