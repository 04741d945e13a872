"""GenMask's training task: data, loss on a batch of masks and images, validation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from genmask_jax import flow
from genmask_jax.config import TrainConfig
from genmask_jax.data.pipeline import training_batches
from genmask_jax.data.sources import generates, scored_source, validation_prompts
from genmask_jax.evaluation.segmentation import evaluate_segmentation, sheet_rows
from genmask_jax.hardware.flops import ModelFlops, count_flops
from genmask_jax.inference.image_sampler import ImageSampler
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.parameters.plan import ParameterPlan
from genmask_jax.sharding import counting, parts_of, split_groups
from genmask_jax.system import GenMask, Networks
from genmask_jax.timesteps import GENERATE, SEGMENT, sample_timesteps
from genmask_jax.training import noise_levels
from genmask_jax.training.objective import MASK_LOSSES, Prediction, small_mask_weights, velocity_errors
from genmask_jax.training.step import NORMS
from genmask_jax.utils.hosts import is_first
from genmask_jax.utils.pixels import mask_to_rgb, to_signed
from genmask_jax.utils.sheets import generation_sheet, segmentation_sheet

TASKS = {"segment": SEGMENT, "generate": GENERATE}
"""Parts of a batch, in order."""


class GenMaskTask:
    """A `Task` for `training/loop.py`: flow matching on masks and images, or on masks alone."""

    metric_names: tuple[str, ...]
    plan: ParameterPlan
    frozen: Any

    def __init__(self, networks: Networks, config: TrainConfig):
        self.networks, self.config = networks, config
        tasks = [task for task in TASKS if task == "segment" or generates(config.data)]
        by_noise = [name for task in tasks for name in noise_levels.metric_names(task)]
        self.metric_names = ("loss", *(f"loss_{task}" for task in tasks), *NORMS, *by_noise)
        self.plan, self.frozen, self.init_params = networks.plan, networks.frozen, networks.init_params
        self.errors = {"segment": MASK_LOSSES[config.objective.mask_loss], "generate": velocity_errors}
        self.segmenter = MaskSampler(networks, config.sampler, batch_size=32)
        self.generator = ImageSampler(networks, config.sampler, batch_size=16)

    def start(self, params: Any) -> Any:
        """Loads the parameters that the plan takes from weights; the others stay newly initialised."""
        return self.networks.load(params)

    def batches(self, batch_size: int, part: tuple[int, int]) -> Any:
        """An endless iterator over this host's shard of every training batch."""
        return training_batches(
            self.config.data,
            self.networks.preparer,
            batch_size=batch_size,
            part=part,
            condition_dropout=self.config.condition_dropout,
            seed=self.config.seed,
        )

    def loss(self, params: Any, frozen: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, dict]:
        """Mean squared error of the velocity over all examples; masks are weighted by `segment_weight`.

        `data/pipeline.py` describes the batch. Images and masks go through the same VAE. Timesteps are drawn
        per example, from the distribution of its task. The clean image of a mask is frame 1 of the input.
        `config.objective` may replace the loss, clean frame and noise of masks (`training/objective.py`).
        """
        model = self.networks.merge(params, frozen)
        image_latents, x0 = _encode(model, batch)
        t, noise = self._draw(key, x0)
        if self.config.objective.mask_source == "image":
            noise[0] = image_latents
        x_t = [flow.add_noise(*one) for one in zip(x0.values(), noise, t, strict=True)]
        texts = model.instruction.together(*(batch[name]["instruction"] for name in x0))
        images = [image_latents, None][: len(x0)]
        velocities = model.velocities(*zip(x_t, t, texts, images, strict=True))
        predictions = [Prediction(*one) for one in zip(velocities, x_t, t, x0.values(), noise, strict=True)]
        masks = batch["segment"].get("masks")
        errors = [self.errors[name](model, one, masks) for name, one in zip(x0, predictions, strict=True)]
        if self.config.small_mask_weight:
            _, rows, columns, _ = errors[0].shape
            weights = small_mask_weights(masks, (rows, columns), self.config.small_mask_weight)
            errors[0] = errors[0] * weights[..., None]
        losses, by_noise = {}, {}
        for name, error, level in zip(x0, errors, t, strict=True):
            losses[f"loss_{name}"] = error.mean()
            by_noise |= noise_levels.by_noise_level(name, error.mean((1, 2, 3)), level)
        loss = losses["loss_segment"]
        if "generate" in x0:
            weight = self.config.segment_weight * (len(x0["segment"]) / len(x0["generate"]))
            loss = (weight * loss + losses["loss_generate"]) / (weight + 1)
        return loss, {"loss": loss, **losses, **by_noise}

    def _draw(self, key: jax.Array, x0: dict[str, jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
        """Timesteps `[rows]` and noise `[rows, h, w, c]` for each of the tasks of `x0`."""
        t_key, noise_key = jax.random.split(key)
        parts, groups = parts_of(x0)
        task = [jnp.full((k, groups), TASKS[name]) for name, k in zip(x0, parts, strict=True)]
        timesteps = self.config.timesteps
        t = sample_timesteps(t_key, jnp.concatenate(task), timesteps.segment, timesteps.generate)
        noise = jax.random.normal(noise_key, (*t.shape, *x0["segment"].shape[1:]))
        return split_groups(t.swapaxes(0, 1), parts), split_groups(noise.swapaxes(0, 1), parts)

    def flops(self, batch: Any) -> ModelFlops:
        """Model FLOPs of a training step, on all devices."""
        networks = self.networks
        params, frozen = networks.abstract_params(), networks.frozen

        def frozen_networks(params: Any, frozen: Any, batch: Any) -> Any:
            model = networks.merge(params, frozen)
            texts = [] if "instruction" in params else [half["instruction"] for half in batch.values()]
            return _encode(model, batch), model.instruction.together(*texts) if texts else []

        with counting():
            gradient = jax.grad(self.loss, has_aux=True)
            total = count_flops(gradient, params, frozen, batch, jax.random.key(0))
            return ModelFlops(total - count_flops(frozen_networks, params, frozen, batch), total)

    def evaluate(
        self, ema_params: Any, step: int, directory: epath.Path, check_stop: Callable[[], None]
    ) -> dict[str, float]:
        """Returns validation scores; the first host writes contact sheets to `directory`."""
        self.networks.params = ema_params
        count = self.config.loop.num_eval_examples
        source = scored_source(self.config.data, "val")
        result = evaluate_segmentation(
            self.segmenter, source, count, swapped=False, keep=16, before_batch=check_stop
        )
        prompts = validation_prompts(self.config.data)
        check_stop()
        images = self.generator(prompts) if prompts else []
        if is_first():
            segmentation_sheet(sheet_rows(result, source), directory / f"masks_{step:06d}.png")
            if prompts:
                generation_sheet(list(images), prompts, directory / f"images_{step:06d}.png")
        # The score selects the best checkpoint; an empty prediction is correct if there is no target.
        score = np.mean([row["iou"] if row["union"] else 1.0 for row in result.examples])
        scores = {name: result.metrics[name] for name in ("mIoU", "oIoU", "P@0.5")} | {"score": float(score)}
        return scores | {f"mIoU/{kind}": group["mIoU"] for kind, group in result.metrics["groups"].items()}


def _encode(model: GenMask, batch: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the image latents of masks, and the clean target latents by task."""
    segment, generate = batch["segment"], batch.get("generate")
    if "image_latents" in segment:  # cached
        x0 = {"segment": segment["mask_latents"], "generate": generate["image_latents"]}
        return segment["image_latents"], x0
    rgb = {"image": to_signed(segment["images"]), "segment": mask_to_rgb(segment["masks"])}
    rgb |= {"generate": to_signed(generate["images"])} if generate else {}
    parts, groups = parts_of(rgb)
    together = jnp.concatenate([x.reshape(groups, -1, *x.shape[1:]) for x in rgb.values()], axis=1)
    latents = jax.lax.stop_gradient(model.vae.encode(together.reshape(-1, *together.shape[2:])))
    latents = split_groups(latents.reshape(groups, -1, *latents.shape[1:]), parts)
    x0 = dict(zip(rgb, latents, strict=True))
    return x0.pop("image"), x0
