"""A miniature Qwen2.5-VL in place of the quickstart's text encoder: ReferShapes at 64 px.

    python launch/train.py --config=configs/genmask_qwen_debug.py --workdir=runs/qwen_debug

It has a few layers with frozen random weights, and reads the image as well as the words: everything that
genmask_l does with the real one, on a laptop. With the quickstart's earlier, coarser latents: one-pass mIoU
0.572, oIoU 0.555 on 512 test scenes (0.681 / 0.679 with --config.instruction.qwen.train_layers=2).
"""

from genmask_jax.config import (
    DataConfig,
    LoopConfig,
    OptimizerConfig,
    SamplerConfig,
    TimestepsConfig,
    TrainConfig,
)
from genmask_jax.fields import to_config_dict
from genmask_jax.instruction.config import InstructionConfig
from genmask_jax.instruction.qwen.config import (
    QwenConfig,
    QwenInstructionConfig,
    QwenTextConfig,
    QwenVisionConfig,
)
from genmask_jax.models.dit import DiTConfig
from genmask_jax.timesteps import Law

MINIATURE = QwenConfig(
    text=QwenTextConfig(
        vocab_size=512,
        hidden_size=128,
        depth=2,
        num_heads=4,
        num_kv_heads=2,
        ffn_size=256,
        mrope_section=(4, 6, 6),
    ),
    vision=QwenVisionConfig(
        depth=2, hidden_size=64, num_heads=4, ffn_size=128, patch_size=8, window_size=32, full_attention=(1,)
    ),
)


def get_config():
    return to_config_dict(
        TrainConfig(
            name="genmask_qwen_debug",
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
            timesteps=TimestepsConfig(segment=Law("bimodal", a=0.01)),
            segment_weight=2.0,
            instruction=InstructionConfig(
                name="qwen",
                qwen=QwenInstructionConfig(shape=MINIATURE, image_token_budgets=(16,), max_text_tokens=16),
            ),
            optimizer=OptimizerConfig(name="muon", learning_rate=3e-3, warmup_steps=100),
            loop=LoopConfig(
                num_steps=3200,
                global_batch_size=16,
                ema_decay=0.995,
                eval_every_steps=1600,
                checkpoint_every_steps=1600,
            ),
            sampler=SamplerConfig(mask_threshold=0.4, guidance_scale=1.5),
        )
    )
