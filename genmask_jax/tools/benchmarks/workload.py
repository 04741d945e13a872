"""A training step of the DiT alone, on noise: shapes, FLOPs, and our implementation."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from genmask_jax.config import DIT_SIZES
from genmask_jax.models.dit import DiT, DiTConfig
from genmask_jax.utils.errors import UserError

LEARNING_RATE, WEIGHT_DECAY = 1e-4, 0.01


@dataclasses.dataclass(frozen=True)
class Workload:
    """Shapes of one step.

    model: config of the DiT.
    batch_size: number of examples.
    frames: number of frames: 1, or 2 with timesteps (t, 0).
    latents: height and width of a frame.
    text_tokens: number of tokens of the instruction.
    dtype: dtype of matrix products; parameters and optimiser are float32.
    """

    model: DiTConfig
    batch_size: int
    frames: int
    latents: tuple[int, int]
    text_tokens: int
    dtype: str = "float32"

    @property
    def tokens(self) -> int:
        """Number of tokens of one example."""
        height, width = self.latents
        return self.frames * (height // self.model.patch_size) * (width // self.model.patch_size)

    @property
    def flops(self) -> float:
        """Model FLOPs of one step (2 per multiply-add): forward, and twice as many backward."""
        m, n, text = self.model, self.tokens, self.text_tokens
        size = m.hidden_size
        block = n * (6 * size**2 + 2 * size * m.ffn_size) + text * 2 * size**2 + 2 * size * n * (n + text)
        rest = 2 * n * size * m.channels * m.patch_size**2 + text * size * (m.text_dim + size)
        rest += self.frames * size * (m.frequency_dim + 7 * size)
        return 3 * 2 * self.batch_size * (m.depth * block + rest)

    def inputs(self) -> dict[str, np.ndarray]:
        """float32 latents and target `[B, F, h, w, C]`, timesteps `[B, F]` and text_embeds `[B, L, T]`."""
        rng = np.random.default_rng(0)
        shape = (self.batch_size, self.frames, *self.latents, self.model.channels)
        timesteps = np.zeros((self.batch_size, self.frames), np.float32)
        timesteps[:, 0] = rng.uniform(size=self.batch_size)
        return {
            "latents": rng.standard_normal(shape, np.float32),
            "target": rng.standard_normal(shape, np.float32),
            "timesteps": timesteps,
            "text_embeds": rng.standard_normal(
                (self.batch_size, self.text_tokens, self.model.text_dim), np.float32
            ),
        }


def parse_size(size: str, text_dim: int) -> DiTConfig:
    """Parses a name in DIT_SIZES, or DEPTHxWIDTH (head size 64, feed-forward size 4 x WIDTH).

    Raises:
        UserError: the size is invalid.
    """
    if size in DIT_SIZES:
        return DiTConfig(**DIT_SIZES[size], text_dim=text_dim, unroll=DIT_SIZES[size]["depth"] <= 12)
    depth, _, width = size.partition("x")
    if not (depth.isdigit() and width.isdigit() and int(depth) and int(width) and int(width) % 64 == 0):
        names = ", ".join(DIT_SIZES)
        raise UserError(
            f"--size={size}: give {names}, or DEPTHxWIDTH such as 8x384 (width: a multiple of 64)"
        )
    depth, width = int(depth), int(width)
    return DiTConfig(width, depth, width // 64, 4 * width, text_dim=text_dim, unroll=depth <= 12)


def our_attention(workload: Workload) -> str:
    """The kernels that attention uses on the first device of this machine."""
    graph, params = nnx.split(
        nnx.eval_shape(lambda: DiT(workload.model, dtype=jnp.dtype(workload.dtype), rngs=nnx.Rngs(0)))
    )

    def forward(params: nnx.State, inputs: dict[str, jax.Array]) -> jax.Array:
        return nnx.merge(graph, params)(inputs["latents"], inputs["timesteps"], inputs["text_embeds"])

    text = jax.jit(forward).lower(params, workload.inputs()).as_text()
    kernels = {"__cudnn$fmha": "cuDNN", "tpu_custom_call": "splash"}
    return next((name for call, name in kernels.items() if call in text), "matrix products")


def make_ours(workload: Workload, params: nnx.State) -> Callable[[], float]:
    """Returns a function that runs one step (forward, backward, AdamW) and returns the loss."""
    dtype = jnp.dtype(workload.dtype)
    graph = nnx.split(nnx.eval_shape(lambda: DiT(workload.model, dtype=dtype, rngs=nnx.Rngs(0))))[0]
    tx = optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    inputs = jax.device_put(workload.inputs())

    def loss(params: nnx.State, inputs: dict[str, jax.Array]) -> jax.Array:
        model = nnx.merge(graph, params)
        velocity = model(inputs["latents"], inputs["timesteps"], inputs["text_embeds"])
        return jnp.square(velocity - inputs["target"]).mean()

    def step(params, opt_state, inputs):
        value, grads = jax.value_and_grad(loss)(params, inputs)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    compiled = jax.jit(step, donate_argnums=(0, 1))
    state = [jax.device_put(params), jax.jit(tx.init)(params)]

    def run() -> float:
        *state[:], value = compiled(*state, inputs)
        jax.block_until_ready(state)
        return float(value)

    return run
