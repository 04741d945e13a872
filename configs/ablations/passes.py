"""Passes per mask: one, or refined by further passes near clean data.

    python launch/sweep.py --config=configs/ablations/passes.py --workdir=runs/passes

One training of 4,000 steps, as in the quickstart, for each seed. Masks are trained with `bimodal`, which has
the levels at which masks are refined.
"""

from genmask_jax.config import SweepConfig, VariantConfig
from genmask_jax.utils.fields import to_config_dict


def get_config():
    return to_config_dict(
        SweepConfig(
            name="passes",
            base="genmask_tiny",
            variants={
                f"{steps}_pass{'es' if steps > 1 else ''}": VariantConfig(evaluate={"mask_steps": steps})
                for steps in (1, 2, 4, 8)
            },
            reference="1_pass",
            metrics=("mIoU", "oIoU", "P@0.9"),
            train={"loop.eval_every_steps": 4000, "loop.checkpoint_every_steps": 500},
            evaluate={"split": "test", "count": 512, "num_images": 1},
        )
    )
