"""Runs that train adapters: what they compute, keep and write."""

import dataclasses
import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from etils import epath
from safetensors.torch import load_file

from genmask_jax.checkpoints.initial_weights import open_weights
from genmask_jax.config.checks import validate
from genmask_jax.inference.load import load
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.parameters.names import is_dit_adapter, shapes_of
from genmask_jax.parameters.plan import Role, Source
from genmask_jax.parameters.reader import ParameterReader
from genmask_jax.parameters.rules import available_in
from genmask_jax.public_weights import lora, wan
from genmask_jax.public_weights.parts import write_part
from genmask_jax.system import GenMask
from genmask_jax.training import start as training_start
from genmask_jax.utils.errors import UserError
from tests.conftest import micro_config, start
from tests.public_weights.reference import normal, reference_dit, save, to_numpy, to_torch
from tests.test_end_to_end import Interrupted, at_batch, crash


def adapted(config, init, rank=3, **changes):
    """The config of a run that trains adapters; at this learning rate, a few steps change much."""
    model = dataclasses.replace(config.model, lora_rank=rank)
    optimizer = dataclasses.replace(config.optimizer, name="adamw", learning_rate=0.05)
    return dataclasses.replace(config, init=str(init), model=model, optimizer=optimizer, **changes)


@pytest.fixture(scope="module")
def lora_run(micro_run, tmp_path_factory):
    """(workdir, config, last state) of a run that adapts the micro run's model."""
    workdir, config, _ = micro_run
    config, out = adapted(config, workdir), tmp_path_factory.mktemp("lora") / "run"
    state, _ = start(config, out)
    return out, config, jax.device_get(state)


def probabilities(networks):
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    return MaskSampler(networks, networks.config.sampler, batch_size=1)(image, ["the red star"])


def test_only_adapters_are_trained_and_kept(micro_run, lora_run):
    workdir, _, state = lora_run
    for params in (state.params, state.ema_params):
        assert all(is_dit_adapter(name) for name in shapes_of(params))
    step = workdir / "checkpoints" / str(int(state.step))
    assert all(is_dit_adapter(name) for name in ParameterReader(epath.Path(step / "ema_params")).shapes)
    # Attention's four matrices twice, and both of the feed-forward: two adapters each.
    assert len(jax.tree.leaves(state.params)) == 20
    networks, _, _ = load(workdir)
    frozen = jax.device_get(networks.frozen)
    base = micro_run[2].ema_params
    same = jax.tree.map(np.array_equal, frozen["instruction"], base["instruction"])
    assert all(jax.tree.leaves(same))
    name = "dit.blocks.ffn.linear_1.kernel"
    np.testing.assert_array_equal(
        frozen["dit"]["blocks"]["ffn"]["linear_1"]["kernel"][...], open_weights(micro_run[0]).read(name)
    )


def test_fresh_adapters_change_nothing_and_trained_ones_do(micro_run, lora_run):
    base, _, _ = load(micro_run[0])
    networks, _, _ = load(lora_run[0])
    expected = probabilities(base)
    assert np.abs(probabilities(networks) - expected).max() > 0.01
    networks.params = jax.jit(networks.init_params)(jax.random.key(7))
    np.testing.assert_allclose(probabilities(networks), expected, atol=1e-6)


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(lora_run, tmp_path):
    _, config, expected = lora_run
    with pytest.raises(Interrupted):
        start(config, tmp_path / "run", batches=at_batch(3, crash))
    state, _ = start(config, tmp_path / "run", resume=True)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), expected)


def test_merged_weights_give_the_adapters_output(lora_run, tmp_path):
    workdir, _, _ = lora_run
    out = epath.Path(tmp_path / "merged")
    said = lora.merge_run(epath.Path(workdir), out, "last", lambda nbytes: None)
    assert "with the adapters merged" in said
    merged, config, _ = load(out)
    assert (config.model.lora_rank, config.init) == (0, "")
    np.testing.assert_allclose(probabilities(merged), probabilities(load(workdir)[0]), atol=1e-6)
    # Another run can start from it, with or without adapters.
    assert available_in(open_weights(out), shapes_of(merged.params)) == set(shapes_of(merged.params))


def test_what_adapters_cannot_start_from(micro_run, lora_run, tmp_path):
    workdir, config, _ = lora_run
    with pytest.raises(UserError, match="only adapters; merge them"):
        start(adapted(config, workdir), tmp_path / "run")
    with pytest.raises(UserError, match=r"model\.lora_rank 3 needs weights to adapt; set config\.init"):
        validate(adapted(config, ""))
    with pytest.raises(UserError, match="has no adapters"):
        lora.export_lora(epath.Path(micro_run[0]), epath.Path(tmp_path / "out"), "last")
    with pytest.raises(UserError, match="diffusers cannot represent this model"):
        lora.export_lora(epath.Path(workdir), epath.Path(tmp_path / "out"), "last")


