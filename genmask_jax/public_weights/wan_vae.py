"""Public config and tensor names of Wan 2.1's VAE for single frames, in the layouts of diffusers and Wan."""

import re
from collections.abc import Iterable
from typing import Any

from flax import nnx

from genmask_jax.models.vae import VAE, VAEConfig
from genmask_jax.parameters.layout import (
    CHANNELS_2D,
    CHANNELS_3D,
    CONV_2D,
    SAME,
    Entry,
    causal_conv,
    make_entry,
)
from genmask_jax.parameters.names import flat_paths
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.fields import from_dict

LATENTS_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
LATENTS_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip
"""Statistics per latent channel, from diffusers' config.json; Wan's own files do not contain them."""

NAMES = {
    r"\.attention\.": ".attentions.0.",
    r"^encoder\.down_blocks\.(\d+)\.conv\.": r"encoder.down_blocks.\1.resample.1.",
    r"\.upsample\.conv\.": ".upsamplers.0.resample.1.",
    r"\.kernel$": ".weight",
}
"""Patterns of our names -> names of diffusers; all patterns are applied."""

RESIDUAL = {"residual.0": "norm1", "residual.2": "conv1", "residual.3": "norm2", "residual.6": "conv2"}
ORIGINAL_NAMES = {
    r"^conv1\.": "quant_conv.",
    r"^conv2\.": "post_quant_conv.",
    r"coder\.conv1\.": "coder.conv_in.",
    r"coder\.head\.0\.": "coder.norm_out.",
    r"coder\.head\.2\.": "coder.conv_out.",
    r"coder\.middle\.0\.": "coder.mid_block.resnets.0.",
    r"coder\.middle\.1\.": "coder.mid_block.attentions.0.",
    r"coder\.middle\.2\.": "coder.mid_block.resnets.1.",
    r"^encoder\.downsamples\.": "encoder.down_blocks.",
    **{rf"\.{re.escape(old)}\.": f".{new}." for old, new in RESIDUAL.items()},
    r"\.shortcut\.": ".conv_shortcut.",
}
"""Patterns of names of Wan -> names of diffusers; all are applied, after `_upsamples`."""

TEMPORAL_KEYS = re.compile(r"\.time_conv\.(weight|bias)$")
"""Convolutions between frames, which single frames do not use."""
FIXED_FIELDS = {"attn_scales": [], "is_residual": False, "dropout": 0.0}


def to_diffusers(key: str) -> str:
    """Converts a key of Wan to diffusers'; keys of diffusers are returned unchanged."""
    key = re.sub(r"^decoder\.upsamples\.(\d+)\.", _upsamples, key)
    for pattern, name in ORIGINAL_NAMES.items():
        key = re.sub(pattern, name, key)
    return key


def _upsamples(match: re.Match) -> str:
    """Wan has a flat list, where every fourth module is an upsampler and the others are resnets."""
    level, index = divmod(int(match[1]), 4)
    part = "upsamplers.0" if index == 3 else f"resnets.{index}"
    return f"decoder.up_blocks.{level}.{part}."


def unused_keys(keys: Iterable[str]) -> list[str]:
    """The keys that single frames do not use: `time_conv`."""
    return [key for key in keys if TEMPORAL_KEYS.search(key)]


def config_from_public(values: dict[str, Any], where: str) -> tuple[VAEConfig, tuple, tuple]:
    """Converts diffusers' `config.json` to our config, and the mean and standard deviation of latents.

    Raises:
        UserError: a field is missing, or belongs to another kind of VAE.
    """
    for name, value in FIXED_FIELDS.items():
        if values.get(name, value) != value:
            raise UserError(
                f"{where}: {name} is {values[name]!r}, but Wan 2.1's VAE has {value!r}; this is another VAE"
            )
    try:
        fields = {
            "base_dim": values["base_dim"],
            "decoder_base_dim": values.get("decoder_base_dim") or values["base_dim"],
            "channels": values["z_dim"],
            "multipliers": values["dim_mult"],
            "num_res_blocks": values["num_res_blocks"],
            "patch_size": values.get("patch_size") or 1,
        }
    except KeyError as error:
        raise UserError(f"{where}: {error.args[0]} is missing") from error
    config = from_dict(VAEConfig, fields, where)
    mean, std = values.get("latents_mean") or LATENTS_MEAN, values.get("latents_std") or LATENTS_STD
    if not len(mean) == len(std) == config.channels:
        raise UserError(f"{where}: latents_mean and latents_std must have z_dim = {config.channels} numbers")
    return config, tuple(mean), tuple(std)


def config_to_public(config: VAEConfig, mean: list[float], std: list[float]) -> dict[str, Any]:
    """The `config.json` of diffusers' `AutoencoderKLWan`."""
    steps = len(config.multipliers) - 1
    return {
        "_class_name": "AutoencoderKLWan",
        "_diffusers_version": "0.42.1",
        "base_dim": config.base_dim,
        "decoder_base_dim": config.decoder_base_dim,
        "z_dim": config.channels,
        "dim_mult": list(config.multipliers),
        "num_res_blocks": config.num_res_blocks,
        "temperal_downsample": [level > 0 for level in range(steps)],
        "in_channels": 3 * config.patch_size**2,
        "out_channels": 3 * config.patch_size**2,
        "patch_size": None if config.patch_size == 1 else config.patch_size,
        "scale_factor_spatial": config.stride,
        "scale_factor_temporal": 2 ** max(steps - 1, 0),
        "latents_mean": mean,
        "latents_std": std,
        **FIXED_FIELDS,
    }


def abstract_state(config: VAEConfig) -> nnx.State:
    """Shapes of all parameters and of the latent statistics; nothing is allocated."""
    return nnx.eval_shape(lambda: nnx.state(VAE(config, rngs=nnx.Rngs(0))))


def entries(config: VAEConfig) -> list[Entry]:
    """Maps every parameter of the VAE to its tensor in diffusers."""
    parameters = flat_paths(abstract_state(config))
    return [_entry(path, leaf.shape) for path, leaf in parameters if not path.startswith("latents_")]


def _entry(path: str, shape: tuple[int, ...]) -> Entry:
    key = path
    for pattern, name in NAMES.items():
        key = re.sub(pattern, name, key)
    is_2d = ".attentions." in key or ".resample." in key  # layers that act on each frame separately
    if path.endswith(".gamma"):
        return make_entry(path, shape, key, CHANNELS_2D if is_2d else CHANNELS_3D)
    if path.endswith(".bias"):
        return make_entry(path, shape, key, SAME)
    return make_entry(path, shape, key, CONV_2D if is_2d else causal_conv(shape[0]))


def temporal_tensors(config: VAEConfig) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the `time_conv` tensors, which diffusers has in addition to `entries`."""
    steps, shapes = len(config.multipliers) - 1, {}
    for level in range(1, steps):
        module = f"encoder.down_blocks.{level * (config.num_res_blocks + 1) + config.num_res_blocks}"
        size = config.base_dim * config.multipliers[level]
        shapes[f"{module}.time_conv.weight"], shapes[f"{module}.time_conv.bias"] = (
            (size, size, 3, 1, 1),
            (size,),
        )
    for level in range(steps - 1):
        module = f"decoder.up_blocks.{level}.upsamplers.0"
        size = config.decoder_base_dim * config.multipliers[steps - level]
        shapes[f"{module}.time_conv.weight"] = (2 * size, size, 3, 1, 1)
        shapes[f"{module}.time_conv.bias"] = (2 * size,)
    return shapes
