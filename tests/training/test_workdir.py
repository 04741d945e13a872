"""Resuming with another config, overwriting, and what a run keeps for itself."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from etils import epath
from flax import nnx

from genmask_jax.checkpoints.runs import find_step, load_vae, read_config, read_history, save_vae
from genmask_jax.config import OptimizerConfig, TrainConfig
from genmask_jax.models.vae import VAE, VAEConfig
from genmask_jax.parameters.reader import ParameterReader
from genmask_jax.training.workdir import check_workdir, make_workdir
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.fields import to_json
from tests.conftest import micro_config, start


@pytest.fixture
def copied(micro_run, tmp_path):
    """(workdir, config) of a copy of the micro run, which is at step 4."""
    shutil.copytree(micro_run[0], tmp_path / "run")
    return tmp_path / "run", micro_run[1]


def changed(config, name, value):
    """The config with a field, by its dotted name, replaced."""
    group, _, rest = name.partition(".")
    if rest:
        value = changed(getattr(config, group), rest, value)
    return dataclasses.replace(config, **{group: value})


@pytest.mark.parametrize(("distribution", "read"), [("bimodal", 0.0), ("long_tail", 0.0), ("uniform", 0.3)])
def test_a_run_that_stored_the_former_level_of_refinement_leaves_it_to_its_law(tmp_path, distribution, read):
    config = changed(
        changed(micro_config("vae"), "timesteps.segment.name", distribution), "sampler.refine_t", 0.3
    )
    (tmp_path / "config.json").write_text(to_json(config))
    assert read_config(TrainConfig, tmp_path).sampler.refine_t == read


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mesh.fsdp", 2),
        ("mesh.tensor", 2),
        ("data.num_workers", 1),
        ("model.remat", "all"),
        ("loop.log_every_steps", 3),
        ("loop.checkpoint_every_steps", 9),
        ("loop.num_eval_examples", 8),
        ("init", "elsewhere"),
        ("vae", "elsewhere"),
    ],
)
def test_what_changes_no_number_may_change_and_is_recorded(copied, name, value):
    workdir, config = copied
    config = changed(config, name, value)
    place = check_workdir(str(workdir), config, resume=True)
    make_workdir(place, config)
    assert read_config(type(config), workdir) == config
    ((path, before, after),) = place.changes
    assert (path, after) == (name, value)
    assert read_history(workdir) == [{"step": 4, "changes": {name: [before, value]}}]


def test_a_run_goes_on_from_whole_checkpoints_alone(copied):
    """One that was killed as it wrote its first starts from `config.init` again."""
    workdir, config = copied
    assert check_workdir(str(workdir), config, resume=True).restored
    assert not check_workdir(str(workdir), config, overwrite=True).restored
    for step in (workdir / "checkpoints").iterdir():
        step.rename(step.with_name(f"{step.name}.orbax-checkpoint-tmp"))
    assert not check_workdir(str(workdir), config, resume=True).restored


@pytest.mark.parametrize(
    ("name", "value", "group"),
    [
        ("loop.num_steps", 6, "loop.num_steps"),
        ("optimizer.learning_rate", 1e-4, "optimizer.learning_rate"),
        ("sampler.mask_threshold", 0.3, "sampler"),
        ("timesteps.segment.a", 0.1, "timesteps"),
    ],
)
def test_what_changes_numbers_must_be_named(copied, name, value, group):
    workdir, config = copied
    config = changed(config, name, value)
    with pytest.raises(UserError, match=f"--change={name} to continue"):
        check_workdir(str(workdir), config, resume=True)
    for _ in range(2):  # the same command goes on after the next preemption, too
        make_workdir(check_workdir(str(workdir), config, resume=True, change=[group]), config)
    assert len(read_history(workdir)) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.depth", 3),
        ("seed", 1),
        ("data.size", 64),
        ("loop.global_batch_size", 8),
        ("optimizer.name", "adamw"),
        ("instruction.tiny.hidden_size", 32),
        ("compute_dtype", "bfloat16"),
    ],
)
def test_what_makes_another_run_is_refused(copied, name, value):
    workdir, config = copied
    with pytest.raises(UserError, match=rf"config\.{name} .*; this field cannot change"):
        check_workdir(str(workdir), changed(config, name, value), resume=True)
    with pytest.raises(UserError, match=f"--change={name}: this field cannot change"):
        check_workdir(str(workdir), changed(config, name, value), resume=True, change=[name])


def test_a_run_is_extended(copied):
    workdir, config = copied
    config = changed(config, "loop.num_steps", 6)
    with (workdir / "metrics.jsonl").open("a") as file:  # a first try was killed after it had logged this
        file.write('{"step": 5, "loss": 9}\n{"step": 6, "lo')
    state, _ = start(config, workdir, resume=True, change=["loop.num_steps"])
    assert int(state.step) == 6
    history = json.loads((workdir / "config.json").read_text())["history"]
    assert history == [{"step": 4, "changes": {"loop.num_steps": [4, 6]}}]
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]


def other_vae(directory, seed=1):
    config = VAEConfig(8, 8, 4, (1,), 1, 4)
    save_vae(directory, config, nnx.state(VAE(config, rngs=nnx.Rngs(seed))))


def test_a_resumed_run_keeps_its_vae(copied, tmp_path, caplog):
    """Another of the same shape lies where the config points, or nothing does any more."""
    workdir, config = copied
    before = jax.device_get(load_vae(workdir)[1])
    other_vae(epath.Path(tmp_path / "vae"))
    with caplog.at_level("WARNING"):
        start(changed(config, "vae", str(tmp_path / "vae")), workdir, resume=True)
    assert f"config.vae={tmp_path / 'vae'} is not the VAE that this run started with" in caplog.text
    shutil.rmtree(tmp_path / "vae")
    start(changed(config, "vae", str(tmp_path / "vae")), workdir, resume=True)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(load_vae(workdir)[1]), before)


def test_weights_of_another_model_do_not_cost_the_old_run(copied, tmp_path):
    workdir, config = copied
    before = sorted(str(path) for path in workdir.rglob("*"))
    for wrong, words in (
        (changed(config, "init", str(tmp_path)), "no dit/params and no checkpoints here"),
        (changed(config, "vae", str(tmp_path / "none")), "no trained VAE"),
        (changed(config, "data.size", 33), "data.size 33"),
    ):
        with pytest.raises(UserError, match=words):
            start(wrong, workdir, overwrite=True)
    assert sorted(str(path) for path in workdir.rglob("*")) == before


def test_what_is_not_finite_is_never_saved(micro_vae, tmp_path):
    """A run that diverges between two logs, while checkpoints come more often."""
    config = micro_config(micro_vae, checkpoint_every_steps=1, log_every_steps=4, eval_every_steps=4)
    config = changed(config, "optimizer", OptimizerConfig(warmup_steps=1, learning_rate=1e30))
    with pytest.raises(UserError, match=r"step \d: .* is not finite, so this step was not saved.*--resume"):
        start(config, tmp_path / "run")
    step = find_step(tmp_path / "run", "last")
    saved = ParameterReader(epath.Path(tmp_path / "run/checkpoints") / str(step) / "train")
    names = [name for name in saved.shapes if name.startswith("params.")]
    assert names
    assert all(np.isfinite(saved.read(name)).all() for name in names)


def test_resuming_what_is_not_there_is_told(micro_run, tmp_path, caplog):
    config = micro_run[1]
    with caplog.at_level("WARNING", "absl"):
        assert not check_workdir(str(tmp_path / "new"), config, resume=True).resumed
        assert "new holds no run yet: a new one starts" in caplog.text
        caplog.clear()
        assert not check_workdir(str(tmp_path / "new"), config).resumed
        assert check_workdir(str(micro_run[0]), config, resume=True).resumed
        assert not caplog.text
