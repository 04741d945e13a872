"""The quickstart's model: ReferShapes at 64 px.

    python launch/train.py --config=configs/genmask_tiny.py --workdir=runs/tiny

64 tokens a frame. The model that comes with the package was trained for longer (see its README.md).
"""

from genmask_jax.config import (
    DataConfig,
    LoopConfig,
    OptimizerConfig,
    SamplerConfig,
    TimestepsConfig,
    TrainConfig,
)
from genmask_jax.instruction.config import InstructionConfig
from genmask_jax.models.dit import DiTConfig
from genmask_jax.timesteps import TimestepDistribution
from genmask_jax.utils.fields import to_config_dict


def get_config():
    return to_config_dict(
        TrainConfig(
            name="genmask_tiny",
            vae="refershapes",
            model=DiTConfig(
                hidden_size=128,
                depth=5,
                num_heads=4,
                ffn_size=512,
                patch_size=2,
                rope_theta=10.0,
                unroll=True,
            ),
            data=DataConfig(name="refershapes", size=64),
            timesteps=TimestepsConfig(segment=TimestepDistribution("bimodal", a=0.01)),
            segment_weight=2.0,
            instruction=InstructionConfig(name="tiny"),
            optimizer=OptimizerConfig(name="muon", learning_rate=3e-3, warmup_steps=100),
            loop=LoopConfig(
                num_steps=4000,
                global_batch_size=16,
                ema_decay=0.995,
                eval_every_steps=2000,
                checkpoint_every_steps=2000,
            ),
            sampler=SamplerConfig(mask_threshold=0.4, guidance_scale=1.5),
        )
    )
