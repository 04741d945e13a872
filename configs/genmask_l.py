"""GenMask L: the DiT and the VAE of Wan 2.1 1.3B (30 layers of 1536), 256 px.

    python launch/import_weights.py wan --from=Wan2.1-T2V-1.3B-Diffusers --out=weights/wan_l --text_dim=768
    python launch/train.py --config=configs/genmask_l.py --workdir=runs/genmask_l

1.419 B parameters (with Wan's own text width of 4096). With AdamW and the EMA a float32 state takes 23 GB.
"""

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
            name="genmask_l",
            vae="weights/wan_l",
            init="weights/wan_l",
            model=DiTConfig(**DIT_SIZES["l"], remat=True),
            data=DataConfig(name="stamps", path="data/stamps", size=256),
            instruction=InstructionConfig(name="minilm", minilm_max_tokens=32),
            compute_dtype="bfloat16",
            optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=1000, weight_decay=0.01),
            loop=LoopConfig(
                num_steps=50_000,
                global_batch_size=256,
                ema_decay=0.9999,
                eval_every_steps=2500,
                checkpoint_every_steps=2500,
                num_eval_examples=512,
            ),
        )
    )
