"""The same training step in diffusers and PyTorch, eager and compiled."""

import gc
import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from genmask_jax.public_weights import wan_dit
from genmask_jax.tools.benchmarks.workload import LEARNING_RATE, WEIGHT_DECAY, Workload
from genmask_jax.utils.errors import UserError


def load() -> tuple[Any, Any]:
    """Imports torch and diffusers. Raises UserError if they are not installed."""
    try:
        import diffusers
        import torch
    except ImportError as error:
        raise UserError(
            f'--peer=diffusers: {error.name} is not installed; pip install "genmask-jax[test]"'
        ) from error
    return torch, diffusers


def make_model(workload: Workload) -> Any:
    """A `WanTransformer3DModel` of the workload's shape, initialised by diffusers."""
    torch, diffusers = load()
    torch.manual_seed(0)
    values = wan_dit.config_to_public(workload.model)
    return diffusers.WanTransformer3DModel.from_config(
        {name: value for name, value in values.items() if name[0] != "_"}
    )


def our_params(model: Any, workload: Workload) -> nnx.State:
    """The model's weights as the state of our DiT."""
    tensors = {name: value.detach().numpy() for name, value in model.named_parameters()}
    state = wan_dit.abstract_state(workload.model)
    entries = wan_dit.entries(workload.model)
    values = {entry.path: jnp.asarray(entry.gather(tensors)) for entry in entries}
    flat = [(path, leaf.replace(values[".".join(map(str, path))])) for path, leaf in nnx.to_flat_state(state)]
    return nnx.from_flat_state(flat)


def make_peer(model: Any, workload: Workload, *, compiled: bool) -> Callable[[], float]:
    """Returns a function that runs one step (forward, backward, AdamW) and returns the loss.

    It runs on the GPU if there is one. Weights, gradients and AdamW are float32, as in ours. bfloat16
    products use autocast; float32 products use TF32 on a GPU, as in JAX. `compiled` uses torch.compile in its
    default mode.
    """
    torch, _ = load()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
    model = model.to(device)
    inputs = workload.inputs()
    latents, target = (torch.from_numpy(np.moveaxis(inputs[n], -1, 1).copy()) for n in ("latents", "target"))
    text = torch.from_numpy(inputs["text_embeds"])
    timesteps = torch.from_numpy(1000 * inputs["timesteps"])
    if workload.frames > 1:  # diffusers takes one timestep per token, or one per example
        timesteps = timesteps.repeat_interleave(workload.tokens // workload.frames, dim=1)
    else:
        timesteps = timesteps[:, 0]
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    forward = torch.compile(model) if compiled else model
    latents, target, text, timesteps = (x.to(device) for x in (latents, target, text, timesteps))
    autocast = workload.dtype == "bfloat16"

    def run() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            velocity = forward(latents, timesteps, text, return_dict=False)[0]
        loss = (velocity.float() - target).square().mean()
        loss.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return loss.item()

    return run


def attention_kernels(run: Callable[[], Any]) -> str:
    """Names of the attention kernels of PyTorch in an eager call, such as "flash_attention".

    PyTorch documents `TorchDispatchMode` only under the private name of its module.
    """
    load()
    from torch.utils._python_dispatch import TorchDispatchMode

    kernels = set()

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            match = re.match(r"aten\._scaled_dot_product_(\w+)", str(func))
            if match and "backward" not in match[1]:
                kernels.add(match[1])
            return func(*args, **(kwargs or {}))

    with Recorder():
        run()
    return ", ".join(sorted(kernels)) or "matrix products"


class DeviceMemory:
    """Measures the GPU memory that PyTorch allocates after construction."""

    def __init__(self):
        torch, _ = load()
        self.cuda = torch.cuda if torch.cuda.is_available() else None
        if self.cuda:
            gc.collect()
            self.cuda.reset_peak_memory_stats()
            self.initial = self.cuda.memory_allocated()

    def peak(self) -> int | None:
        """Peak bytes; None without a GPU."""
        return self.cuda.max_memory_allocated() - self.initial if self.cuda else None
