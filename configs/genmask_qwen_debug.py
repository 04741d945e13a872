"""A miniature Qwen2.5-VL in place of the quickstart's text encoder: ReferShapes at 64 px.

    python launch/train.py --config=configs/genmask_qwen_debug.py --workdir=runs/qwen_debug

It has a few layers with frozen random weights, and reads the image as well as the words: everything that
genmask_l does with the real one, on a laptop. With the quickstart's earlier, coarser latents: one-pass mIoU
0.572, oIoU 0.555 on 512 test scenes (0.681 / 0.679 with --config.instruction.qwen.train_layers=2).
"""

from genmask_jax.instruction.config import InstructionConfig
from genmask_jax.instruction.qwen.config import (
    QwenConfig,
    QwenInstructionConfig,
    QwenTextConfig,
    QwenVisionConfig,
)
from genmask_jax.utils.config_files import base_config
from genmask_jax.utils.fields import to_config_dict

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
    config = base_config("genmask_tiny", __file__)
    config.name = "genmask_qwen_debug"
    qwen = QwenInstructionConfig(shape=MINIATURE, image_token_budgets=(16,), max_text_tokens=16)
    config.instruction = to_config_dict(InstructionConfig(name="qwen", qwen=qwen))
    config.loop.update(num_steps=3200, eval_every_steps=1600, checkpoint_every_steps=1600)
    return config
