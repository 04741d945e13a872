"""A U-Net with cross-attention, on the data and with the text encoder of genmask_tiny.

    python baselines/train.py --config=baselines/configs/unet.py --workdir=runs/unet

Batches consist of masks alone: 16 per step, where genmask_tiny has 8 and as many images. 2,600 steps take
about as long as its 4,000 (on CPUs).
"""

from genmask_jax.utils.config_files import base_config


def get_config():
    config = base_config("genmask_tiny", __file__)
    config.name = "unet"
    config.data.generate = "none"
    config.loop.num_steps = 2600
    config.optimizer.update(name="adamw", learning_rate=1e-3)
    config.sampler.mask_threshold = 0.5
    with config.unlocked():
        config.baseline = "unet"
        config.unet = {"channels": (32, 96, 160), "patch_size": 2, "num_heads": 4}
    return config
