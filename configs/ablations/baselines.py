"""Is the generative way ahead of a U-Net, and of the same DiT with a linear head, and in what?

    python launch/sweep.py --config=configs/ablations/baselines.py --workdir=runs/baselines

The baselines are in baselines/ of a checkout. All variants have the same data, text encoder and number of
trained parameters, and train for about as long (on CPUs) as `genmask` with 1,000 steps of 8 masks and 8
images. The others train on 16 masks per step. Seconds are in results.jsonl.
"""

from genmask_jax.config import SweepConfig, VariantConfig
from genmask_jax.utils.fields import to_config_dict

GENMASK = {"num_images": 1, "uncertainty": 8}


def baseline(name: str, num_steps: int) -> VariantConfig:
    """A baseline that is trained for a number of steps."""
    return VariantConfig(
        train={"loop.num_steps": num_steps},
        evaluate={"uncertainty": 1},
        base=f"baselines/configs/{name}.py",
        scripts="baselines",
    )


def get_config():
    return to_config_dict(
        SweepConfig(
            name="baselines",
            base="genmask_tiny",
            variants={
                "genmask": VariantConfig(evaluate=GENMASK),
                "genmask_masks_alone": VariantConfig(
                    train={"data.generate": "none", "loop.num_steps": 850}, evaluate=GENMASK
                ),
                "unet": baseline("unet", 650),
                "dit_linear": baseline("dit_linear", 1300),
            },
            reference="genmask",
            metrics=(
                "mIoU",
                "boundary_mIoU",
                "swapped.mIoU_named",
                "absent.absent_reported",
                "uncertainty.ece",
                "uncertainty.probability.masks.aurc",
                "uncertainty.spread.masks.aurc",
            ),
            train={"loop.num_steps": 1000, "loop.eval_every_steps": 2000, "loop.checkpoint_every_steps": 250},
            evaluate={"split": "test", "count": 256},
        )
    )