def test_a_base_that_does_not_know_the_words_gives_the_dit_alone(lora_run, tmp_path, monkeypatch):
    """The text encoder is trained anew, beside the adapters, in the resumed run too."""
    _, config, _ = lora_run
    monkeypatch.setattr(training_start, "texts", lambda data: ["красная звезда", "синий круг слева"])
    monkeypatch.setattr(training_start, "train", lambda task, *_: (task, {}))  # the base is kept before
    for resume in (False, True):
        train = inspect.unwrap(training_start.train_genmask)  # without a check of what it returns
        task, _ = train(config, str(tmp_path / "run"), resume=resume)
        encoder = [one for one in task.plan if one.name.startswith("instruction.")]
        assert {(one.role, one.source) for one in encoder} == {(Role.TRAINED, Source.FRESH)}
        names = json.loads((tmp_path / "run" / "base.json").read_text())["names"]
        assert names == sorted(one.name for one in task.plan if one.source is Source.BASE)
        assert all(name.startswith("dit.") for name in names)


def test_adapters_of_other_weights_are_not_loaded(lora_run, tmp_path):
    workdir, _, _ = lora_run
    kept = json.loads((workdir / "base.json").read_text())
    (workdir / "base.json").write_text(json.dumps(kept | {"sha256": "0"}))
    try:
        with pytest.raises(UserError, match="not the weights that the adapters in"):
            load(workdir)
    finally:
        (workdir / "base.json").write_text(json.dumps(kept))


@pytest.fixture(scope="module")
def wan_run(micro_vae, tmp_path_factory):
    """(workdir, config, reference) of a run that adapts an imported Wan, whose texts are of another width."""
    directory = tmp_path_factory.mktemp("wan")
    reference = reference_dit(num_attention_heads=1, freq_dim=256)
    save(directory / "hub", reference)
    (part,) = wan.open_wan(epath.Path(directory / "hub"), ("dit",))
    write_part(part, epath.Path(directory / "imported"), lambda nbytes: None)
    config = micro_config(micro_vae, num_steps=3, global_batch_size=2)
    model = dataclasses.replace(config.model, hidden_size=24, num_heads=1, ffn_size=96, patch_size=2)
    config = adapted(dataclasses.replace(config, model=model), directory / "imported")
    start(config, directory / "run")
    return directory / "run", config, reference


def our_velocity(workdir, latents, timesteps, text):
    networks, _, _ = load(workdir)
    model: GenMask = networks.merge(networks.params, networks.frozen)
    return np.asarray(model.dit(*map(jnp.asarray, (latents, timesteps, text))))


def test_diffusers_takes_the_adapters_and_the_merged_weights(wan_run, tmp_path):
    workdir, _, reference = wan_run
    latents, text = normal(1, 2, 1, 8, 8, 4), normal(2, 2, 5, 16)
    timesteps = np.array([[0.9], [0.2]], np.float32)
    ours = our_velocity(workdir, latents, timesteps, text)
    inputs = to_torch(latents), torch.from_numpy(1000 * timesteps[:, 0]), torch.from_numpy(text)

    def velocity(model):
        with torch.no_grad():
            return to_numpy(model(*inputs, return_dict=False)[0])

    lora.export_lora(epath.Path(workdir), epath.Path(tmp_path / "lora"), "last")
    theirs = WanTransformer3DModel.from_config({**reference.config, "text_dim": 16}).eval()
    shapes = {key: tensor.shape for key, tensor in theirs.state_dict().items()}
    public = {key: x for key, x in reference.state_dict().items() if shapes[key] == x.shape}
    trained = load_file(tmp_path / "lora/text_projection.safetensors")
    missing, unexpected = theirs.load_state_dict(public | trained, strict=False)
    assert not missing
    assert not unexpected
    assert np.abs(velocity(theirs) - ours).max() > 0.1  # without the adapters
    theirs.load_lora_adapter(load_file(tmp_path / "lora" / lora.ADAPTERS))
    np.testing.assert_allclose(velocity(theirs), ours, atol=2e-5)

    wan.export_dit(epath.Path(workdir), epath.Path(tmp_path / "merged"), "last", lambda nbytes: None)
    merged = WanTransformer3DModel.from_pretrained(tmp_path / "merged/transformer").eval()
    np.testing.assert_allclose(velocity(merged), ours, atol=2e-5)


def test_a_merged_run_has_what_was_trained_beside_the_adapters(wan_run, tmp_path):
    workdir, _, _ = wan_run
    lora.merge_run(epath.Path(workdir), epath.Path(tmp_path / "merged"), "last", lambda nbytes: None)
    inputs = normal(1, 2, 1, 8, 8, 4), np.array([[0.9], [0.2]], np.float32), normal(2, 2, 5, 16)
    merged, adapted = (our_velocity(path, *inputs) for path in (tmp_path / "merged", workdir))
    np.testing.assert_allclose(merged, adapted, atol=2e-5)


def test_the_base_is_kept_in_the_dtype_of_its_products(wan_run):
    workdir, config, _ = wan_run
    changed = dataclasses.replace(config, compute_dtype="bfloat16")
    values = json.loads((workdir / "config.json").read_text())
    (workdir / "config.json").write_text(json.dumps(values | {"compute_dtype": changed.compute_dtype}))
    try:
        networks, _, _ = load(workdir)
    finally:
        (workdir / "config.json").write_text(json.dumps(values))
    block = networks.frozen["dit"]["blocks"]
    assert block["attn1"]["to_q"]["kernel"][...].dtype == jnp.bfloat16
    assert block["attn1"]["norm_q"]["scale"][...].dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(networks.params)} == {jnp.dtype(jnp.float32)}
