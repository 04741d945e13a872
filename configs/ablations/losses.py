"""The loss of masks: squared error of the velocity or of x0, or cross-entropy of pixels.

    python launch/sweep.py --config=configs/ablations/losses.py --workdir=runs/losses

Pixels are read from the predicted latents by the VAE's decoder, or by a linear layer in its place. All masks
are cut at a probability of 0.5, since the base's threshold was chosen for the velocity. 1,000 steps each.
"""

from genmask_jax.config import SweepConfig, VariantConfig
from genmask_jax.utils.fields import to_config_dict


def get_config():
    return to_config_dict(
        SweepConfig(
            name="losses",
            base="genmask_tiny",
            variants={
                name: VariantConfig(train={"objective.mask_loss": name})
                for name in ("velocity", "x0", "decoder_cross_entropy", "linear_cross_entropy")
            },
            reference="velocity",
            metrics=("mIoU", "oIoU", "P@0.9", "swapped.mIoU_named"),
            train={"loop.num_steps": 1000, "loop.eval_every_steps": 1000, "loop.checkpoint_every_steps": 250},
            evaluate={"split": "test", "count": 256, "num_images": 1, "mask_threshold": 0.5},
        )
    )
