"""Does training on images with prompts help masks?

    python launch/sweep.py --config=configs/ablations/generation_data.py --workdir=runs/generation_data

Half of a batch are images with prompts (`half`, 8 masks and 8 images), a quarter (`quarter`, 12 and 4) or
three quarters (`three_quarters`, 4 and 12). Or none are: with as many masks per step (`none_same_masks`, 8
masks) or as many examples per step (`none_same_batch`, 16 masks). 1,000 steps each.
"""

from genmask_jax.config import SweepConfig, VariantConfig
from genmask_jax.utils.fields import to_config_dict


def get_config():
    return to_config_dict(
        SweepConfig(
            name="generation_data",
            base="genmask_tiny",
            variants={
                "half": VariantConfig(train={"loop.global_batch_size": 16}),
                "quarter": VariantConfig(
                    train={"data.mixture.masks": 3, "data.mixture.images": 1, "loop.global_batch_size": 16}
                ),
                "three_quarters": VariantConfig(
                    train={"data.mixture.masks": 1, "data.mixture.images": 3, "loop.global_batch_size": 16}
                ),
                "none_same_masks": VariantConfig(
                    train={"data.generate": "none", "loop.global_batch_size": 8}
                ),
                "none_same_batch": VariantConfig(
                    train={"data.generate": "none", "loop.global_batch_size": 16}
                ),
            },
            reference="half",
            metrics=("mIoU", "oIoU", "swapped.mIoU_named"),
            train={"loop.num_steps": 1000, "loop.eval_every_steps": 1000, "loop.checkpoint_every_steps": 250},
            evaluate={"split": "test", "count": 256, "num_images": 1},
        )
    )
