"""AdamW and Muon, each at two learning rates.

    python launch/sweep.py --config=configs/ablations/optimizers.py --workdir=runs/optimizers

1,000 steps each: this compares how fast masks are learned.
"""

from genmask_jax.config import SweepConfig, VariantConfig
from genmask_jax.utils.fields import to_config_dict


def get_config():
    return to_config_dict(
        SweepConfig(
            name="optimizers",
            base="genmask_tiny",
            variants={
                f"{name}_{rate:g}": VariantConfig(
                    train={"optimizer.name": name, "optimizer.learning_rate": rate}
                )
                for name in ("adamw", "muon")
                for rate in (1e-3, 3e-3)
            },
            reference="muon_0.003",
            metrics=("mIoU", "oIoU", "P@0.9"),
            train={"loop.num_steps": 1000, "loop.eval_every_steps": 1000, "loop.checkpoint_every_steps": 250},
            evaluate={"split": "test", "count": 256, "num_images": 1},
        )
    )
