"""GenMask L, after the paper: DiT and VAE of Wan 2.1 1.3B (30 layers, width 1536), instructions by
Qwen2.5-VL-7B, 8,000 steps at 512 px and batch size 1,024: RefCOCO, RefCOCO+ and RefCOCOg together, and COCO
captions, 1 : 1. Neither half contains images that any of the three holds out for evaluation.

    python launch/import_weights.py wan --from=Wan2.1-T2V-1.3B-Diffusers --out=weights/wan_l --text_dim=3584
    python launch/import_weights.py qwen --from=Qwen2.5-VL-7B-Instruct --out=weights/qwen_7b
    for data in refcoco refcocoplus refcocog coco_captions; do
        python launch/prepare_data.py $data --raw=RAW --out=data    # RAW: see docs/benchmarks.md
    done
    python launch/train.py --config=configs/genmask_l.py --workdir=runs/genmask_l
    python launch/evaluate.py --checkpoint=runs/genmask_l --config=configs/evaluate_refcoco.py

The paper's are the networks, the number of steps, the batch size, one loss for masks and images at 1 : 1, and
the noise levels of images. The paper's data, image size, optimizer, learning rate, EMA, share of dropped
prompts and use of Qwen (here frozen, its last layer) are not known to us; these are our choices. One choice
differs from the paper: a tenth of the masks are trained near clean data (`bimodal`). In the paper, all are
trained near pure noise; --config=configs/genmask_l.py:paper does the same (docs/method.md).

1.419 B parameters are trained: with AdamW and EMA, the float32 state takes 23 GB. Qwen is frozen and takes
15.5 GB in bfloat16. The mesh shards both over 8 devices (N with --config.mesh.fsdp=N). docs/scale.md
estimates the training time on various devices; fewer devices need --config.loop.grad_accumulation_steps,
which genmask_l_8xh100.py sets for one host of eight H100s.
"""

from genmask_jax.config import DIT_SIZES, DataConfig, LoopConfig, OptimizerConfig, TrainConfig
from genmask_jax.instruction.config import InstructionConfig
from genmask_jax.instruction.qwen.config import QwenInstructionConfig
from genmask_jax.models.dit import DiTConfig
from genmask_jax.sharding import MeshConfig
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.fields import to_config_dict


def get_config(variant: str = ""):
    """`variant`: "paper" for the paper's noise levels of masks, "" for ours."""
    if variant not in ("", "paper"):
        raise UserError(f"--config={__file__}:{variant}: there is no such variant; use :paper, or none")
    config = to_config_dict(
        TrainConfig(
            name="genmask_l",
            vae="weights/wan_l",
            init="weights/wan_l",
            model=DiTConfig(**DIT_SIZES["l"], remat="attention"),
            data=DataConfig(
                name="refcoco_joint", generate="coco_captions", path="data", size=512, num_workers=8
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
    if variant == "paper":
        config.name = "genmask_l_paper"
        config.timesteps.segment.name = "long_tail"
    return config
