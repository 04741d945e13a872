"""A small VAE for 64 px ReferShapes: 8 x 8 latents of 12 channels.

    python launch/train_vae.py --config=configs/vae_tiny.py --workdir=runs/vae_tiny

2 min 19 s on two CPU cores (Zen 5): reconstructs masks with mIoU 0.934 and images with PSNR 25.8 dB (256 val
scenes).

All convolutions run on the 8 x 8 grid, where XLA is fast on CPUs. The latents also suit the DiT: on 16 x 16
latents of 4 channels, the same DiT needs more than twice as many examples for the same masks.
"""

from genmask_jax.config import DataConfig, LoopConfig, OptimizerConfig, VAETrainConfig
from genmask_jax.fields import to_config_dict
from genmask_jax.models.vae import VAEConfig


def get_config():
    return to_config_dict(
        VAETrainConfig(
            name="vae_tiny",
            vae=VAEConfig(
                base_dim=64,
                decoder_base_dim=128,
                channels=12,
                multipliers=(1,),
                num_res_blocks=1,
                patch_size=8,
            ),
            data=DataConfig(name="refershapes", size=64),
            mask_weight=2.0,
            optimizer=OptimizerConfig(learning_rate=2.5e-3, warmup_steps=50),
            loop=LoopConfig(
                num_steps=1850,
                global_batch_size=16,
                ema_decay=0.99,
                eval_every_steps=925,
                checkpoint_every_steps=925,
                num_eval_examples=256,
            ),
        )
    )
