"""Builds Qwen as an `Instruction`, and loads its weights."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from genmask_jax.instruction.base import Instruction
from genmask_jax.instruction.qwen.config import QwenConfig, QwenInstructionConfig, WriteConfig, need_layer
from genmask_jax.instruction.qwen.encoder import Qwen, QwenEncoder
from genmask_jax.instruction.qwen.files import TOKENIZER, learn_tokenizer, load_chat_template, load_tokenizer
from genmask_jax.instruction.qwen.imported import HUB, NAME, digest, find_qwen, open_parameters
from genmask_jax.instruction.qwen.prompts import CHAT_TEMPLATE, PromptMaker, QwenPreparer
from genmask_jax.parameters.files import read_json
from genmask_jax.parameters.names import flat_paths, with_leaves
from genmask_jax.parameters.plan import Source
from genmask_jax.parameters.reader import ParameterReader
from genmask_jax.parameters.rules import Targets
from genmask_jax.sharding import placed
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.fields import to_json
from genmask_jax.utils.paths import write_text

DIGEST_FILE = "weights.json"
"""File in a run's directory with the SHA-256 of its weights."""


def build(config: QwenInstructionConfig, directory: epath.PathLike, texts: Iterable[str] = ()) -> Instruction:
    """Builds Qwen from its config.

    Args:
        config: options, with imported weights or the shape of a model with random weights.
        directory: folder of the encoder's files in a run: the digest of imported weights, or the tokenizer of
            a model with random weights.
        texts: texts to learn this tokenizer from, in a new run.

    Raises:
        UserError: the weights or the tokenizer are missing, the layer does not exist, or the weights differ
            from those at the start of the run.
    """
    shape, maker = open_model(config, directory, texts)
    layer = need_layer(config, shape, "config.instruction.qwen")
    tokenizer, folder = maker.tokenizer, epath.Path(config.weights) / NAME

    def make(rngs: nnx.Rngs, dtype: Any) -> QwenEncoder:
        trained = bool(config.train_layers or config.lora_rank)
        return QwenEncoder(
            shape,
            layer,
            train_layers=config.train_layers,
            lora_rank=config.lora_rank,
            remat="all" if trained else "none",
            dtype=dtype,
            param_dtype=dtype,
            rngs=rngs,
        )

    def load(targets: Targets) -> dict[str, jax.Array]:
        if not config.weights:
            return random_parameters(lambda rngs: make(rngs, jnp.float32), targets)
        return restore_layers(open_parameters(shape, folder), targets, layer, config.train_layers)

    def save(directory: epath.Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        if config.weights:
            write_text(directory / DIGEST_FILE, json.dumps({"sha256": digest(folder)}))
        else:
            write_text(directory / TOKENIZER, tokenizer.to_str())

    return Instruction(
        preparer=QwenPreparer(maker),
        make=make,
        text_dim=shape.text.hidden_size,
        trained=("instruction.text.top_blocks",),
        source=Source.IMPORT if config.weights else Source.FRESH,
        load=load,
        fingerprint=None if config.train_layers or config.lora_rank else lambda: fingerprint(config, maker),
        save=save,
        needs_image=True,
    )


def open_model(
    config: QwenInstructionConfig, directory: epath.PathLike, texts: Iterable[str] = ()
) -> tuple[QwenConfig, PromptMaker]:
    """Returns the shape of the model and its prompts; for the arguments see `build`."""
    if config.weights:
        shape, folder = find_qwen(config.weights, "config.instruction.qwen.weights")
        _need_same_weights(config.weights, folder, epath.Path(directory))
        tokenizer, template = load_tokenizer(folder / HUB), load_chat_template(folder / HUB)
    else:
        shape, template = config.shape, CHAT_TEMPLATE
        texts = list(texts)
        tokenizer = learn_tokenizer(texts, shape.text.vocab_size) if texts else load_tokenizer(directory)
    return shape, PromptMaker(tokenizer, template, shape.vision, config)


def _need_same_weights(weights: str, folder: epath.Path, directory: epath.Path) -> None:
    path = directory / DIGEST_FILE
    if path.exists() and read_json(path)["sha256"] != digest(folder):
        raise UserError(
            f"config.instruction.qwen.weights={weights}: these are not the weights that the run in "
            f"{directory.parent} started with"
        )


def random_parameters(make: Callable[..., nnx.Module], targets: Targets) -> dict[str, jax.Array]:
    """Random parameters for a model without weights, the same in every run."""
    dtypes = {name: target.dtype for name, target in targets.items()}

    def init() -> dict[str, jax.Array]:
        parameters = dict(flat_paths(nnx.state(make(nnx.Rngs(0)))))
        return {name: parameters[name][...].astype(dtype) for name, dtype in dtypes.items()}

    shardings = {name: target.sharding for name, target in targets.items()}
    return jax.jit(init, out_shardings=shardings)()


def load_model(make: Callable[[nnx.Rngs], Qwen], config: QwenInstructionConfig) -> tuple[Any, Any]:
    """Loads the complete model on the first device of this process; returns its graph and state."""
    graph, state = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    device = SingleDeviceSharding(jax.local_devices()[0])
    targets = {name: placed(variable.get_value(), device) for name, variable in flat_paths(state)}
    if config.weights:
        shape, folder = find_qwen(config.weights, "config.instruction.qwen.weights")
        loaded = open_parameters(shape, folder).restore(targets)
    else:
        loaded = random_parameters(make, targets)
    return graph, with_leaves(state, loaded)


def restore_layers(
    reader: ParameterReader, targets: Targets, layer: int, train_layers: int
) -> dict[str, jax.Array]:
    """Restores the parameters of a `QwenEncoder` without adapters from imported weights.

    Args:
        reader: reader of the complete model.
        targets: parameters to restore, by their names in the encoder.
        layer, train_layers: arguments of the encoder.
    """
    restored = {}
    for name, target in targets.items():
        source, first = name, 0
        if name.startswith("text.top_blocks."):
            source, first = name.replace("top_blocks", "blocks"), layer - train_layers
        restored[name] = _restore_part(reader, source, first, target)
    return restored


def _restore_part(reader: ParameterReader, name: str, first: int, target: jax.ShapeDtypeStruct) -> jax.Array:
    """Restores the layers of a parameter from `first` on, as many as the target has."""
    shape, sharding = reader.shapes[name], target.sharding
    if shape == target.shape:
        return reader.restore({name: target})[name]
    if isinstance(sharding, NamedSharding):  # all layers are read first, so their axis is not sharded
        sharding = NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec[1:]))
    all_layers = jax.ShapeDtypeStruct(shape, target.dtype, sharding=sharding)
    slice_layers = jax.jit(lambda x: x[first : first + target.shape[0]], out_shardings=target.sharding)
    return slice_layers(reader.restore({name: all_layers})[name])


def fingerprint(config: QwenInstructionConfig, maker: PromptMaker) -> str:
    """SHA-256 of all options, files and weights that determine the embeddings."""
    prompts = dataclasses.replace(config.prompts, reason="")
    options = dataclasses.replace(config, weights="", prompts=prompts, write=WriteConfig())
    parts = [maker.tokenizer.to_str()]
    if config.weights:
        shape, folder = find_qwen(config.weights, "config.instruction.qwen.weights")
        options = dataclasses.replace(options, shape=shape)
        parts += [load_chat_template(folder / HUB), digest(folder)]
    return hashlib.sha256("".join([to_json(options), *parts]).encode()).hexdigest()
