"""Training that starts from weights: imported ones, and those of a run."""

import dataclasses
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
from etils import epath
from flax import nnx

from genmask_jax.parameters.names import flat_paths
from genmask_jax.parameters.plan import Source
from genmask_jax.public_weights import wan
from genmask_jax.public_weights.parts import write_part
from genmask_jax.training.genmask import GenMaskTask
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.fields import to_json
from tests.conftest import micro_config, start
from tests.public_weights.reference import in_memory, reference_dit, save


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """(directory, state) of an imported DiT whose text is of another width than the micro run's."""
    directory = tmp_path_factory.mktemp("imported")
    save(directory / "hub", reference_dit(num_attention_heads=1, freq_dim=256))
    (part,) = wan.open_wan(epath.Path(directory / "hub"), ("dit",))
    write_part(part, epath.Path(directory), lambda nbytes: None)
    return directory, in_memory(part)


def config_of(micro_vae, imported):
    config = micro_config(micro_vae, num_steps=2, global_batch_size=2)
    model = dataclasses.replace(config.model, hidden_size=24, num_heads=1, ffn_size=96, patch_size=2)
    return dataclasses.replace(config, model=model, init=str(imported[0]))


def test_a_run_starts_from_imported_weights(micro_vae, imported, tmp_path, monkeypatch):
    seen = {}
    real = GenMaskTask.start

    def spy(task, params):
        state = real(task, params)
        seen.update(state=jax.device_get(nnx.to_pure_dict(state["dit"])), plan=task.plan)
        return state

    monkeypatch.setattr(GenMaskTask, "start", spy)
    config = config_of(micro_vae, imported)
    state, _ = start(config, tmp_path / "run")
    of_dit = {one.name.removeprefix("dit."): one.source for one in seen["plan"] if "dit." in one.name}
    fresh = [name for name, source in of_dit.items() if source is not Source.IMPORT]
    assert sorted(fresh) == ["text_embedder.linear_1.bias", "text_embedder.linear_1.kernel"]
    started = dict(flat_paths(nnx.State(seen["state"])))
    for path, value in flat_paths(imported[1]):
        if path not in fresh:
            np.testing.assert_array_equal(started[path], value[...])
    # The steps of training moved both parameters and EMA away from there, and not far.
    for tree in (state.params, state.ema_params):
        moved = jax.tree.map(
            lambda a, b: float(np.abs(a - b).max()),
            nnx.to_pure_dict(tree["dit"]["blocks"]),
            seen["state"]["blocks"],
        )
        assert 0 < max(jax.tree.leaves(moved)) < 0.1


def test_weights_of_another_model_are_refused(micro_vae, imported, tmp_path):
    config = config_of(micro_vae, imported)
    deeper = dataclasses.replace(config, model=dataclasses.replace(config.model, depth=3))
    with pytest.raises(UserError, match=r"this checkpoint is of another model: dit\.blocks"):
        start(deeper, tmp_path / "run")
    nowhere = dataclasses.replace(config, init=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no dit/params and no checkpoints here"):
        start(nowhere, tmp_path / "other")


@pytest.mark.multidevice
def test_imported_weights_are_restored_on_a_mesh(micro_vae, imported, tmp_path):
    """On 8 pretend devices, in a process of its own: fsdp 2 x tensor 4, without a whole copy on any."""
    program = """
        import os, sys
        os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=8"
        import jax, numpy as np
        from etils import epath
        from genmask_jax import sharding
        from genmask_jax.config import TrainConfig
        from genmask_jax.checkpoints.initial_weights import open_weights
        from genmask_jax.instruction import factory
        from genmask_jax.models.vae import VAEConfig
        from genmask_jax.parameters import rules
        from genmask_jax.parameters.names import named_leaves
        from genmask_jax.checkpoints.runs import read_config
        from genmask_jax.system import abstract_networks
        rules.FSDP_MIN_SIZE = 64
        config, init = read_config(TrainConfig, sys.argv[1]), open_weights(sys.argv[2])
        mesh = sharding.make_mesh(sharding.MeshConfig(data=1, fsdp=2, tensor=4))
        encoder, vae = factory.build(config.instruction, "", ["a star"]), VAEConfig(8, 8, 4, (1,), 1, 4)
        networks = abstract_networks(config, vae, encoder, mesh, rules.Sources(init=init))
        shardings = networks.plan.shardings(networks.shapes)
        fresh = jax.jit(networks.init_params, out_shardings=shardings)(jax.random.key(0))
        before = {name: jax.device_get(x) for name, x in named_leaves(fresh).items()}
        flat = named_leaves(networks.load(fresh))
        for name, value in flat.items():
            imported = networks.plan[name].source == "import"
            assert imported == (name.startswith("dit.") and not name.startswith(rules.TEXT_PROJECTION))
            expected = init.read(name) if imported else before[name]
            np.testing.assert_array_equal(jax.device_get(value), expected, err_msg=name)
        kernel = flat["dit.blocks.ffn.linear_1.kernel"]
        assert 8 * np.prod(kernel.sharding.shard_shape(kernel.shape)) == kernel.size
        print("equal")
    """
    (tmp_path / "config.json").write_text(to_json(config_of(micro_vae, imported)))
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path), str(imported[0])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip().endswith("equal"), done.stderr[-2000:]
