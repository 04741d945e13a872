"""A small VAE for 64 px ReferShapes: 16 x 16 latents of 4 channels."""

from genmask_jax.config import DataConfig, LoopConfig, OptimizerConfig, VAETrainConfig, to_config_dict
from genmask_jax.models.vae import VAEConfig


def get_config():
    return to_config_dict(
        VAETrainConfig(
            name="vae_tiny",
            vae=VAEConfig(
                base_dim=32, decoder_base_dim=48, channels=4, multipliers=(1,), num_res_blocks=1, patch_size=4
            ),
            data=DataConfig(name="refershapes", size=64),
            optimizer=OptimizerConfig(learning_rate=4e-3, warmup_steps=50),
            loop=LoopConfig(
                num_steps=800,
                global_batch_size=32,
                ema_decay=0.99,
                eval_every_steps=400,
                checkpoint_every_steps=400,
                num_eval_examples=256,
            ),
        )
    )
