"""Photographic cut-outs named in words (open vocabulary by MiniLM), 96 px, on two CPU cores."""

from genmask_jax.config import (
    DIT_SIZES,
    DataConfig,
    InstructionConfig,
    LoopConfig,
    OptimizerConfig,
    TrainConfig,
    to_config_dict,
)
from genmask_jax.models.dit import DiTConfig


def get_config():
    return to_config_dict(
        TrainConfig(
            name="genmask_stamps",
            vae="runs/vae_stamps",
            model=DiTConfig(**DIT_SIZES["tiny"], patch_size=2, rope_theta=10.0, unroll=True),
            data=DataConfig(name="stamps", path="data/stamps", size=96),
            segment_weight=2.0,
            instruction=InstructionConfig(name="minilm", minilm_max_tokens=12),
            optimizer=OptimizerConfig(learning_rate=1.8e-3, warmup_steps=100),
            loop=LoopConfig(
                num_steps=5400,
                global_batch_size=32,
                ema_decay=0.997,
                eval_every_steps=1800,
                checkpoint_every_steps=1800,
            ),
        )
    )
