"""GenMask L: DiT and VAE of Wan 2.1 1.3B (30 layers of 1536), instructions by Qwen2.5-VL-7B, 256 px.

    python launch/import_weights.py wan --from=Wan2.1-T2V-1.3B-Diffusers --out=weights/wan_l --text_dim=3584
    python launch/import_weights.py qwen --from=Qwen2.5-VL-7B-Instruct --out=weights/qwen_7b
    python launch/train.py --config=configs/genmask_l.py --workdir=runs/genmask_l

1.419 B parameters are trained: with AdamW and the EMA a float32 state takes 23 GB. Qwen is frozen, 15.5 GB in
bfloat16. --config.mesh.fsdp=N divides both over N devices.
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
from genmask_jax.instruction.qwen.config import QwenInstructionConfig
from genmask_jax.models.dit import DiTConfig


def get_config():
    return to_config_dict(
        TrainConfig(
            name="genmask_l",
            vae="weights/wan_l",
            init="weights/wan_l",
            model=DiTConfig(**DIT_SIZES["l"], remat="all"),
            data=DataConfig(name="stamps", path="data/stamps", size=256),
            instruction=InstructionConfig(
                name="qwen",
                # A picture of 256 px is 9 x 9 tokens.
                qwen=QwenInstructionConfig(weights="weights/qwen_7b", image_token_budgets=(81, 324)),
            ),
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
