"""GenMask XL: DiT (40 layers, width 5120) and VAE of Wan 2.1 14B, instructions by Qwen2.5-VL-7B, 512 px.

    python launch/import_weights.py wan --from=Wan2.1-T2V-14B-Diffusers --out=weights/wan_xl --text_dim=3584
    python launch/import_weights.py qwen --from=Qwen2.5-VL-7B-Instruct --out=weights/qwen_7b
    python launch/train.py --config=configs/genmask_xl.py --workdir=runs/genmask_xl

The data are the same as for genmask_l.py, which shows how to prepare them.
14.29 B parameters. With AdamW and EMA, the float32 state takes 229 GB. The mesh shards it, and Qwen, over 32
devices.
"""

from genmask_jax.config import DIT_SIZES, DataConfig, LoopConfig, OptimizerConfig, TrainConfig
from genmask_jax.fields import to_config_dict
from genmask_jax.instruction.config import InstructionConfig
from genmask_jax.instruction.qwen.config import QwenInstructionConfig
from genmask_jax.models.dit import DiTConfig
from genmask_jax.sharding import MeshConfig


def get_config():
    return to_config_dict(
        TrainConfig(
            name="genmask_xl",
            vae="weights/wan_xl",
            init="weights/wan_xl",
            model=DiTConfig(**DIT_SIZES["xl"], remat="all"),
            data=DataConfig(
                name="refcoco_joint", generate="coco_captions", path="data", size=512, num_workers=8
            ),
            instruction=InstructionConfig(
                name="qwen",
                # An image of 512 px is 18 x 18 tokens.
                qwen=QwenInstructionConfig(weights="weights/qwen_7b", image_token_budgets=(324,)),
            ),
            compute_dtype="bfloat16",
            optimizer=OptimizerConfig(learning_rate=5e-5, warmup_steps=500, weight_decay=0.01),
            loop=LoopConfig(
                num_steps=8000,
                global_batch_size=1024,
                ema_decay=0.999,
                eval_every_steps=1000,
                checkpoint_every_steps=500,
                num_eval_examples=512,
            ),
            mesh=MeshConfig(fsdp=32),
        )
    )
