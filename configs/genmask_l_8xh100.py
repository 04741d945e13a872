"""GenMask L as in genmask_l.py (or, with :paper, as in genmask_l.py:paper), on one host with eight H100s.

    python launch/compile.py --config=configs/genmask_l_8xh100.py --topology=h100:8    # the figures below
    python launch/train.py --config=configs/genmask_l_8xh100.py --workdir=runs/genmask_l_8xh100
    python launch/evaluate.py --checkpoint=runs/genmask_l_8xh100 --config=configs/evaluate_refcoco.py

Every step accumulates eight parts of 64 masks and 64 images, 8 and 8 on each card, and keeps the results of
matrix products for the backward pass. The compiler needs 39.73 GiB of each card's 79 GiB. By the estimate in
docs/scale.md, no step takes less than 4.05 s (60 % MFU of all networks), nor the run's 8,000 steps less than
9.0 hours.
"""

from genmask_jax.utils.config_files import base_config


def get_config(variant: str = ""):
    config = base_config(f"genmask_l:{variant}", __file__)
    config.name += "_8xh100"
    config.mesh.fsdp = 8
    config.model.remat = "matrices"
    config.loop.grad_accumulation_steps = 8
    return config
