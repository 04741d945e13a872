r"""Noise levels of images: those that fit the latents, lower and higher ones, at two scales of the latents.

    python baselines/rescale_vae.py --vae=refershapes --factor=0.25 --out=runs/vae_quarter
    python launch/analyze_latents.py --vae=refershapes --data=refershapes --split=train --count=1024 \
        --out=runs/latents
    python launch/sweep.py --config=configs/ablations/image_timesteps.py --workdir=runs/image_timesteps

The second command prints the mean and the standard deviation that fit (docs/analysis.md). At a quarter of the
scale, the mean that fits is lower by log 4, so `fitting_quarter` should score like `fitting`, although its
noise levels are those of `lower`. `shift_low` and `shift_high` sample images of `fitting` with a quarter and
four times its shift. An eighth of a batch are masks. 1,000 steps each.
"""

import math

from genmask_jax.config import SweepConfig, VariantConfig
from genmask_jax.utils.fields import to_config_dict

MEAN, STD = 1.35, 0.87
"""Printed by the second command."""
OTHER = math.log(4)
"""Distance of the lower and higher means from the mean that fits."""


def variant(offset: float, factor: float = 1.0, shift: float = 1.0) -> VariantConfig:
    """Images with a mean that is `offset` from the fitting one; `factor` is the scale of the latents.

    `shift` multiplies the sampler's shift.
    """
    train = {"timesteps.generate.mean": round(MEAN + math.log(factor) + offset, 2)}
    if factor != 1:
        train["vae"] = "runs/vae_quarter"
    return VariantConfig(train, {"shift": round(factor * shift * math.exp(MEAN), 2)})


def get_config():
    return to_config_dict(
        SweepConfig(
            name="image_timesteps",
            base="genmask_tiny",
            variants={
                "fitting": variant(0),
                "lower": variant(-OTHER),
                "higher": variant(OTHER),
                "fitting_quarter": variant(0, factor=0.25),
                "lower_quarter": variant(-OTHER, factor=0.25),
                "higher_quarter": variant(OTHER, factor=0.25),
                "shift_low": variant(0, shift=0.25),
                "shift_high": variant(0, shift=4),
            },
            reference="fitting",
            metrics=("scenes.objects_f1", "scenes.colours_f1", "generation.share_right"),
            train={
                "data.mixture.images": 7,
                "timesteps.generate.std": STD,
                "loop.num_steps": 1000,
                "loop.eval_every_steps": 1000,
                "loop.checkpoint_every_steps": 250,
            },
            evaluate={"split": "test", "count": 64, "num_images": 192},
        )
    )
