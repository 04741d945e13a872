"""GenMask L as in genmask_l.py, plus ReasonSeg's 239 training images, which give one mask in 32.

    python launch/prepare_data.py reasonseg --raw=REASONSEG --out=data    # and the data of genmask_l.py
    python launch/train.py --config=configs/genmask_l_reasonseg.py --workdir=runs/genmask_l_reasonseg
    python launch/evaluate.py --checkpoint=runs/genmask_l_reasonseg --config=configs/evaluate_reasonseg.py

Training uses the questions as they are; at evaluation the language model first describes the target.
"""

from genmask_jax.config import DIT_SIZES, DataConfig, JointConfig, LoopConfig, OptimizerConfig, TrainConfig
from genmask_jax.fields import to_config_dict
from genmask_jax.instruction.config import InstructionConfig
from genmask_jax.instruction.qwen.config import QwenInstructionConfig
from genmask_jax.models.dit import DiTConfig
from genmask_jax.sharding import MeshConfig


def get_config():
    return to_config_dict(
        TrainConfig(
            name="genmask_l_reasonseg",
            vae="weights/wan_l",
            init="weights/wan_l",
            model=DiTConfig(**DIT_SIZES["l"], remat="attention"),
            data=DataConfig(
                name="refcoco_joint",
                generate="coco_captions",
                joint=JointConfig(reasonseg=3 / 31),
                path="data",
                size=512,
                num_workers=8,
            ),
            instruction=InstructionConfig(
                name="qwen",
                # An image of 512 px is 18 x 18 tokens.
                qwen=QwenInstructionConfig(weights="weights/qwen_7b", image_token_budgets=(324,)),
            ),
            compute_dtype="bfloat16",
            optimizer=OptimizerConfig(learning_rate=1e-4, warmup_steps=500, weight_decay=0.01),
            loop=LoopConfig(
                num_steps=8000,
                global_batch_size=1024,
                ema_decay=0.999,
                eval_every_steps=1000,
                checkpoint_every_steps=500,
                num_eval_examples=512,
            ),
            mesh=MeshConfig(fsdp=8),
        )
    )
