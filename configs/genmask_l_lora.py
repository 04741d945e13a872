r"""GenMask L by low-rank adapters, on one card of 24 GB: data and objective as in genmask_l.py, but the
1.42 B parameters of the DiT stay as they are, in bfloat16, beside 49 M that are trained.

    # Import the weights and prepare the data as in genmask_l.py; then encode once what is trained on (2.7 MB
    # for each of the masks), on a card that holds Qwen's 15.5 GB:
    python launch/encode_latents.py --config=configs/genmask_l_lora.py --out=data/genmask_l_512 \
        --instruction --dtype=bfloat16 --count=20000 --batch_size=8
    python launch/train.py --config=configs/genmask_l_lora.py --workdir=runs/genmask_l_lora
    python launch/evaluate.py --checkpoint=runs/genmask_l_lora --config=configs/evaluate_refcoco.py
    python launch/export_weights.py lora --from=runs/genmask_l_lora --out=weights/lora    # for diffusers

In training neither Qwen nor the VAE's encoder runs; the VAE (0.2 GB) stays on the card for validation. A
step has 4 parts of 8 masks and 8 images. The compiler needs 8.74 GiB of an RTX 4090's 24 GiB (and 1.19 GiB
are allowed for CUDA), and no step takes less than 8.8 s:

    python launch/compile.py --config=configs/genmask_l_lora.py --topology=rtx4090:1
"""

from genmask_jax.config import DIT_SIZES, DataConfig, LoopConfig, OptimizerConfig, TrainConfig
from genmask_jax.fields import to_config_dict
from genmask_jax.instruction.config import InstructionConfig
from genmask_jax.instruction.qwen.config import QwenInstructionConfig
from genmask_jax.models.dit import DiTConfig


def get_config():
    return to_config_dict(
        TrainConfig(
            name="genmask_l_lora",
            vae="weights/wan_l",
            init="weights/wan_l",
            model=DiTConfig(**DIT_SIZES["l"], remat="attention", lora_rank=32),
            data=DataConfig(
                name="refcoco_joint",
                generate="coco_captions",
                path="data",
                latents="data/genmask_l_512",
                size=512,
                num_workers=4,
            ),
            instruction=InstructionConfig(
                name="qwen",
                # An image of 512 px is 18 x 18 tokens.
                qwen=QwenInstructionConfig(weights="weights/qwen_7b", image_token_budgets=(324,)),
            ),
            compute_dtype="bfloat16",
            optimizer=OptimizerConfig(learning_rate=3e-4, warmup_steps=200, weight_decay=0.0),
            loop=LoopConfig(
                num_steps=8000,
                global_batch_size=64,
                grad_accumulation_steps=4,
                ema_decay=0.999,
                eval_every_steps=1000,
                checkpoint_every_steps=500,
                num_eval_examples=256,
            ),
        )
    )
