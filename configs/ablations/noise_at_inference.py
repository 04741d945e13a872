"""What masks start from: one noise, zeros, or several noises whose masks are averaged.

    python launch/sweep.py --config=configs/ablations/noise_at_inference.py --workdir=runs/noise_at_inference

One training of 4,000 steps, as in the quickstart, for each seed.
"""

from genmask_jax.config import SweepConfig, VariantConfig
from genmask_jax.utils.fields import to_config_dict


def get_config():
    return to_config_dict(
        SweepConfig(
            name="noise_at_inference",
            base="genmask_tiny",
            variants={
                f"{count}_noise{'s' if count > 1 else ''}": VariantConfig(evaluate={"mask_samples": count})
                for count in (1, 4, 8)
            }
            | {"zeros": VariantConfig(evaluate={"mask_noise": 0})},
            reference="1_noise",
            metrics=("mIoU", "oIoU", "P@0.9"),
            train={"loop.eval_every_steps": 4000, "loop.checkpoint_every_steps": 500},
            evaluate={"split": "test", "count": 512, "num_images": 1},
        )
    )
