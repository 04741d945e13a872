"""The config of the instruction encoder."""

import dataclasses

from genmask_jax.instruction.qwen.config import QwenInstructionConfig
from genmask_jax.instruction.tiny import TinyTextConfig


@dataclasses.dataclass(frozen=True)
class InstructionConfig:
    """Which instruction encoder: "tiny" (trained with the DiT), "minilm" (frozen) or "qwen"."""

    name: str = "tiny"
    tiny: TinyTextConfig = TinyTextConfig()
    minilm_max_tokens: int = 24
    qwen: QwenInstructionConfig = QwenInstructionConfig()
