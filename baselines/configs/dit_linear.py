"""The DiT of genmask_tiny with a linear head, on its data, with its text encoder, VAE and optimizer.

    python baselines/train.py --config=baselines/configs/dit_linear.py --workdir=runs/dit_linear

Batches consist of masks alone: 16 per step, where genmask_tiny has 8 and as many images. 5,200 steps take
about as long as its 4,000 (on CPUs).
"""

from genmask_jax.utils.config_files import base_config


def get_config():
    config = base_config("genmask_tiny", __file__)
    config.name = "dit_linear"
    config.data.generate = "none"
    config.loop.num_steps = 5200
    config.sampler.mask_threshold = 0.5
    with config.unlocked():
        config.baseline = "dit_linear"
    return config
