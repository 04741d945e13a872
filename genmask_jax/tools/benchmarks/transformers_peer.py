"""Qwen's vision tower and language model in transformers, with PyTorch."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from genmask_jax.instruction.qwen.config import QwenConfig
from genmask_jax.utils.errors import UserError


def make_stages(
    config: QwenConfig, inputs: dict[str, np.ndarray], image_size: int, dtype: str
) -> dict[str, Callable[[], Any]]:
    """Returns the vision tower and the language model as stages, with random weights.

    Args:
        config: shape of the model.
        inputs: prepared prompts; only their shapes and positions are used.
        image_size: side of the images in pixels; rounded to a multiple of the token size.
        dtype: dtype of weights and matrix products.

    Raises:
        UserError: PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError(
            '--peer=transformers: torch is not installed; pip install "genmask-jax[test]"'
        ) from error
    from transformers import AutoModel

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    text_config, vision_config = peer_configs(config)
    torch_dtype = getattr(torch, dtype)
    vision = AutoModel.from_config(vision_config, dtype=torch_dtype).eval()
    text = AutoModel.from_config(text_config, dtype=torch_dtype).eval()
    batch, length = inputs["input_ids"].shape
    side = max(1, round(image_size / config.vision.token_size)) * config.vision.merge_size
    pixels = 3 * config.vision.temporal_patch_size * config.vision.patch_size**2
    patches = torch.zeros(batch * side**2, pixels, dtype=torch_dtype)
    grids = torch.tensor([[1, side, side]] * batch)
    x = torch.ones(batch, length, config.text.hidden_size, dtype=torch_dtype)
    positions = torch.from_numpy(inputs["positions"].astype(np.int64)).permute(2, 0, 1)

    @torch.no_grad()
    def run_vision() -> Any:
        return vision(patches, grid_thw=grids)

    @torch.no_grad()
    def run_text() -> Any:
        return text(inputs_embeds=x, position_ids=positions, use_cache=False)

    return {"vision": run_vision, "text": run_text}


def peer_configs(config: QwenConfig) -> tuple[Any, Any]:
    """The configs of the language model and of the vision tower in transformers."""
    from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import (
        Qwen2_5_VLTextConfig,
        Qwen2_5_VLVisionConfig,
    )

    text, vision = config.text, config.vision
    return Qwen2_5_VLTextConfig(
        vocab_size=text.vocab_size,
        hidden_size=text.hidden_size,
        num_hidden_layers=text.depth,
        num_attention_heads=text.num_heads,
        num_key_value_heads=text.num_kv_heads,
        intermediate_size=text.ffn_size,
        rms_norm_eps=text.eps,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": text.rope_theta,
            "mrope_section": list(text.mrope_section),
        },
    ), Qwen2_5_VLVisionConfig(
        depth=vision.depth,
        hidden_size=vision.hidden_size,
        num_heads=vision.num_heads,
        intermediate_size=vision.ffn_size,
        patch_size=vision.patch_size,
        temporal_patch_size=vision.temporal_patch_size,
        spatial_merge_size=vision.merge_size,
        window_size=vision.window_size,
        fullatt_block_indexes=list(vision.full_attention),
        out_hidden_size=text.hidden_size,
    )
