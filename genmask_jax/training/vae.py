"""The VAE's training task: reconstruction and KL loss on images and on masks as RGB, half of each batch."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from genmask_jax.checkpoints.runs import load_vae, vae_source
from genmask_jax.config import VAETrainConfig
from genmask_jax.data.pipeline import draw, image_batches
from genmask_jax.data.sources import segment_source
from genmask_jax.evaluation.metrics import intersection_union, summarize
from genmask_jax.hardware.flops import ModelFlops, count_flops
from genmask_jax.inference.batching import fixed_batches
from genmask_jax.models.vae import VAE, sample_posterior
from genmask_jax.parameters.names import flat_paths
from genmask_jax.parameters.rules import Sources, Weights, compute_dtypes, is_within, make_plan
from genmask_jax.pretrained import directory_of
from genmask_jax.sharding import counting, one_device
from genmask_jax.training.step import NORMS
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.hosts import gather_rows, is_first, on_every_host
from genmask_jax.utils.pixels import mask_to_rgb, to_signed
from genmask_jax.utils.sheets import generation_sheet

EVAL_BATCH_SIZE = 32
"""Number of images, and of masks, in a batch of the validation."""
MODULES = ("encoder", "quant_conv", "post_quant_conv", "decoder")
"""Trained modules: all but the statistics of the latents."""
METRICS = ("loss", "loss_image", "loss_mask", "kl", *NORMS)


class VAETask:
    """Autoencoding, for `training/loop.py`."""

    metric_names: tuple[str, ...] = METRICS
    frozen: Any = None

    def __init__(self, config: VAETrainConfig, mesh: Mesh | None = None, *, restored: bool = False):
        """`mesh`: this process's first device if None; `restored`: whether a checkpoint is restored."""
        self.config = config
        model = nnx.eval_shape(lambda: self._make(jax.random.key(0)))
        shapes = dict(flat_paths(nnx.state(model)))
        self.plan = make_plan(
            shapes,
            mesh or one_device(),
            trained=MODULES,
            sources=Sources(init=self._init(shapes), restored=restored),
            compute_dtypes=compute_dtypes(model),
        )
        self.graphdef, _, _ = nnx.split(model, self.plan.is_trained, ...)
        self.statistics = jax.jit(lambda: self._split(jax.random.key(0))[2])()
        self._reconstruct = jax.jit(self._trace_reconstruct)

    def _make(self, key: jax.Array) -> VAE:
        return VAE(self.config.vae, dtype=jnp.dtype(self.config.compute_dtype), rngs=nnx.Rngs(key))

    def _init(self, shapes: dict[str, Any]) -> Weights | None:
        """The weights of `config.init`; `start` checks that its VAE has the same shape."""
        if not self.config.init:
            return None
        path = directory_of(self.config.init, "config.init")
        trained = {name: tuple(x.shape) for name, x in shapes.items() if is_within(name, MODULES)}
        return Weights(path=path, source=vae_source(path), shapes=trained)

    def _split(self, key: jax.Array) -> Any:
        return nnx.split(self._make(key), self.plan.is_trained, ...)

    def init_params(self, key: jax.Array) -> Any:
        """Newly initialised parameters."""
        return self._split(key)[1]

    def start(self, params: Any) -> Any:
        """Returns `params`, or the parameters of `config.init`. Raises UserError if their shapes differ."""
        if not self.config.init:
            return params
        config, state = load_vae(directory_of(self.config.init, "config.init"))
        if config != self.config.vae:
            raise UserError(
                f"config.init={self.config.init}: its VAE has another shape; set config.vae as in its "
                "config.json"
            )
        _, loaded, _ = nnx.split(nnx.merge(self.graphdef, state), self.plan.is_trained, ...)
        return jax.tree.map(lambda old, new: jax.device_put(new, old.sharding), params, loaded)

    def batches(self, batch_size: int, part: tuple[int, int]) -> Any:
        """An endless iterator over this host's shard of every batch of images and their masks."""
        return image_batches(self.config.data, batch_size=batch_size, part=part, seed=self.config.seed)

    def loss(self, params: Any, frozen: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, dict]:
        """L1 + L2 reconstruction error per channel, and the KL divergence to N(0, 1) per latent value.

        L2 alone blurs the edges of masks; L1 alone loses the colours of small objects.
        """
        del frozen
        model = nnx.merge(self.graphdef, params, self.statistics)
        rgb = jnp.concatenate([to_signed(batch["images"]), mask_to_rgb(batch["masks"])])
        mean, log_variance = model.moments(rgb)
        error = model.decode_raw(sample_posterior(key, mean, log_variance)) - rgb
        errors = (jnp.abs(error) + jnp.square(error)).mean((1, 2, 3))
        half = len(batch["images"])
        image, mask = errors[:half].mean(), errors[half:].mean()
        kl = 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance).mean()
        loss = image + self.config.mask_weight * mask + self.config.kl_weight * kl
        return loss, {"loss": loss, "loss_image": image, "loss_mask": mask, "kl": kl}

    def flops(self, batch: Any) -> ModelFlops:
        """Model FLOPs of a training step, on all devices; the whole VAE is trained."""
        params = nnx.eval_shape(lambda: self.init_params(jax.random.key(0)))
        with counting():
            total = count_flops(jax.grad(self.loss, has_aux=True), params, None, batch, jax.random.key(0))
        return ModelFlops(total, total)

    def _trace_reconstruct(self, params: Any, images: jax.Array, masks: jax.Array) -> tuple:
        model = nnx.merge(self.graphdef, params, self.statistics)
        rgb = jnp.concatenate([to_signed(images), mask_to_rgb(masks)])
        return rgb, model.decode(model.encode(rgb))

    def evaluate(
        self, ema_params: Any, step: int, directory: epath.Path, check_stop: Callable[[], None]
    ) -> dict[str, float]:
        """Reconstruction of the val split: mIoU of masks, PSNR (dB) of images. The same on every host."""
        return self._score(
            on_every_host(ema_params), directory / f"reconstructions_{step:06d}.png", check_stop
        )

    def score_start(self) -> dict[str, float]:
        """Scores of the VAE of `config.init`, without training, on one device."""
        return self._score(self.start(jax.jit(self.init_params)(jax.random.key(0))), None)

    def _score(
        self, params: Any, sheet: epath.Path | None, check_stop: Callable[[], None] = lambda: None
    ) -> dict[str, float]:
        """Scores of the first examples; hosts share the work."""
        source = segment_source(self.config.data, "val")
        count = min(self.config.loop.num_eval_examples, len(source))
        rows: dict[int, list[float]] = {}
        for indices, real in fixed_batches(
            count, EVAL_BATCH_SIZE, (jax.process_index(), jax.process_count())
        ):
            check_stop()
            examples = [source[int(i)] for i in indices]
            inputs = (np.stack([e["image"] for e in examples]), np.stack([e["mask"] for e in examples]))
            truth, output = jax.device_get(self._reconstruct(params, *jax.device_put(inputs)))
            for row, i in enumerate(indices[:real].tolist()):
                overlap = intersection_union(
                    output[EVAL_BATCH_SIZE + row].mean(-1) > 0, examples[row]["mask"]
                )
                squared = np.square(np.clip(output[row], -1, 1) - truth[row]).mean()
                rows[i] = [*map(int, overlap), float(10 * np.log10(4 / squared))]
            if sheet is not None and indices[0] == 0 and is_first():
                self._write_sheet(truth, output, min(real, 4), sheet)
        intersections, unions, psnr = zip(*gather_rows(rows), strict=True)
        metrics = summarize(intersections, unions)
        return {"mask_mIoU": metrics["mIoU"], "image_psnr": float(np.mean(psnr)), "score": metrics["mIoU"]}

    def _write_sheet(self, truth: np.ndarray, output: np.ndarray, count: int, path: epath.Path) -> None:
        """The first images, and then their masks."""
        rows = [*range(count), *range(EVAL_BATCH_SIZE, EVAL_BATCH_SIZE + count)]
        pairs = np.stack([truth[rows], output[rows]], axis=1).reshape(-1, *truth.shape[1:])
        shown = np.clip(pairs * 127.5 + 127.5, 0, 255).astype(np.uint8)
        generation_sheet(list(shown), ["original", "reconstruction"] * len(rows), path)

    def finish(self, ema_params: Any, num_batches: int = 32) -> Any:
        """The trained VAE's state, with the measured mean and standard deviation of each latent channel."""

        @jax.jit
        def encode(params, batch):
            model = nnx.merge(self.graphdef, params, self.statistics)
            return model.moments(jnp.concatenate([to_signed(batch["images"]), mask_to_rgb(batch["masks"])]))[
                0
            ]

        ema_params = on_every_host(ema_params)
        with closing(self.batches(64, (0, 1))) as data:
            batches = (jax.device_put(draw(data)) for _ in range(num_batches))
            means = [jax.device_get(encode(ema_params, batch)) for batch in batches]
        latents = np.concatenate(means).reshape(-1, self.config.vae.channels)
        statistics = jax.tree.map(lambda x: x, self.statistics)
        statistics["latents_mean"][...] = jnp.asarray(latents.mean(0))
        statistics["latents_std"][...] = jnp.asarray(latents.std(0))
        return nnx.state(nnx.merge(self.graphdef, ema_params, statistics))
