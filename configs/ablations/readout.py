"""What reads masks from the predicted latents: the VAE's decoder, or a linear map.

    python launch/sweep.py --config=configs/ablations/readout.py --workdir=runs/readout

The map takes the latent of one cell to its pixels, and is fitted in closed form to 512 encoded masks of the
train split (docs/benchmarks.md). One training of 4,000 steps, as in the quickstart, for each seed. Masks are
cut at a probability of 0.5, since the base's threshold was chosen for the decoder. `readout` has the
milliseconds per mask of both, measured in turns in the evaluation with `linear`.
"""

from genmask_jax.config import SweepConfig, VariantConfig
from genmask_jax.utils.fields import to_config_dict


def get_config():
    return to_config_dict(
        SweepConfig(
            name="readout",
            base="genmask_tiny",
            variants={name: VariantConfig(evaluate={"mask_readout": name}) for name in ("decoder", "linear")},
            reference="decoder",
            metrics=(
                "mIoU",
                "P@0.9",
                "boundary_mIoU",
                "readout.decoder.ms_per_mask",
                "readout.linear.ms_per_mask",
            ),
            train={"loop.eval_every_steps": 4000, "loop.checkpoint_every_steps": 500},
            evaluate={"split": "test", "count": 512, "num_images": 1, "mask_threshold": 0.5},
        )
    )
