"""The cache of latents: what is read is what the VAE makes; shards; training; refusals."""

import dataclasses
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax import nnx

from genmask_jax.checkpoints.runs import load_vae
from genmask_jax.config import DataConfig, JointConfig
from genmask_jax.data.latents import store
from genmask_jax.data.latents.encode import encode_shard
from genmask_jax.data.masks import RESIZE_RULE
from genmask_jax.data.pipeline import training_batches
from genmask_jax.data.sources import generate_source, segment_source, texts
from genmask_jax.instruction import factory
from genmask_jax.models.vae import VAE, VAEConfig
from genmask_jax.system import make_networks
from genmask_jax.training.genmask import GenMaskTask
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.pixels import mask_to_rgb, to_signed
from tests.conftest import micro_config, start

DATA = DataConfig(size=32)
COUNT, SHARDS = 7, 3


def encode(out, vae, shards=range(SHARDS), data=DATA, **changes):
    options = {"compute_dtype": "float32", "dtype": "float32", "count": COUNT, "batch_size": 2}
    options |= {"num_shards": SHARDS, "num_eval_examples": 4, **changes}
    for shard in shards:
        identity = encode_shard(data, vae, epath.Path(out), shard=shard, **options)
    return identity


@pytest.fixture(scope="module")
def vae(micro_vae):
    return load_vae(micro_vae)


@pytest.fixture(scope="module")
def cache(vae, tmp_path_factory):
    directory = tmp_path_factory.mktemp("latents")
    encode(directory, vae)
    return directory


def own_encoder(vae):
    graph = nnx.split(VAE(vae[0], rngs=nnx.Rngs(0)))[0]
    return nnx.merge(graph, vae[1]).encode


def test_examples_are_the_sources_in_its_order(cache, vae):
    model = own_encoder(vae)
    cached, source = store.CachedLatents(str(cache), "segment"), segment_source(DATA, "train")
    assert len(cached) == COUNT
    for i in range(COUNT):
        here, there = cached[i], source[i]
        assert here["text"] == there["text"]
        assert here["image_latents"].dtype == np.float32
        np.testing.assert_allclose(
            here["image_latents"], model(to_signed(jnp.asarray(there["image"][None])))[0], atol=1e-5
        )
        np.testing.assert_allclose(
            here["mask_latents"], model(mask_to_rgb(jnp.asarray(there["mask"][None])))[0], atol=1e-5
        )
    cached, source = store.CachedLatents(str(cache), "generate"), generate_source(DATA, "train")
    for i in range(COUNT):
        assert cached[i]["text"] == source[i]["text"]
        assert "mask_latents" not in cached[i]
        expected = model(to_signed(jnp.asarray(source[i]["image"][None])))[0]
        np.testing.assert_allclose(cached[i]["image_latents"], expected, atol=1e-5)
    with pytest.raises(IndexError):
        cached[COUNT]


def test_the_number_of_shards_changes_nothing(cache, vae, tmp_path):
    encode(tmp_path, vae, [0], num_shards=1)
    many, one = store.CachedLatents(str(cache), "segment"), store.CachedLatents(str(tmp_path), "segment")
    for i in range(COUNT):
        assert many[i]["text"] == one[i]["text"]
        np.testing.assert_allclose(many[i]["mask_latents"], one[i]["mask_latents"], atol=1e-5)


def test_bfloat16_halves_the_files_and_rounds(cache, vae, tmp_path):
    encode(tmp_path, vae, [0], num_shards=1, dtype="bfloat16")
    half, full = (
        store.CachedLatents(str(tmp_path), "segment")[3],
        store.CachedLatents(str(cache), "segment")[3],
    )
    np.testing.assert_allclose(half["mask_latents"], full["mask_latents"], rtol=2**-8)
    assert np.any(half["mask_latents"] != full["mask_latents"])
    assert half["mask_latents"].dtype == np.float32
    example = {"text": "é", "image_latents": np.zeros((8, 8, 16), np.float32)}
    assert len(store.pack(example, "bfloat16")) < 0.55 * len(store.pack(example, "float32"))


class Lengths:
    """The lengths of texts."""

    limit = "none"

    def truncate(self, text):
        return text

    def __call__(self, text, image=None):
        return {"length": np.int32(len(text))}


