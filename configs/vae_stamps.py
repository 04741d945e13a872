"""A small VAE for 96 px Stamps: 24 x 24 latents of 4 channels."""

from genmask_jax.config import DataConfig, LoopConfig, OptimizerConfig, VAETrainConfig, to_config_dict
from genmask_jax.models.vae import VAEConfig


def get_config():
    return to_config_dict(
        VAETrainConfig(
            name="vae_stamps",
            vae=VAEConfig(
                base_dim=32, decoder_base_dim=48, channels=4, multipliers=(1,), num_res_blocks=1, patch_size=4
            ),
            data=DataConfig(name="stamps", path="data/stamps", size=96),
            optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50),
            loop=LoopConfig(
                num_steps=1300,
                global_batch_size=16,
                ema_decay=0.99,
                eval_every_steps=650,
                checkpoint_every_steps=650,
                num_eval_examples=256,
            ),
        )
    )
