"""Masks on one's own photographs, from the model in the package; `launch/finetune.py` uses it.

    python launch/finetune.py --raw=my_images --workdir=runs/mine

Trains on masks alone unless the images have captions. A class is asked for by its name.
"""

from genmask_jax.config import (
    AugmentConfig,
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
            name="finetune",
            vae="runs/vae_photographs",
            init="refershapes",
            model=DiTConfig(
                hidden_size=128,
                depth=5,
                num_heads=4,
                ffn_size=512,
                patch_size=2,
                rope_theta=10.0,
                unroll=True,
            ),
            data=DataConfig(
                name="image_folder",
                generate="none",
                path="data",
                size=96,
                augment=AugmentConfig(crop=0.25, flip=0.5, jitter=0.4),
                absent_share=0.1,
            ),
            small_mask_weight=20.0,
            timesteps=TimestepsConfig(segment=Law("bimodal", a=0.01)),
            instruction=InstructionConfig(name="tiny"),
            optimizer=OptimizerConfig(name="muon", learning_rate=3e-3, warmup_steps=100),
            loop=LoopConfig(
                num_steps=2700,
                global_batch_size=16,
                ema_decay=0.995,
                eval_every_steps=900,
                checkpoint_every_steps=900,
            ),
            sampler=SamplerConfig(mask_threshold=0.4),
        )
    )
