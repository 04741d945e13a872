"""Public configs and tensor names of the Wan 2.1 text-to-video DiT in the layouts of diffusers and of Wan."""

import re
from typing import Any

from flax import nnx

from genmask_jax.models.dit import DiT, DiTConfig
from genmask_jax.parameters.layout import (
    LINEAR,
    SAME,
    TABLE,
    Entry,
    make_entry,
    patch_projection,
    public_name,
)
from genmask_jax.parameters.names import flat_paths
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.fields import from_dict

TEXT_PROJECTION = "text_embedder.linear_1"
"""Our module that is not imported if the width of the instruction encoder differs from Wan's."""

NAMES = {
    "patch_embedding": "patch_embedding",
    "time_embedder": "condition_embedder.time_embedder",
    "time_proj": "condition_embedder.time_proj",
    "text_embedder": "condition_embedder.text_embedder",
    "blocks.attn1.to_out": "blocks.{}.attn1.to_out.0",
    "blocks.attn2.to_out": "blocks.{}.attn2.to_out.0",
    "blocks.ffn.linear_1": "blocks.{}.ffn.net.0.proj",
    "blocks.ffn.linear_2": "blocks.{}.ffn.net.2",
    "blocks": "blocks.{}",
    "proj_out": "proj_out",
    "scale_shift_table": "scale_shift_table",
}
"""Our modules -> those of diffusers. The longest matching prefix of a path is replaced."""

ORIGINAL_NAMES = {
    r"^blocks\.(\d+)\.self_attn\.(q|k|v)\.": r"blocks.\1.attn1.to_\2.",
    r"^blocks\.(\d+)\.cross_attn\.(q|k|v)\.": r"blocks.\1.attn2.to_\2.",
    r"^blocks\.(\d+)\.self_attn\.o\.": r"blocks.\1.attn1.to_out.0.",
    r"^blocks\.(\d+)\.cross_attn\.o\.": r"blocks.\1.attn2.to_out.0.",
    r"^blocks\.(\d+)\.self_attn\.": r"blocks.\1.attn1.",
    r"^blocks\.(\d+)\.cross_attn\.": r"blocks.\1.attn2.",
    r"^blocks\.(\d+)\.norm3\.": r"blocks.\1.norm2.",
    r"^blocks\.(\d+)\.ffn\.0\.": r"blocks.\1.ffn.net.0.proj.",
    r"^blocks\.(\d+)\.ffn\.2\.": r"blocks.\1.ffn.net.2.",
    r"^blocks\.(\d+)\.modulation$": r"blocks.\1.scale_shift_table",
    r"^(time|text)_embedding\.0\.": r"condition_embedder.\1_embedder.linear_1.",
    r"^(time|text)_embedding\.2\.": r"condition_embedder.\1_embedder.linear_2.",
    r"^time_projection\.1\.": "condition_embedder.time_proj.",
    r"^head\.head\.": "proj_out.",
    r"^head\.modulation$": "scale_shift_table",
}
"""Patterns of names of Wan -> names of diffusers. Other names are the same in both."""

FIXED_FIELDS = {
    "_class_name": "WanTransformer3DModel",
    "patch_size": [1, 2, 2],
    "eps": 1e-6,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "image_dim": None,
    "added_kv_proj_dim": None,
    "pos_embed_seq_len": None,
}
"""Values that these fields of a public config must have, if they exist, for `DiT` to be the same model."""
ORIGINAL_FIXED_FIELDS = {
    "_class_name": "WanModel",
    "model_type": "t2v",
    "patch_size": [1, 2, 2],
    "eps": 1e-6,
    "qk_norm": True,
}


def to_diffusers(key: str) -> str:
    """Converts a key of Wan to diffusers'; keys of diffusers are returned unchanged."""
    for pattern, name in ORIGINAL_NAMES.items():
        renamed, count = re.subn(pattern, name, key)
        if count:
            return renamed
    return key


def config_from_public(values: dict[str, Any], where: str) -> DiTConfig:
    """Converts a public `config.json`, of diffusers or of Wan, to our config.

    Args:
        values: contents of config.json.
        where: path of config.json, for error messages.

    Raises:
        UserError: a field is missing, or belongs to another kind of model.
    """
    original = "model_type" in values
    _need_fixed(values, ORIGINAL_FIXED_FIELDS if original else FIXED_FIELDS, where)
    try:
        heads = values["num_heads" if original else "num_attention_heads"]
        size = values["dim"] if original else heads * values["attention_head_dim"]
        inputs = values["in_dim" if original else "in_channels"]
        outputs = values["out_dim" if original else "out_channels"] or inputs
        fields = {
            "hidden_size": size,
            "depth": values["num_layers"],
            "num_heads": heads,
            "ffn_size": values["ffn_dim"],
            "channels": inputs,
            "text_dim": values.get("text_dim", 4096),
            "frequency_dim": values["freq_dim"],
        }
    except KeyError as error:
        raise UserError(f"{where}: {error.args[0]} is missing") from error
    except TypeError as error:
        raise UserError(f"{where}: a field is not a number ({error})") from error
    config = from_dict(DiTConfig, fields, where)
    if inputs != outputs:
        raise UserError(f"{where}: {inputs} channels in and {outputs} out; expected a text-to-video model")
    return config


def _need_fixed(values: dict[str, Any], fixed: dict[str, Any], where: str) -> None:
    for name, value in fixed.items():
        actual = values.get(name, value)
        if (list(actual) if isinstance(actual, tuple) else actual) != value:
            raise UserError(f"{where}: {name} is {actual!r}; a Wan 2.1 text-to-video model has {value!r}")


def config_to_public(config: DiTConfig) -> dict[str, Any]:
    """The `config.json` of diffusers' `WanTransformer3DModel`.

    Raises:
        UserError: the patch size or the rotary base is not Wan's, or the clean frame has a learned embedding.
    """
    if config.clean_embedding:
        raise UserError(
            "objective.clean_frame=learned: diffusers cannot represent this model; Wan has no such embedding"
        )
    if config.patch_size != 2 or config.rope_theta != 1e4:
        raise UserError(
            f"patch_size {config.patch_size}, rope_theta {config.rope_theta}: diffusers cannot represent "
            "this model; Wan has patch_size 2 and rope_theta 1e4"
        )
    return {
        "_diffusers_version": "0.42.1",
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.hidden_size // config.num_heads,
        "in_channels": config.channels,
        "out_channels": config.channels,
        "text_dim": config.text_dim,
        "freq_dim": config.frequency_dim,
        "ffn_dim": config.ffn_size,
        "num_layers": config.depth,
        "rope_max_seq_len": 1024,
        **FIXED_FIELDS,
    }


def abstract_state(config: DiTConfig) -> nnx.State:
    """Shapes of all parameters; nothing is allocated."""
    return nnx.eval_shape(lambda: nnx.state(DiT(config, rngs=nnx.Rngs(0))))


def entries(config: DiTConfig) -> list[Entry]:
    """Maps every parameter of the DiT to its tensors in diffusers."""
    return [_entry(path, leaf.shape, config) for path, leaf in flat_paths(abstract_state(config))]


def _entry(path: str, shape: tuple[int, ...], config: DiTConfig) -> Entry:
    module, key = public_name(path, NAMES)
    *_, leaf = path.split(".")
    if leaf == "scale_shift_table":
        return make_entry(path, shape, key, TABLE)
    if leaf != "kernel":
        return make_entry(path, shape, key, SAME)
    layout = patch_projection(config.patch_size) if module == "patch_embedding" else LINEAR
    return make_entry(path, shape, key, layout)
