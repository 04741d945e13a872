"""Stamps at 96 px: photographic cut-outs, referred to in open vocabulary (MiniLM).

    python launch/train.py --config=configs/genmask_stamps.py --workdir=runs/genmask_stamps

45 minutes on two CPU cores (Zen 5): one-pass mIoU 0.481, oIoU 0.512 on 2,048 test scenes (seen objects by
name 0.556 / 0.617).
"""

from genmask_jax.config import (
    DIT_SIZES,
    DataConfig,
    LoopConfig,
    OptimizerConfig,
    SamplerConfig,
    TimestepsConfig,
    TrainConfig,
)
from genmask_jax.fields import to_config_dict
from genmask_jax.instruction.config import InstructionConfig
from genmask_jax.models.dit import DiTConfig
from genmask_jax.timesteps import Law


def get_config():
    return to_config_dict(
        TrainConfig(
            name="genmask_stamps",
            vae="runs/vae_stamps",
            model=DiTConfig(**DIT_SIZES["tiny"], patch_size=2, rope_theta=10.0, unroll=True),
            data=DataConfig(name="stamps", path="data/stamps", size=96),
            timesteps=TimestepsConfig(segment=Law("bimodal", a=0.01)),
            segment_weight=2.0,
            instruction=InstructionConfig(name="minilm", minilm_max_tokens=12),
            optimizer=OptimizerConfig(name="muon", learning_rate=3e-3, warmup_steps=100),
            loop=LoopConfig(
                num_steps=8400,
                global_batch_size=32,
                ema_decay=0.997,
                eval_every_steps=2100,
                checkpoint_every_steps=700,
                num_eval_examples=256,
            ),
            sampler=SamplerConfig(mask_threshold=0.4),
        )
    )
