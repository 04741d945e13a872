"""The objective: what the network sees of the clean image, the losses of masks, and how masks are read."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

from genmask_jax.checkpoints.runs import load_vae
from genmask_jax.config import CLEAN_FRAMES, LATENT_LOSSES, PIXEL_LOSSES, ObjectiveConfig, SamplerConfig
from genmask_jax.config.checks import validate
from genmask_jax.inference.load import load
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.instruction import factory
from genmask_jax.parameters.names import named_leaves
from genmask_jax.public_weights.packing import pack_run
from genmask_jax.sharding import parts_of, split_groups
from genmask_jax.system import make_networks
from genmask_jax.training.genmask import GenMaskTask
from genmask_jax.training.objective import MASK_LOSSES, Prediction
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.pixels import to_signed
from tests.conftest import micro_config, start

READOUT = {"mask_readout.kernel", "mask_readout.bias"}
PARTS = {"dit.clean_embedding", *READOUT}
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 4, 32, 32, 3), dtype=np.uint8)
TEXTS = ["the red star", "the blue disc", "the small ring", "the large cross"]


def with_objective(vae, *, images=False, **objective):
    """The micro config with an objective; without `images`, it trains on masks alone, which is faster."""
    config = micro_config(vae, num_steps=1, eval_every_steps=1)
    data = config.data if images else dataclasses.replace(config.data, generate="none")
    return dataclasses.replace(config, data=data, objective=ObjectiveConfig(**objective))


@pytest.fixture
def make_task(micro_vae):
    """(task, initial parameters) of the micro config with an objective."""

    def make(*, images=False, **objective):
        config = with_objective(micro_vae, images=images, **objective)
        encoder = factory.build(config.instruction, "", TEXTS)
        task = GenMaskTask(make_networks(config, *load_vae(micro_vae), encoder), config)
        return task, jax.jit(task.init_params)(jax.random.key(0))

    return make


def batch_of(task):
    """Noise as images, half-white masks."""
    masks = np.zeros((4, 32, 32), np.uint8)
    masks[:, :, 16:] = 1
    prepared = [task.networks.preparer(text, None) for text in TEXTS]
    instruction = jax.tree.map(lambda *rows: np.stack(rows), *prepared)
    batch = {"segment": {"images": IMAGES[0], "masks": masks, "instruction": instruction}}
    if task.networks.config.data.generate != "none":
        batch["generate"] = {"images": IMAGES[1], "instruction": instruction}
    return jax.tree.map(jnp.asarray, batch)


def gradients(task, params):
    gradient = jax.jit(jax.grad(task.loss, has_aux=True))
    return named_leaves(gradient(params, task.frozen, batch_of(task), jax.random.key(1))[0])


def sample(task, params, images, **sampler):
    task.networks.params = params
    return MaskSampler(task.networks, SamplerConfig(**sampler), batch_size=4)(images, TEXTS)


def test_all_losses_of_the_config_exist():
    assert set(MASK_LOSSES) == {*LATENT_LOSSES, *PIXEL_LOSSES}


@pytest.mark.parametrize("mask_loss", list(MASK_LOSSES))
def test_every_loss_of_masks_is_learned(make_task, mask_loss):
    task, params = make_task(mask_loss=mask_loss)
    linear = mask_loss == "linear_cross_entropy"
    assert PARTS & set(named_leaves(params)) == (READOUT if linear else set())
    tx, batch = optax.adam(1e-2), batch_of(task)
    gradient = jax.value_and_grad(task.loss, has_aux=True)

    @jax.jit
    def step(params, state):
        (_, metrics), grads = gradient(params, task.frozen, batch, jax.random.key(1))
        updates, state = tx.update(grads, state)
        return optax.apply_updates(params, updates), state, metrics["loss_segment"]

    state, losses = tx.init(params), []
    for _ in range(150):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    assert min(losses[-20:]) < 0.7 * losses[0]


def test_the_error_of_x0_is_that_of_the_velocity_times_t(make_task):
    task, params = make_task()
    model = task.networks.merge(params, task.frozen)
    velocity, x0, noise = jax.random.normal(jax.random.key(0), (3, 2, 8, 8, 4))
    t = jnp.array([0.25, 1.0])
    x_t = (1 - t)[:, None, None, None] * x0 + t[:, None, None, None] * noise
    one = Prediction(velocity, x_t, t, x0, noise)
    of_velocity, of_x0 = (MASK_LOSSES[name](model, one, None) for name in ("velocity", "x0"))
    np.testing.assert_allclose(of_x0, of_velocity * jnp.square(t)[:, None, None, None], atol=1e-5)


def test_the_learned_parts_are_trained_and_leave_the_others_as_they_start(make_task):
    task, params = make_task(clean_frame="learned", mask_loss="linear_cross_entropy")
    grads, usual = gradients(task, params), named_leaves(make_task()[1])
    assert set(grads) - set(usual) == PARTS
    assert all(jnp.abs(grads[name]).max() > 0 for name in PARTS)
    mine = named_leaves(params)
    assert all(jnp.array_equal(mine[name], value) for name, value in usual.items())


@pytest.mark.parametrize("clean_frame", CLEAN_FRAMES)
def test_masks_depend_on_the_image_unless_it_is_off(make_task, clean_frame):
    task, params = make_task(clean_frame=clean_frame)
    one, other = (sample(task, params, images) for images in IMAGES)
    assert np.array_equal(one, other) == (clean_frame == "off")


def test_the_learned_embedding_acts_on_the_clean_frame_alone(make_task):
    task, params = make_task(images=True, clean_frame="learned")
    moved = jax.tree.map(jnp.copy, params)
    moved["dit"]["clean_embedding"] = moved["dit"]["clean_embedding"].replace(jnp.ones(24))
    key, batch = jax.random.key(1), batch_of(task)
    one, other = (task.loss(p, task.frozen, batch, key)[1] for p in (params, moved))
    assert one["loss_generate"] == other["loss_generate"]
    assert one["loss_segment"] != other["loss_segment"]


@pytest.mark.parametrize(("masks", "images"), [(3, 1), (1, 3)])
def test_a_batch_of_another_mixture_is_the_mean_over_its_examples(make_task, masks, images):
    task, params = make_task(images=True)
    batch = batch_of(task)
    batch = {
        "segment": jax.tree.map(lambda x: x[:masks], batch["segment"]),
        "generate": jax.tree.map(lambda x: x[:images], batch["generate"]),
    }
    loss, metrics = jax.jit(task.loss)(params, task.frozen, batch, jax.random.key(1))
    expected = (masks * metrics["loss_segment"] + images * metrics["loss_generate"]) / (masks + images)
    assert loss == pytest.approx(float(expected), rel=1e-5)


def test_groups_have_equal_shares_and_keep_their_order():
    arrays = {"a": jnp.arange(6), "b": jnp.arange(10, 12)}
    parts, groups = parts_of(arrays)
    assert (parts, groups) == ([3, 1], 2)
    joined = jnp.concatenate([x.reshape(groups, -1) for x in arrays.values()], axis=1)
    np.testing.assert_array_equal(joined, [[0, 1, 2, 10], [3, 4, 5, 11]])
    for array, other in zip(arrays.values(), split_groups(joined, parts), strict=True):
        np.testing.assert_array_equal(array, other)


def test_masks_are_read_by_the_linear_layer_pixel_by_pixel(make_task):
    task, params = make_task(mask_loss="linear_cross_entropy")
    pattern = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    readout = params["mask_readout"]
    readout["kernel"] = readout["kernel"].replace(jnp.zeros((4, 16)))
    readout["bias"] = readout["bias"].replace(jnp.asarray(pattern.ravel()))
    masks = sample(task, params, IMAGES[0])
    np.testing.assert_allclose(masks[0], np.tile(1 / (1 + np.exp(-pattern)), (8, 8)), atol=1e-5)


def test_masks_that_start_from_the_image_have_no_noise(make_task):
    task, params = make_task(images=True, mask_source="image", clean_frame="off")
    batch = batch_of(task)
    one, other = (task.loss(params, task.frozen, batch, jax.random.key(seed))[1] for seed in (1, 2))
    task.networks.params = params
    masks = [
        MaskSampler(task.networks, SamplerConfig(), batch_size=4, seed=s)(IMAGES[0], TEXTS) for s in (0, 1)
    ]
    np.testing.assert_array_equal(*masks)
    assert not np.array_equal(masks[0], sample(task, params, IMAGES[1]))
    model, batch = task.networks.merge(params, task.frozen), batch_of(task)["segment"]
    latents = model.vae.encode(to_signed(batch["images"]))
    velocity = model.velocity(latents, jnp.ones(4), model.instruction(batch["instruction"]), latents)
    np.testing.assert_allclose(masks[0], model.mask_probabilities(latents - velocity), atol=1e-4)
    assert one["loss_generate"] != other["loss_generate"]


@pytest.mark.parametrize("sampler", [{"mask_samples": 2}, {"mask_noise": 0.0}])
def test_masks_that_start_from_the_image_cannot_have_other_noise(make_task, sampler):
    task, params = make_task(mask_source="image")
    with pytest.raises(UserError, match=r"mask_source=image, so masks do not start from noise; use mask_"):
        sample(task, params, IMAGES[0], **sampler)


@pytest.mark.parametrize("mask_loss", PIXEL_LOSSES)
def test_masks_of_cross_entropy_are_not_refined(make_task, mask_loss):
    task, params = make_task(mask_loss=mask_loss)
    with pytest.raises(UserError, match=rf"mask_steps=2: .*{mask_loss}.* use mask_steps=1"):
        sample(task, params, IMAGES[0], mask_steps=2, refine_t=0.01)


@pytest.mark.parametrize(
    ("objective", "latents", "says"),
    [
        ({"clean_frame": "of"}, "", r"^config.objective.clean_frame: 'of' is not timestep_0, learned, off$"),
        ({"mask_source": "zeros"}, "", r"^config.objective.mask_source: 'zeros' is not noise, image$"),
        ({"mask_loss": "bce"}, "", r"^config.objective.mask_loss: 'bce' is not velocity, x0, "),
        ({"mask_loss": "decoder_cross_entropy"}, "cache", r"mask_loss=decoder_cross_entropy needs masks"),
    ],
)
def test_what_does_not_fit_is_refused(objective, latents, says):
    config = with_objective("", images=True, **objective)
    with pytest.raises(UserError, match=says):
        validate(dataclasses.replace(config, data=dataclasses.replace(config.data, latents=latents)))


def test_runs_and_packed_models_keep_the_objective(micro_vae, tmp_path):
    config = with_objective(micro_vae, clean_frame="learned", mask_loss="linear_cross_entropy")
    start(config, tmp_path / "run")
    changed = dataclasses.replace(config, objective=ObjectiveConfig())
    with pytest.raises(UserError, match=r"config.objective.clean_frame 'learned' -> 'timestep_0'"):
        start(changed, tmp_path / "run", resume=True)
    pack_run(epath.Path(tmp_path / "run"), epath.Path(tmp_path / "packed"), "last", "float32", print)
    images, masks = np.zeros((1, 32, 32, 3), np.uint8), []
    for folder in ("run", "packed"):
        networks, found, _ = load(tmp_path / folder)
        assert found.objective == config.objective
        masks.append(MaskSampler(networks, SamplerConfig(), batch_size=1)(images, ["the red star"]))
    np.testing.assert_array_equal(*masks)
