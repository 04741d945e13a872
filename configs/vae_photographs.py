"""A small VAE for one's own photographs at 96 px: 24 x 24 latents of 6 channels.

    python launch/train_vae.py --config=configs/vae_photographs.py --config.data.path=data \
        --workdir=runs/vae_photographs

Starts from the VAE of the small model in the package, which has only seen coloured shapes.
"""

from genmask_jax.utils.config_files import base_config


def get_config():
    config = base_config("vae_tiny", __file__)
    config.name = "vae_photographs"
    config.init = "refershapes_small"
    config.data.update(name="image_folder", path="data", size=96)
    config.data.augment.update(crop=0.5, flip=0.5, jitter=0.2)
    config.optimizer.learning_rate = 1e-3
    config.loop.update(num_steps=400, eval_every_steps=200, checkpoint_every_steps=200, num_eval_examples=128)
    return config
