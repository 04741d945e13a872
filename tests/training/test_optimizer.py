"""Which parameters weight decay moves, and where everything that belongs to a parameter lies."""

import json
import pathlib
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genmask_jax.config import LoopConfig, OptimizerConfig
from genmask_jax.instruction.minilm import MiniLM
from genmask_jax.instruction.qwen.encoder import QwenEncoder
from genmask_jax.instruction.tiny import TinyTextConfig, TinyTextEncoder
from genmask_jax.models.dit import Block, DiT, DiTConfig
from genmask_jax.models.vae import VAE, VAEConfig
from genmask_jax.parameters.names import flat_paths
from genmask_jax.training.optimizer import make_optimizer
from tests.instruction.qwen.test_in_the_system import SHAPE
from tests.training.plans import plan_of

ROOT = pathlib.Path(__file__).parents[2]
DIT = DiTConfig(hidden_size=24, depth=2, num_heads=2, ffn_size=32, patch_size=4, lora_rank=2)
MODELS = {
    "dit": lambda rngs: DiT(DIT, rngs=rngs),
    "one block": lambda rngs: Block(DIT, dtype=jnp.float32, rngs=rngs),
    "tiny": lambda rngs: TinyTextEncoder(TinyTextConfig(), rngs=rngs),
    "minilm": lambda rngs: MiniLM(rngs=rngs),
    "qwen": lambda rngs: QwenEncoder(SHAPE, 2, train_layers=1, lora_rank=2, rngs=rngs),
    "vae": lambda rngs: VAE(VAEConfig(8, 8, 4, (1, 2), 1, 4), rngs=rngs),
}
MATRICES = {"kernel", "lora_a", "lora_b"}
OTHERS = {"bias", "scale", "gamma", "scale_shift_table", "gates", "embedding", "positions", "embed_tokens"}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_without_gradients_weight_decay_moves_the_matrices_and_nothing_else(optimizer):
    params = {}
    for name, make in MODELS.items():
        leaves = flat_paths(nnx.state(nnx.eval_shape(lambda make=make: make(nnx.Rngs(0))), nnx.Param))
        # As many axes as there are, and as little work as can be.
        params[name] = {path: jnp.ones((2,) * len(leaf.shape)) for path, leaf in leaves}
    config = OptimizerConfig(optimizer, learning_rate=0.1, warmup_steps=0, weight_decay=0.5)
    state = {"dit": nested(params)}
    tx = make_optimizer(config, LoopConfig(), plan_of(state, config))
    zeros = jax.tree.map(jnp.zeros_like, state)
    updates, _ = jax.jit(lambda: tx.update(zeros, tx.init(state), state))()
    seen = set()
    for path, update in jax.tree.leaves_with_path(updates):
        last = path[-1].key
        np.testing.assert_allclose(update, -0.05 if last in MATRICES else 0, err_msg=str(path), rtol=1e-6)
        seen.add(last)
    assert seen == MATRICES | OTHERS  # a parameter of a new kind needs a decision


def nested(flat):
    tree = {}
    for name, leaves in flat.items():
        for path, leaf in leaves.items():
            *modules, last = path.split(".")
            node = tree.setdefault(name, {})
            for module in modules:
                node = node.setdefault(module, {})
            node[last] = leaf
    return tree


LAYOUT = """
    import json, os
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    import jax, jax.numpy as jnp
    from genmask_jax import sharding
    from genmask_jax.config import LoopConfig, OptimizerConfig
    from genmask_jax.parameters.names import parameter_name
    from genmask_jax.training.optimizer import make_optimizer
    from genmask_jax.training.state import make_init
    from genmask_jax.training.step import accumulate_gradients
    from tests.training.plans import plan_of
    mesh, found = sharding.make_mesh(sharding.MeshConfig(data=1, fsdp=4, tensor=2)), []
    # The smallest that are sharded over fsdp, by tensor as well, and the largest that are not.
    shapes = {"to_q": {"kernel": (2, 512, 1024)}, "norm": {"scale": (2, 2**19)}}
    shapes["small"] = {"kernel": (2, 512, 1020)}
    def init_params(key, dtype=jnp.float32):
        ones = lambda shape: jnp.ones(shape, dtype)
        return {"dit": {"blocks": jax.tree.map(ones, shapes, is_leaf=lambda x: isinstance(x, tuple))}}
    def note(what, tree, shardings):
        for (path, x), where in zip(jax.tree.leaves_with_path(tree), jax.tree.leaves(shardings), strict=True):
            if "blocks" in parameter_name(path):
                found.append((f"{what}: {parameter_name(path)} {x.dtype}", list(where.spec)))
    for name in ("adamw", "muon"):
        config = OptimizerConfig(name, moments_dtype="bfloat16")
        plan = plan_of(jax.eval_shape(init_params, None), config, mesh)
        tx = make_optimizer(config, LoopConfig(), plan)
        state = jax.eval_shape(make_init(init_params, tx, ()), jax.random.key(0))
        note(name, state, plan.shardings(state))
    base = jax.eval_shape(lambda: init_params(None, jnp.bfloat16))
    note("base", base, plan.shardings(base))
    def loss(params, frozen, batch, key):
        total = sum(jnp.square(x).sum() for x in jax.tree.leaves(params)) * batch.sum()
        return total, {"loss": total}
    shapes = jax.eval_shape(init_params, None)
    params = jax.tree.map(sharding.placed, shapes, plan.shardings(shapes))
    batch = jax.ShapeDtypeStruct((16,), jnp.float32, sharding=sharding.batch_sharding(mesh))
    for steps in (1, 2):
        def gradients(params, batch):
            with sharding.tracing_context(plan):
                return accumulate_gradients(loss, params, None, batch, jax.random.key(0), steps)
        program = jax.jit(gradients).lower(params, batch).compile()
        note(f"gradients of {steps}", params, program.output_shardings[0])
        for whole in ("f32[2,512,1024]", "f32[2,524288]"):  # not even the sum in the loop's carry
            assert whole not in program.as_text()
    print(json.dumps(found))
"""


@pytest.mark.multidevice
def test_what_belongs_to_a_parameter_lies_where_the_parameter_lies():
    """Gradients, their sum, EMA, moments in bfloat16, a base in bfloat16: on 8 pretend devices."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LAYOUT)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    expected = {
        "to_q.kernel": [None, "fsdp", "tensor"],
        "norm.scale": [None, "fsdp"],
        "small.kernel": [None, None, None],
    }
    for what, spec in found:
        wanted = next(spec for name, spec in expected.items() if name in what)
        assert spec + [None] * (len(wanted) - len(spec)) == wanted, what
    # Parameters, EMA, moments (Muon has one of each kernel, Adam two of each parameter), base, gradients.
    assert len(found) == 2 * (3 + 3) + 3 * 2 + (2 + 2) + 3 + 2 * 3
    assert sum("bfloat16" in what for what, _ in found) == 3 * 2 + (2 + 2) + 3
