"""Public configs and tensor names of Qwen2.5-VL and Qwen2.5 (names of the hub and of transformers 5)."""

import re
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from genmask_jax.instruction.qwen.config import QwenConfig, QwenTextConfig, QwenVisionConfig
from genmask_jax.instruction.qwen.encoder import abstract_state
from genmask_jax.parameters.layout import LINEAR, SAME, Entry, Layout, make_entry, public_name
from genmask_jax.parameters.names import flat_paths
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.extras import need

NAMES = {
    "vision.patch_embed": "visual.patch_embed.proj",
    "vision.blocks.qkv": "visual.blocks.{}.attn.qkv",
    "vision.blocks.proj": "visual.blocks.{}.attn.proj",
    "vision.blocks": "visual.blocks.{}",
    "vision.merger.norm": "visual.merger.ln_q",
    "vision.merger.linear_1": "visual.merger.mlp.0",
    "vision.merger.linear_2": "visual.merger.mlp.2",
    "text.embed_tokens": "model.embed_tokens.weight",
    "text.blocks.input_norm": "model.layers.{}.input_layernorm",
    "text.blocks.mlp_norm": "model.layers.{}.post_attention_layernorm",
    "text.blocks.mlp": "model.layers.{}.mlp",
    "text.blocks": "model.layers.{}.self_attn",
    "text.norm": "model.norm",
    "lm_head": "lm_head",
}
"""Our modules -> the hub's. The longest matching prefix of a path is replaced."""

NEWER_NAMES = {r"^model\.visual\.": "visual.", r"^model\.language_model\.": "model."}
"""Patterns of module names in transformers 5 -> names on the hub."""

TIED = "lm_head.weight"
"""Output projection, which is ignored if it is tied to the token embedding."""

MROPE = {"qwen2_5_vl": (16, 24, 24), "qwen2": None}
"""Default `mrope_section` by model type; text-only models have one axis."""

CONFIGS = {"qwen2_5_vl": "Qwen2_5_VLConfig", "qwen2": "Qwen2Config"}
"""Config classes in transformers, by model type."""


def to_hub(key: str) -> str:
    """Converts a key of transformers 5 to the hub's; keys of the hub are returned unchanged."""
    for pattern, name in NEWER_NAMES.items():
        key = re.sub(pattern, name, key)
    return key


def config_from_public(values: dict[str, Any], where: str) -> QwenConfig:
    """Converts a public `config.json` to our config.

    Args:
        values: contents of config.json.
        where: path of config.json, for error messages.

    Raises:
        UserError: the model is of another type, or has features that are not supported.
    """
    kind = values.get("model_type")
    if kind not in CONFIGS:
        raise UserError(f"{where}: model_type is {kind!r}; supported are {', '.join(CONFIGS)}")
    need("transformers", "qwen", "Qwen")
    import transformers

    try:
        public = getattr(transformers, CONFIGS[kind]).from_dict(values)  # also reads older layouts of configs
    except (StrictDataclassError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{where}: {str(error).splitlines()[-1].strip()}") from error
    text = public.get_text_config()
    _need_equal(where, "hidden_act", text.hidden_act, "silu")
    _need_equal(where, "rope_type", text.rope_parameters["rope_type"], "default")
    _need_equal(where, "use_sliding_window", bool(text.use_sliding_window), False)
    text_config = _text_config(text, MROPE[kind], tied=bool(public.tie_word_embeddings))
    if kind == "qwen2":
        return QwenConfig(text_config, QwenVisionConfig(depth=0, full_attention=()))
    vision = public.vision_config
    _need_equal(where, "vision_config.hidden_act", vision.hidden_act, "silu")
    _need_equal(where, "vision_config.in_channels", vision.in_channels, 3)
    _need_equal(where, "vision_config.out_hidden_size", vision.out_hidden_size, text.hidden_size)
    return QwenConfig(text_config, _vision_config(vision))


def _text_config(text: Any, mrope: tuple[int, ...] | None, *, tied: bool) -> QwenTextConfig:
    half = text.hidden_size // text.num_attention_heads // 2
    return QwenTextConfig(
        vocab_size=text.vocab_size,
        hidden_size=text.hidden_size,
        depth=text.num_hidden_layers,
        num_heads=text.num_attention_heads,
        num_kv_heads=text.num_key_value_heads,
        ffn_size=text.intermediate_size,
        rope_theta=float(text.rope_parameters["rope_theta"]),
        mrope_section=tuple(text.rope_parameters.get("mrope_section", mrope or (half, 0, 0))),
        eps=text.rms_norm_eps,
        tied=tied,
    )


def _vision_config(vision: Any) -> QwenVisionConfig:
    return QwenVisionConfig(
        depth=vision.depth,
        hidden_size=vision.hidden_size,
        num_heads=vision.num_heads,
        ffn_size=vision.intermediate_size,
        patch_size=vision.patch_size,
        temporal_patch_size=vision.temporal_patch_size,
        merge_size=vision.spatial_merge_size,
        window_size=vision.window_size,
        full_attention=tuple(vision.fullatt_block_indexes),
    )


def _need_equal(where: str, name: str, value: Any, expected: Any) -> None:
    if value != expected:
        raise UserError(f"{where}: {name} is {value!r}; only {expected!r} is supported")


def entries(config: QwenConfig) -> list[Entry]:
    """Maps every parameter of the model to its tensors on the hub."""
    return [_entry(path, leaf.shape, config) for path, leaf in flat_paths(abstract_state(config))]


def _entry(path: str, shape: tuple[int, ...], config: QwenConfig) -> Entry:
    module, key = public_name(path, NAMES)
    if module == "vision.patch_embed":
        return make_entry(path, shape, key, _patch_projection(config.vision))
    return make_entry(path, shape, key, LINEAR if path.endswith(".kernel") else SAME)


def _patch_projection(config: QwenVisionConfig) -> Layout:
    """A convolution over patches, `[D, 3, t, p, p]`, as a projection of patches, `[3 * t * p * p, D]`."""
    shape = (3, config.temporal_patch_size, config.patch_size, config.patch_size)
    return Layout(lambda x: x.reshape(x.shape[0], -1).T, lambda x: x.T.reshape(-1, *shape))
