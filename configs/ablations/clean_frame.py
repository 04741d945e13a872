"""The clean image of a mask: a frame with timestep 0, one with a learned embedding, or left out.

    python launch/sweep.py --config=configs/ablations/clean_frame.py --workdir=runs/clean_frame

The base's text encoder does not see the image, so masks with `off` are a guess: its scores are those of a
model without an image. In the paper, the instruction encoder sees the image, and masks get worse. 1,000 steps
each.
"""

from genmask_jax.config import SweepConfig, VariantConfig
from genmask_jax.utils.fields import to_config_dict


def get_config():
    return to_config_dict(
        SweepConfig(
            name="clean_frame",
            base="genmask_tiny",
            variants={
                name: VariantConfig(train={"objective.clean_frame": name})
                for name in ("timestep_0", "learned", "off")
            },
            reference="timestep_0",
            metrics=("mIoU", "oIoU", "swapped.mIoU_named"),
            train={"loop.num_steps": 1000, "loop.eval_every_steps": 1000, "loop.checkpoint_every_steps": 250},
            evaluate={"split": "test", "count": 256, "num_images": 1},
        )
    )
