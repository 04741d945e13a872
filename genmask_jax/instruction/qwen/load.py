"""Qwen as an `Instruction`: which parameters are trained, and where the others come from."""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from etils import epath
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from genmask_jax.config import to_json
from genmask_jax.instruction.base import Instruction, Targets
from genmask_jax.instruction.qwen.config import QwenConfig, QwenInstructionConfig, WriteConfig, need_layer
from genmask_jax.instruction.qwen.encoder import Qwen, QwenEncoder
from genmask_jax.instruction.qwen.files import TOKENIZER, learn_tokenizer, load_chat_template, load_tokenizer
from genmask_jax.instruction.qwen.prompts import CHAT_TEMPLATE, PromptMaker, QwenPreparer
from genmask_jax.sharding import placed
from genmask_jax.weights.layout import flat_paths, parameter_name
from genmask_jax.weights.qwen import HUB, find_qwen
from genmask_jax.weights.streaming import ParameterReader

SMALL_BYTES = 2**20


def build_qwen(
    config: QwenInstructionConfig, directory: epath.PathLike, texts: Iterable[str] = ()
) -> Instruction:
    """Qwen as the config says.

    Args:
        config: weights, or the shape of a model with random ones, and how it is used.
        directory: where the tokenizer of a model without weights is kept.
        texts: to learn that tokenizer from, in a new run.

    Raises:
        UserError: the weights or the tokenizer are not there, or have no such layer.
    """
    shape, maker = open_model(config, directory, texts)
    layer = need_layer(config, shape, "config.instruction.qwen")

    def make(rngs: nnx.Rngs, dtype: Any) -> QwenEncoder:
        trained = bool(config.train_layers or config.lora_rank)
        return QwenEncoder(
            shape,
            layer,
            train_layers=config.train_layers,
            lora_rank=config.lora_rank,
            remat=trained,
            dtype=dtype,
            param_dtype=dtype,
            rngs=rngs,
        )

    def load(targets: Targets) -> dict[str, jax.Array]:
        if not config.weights:
            return random_parameters(lambda rngs: make(rngs, jnp.float32), targets)
        reader = ParameterReader(find_qwen(config.weights)[1] / "params")
        return restore_layers(reader, targets, layer, config.train_layers)

    return Instruction(
        preparer=QwenPreparer(maker),
        make=make,
        text_dim=shape.text.hidden_size,
        trained=_is_trained,
        load=load,
        fingerprint=None if config.train_layers or config.lora_rank else lambda: fingerprint(config, maker),
        sees_pictures=shape.vision.depth > 0,
    )


def _is_trained(name: str) -> bool:
    return name.startswith("text.top_blocks.") or ".lora." in name


def open_model(
    config: QwenInstructionConfig, directory: epath.PathLike, texts: Iterable[str] = ()
) -> tuple[QwenConfig, PromptMaker]:
    """The shape of the model and its prompts; for the arguments see `build_qwen`."""
    if config.weights:
        shape, folder = find_qwen(config.weights)
        tokenizer, template = load_tokenizer(folder / HUB), load_chat_template(folder / HUB)
    else:
        shape, template = config.shape, CHAT_TEMPLATE
        tokenizer = _own_tokenizer(epath.Path(directory), list(texts), shape.text.vocab_size)
    return shape, PromptMaker(tokenizer, template, shape.vision, config)


def _own_tokenizer(directory: epath.Path, texts: list[str], vocab_size: int) -> tokenizers.Tokenizer:
    if texts:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / TOKENIZER).write_text(learn_tokenizer(texts, vocab_size).to_str())
    return load_tokenizer(directory)


def random_parameters(make: Callable[..., nnx.Module], targets: Targets) -> dict[str, jax.Array]:
    """The parameters of a model without weights: random ones, the same in every run."""
    dtypes = {name: target.dtype for name, target in targets.items()}

    def init() -> dict[str, jax.Array]:
        found = dict(flat_paths(nnx.state(make(nnx.Rngs(0)))))
        return {name: found[name][...].astype(dtype) for name, dtype in dtypes.items()}

    shardings = {name: target.sharding for name, target in targets.items()}
    return jax.jit(init, out_shardings=shardings)()


def load_whole(make: Callable[[nnx.Rngs], Qwen], config: QwenInstructionConfig) -> tuple[Any, Any]:
    """The graph and the state of a whole model, on this process's first device."""
    graph, state = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    device = SingleDeviceSharding(jax.local_devices()[0])
    targets = {name: placed(variable.get_value(), device) for name, variable in flat_paths(state)}
    if config.weights:
        loaded = ParameterReader(find_qwen(config.weights)[1] / "params").restore(targets)
    else:
        loaded = random_parameters(make, targets)
    return graph, jax.tree.map_with_path(lambda keys, _: loaded[parameter_name(keys)], state)


def restore_layers(
    reader: ParameterReader, targets: Targets, layer: int, train_layers: int
) -> dict[str, jax.Array]:
    """The parameters of a `QwenEncoder` from imported weights; the adapters are not among them.

    Args:
        reader: of the whole model.
        targets: what is wanted, by the encoder's names.
        layer, train_layers: of the encoder.
    """
    restored = {}
    for name, target in targets.items():
        source, first = name, 0
        if name.startswith("text.top_blocks."):
            source, first = name.replace("top_blocks", "blocks"), layer - train_layers
        if source in reader.shapes:
            restored[name] = _restore_part(reader, source, first, target)
    return restored


def _restore_part(reader: ParameterReader, name: str, first: int, target: jax.ShapeDtypeStruct) -> jax.Array:
    """As many layers of a parameter as the target has, from `first` on."""
    shape, sharding = reader.shapes[name], target.sharding
    if shape == target.shape:
        return reader.restore({name: target})[name]
    if isinstance(sharding, NamedSharding):  # all layers are read at first: their axis is not divided then
        sharding = NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec[1:]))
    whole = jax.ShapeDtypeStruct(shape, target.dtype, sharding=sharding)
    cut = jax.jit(lambda x: x[first : first + target.shape[0]], out_shardings=target.sharding)
    return cut(reader.restore({name: whole})[name])


def fingerprint(config: QwenInstructionConfig, maker: PromptMaker) -> str:
    """SHA-256 of what the states that are handed out depend on.

    Of weights, all parameters of less than a mebibyte count: the norms and biases of every layer.
    """
    prompts = dataclasses.replace(config.prompts, reason="")
    used = dataclasses.replace(config, weights="", prompts=prompts, write=WriteConfig())
    digest = hashlib.sha256(to_json(used).encode())
    digest.update(maker.tokenizer.to_str().encode())
    if config.weights:
        shape, folder = find_qwen(config.weights)
        digest.update(to_json(shape).encode() + load_chat_template(folder / HUB).encode())
        reader = ParameterReader(folder / "params")
        for name, parameter in sorted(reader.shapes.items()):
            if math.prod(parameter) * 4 < SMALL_BYTES:
                digest.update(name.encode() + np.float32(reader.read(name)).tobytes())
    return digest.hexdigest()
