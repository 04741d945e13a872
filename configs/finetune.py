"""Masks on one's own photographs, from the small model in the package; `launch/finetune.py` uses it.

    python launch/finetune.py --raw=my_images --workdir=runs/mine

Trains on masks alone unless the images have captions. A class is asked for by its name.
"""

from genmask_jax.utils.config_files import base_config


def get_config():
    config = base_config("genmask_tiny", __file__)
    config.name = "finetune"
    config.vae = "runs/vae_photographs"
    config.init = "refershapes_small"
    config.data.update(name="image_folder", generate="none", path="data", size=96, absent_share=0.1)
    config.data.augment.update(crop=0.25, flip=0.5, jitter=0.4)
    config.segment_weight = 1.0
    config.small_mask_weight = 20.0
    config.loop.update(num_steps=2700, eval_every_steps=900, checkpoint_every_steps=900)
    config.sampler.guidance_scale = 3.0
    return config
