"""`Segmenter`: segments images by phrases, at the images' own size."""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from jax.sharding import Mesh

from genmask_jax.config import SamplerConfig
from genmask_jax.config.checks import with_given
from genmask_jax.inference.arguments import read_noises, read_seed, read_texts, warn_of_unknown_words
from genmask_jax.inference.batching import bucket_size
from genmask_jax.inference.load import load
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.inference.masks import to_image_size, to_mask
from genmask_jax.inference.segmentation import Segmentation
from genmask_jax.system import Networks
from genmask_jax.utils.errors import ArgumentError
from genmask_jax.utils.images import to_model_size, to_rgb

BATCH_SIZE = 8
"""Images or masks per batch; half as many or fewer are computed one by one."""


class Segmenter:
    """Segments the objects that phrases name in images.

        segmenter = Segmenter.from_pretrained("refershapes")
        result = segmenter("scene.png", ["the red star", "the circle"])
        result.masks        # bool [2, H, W]

    Segmenters of models of the same shape share their compiled programs, which are also cached on disk.
    """

    def __init__(self, networks: Networks, sampler: SamplerConfig, *, seed: int = 0):
        """Makes a segmenter from loaded networks; most users call `from_pretrained`.

        Args:
            networks: the networks of a model, such as `Generator.networks`.
            sampler: how masks are sampled, such as `Generator.sampler`.
            seed: seed of the noise that masks start from, 0 to 2^32 - 1.
        """
        self.networks, self.sampler, self.seed = networks, sampler, read_seed(seed)
        self._samplers: dict[int, MaskSampler] = {}

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        step: str | int = "last",
        seed: int = 0,
        mesh: Mesh | None = None,
        mask_threshold: float | None = None,
        mask_steps: int | None = None,
        mask_samples: int | None = None,
        no_target_area: float | None = None,
        no_target_score: float | None = None,
    ) -> "Segmenter":
        """Loads a model.

        Args:
            name: the name of a model in the package ("refershapes"), or the directory of a run or of an
                exported model.
            step: checkpoint of a run: "last", "best" or a number.
            seed: seed of the noise that masks start from, 0 to 2^32 - 1.
            mesh: devices to load the model on; JAX's default device if None.
            mask_threshold: probability above which a pixel is in the mask, in (0, 1); the model's own if
                None.
            mask_steps: passes per mask; the model's own if None.
            mask_samples: number of noises whose masks are averaged, 1 to 64; the model's own if None.
            no_target_area: masks that cover at most this share of the image become empty; the model's own if
                None.
            no_target_score: masks with a lower score become empty; the model's own if None.

        Raises:
            UserError: the model does not exist, or a value is out of range.
        """
        networks, config, _ = load(name, str(step), mesh)
        sampler = with_given(
            config.sampler,
            mask_threshold=mask_threshold,
            mask_steps=mask_steps,
            mask_samples=mask_samples,
            no_target_area=no_target_area,
            no_target_score=no_target_score,
        )
        return cls(networks, sampler, seed=seed)

    @overload
    def __call__(
        self,
        images: Sequence[Any],
        phrases: str | Sequence[str],
        *,
        noises: int | None = None,
        indices: Sequence[int] | None = None,
    ) -> list[Segmentation]: ...

    @overload
    def __call__(
        self, images: Any, phrases: str | Sequence[str], *, noises: int | None = None
    ) -> Segmentation: ...

    def __call__(self, images, phrases, *, noises=None, indices=None):
        """Segments one image, or a list of images, by one or several phrases.

        Phrases with words that the model was not trained on cause an `UnknownWordWarning`.

        Args:
            images: a path, bytes, an open file, a Pillow image, an array or a tensor `[H, W]` or `[H, W, 1 to
                4]` (uint8, uint16, bool, or floats in [0, 1]); or a list of these, of any sizes.
            phrases: what to segment: one text, or a list of texts. An image is encoded once for all of them.
            noises: number of noises whose masks are averaged, 1 to 64; their standard deviation becomes
                `uncertainty`.
            indices: for a list, the index of the noise that each image starts from; 0 for all if None, so
                that a mask does not depend on the list. `launch/evaluate.py` starts example n from noise n.

        Returns:
            A `Segmentation`, or a list of them for a list of images.

        Raises:
            UserError: an image cannot be read, a phrase is empty, or a value is out of range.
        """
        is_list = isinstance(images, list | tuple)
        texts = read_texts("phrases", phrases, "the red star")
        named = (
            [(image, f"images[{i}]") for i, image in enumerate(images)] if is_list else [(images, "images")]
        )
        if not named:
            raise ArgumentError("images", ": the list is empty; give at least one image")
        if noises is not None:
            noises = read_noises(noises)
        noise_indices = [
            read_seed(index, "indices") for index in ([0] * len(named) if indices is None else indices)
        ]
        if len(noise_indices) != len(named):
            count = len(noise_indices)
            raise ArgumentError("indices", f": {count} for {len(named)} images; give one for each")
        unknown = warn_of_unknown_words(self.networks.preparer, texts)
        pixels = [to_rgb(image, name) for image, name in named]
        results = self._segment(pixels, texts, unknown, noises, noise_indices)
        return results if is_list else results[0]

    def _segment(
        self,
        images: list[np.ndarray],
        texts: list[str],
        unknown: tuple[tuple[str, ...], ...],
        noises: int | None,
        noise_indices: list[int],
    ) -> list[Segmentation]:
        sampler, mesh = self._sampler(noises), self.networks.mesh
        resized = np.stack([to_model_size(image, self.networks.size) for image in images])
        num_masks = len(resized) * len(texts) * sampler.sampler.mask_samples
        sizes = bucket_size(len(resized), BATCH_SIZE, mesh), bucket_size(num_masks, BATCH_SIZE, mesh)
        means, deviations = sampler.sample_phrases(resized, texts, noise_indices, batch_sizes=sizes)
        return [
            _make_result(image, texts, unknown, mean, deviation if noises else None, sampler.sampler)
            for image, mean, deviation in zip(images, means, deviations, strict=True)
        ]

    def _sampler(self, noises: int | None) -> MaskSampler:
        count = self.sampler.mask_samples if noises is None else noises
        if count not in self._samplers:
            sampler = with_given(self.sampler, mask_samples=count)
            self._samplers[count] = MaskSampler(self.networks, sampler, batch_size=BATCH_SIZE, seed=self.seed)
        return self._samplers[count]


def _make_result(
    image: np.ndarray,
    texts: list[str],
    unknown: tuple[tuple[str, ...], ...],
    mean: np.ndarray,
    deviation: np.ndarray | None,
    sampler: SamplerConfig,
) -> Segmentation:
    """Resizes probabilities and deviation `[K, size, size]` to the image's size, and makes the masks."""
    shape = (image.shape[0], image.shape[1])
    masks, scores = zip(*(to_mask(probability, shape, sampler) for probability in mean), strict=True)
    return Segmentation(
        image=image,
        phrases=tuple(texts),
        masks=np.stack(masks),
        probabilities=np.stack([to_image_size(probability, shape) for probability in mean]),
        scores=np.asarray(scores, np.float32),
        uncertainty=None if deviation is None else np.stack([to_image_size(d, shape) for d in deviation]),
        threshold=sampler.mask_threshold,
        unknown_words=unknown,
        no_target_area=sampler.no_target_area,
        no_target_score=sampler.no_target_score,
    )
