"""Small Wan models of diffusers with random weights, and our models with the same, imported weights."""

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from etils import epath
from flax import nnx

from genmask_jax.models.dit import DiT
from genmask_jax.models.vae import VAE
from genmask_jax.parameters.reader import ParameterReader
from genmask_jax.parameters.streaming import Streamed
from genmask_jax.public_weights import wan
from genmask_jax.public_weights.parts import Part


def randomise(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Random weights with which every part of a model matters: none are zero, and variance is preserved."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name and name.endswith(("weight", "gamma")):
                parameter.copy_(1 + 0.2 * noise)
            elif parameter.ndim > 1 and not name.endswith("scale_shift_table"):
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.2 * noise)
    return model.eval()


def reference_dit(**changes) -> WanTransformer3DModel:
    shape = {
        "num_attention_heads": 2,
        "attention_head_dim": 24,
        "in_channels": 4,
        "out_channels": 4,
        "text_dim": 20,
        "freq_dim": 32,
        "ffn_dim": 96,
        "num_layers": 2,
    }
    return randomise(WanTransformer3DModel(**{**shape, **changes}))


def reference_vae(patch_size: int | None = None, **changes) -> AutoencoderKLWan:
    channels = 3 * (patch_size or 1) ** 2
    shape = {
        "base_dim": 8,
        "z_dim": 4,
        "in_channels": channels,
        "out_channels": channels,
        "patch_size": patch_size,
        "latents_mean": [0.1, -0.7571, 0.3, 0.4],
        "latents_std": [2.8184, 2.0, 0.5, 1.5],
    }
    return randomise(AutoencoderKLWan(**{**shape, **changes}))


def save(directory, dit: WanTransformer3DModel | None = None, vae: AutoencoderKLWan | None = None, **options):
    """Writes models in the layout of the hub."""
    if dit is not None:
        dit.save_pretrained(directory / "transformer", **options)
    if vae is not None:
        vae.save_pretrained(directory / "vae")


def in_memory(part: Part) -> nnx.State:
    """An imported part as the state of our module, without writing it to disk."""
    is_leaf = lambda x: isinstance(x, Streamed)  # noqa: E731
    tree = jax.tree.map(lambda x: jnp.asarray(x.whole()), part.tree(), is_leaf=is_leaf)
    kind = {
        "dit": lambda: DiT(part.config, rngs=nnx.Rngs(0)),
        "vae": lambda: VAE(part.config, rngs=nnx.Rngs(0)),
    }
    state = nnx.state(nnx.eval_shape(kind[part.name]))

    def find(path, _):
        node = tree
        for name in jax.tree_util.keystr(path, simple=True, separator=".").split("."):
            node = node[name]
        return node

    return jax.tree.map_with_path(find, state)


def import_dit(reference: WanTransformer3DModel, directory) -> tuple[DiT, Part]:
    """Our DiT with the weights of the reference, and the imported part."""
    save(directory, dit=reference)
    (part,) = wan.open_wan(epath.Path(directory), ("dit",))
    graph = nnx.split(nnx.eval_shape(lambda: DiT(part.config, rngs=nnx.Rngs(0))))[0]
    return nnx.merge(graph, in_memory(part)), part


def import_vae(reference: AutoencoderKLWan, directory) -> VAE:
    """Our VAE with the weights and latent statistics of the reference."""
    save(directory, vae=reference)
    (part,) = wan.open_wan(epath.Path(directory), ("vae",))
    graph = nnx.split(nnx.eval_shape(lambda: VAE(part.config, rngs=nnx.Rngs(0))))[0]
    return nnx.merge(graph, in_memory(part))


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def to_torch(x: np.ndarray) -> torch.Tensor:
    """Channels last to channels second: `[B, ..., C]` -> `[B, C, ...]`."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def to_numpy(x: torch.Tensor) -> np.ndarray:
    """The inverse of `to_torch`."""
    return np.moveaxis(x.detach().numpy(), 1, -1)


def record(model: torch.nn.Module) -> dict[str, tuple[tuple, torch.Tensor]]:
    """Returns a dictionary in which `model` records the inputs and the output of each module when it runs."""
    records = {}

    def add_hook(name: str, module: torch.nn.Module) -> None:
        def save_record(_, inputs, output):
            records[name] = (inputs, output)

        module.register_forward_hook(save_record)

    for name, module in model.named_modules():
        add_hook(name, module)
    return records


def tensors(directory) -> dict[str, np.ndarray]:
    """All tensors of a folder's safetensors, by key."""
    result = {}
    for path in directory.glob("*.safetensors"):
        result |= safetensors.numpy.load_file(path)
    return result


def leaves(path) -> dict[str, np.ndarray]:
    """All parameters of a checkpoint of ours, by name."""
    reader = ParameterReader(epath.Path(path))
    return {name: reader.read(name) for name in reader.shapes}