def test_cached_batches_resume_anywhere(cache):
    data = dataclasses.replace(DATA, latents=str(cache))
    options = {"batch_size": 4, "part": (0, 1), "condition_dropout": 0.5, "seed": 0}
    alone, resumed = (training_batches(data, Lengths(), **options) for _ in range(2))
    for _ in range(5):
        next(alone)
    resumed.set_state(alone.get_state())
    for _ in range(3):
        jax.tree.map(np.testing.assert_array_equal, next(resumed), next(alone))


def test_batches_and_loss_are_those_of_images(cache, vae, micro_vae, tmp_path):
    """The same examples, as images and from the cache, give the same loss."""
    config = micro_config(micro_vae)
    encoder = factory.build(config.instruction, tmp_path, texts(config.data, 400))
    networks = make_networks(config, *vae, encoder)
    cached_data = dataclasses.replace(DATA, latents=str(cache))
    batch = next(
        training_batches(
            cached_data, encoder.preparer, batch_size=4, part=(0, 1), condition_dropout=0.0, seed=0
        )
    )
    assert batch["segment"]["image_latents"].shape == (2, 8, 8, 4)
    assert set(batch["generate"]) == {"image_latents", "instruction"}
    assert "images" not in batch["segment"]

    rows = range(2)
    by_text = {
        task: {source[i]["text"]: source[i] for i in range(COUNT)}
        for task, source in (
            ("segment", segment_source(DATA, "train")),
            ("generate", generate_source(DATA, "train")),
        )
    }
    cached = {task: store.CachedLatents(str(cache), task) for task in store.TASKS}
    images = {task: dict(batch[task]) for task in store.TASKS}
    for task in store.TASKS:
        found = []
        for row in rows:
            distance = [
                np.abs(cached[task][i]["image_latents"] - batch[task]["image_latents"][row]).max()
                for i in range(COUNT)
            ]
            found.append(by_text[task][cached[task][int(np.argmin(distance))]["text"]])
            assert min(distance) == 0
        images[task] = {
            "images": np.stack([x["image"] for x in found]),
            "instruction": batch[task]["instruction"],
        }
        if task == "segment":
            images[task]["masks"] = np.stack([x["mask"] for x in found])
    task = GenMaskTask(networks, config)
    params = networks.init_params(jax.random.key(0))
    loss = jax.jit(lambda batch: task.loss(params, networks.frozen, batch, jax.random.key(1))[0])
    np.testing.assert_allclose(loss(batch), loss(images), rtol=1e-4)


def test_training_reads_the_cache(cache, micro_vae, tmp_path):
    config = micro_config(micro_vae, num_steps=2)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, latents=str(cache)))
    state, scores = start(config, tmp_path / "run")
    assert int(state.step) == 2
    assert np.isfinite(float(state.metrics["loss"]))
    assert 0 <= scores["mIoU"] <= 1  # validation goes on with images


def test_a_mixture_keeps_its_parts_and_weights(benchmark_data, vae, tmp_path):
    """What training draws from the cache is, with other weights too, what it would draw from the data."""
    data = DataConfig("refcoco_joint", "coco_captions", path=str(benchmark_data.out), size=32)
    identity = encode(tmp_path, vae, [0, 1], data, num_shards=2, count=None)
    source = segment_source(data, "train")
    assert identity.parts == ("refcoco:unc", "refcocoplus:unc", "refcocog:umd")
    assert identity.part_counts == tuple(map(len, source.parts))
    for weights in (JointConfig(), JointConfig(refcoco_unc=3.0, refcocoplus_unc=0.0)):
        weighted = dataclasses.replace(data, joint=weights)
        cached = store.cached_segments(dataclasses.replace(weighted, latents=str(tmp_path)))
        there = segment_source(weighted, "train")
        assert cached.weights == there.weights
        assert len(cached) == len(there)
        for i in range(len(there)):
            assert cached[i]["text"] == there[i]["text"]
    more = dataclasses.replace(data, joint=JointConfig(reasonseg=1.0), latents=str(tmp_path))
    with pytest.raises(UserError, match="has no examples of reasonseg"):
        store.need_matching_cache(more, *vae)


def test_few_examples_of_a_mixture_are_of_all_its_parts(benchmark_data, vae, tmp_path):
    joint = JointConfig(refcoco_unc=2.0)
    data = DataConfig("refcoco_joint", "coco_captions", joint=joint, path=str(benchmark_data.out), size=32)
    identity = encode(tmp_path, vae, [0], data, num_shards=1, count=4)
    assert identity.part_counts == (2, 1, 1)
    assert (identity.segment, identity.generate) == (4, 4)


