"""What the flow of masks starts from: noise, or the latents of the image.

    python launch/sweep.py --config=configs/ablations/mask_source.py --workdir=runs/mask_source

`image_alone` has no clean frame: the network sees the image only as the start of the flow. 1,000 steps each.
"""

from genmask_jax.config import SweepConfig, VariantConfig
from genmask_jax.utils.fields import to_config_dict


def get_config():
    return to_config_dict(
        SweepConfig(
            name="mask_source",
            base="genmask_tiny",
            variants={
                "noise": VariantConfig(),
                "image": VariantConfig(train={"objective.mask_source": "image"}),
                "image_alone": VariantConfig(
                    train={"objective.mask_source": "image", "objective.clean_frame": "off"}
                ),
            },
            reference="noise",
            metrics=("mIoU", "oIoU", "P@0.9", "boundary_mIoU"),
            train={"loop.num_steps": 1000, "loop.eval_every_steps": 1000, "loop.checkpoint_every_steps": 250},
            evaluate={"split": "test", "count": 256, "num_images": 1},
        )
    )
