"""Fine-tuning on a folder of images: checks before training, and the number of steps."""

import dataclasses

from etils import epath

from genmask_jax.checkpoints.initial_weights import open_weights
from genmask_jax.checkpoints.runs import load_vae
from genmask_jax.config import TrainConfig, VAETrainConfig
from genmask_jax.data.prepared import records
from genmask_jax.instruction import factory
from genmask_jax.models.vae import VAEConfig
from genmask_jax.parameters.rules import Sources
from genmask_jax.sharding import make_mesh
from genmask_jax.system import abstract_networks
from genmask_jax.training.loop import check_batch
from genmask_jax.training.vae import VAETask
from genmask_jax.utils.errors import UserError

MIN_VAE_SCORES = {"mask_mIoU": 0.92, "image_psnr": 26.0}
"""Scores on the val images that a VAE needs to be used without further training."""
MAX_EPOCHS = 400
"""Small datasets train for fewer steps: each mask is seen at most this often."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to train on a prepared folder.

    masks: number of masks in the train split.
    num_steps: number of training steps.
    captioned: whether the images of both splits have captions, to learn to generate images.
    split: split to score.
    phrase: example phrase to segment.
    """

    masks: int
    num_steps: int
    captioned: bool
    split: str
    phrase: str


def make_plan(prepared: epath.PathLike, config: TrainConfig) -> Plan:
    """The plan for a dataset that launch/prepare_data.py made.

    Raises:
        UserError: a split has no images.
    """
    splits = records.splits_of(prepared)
    for split in ("train", "val"):
        if split not in splits:
            raise UserError(
                f"{prepared}: the split {split} has no image; add images (one of every ten is held out, and "
                "at least one)"
            )
    masks = records.read_index(prepared, "train").counts["expressions"]
    captioned = all(records.read_index(prepared, split).counts["captions"] for split in ("train", "val"))
    loop, mixture = config.loop, config.data.mixture
    share = mixture.masks / mixture.total if captioned else 1
    masks_per_step = int(loop.global_batch_size * share)
    return Plan(
        masks=masks,
        num_steps=min(loop.num_steps, max(1, -(-MAX_EPOCHS * masks // masks_per_step))),
        captioned=captioned,
        split="test" if "test" in splits else "val",
        phrase=(*records.read_classes(prepared), "the object")[0],
    )


def check(config: TrainConfig, vae: VAEConfig, vae_config: VAETrainConfig) -> None:
    """Checks everything that can be checked without data.

    Args:
        config: config of the training.
        vae: shape of the VAE that it will use.
        vae_config: config of the training of a VAE.

    Raises:
        UserError: a batch cannot be divided over the devices, or `config.init`, the encoder's weights, the
            image size and the VAE do not fit together.
    """
    mesh = make_mesh(config.mesh)
    check_batch(config, mesh)
    check_batch(vae_config, make_mesh(vae_config.mesh))
    init = open_weights(config.init).without_encoder() if config.init else None
    encoder = factory.build(config.instruction, "", ["any text"])
    abstract_networks(config, vae, encoder, mesh, Sources(init=init))


def score_vae(directory: epath.PathLike, data: VAETrainConfig) -> dict[str, float]:
    """Scores of a trained VAE's reconstructions of the val images of `data`, such as in `MIN_VAE_SCORES`."""
    shape, _ = load_vae(directory)
    return VAETask(dataclasses.replace(data, vae=shape, init=str(directory))).score_start()
