"""Noise levels of masks in training: the paper's long tail, both extremes, uniform and moderate.

    python launch/sweep.py --config=configs/ablations/mask_timesteps.py --workdir=runs/mask_timesteps

`quickstart` has the distribution of the quickstart: `bimodal` with a=0.01 and low_share=0.1. 30 trainings of
1,000 steps, a quarter of the quickstart's: this compares how fast masks are learned, not what is best after
long training.
"""

from genmask_jax.config import SweepConfig, VariantConfig
from genmask_jax.utils.fields import to_config_dict


def variant(name: str, **parameters: float) -> VariantConfig:
    """A distribution of the timesteps of masks."""
    fields = {"name": name, **parameters}
    return VariantConfig(train={f"timesteps.segment.{field}": value for field, value in fields.items()})


def get_config():
    return to_config_dict(
        SweepConfig(
            name="mask_timesteps",
            base="genmask_tiny",
            variants={
                "long_tail_0.05": variant("long_tail", a=0.05),
                "long_tail_0.1": variant("long_tail", a=0.1),
                "long_tail_0.5": variant("long_tail", a=0.5),
                "long_tail_0.01": variant("long_tail", a=0.01),
                "bimodal_0.05": variant("bimodal", a=0.05, low_share=0.05),
                "bimodal_0.1": variant("bimodal", a=0.05, low_share=0.1),
                "bimodal_0.25": variant("bimodal", a=0.05, low_share=0.25),
                "quickstart": VariantConfig(),
                "uniform": variant("uniform"),
                "logit_normal": variant("logit_normal", mean=0.0, std=1.0),
            },
            reference="long_tail_0.05",
            metrics=("mIoU", "oIoU", "swapped.mIoU_named"),
            train={"loop.num_steps": 1000, "loop.eval_every_steps": 1000, "loop.checkpoint_every_steps": 250},
            evaluate={"split": "test", "count": 256, "num_images": 1},
        )
    )
