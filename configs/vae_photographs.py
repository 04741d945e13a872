"""A small VAE for one's own photographs at 96 px: 24 x 24 latents of 6 channels.

    python launch/train_vae.py --config=configs/vae_photographs.py --config.data.path=data \
        --workdir=runs/vae_photographs

Starts from the VAE of the model in the package, which has only seen coloured shapes.
"""

from genmask_jax.config import AugmentConfig, DataConfig, LoopConfig, OptimizerConfig, VAETrainConfig
from genmask_jax.fields import to_config_dict
from genmask_jax.models.vae import VAEConfig


def get_config():
    return to_config_dict(
        VAETrainConfig(
            name="vae_photographs",
            vae=VAEConfig(
                base_dim=32,
                decoder_base_dim=64,
                channels=6,
                multipliers=(1,),
                num_res_blocks=1,
                patch_size=4,
            ),
            init="refershapes",
            data=DataConfig(
                name="image_folder",
                path="data",
                size=96,
                augment=AugmentConfig(crop=0.5, flip=0.5, jitter=0.2),
            ),
            mask_weight=2.0,
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=50),
            loop=LoopConfig(
                num_steps=400,
                global_batch_size=16,
                ema_decay=0.99,
                eval_every_steps=200,
                checkpoint_every_steps=200,
                num_eval_examples=128,
            ),
        )
    )
