"""GenMask's training task: data, loss on a batch of two halves, validation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float, UInt8

from genmask_jax import flow
from genmask_jax.config import TrainConfig
from genmask_jax.data.pipeline import training_batches
from genmask_jax.data.sources import generates, scored_source, validation_prompts
from genmask_jax.evaluation.segmentation import evaluate_segmentation, sheet_rows
from genmask_jax.hardware.flops import ModelFlops, count_flops
from genmask_jax.inference.image_sampler import ImageSampler
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.parameters.plan import ParameterPlan
from genmask_jax.sharding import counting
from genmask_jax.system import GenMask, Networks
from genmask_jax.timesteps import GENERATE, SEGMENT, sample_timesteps
from genmask_jax.training import noise_levels
from genmask_jax.training.objective import MASK_LOSSES, Prediction, velocity_errors
from genmask_jax.training.step import NORMS
from genmask_jax.utils.hosts import is_first
from genmask_jax.utils.pixels import mask_to_rgb, to_signed
from genmask_jax.utils.sheets import generation_sheet, segmentation_sheet

MIN_UNWEIGHTED_AREA = 0.1
"""Objects that cover at least this share of the image get no extra weight."""
TASKS = {"segment": SEGMENT, "generate": GENERATE}
"""Halves of a batch, in order."""


class GenMaskTask:
    """A `Task` for `training/loop.py`: flow matching on as many masks as images, or on masks alone."""

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
        """Mean squared error of the velocity over both halves; masks are weighted by `segment_weight`.

        `data/pipeline.py` describes the batch. Images and masks go through the same VAE. Timesteps are drawn
        per example, from the distribution of its task. The clean image of a mask is frame 1 of the input.
        `config.objective` may replace the loss of masks (`training/objective.py`) or the clean frame.
        """
        model = self.networks.merge(params, frozen)
        image_latents, x0 = _encode(model, batch)
        t_key, noise_key = jax.random.split(key)
        timesteps = self.config.timesteps
        # Each half is sharded over its examples, so that no example moves between devices.
        task = jnp.array([[TASKS[name]] for name in x0])
        task = jnp.broadcast_to(task, (len(x0), len(image_latents)))
        t = sample_timesteps(t_key, task, timesteps.segment, timesteps.generate)
        noise = jax.random.normal(noise_key, (len(x0), *image_latents.shape))
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
        weight = self.config.segment_weight
        loss = losses["loss_segment"]
        if "loss_generate" in losses:
            loss = (weight * loss + losses["loss_generate"]) / (weight + 1)
        return loss, {"loss": loss, **losses, **by_noise}

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


def small_mask_weights(
    masks: UInt8[Array, "B H W"], grid: tuple[int, int], max_extra_weight: float
) -> Float[Array, "B h w"]:
    """Loss weights of mask latents: 1 outside the object, and more than 1 inside a small object.

    A thin object covers about 1 % of the mask, so an all-black prediction has almost no loss, and the model
    learns that first. The total weight inside a small object equals that of an object that covers
    MIN_UNWEIGHTED_AREA of the image, but no weight exceeds `1 + max_extra_weight`. (Class balancing; not in
    the paper.)
    """
    batch, height, width = masks.shape
    rows, columns = grid
    share = masks.astype(jnp.float32).reshape(batch, rows, height // rows, columns, width // columns)
    share = share.mean((2, 4))
    area = jnp.maximum(share.mean((1, 2), keepdims=True), 1e-6)
    return 1 + share * jnp.clip(MIN_UNWEIGHTED_AREA / area - 1, 0.0, max_extra_weight)


def _encode(model: GenMask, batch: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the image latents of the segment half, and the clean target latents of each half by task."""
    segment, generate = batch["segment"], batch.get("generate")
    if "image_latents" in segment:  # cached
        x0 = {"segment": segment["mask_latents"], "generate": generate["image_latents"]}
        return segment["image_latents"], x0
    parts = [to_signed(segment["images"]), mask_to_rgb(segment["masks"])]
    parts += [to_signed(generate["images"])] if generate else []
    rgb = jnp.stack(parts, axis=1)  # interleaved by example, so that each device encodes its own
    latents = jax.lax.stop_gradient(model.vae.encode(rgb.reshape(-1, *rgb.shape[2:])))
    latents = latents.reshape(*rgb.shape[:2], *latents.shape[1:])
    x0 = {name: latents[:, i + 1] for i, name in enumerate(TASKS) if name in batch}
    return latents[:, 0], x0
