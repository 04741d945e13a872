"""Stamps at 96 px: photographic cut-outs, referred to in open vocabulary (MiniLM).

    python launch/train.py --config=configs/genmask_stamps.py --workdir=runs/genmask_stamps

45 minutes on two CPU cores (Zen 5): one-pass mIoU 0.481, oIoU 0.512 on 2,048 test scenes (seen objects by
name 0.556 / 0.617).
"""

from genmask_jax.config import DIT_SIZES
from genmask_jax.utils.config_files import base_config


def get_config():
    config = base_config("genmask_tiny", __file__)
    config.name = "genmask_stamps"
    config.vae = "runs/vae_stamps"
    config.model.update(DIT_SIZES["tiny"])
    config.data.update(name="stamps", path="data/stamps", size=96)
    config.instruction.update(name="minilm", minilm_max_tokens=12)
    config.loop.update(
        num_steps=8400,
        global_batch_size=32,
        ema_decay=0.997,
        eval_every_steps=2100,
        checkpoint_every_steps=700,
        num_eval_examples=256,
    )
    config.sampler.guidance_scale = 3.0
    return config
