"""The losses of masks after as many steps as the quickstart: does the velocity catch up with cross-entropy?

    python launch/sweep.py --config=configs/ablations/losses_longer.py --workdir=runs/losses_longer

4,000 steps each. Each loss has its own threshold: the base's, which was chosen for the velocity, or 0.5.
"""

from genmask_jax.config import SweepConfig, VariantConfig
from genmask_jax.utils.fields import to_config_dict


def get_config():
    return to_config_dict(
        SweepConfig(
            name="losses_longer",
            base="genmask_tiny",
            variants={
                "velocity": VariantConfig(),
                "decoder_cross_entropy": VariantConfig(
                    {"objective.mask_loss": "decoder_cross_entropy"}, {"mask_threshold": 0.5}
                ),
            },
            reference="velocity",
            metrics=("mIoU", "oIoU", "P@0.9", "boundary_mIoU", "groups.kind.mIoU", "scenes.colours_f1"),
            train={"loop.eval_every_steps": 4000, "loop.checkpoint_every_steps": 500},
            evaluate={"split": "test", "count": 512, "num_images": 96},
        )
    )
