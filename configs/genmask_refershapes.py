"""The next model for the package: varied scenes of ReferShapes at 64 px.

    python launch/train_vae.py --config=configs/vae_tiny.py --config.data.scenes=varied \
        --config.loop.num_steps=3200 --config.loop.eval_every_steps=800 --workdir=runs/box_vae
    python launch/train.py --config=configs/genmask_refershapes.py --config.vae=runs/box_vae \
        --workdir=runs/box

1.5 million masks and as many images. What differs from genmask_tiny.py: varied scenes, expressions that
refer to nothing (one in ten), pooled text in the modulation, larger batches, images at more noise, and the
shift of the image sampler that fits it.
"""

import pathlib
import runpy

TINY = pathlib.Path(__file__).with_name("genmask_tiny.py")


def get_config():
    config = runpy.run_path(str(TINY))["get_config"]()
    config.name = "genmask_refershapes"
    config.model.pooled_text = True
    config.data.scenes = "varied"
    config.data.absent_share = 0.1
    config.timesteps.generate.mean, config.timesteps.generate.std = 1.6, 1.3
    config.segment_weight = 1.0
    config.loop.global_batch_size = 64
    config.loop.num_steps = 47_000
    config.loop.ema_decay = 0.999
    config.loop.eval_every_steps = 4000
    config.loop.checkpoint_every_steps = 250
    config.sampler.mask_threshold = 0.5
    config.sampler.guidance_scale, config.sampler.shift = 3.0, 4.0
    return config
