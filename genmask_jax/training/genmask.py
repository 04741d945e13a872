"""GenMask's training task: its data, its loss on a batch of two halves, its validation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath

from genmask_jax import flow
from genmask_jax.config import TrainConfig
from genmask_jax.data.pipeline import training_batches
from genmask_jax.data.sources import scored_source, validation_prompts
from genmask_jax.evaluation.segmentation import evaluate_segmentation, sheet_rows
from genmask_jax.hosts import is_first
from genmask_jax.inference.generator import Generator
from genmask_jax.inference.segmenter import Segmenter
from genmask_jax.initial_weights import Pretrained, is_adapter, replace, shapes_of
from genmask_jax.instruction.base import with_loaded
from genmask_jax.pixels import mask_to_rgb, to_signed
from genmask_jax.sheets import generation_sheet, segmentation_sheet
from genmask_jax.system import GenMask, Networks
from genmask_jax.timesteps import GENERATE, SEGMENT, draw_timesteps

METRICS = ("loss", "loss_segment", "loss_generate", "grad_norm")


class GenMaskTask:
    """Flow matching on masks and images, 1 : 1 in every batch, for `training/loop.py`."""

    metric_names: tuple[str, ...] = METRICS
    frozen: Any

    def __init__(self, networks: Networks, config: TrainConfig):
        self.networks, self.config = networks, config
        self.frozen, self.init_params = networks.frozen, networks.init_params
        self.segmenter = Segmenter(networks, config.sampler, batch_size=32)
        self.generator = Generator(networks, config.sampler, batch_size=16)

    def start(self, params: Any) -> Any:
        """Replaces fresh parameters by those of `config.init` if that is set; adapters stay fresh.

        The trained part of a pretrained instruction encoder starts from its pretrained weights.
        """
        if "instruction" in params and self.networks.instruction.load is not None:
            params = jax.tree.map(lambda x: x, params)  # the caller's tree is not modified
            params["instruction"] = with_loaded(params["instruction"], self.networks.instruction)
        fresh = sorted(shapes_of(params))
        if self.config.init and not self.config.model.lora_rank:
            params, fresh = replace(params, Pretrained(self.config.init))
        if self.config.init:
            new = [name for name in fresh if not is_adapter(name)]
            adapters = [f"{len(fresh) - len(new)} adapters"] if len(fresh) > len(new) else []
            said = ", ".join(adapters + new) or "nothing"
            logging.info("initialised from %s; new: %s", self.config.init, said)
        return params

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
        per example, by the law of its task. A mask's clean image is the second frame of its input.
        """
        model = self.networks.merge(params, frozen)
        segment, generate = batch["segment"], batch["generate"]
        image_latents, *x0 = _encode(model, segment, generate)
        t_key, noise_key = jax.random.split(key)
        laws = self.config.timesteps
        # Each half is sharded over its examples, so that no example moves between devices.
        task = jnp.broadcast_to(jnp.array([[SEGMENT], [GENERATE]]), (2, len(image_latents)))
        t = draw_timesteps(t_key, task, laws.segment, laws.generate)
        noise = jax.random.normal(noise_key, (2, *image_latents.shape))
        x_t = [flow.add_noise(*one) for one in zip(x0, noise, t, strict=True)]
        targets = [flow.velocity_target(*one) for one in zip(x0, noise, strict=True)]
        texts = model.instruction.together(segment["instruction"], generate["instruction"])
        mask_velocity, image_velocity = model.velocities(
            (x_t[0], t[0], texts[0], image_latents), (x_t[1], t[1], texts[1], None)
        )
        loss_segment = jnp.square(mask_velocity - targets[0]).mean()
        loss_generate = jnp.square(image_velocity - targets[1]).mean()
        weight = self.config.segment_weight
        loss = (weight * loss_segment + loss_generate) / (weight + 1)
        return loss, {"loss": loss, "loss_segment": loss_segment, "loss_generate": loss_generate}

    def evaluate(self, ema_params: Any, step: int, directory: epath.Path) -> dict[str, float]:
        """Returns validation scores; the first host writes contact sheets to `directory`."""
        self.networks.params = ema_params
        count = self.config.loop.num_eval_examples
        source = scored_source(self.config.data, "val")
        result = evaluate_segmentation(self.segmenter, source, count, swapped=False, keep=16)
        prompts = validation_prompts(self.config.data)
        images = self.generator(prompts)
        if is_first():
            segmentation_sheet(sheet_rows(result, source), directory / f"masks_{step:06d}.png")
            generation_sheet(list(images), prompts, directory / f"images_{step:06d}.png")
        # The score selects the best checkpoint; an empty prediction is correct if there is no target.
        score = np.mean([row["iou"] if row["union"] else 1.0 for row in result.examples])
        return {name: result.metrics[name] for name in ("mIoU", "oIoU", "P@0.5")} | {"score": float(score)}


def _encode(model: GenMask, segment: Any, generate: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Latents of the segment half's images, of its masks, and of the generate half's images."""
    if "image_latents" in segment:  # cached
        return segment["image_latents"], segment["mask_latents"], generate["image_latents"]
    parts = to_signed(segment["images"]), mask_to_rgb(segment["masks"]), to_signed(generate["images"])
    rgb = jnp.stack(parts, axis=1)  # example by example: no device needs another's
    latents = jax.lax.stop_gradient(model.vae.encode(rgb.reshape(-1, *rgb.shape[2:])))
    latents = latents.reshape(*rgb.shape[:2], *latents.shape[1:])
    return latents[:, 0], latents[:, 1], latents[:, 2]