def test_a_complete_shard_is_left_alone_and_an_unfinished_one_made_anew(vae, tmp_path, capsys):
    encode(tmp_path, vae)
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    name = store.shard_name(1, SHARDS)
    (tmp_path / f"shard-{name}.json").unlink()
    with pytest.raises(UserError, match=r"shard 1 of 3 is missing or incomplete; .*--shard=1 --num_shards=3"):
        store.read_identity(tmp_path)
    capsys.readouterr()
    encode(tmp_path, vae)
    assert capsys.readouterr().out.count("is already complete") == 2
    assert {path.name for path in files} == {path.name for path in tmp_path.iterdir()}
    assert store.read_identity(tmp_path).segment == COUNT


def other_vae():
    config = VAEConfig(8, 8, 4, (1,), 1, 4)
    return config, nnx.state(VAE(config, rngs=nnx.Rngs(1)))


def test_a_cache_by_another_vae_is_refused(cache, vae):
    data = dataclasses.replace(DATA, latents=str(cache))
    store.need_matching_cache(data, *vae)
    with pytest.raises(UserError, match=r"was made by another VAE .*of the same shape.*encode again"):
        store.need_matching_cache(data, *other_vae())
    config = dataclasses.replace(vae[0], num_res_blocks=2)
    state = nnx.state(VAE(config, rngs=nnx.Rngs(0)))
    with pytest.raises(UserError, match=r"its vae.num_res_blocks 1 -> 2"):
        store.need_matching_cache(data, config, state)
    # One number in the latent statistics is another VAE as well.
    state = jax.tree.map(jnp.copy, vae[1])
    state["latents_std"][...] = state["latents_std"][...] * 1.001
    with pytest.raises(UserError, match="was made by another VAE"):
        store.need_matching_cache(data, vae[0], state)


@pytest.mark.parametrize(("field", "value"), [("size", 64), ("seed", 3), ("name", "stamps")])
def test_a_cache_of_other_data_is_refused(cache, vae, field, value):
    data = dataclasses.replace(DATA, latents=str(cache), **{field: value})
    with pytest.raises(UserError, match=f"was made with data.{field} "):
        store.need_matching_cache(data, *vae)


def test_a_cache_whose_masks_were_resized_by_another_rule_is_refused(benchmark_data, vae, tmp_path):
    data = DataConfig("reasonseg", generate="coco_captions", path=str(benchmark_data.out), size=32)
    encode(tmp_path, vae, shards=[0], data=data, num_shards=1, count=2)
    cached = dataclasses.replace(data, latents=str(tmp_path))
    store.need_matching_cache(cached, *vae)
    (shard,) = tmp_path.glob("shard-*.json")
    shard.write_text(shard.read_text().replace(RESIZE_RULE, ""))
    (tmp_path / "digests.json").unlink()  # older versions wrote none
    with pytest.raises(UserError, match=r"masks that were resized by an older rule; encode again"):
        store.need_matching_cache(cached, *vae)


def test_mixed_and_damaged_caches(cache, vae, tmp_path):
    with pytest.raises(UserError, match="has no latents; make them with"):
        store.read_identity(tmp_path / "nowhere")
    encode(tmp_path, vae)
    with pytest.raises(UserError, match=r"has other latents .*its field.vae "):
        encode(tmp_path, other_vae())
    with pytest.raises(UserError, match="there are only 7 examples; use fewer"):
        encode(tmp_path, vae, [0], num_shards=8)
    shutil.copytree(tmp_path, tmp_path / "cut")
    os.truncate(tmp_path / "cut" / f"segment-{store.shard_name(0, SHARDS)}.arrayrecord", 70_000)
    with pytest.raises(UserError, match=r"the latents in .*cut is incomplete or damaged .*encode them again"):
        store.CachedLatents(str(tmp_path / "cut"), "segment")[0]
    path = tmp_path / f"shard-{store.shard_name(2, SHARDS)}.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values))  # the same values in other bytes
    with pytest.raises(UserError, match=rf"{path} is damaged.*encode the latents again"):
        store.read_identity(tmp_path)
    path.write_text(json.dumps(values | {"vae": "0" * 64}))
    with pytest.raises(UserError, match=r"belong to different caches: its field.vae"):
        store.read_identity(tmp_path)
    path.write_text("{")
    with pytest.raises(UserError, match="this is not valid JSON"):
        store.read_identity(tmp_path)
