"""The model that comes with the package: varied scenes of ReferShapes at 64 px.

    python launch/train_vae.py --config=configs/vae_tiny.py --config.data.scenes=varied \
        --config.loop.num_steps=3200 --config.loop.eval_every_steps=800 --workdir=runs/box_vae
    python launch/train.py --config=configs/genmask_refershapes.py --config.vae=runs/box_vae \
        --workdir=runs/box

940,000 masks and as many images. What differs from genmask_tiny.py: a larger DiT, varied scenes, expressions
that refer to nothing (one in ten), pooled text in the modulation, larger batches, images at more noise, and
the shift of the image sampler that fits it.
"""

from genmask_jax.utils.config_files import base_config


def get_config():
    config = base_config("genmask_tiny", __file__)
    config.name = "genmask_refershapes"
    config.model.update(hidden_size=160, depth=6, num_heads=5, ffn_size=640, pooled_text=True)
    config.data.update(scenes="varied", absent_share=0.1)
    config.timesteps.generate.update(mean=1.6, std=1.3)
    config.segment_weight = 1.0
    config.loop.update(
        num_steps=14_700,
        global_batch_size=128,
        ema_decay=0.999,
        eval_every_steps=4900,
        checkpoint_every_steps=250,
    )
    config.sampler.update(mask_threshold=0.5, guidance_scale=3.0, shift=4.0)
    return config
