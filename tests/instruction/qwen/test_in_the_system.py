"""Runs with Qwen as the encoder: resuming, scoring, caching, adapters, meshes and reasoning."""

import ast
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax import nnx
from PIL import Image

from genmask_jax.checkpoints.runs import load_vae
from genmask_jax.config import TrainConfig
from genmask_jax.data.latents import store
from genmask_jax.data.latents.cached_instruction import cached_instruction
from genmask_jax.data.latents.encode import encode_shard
from genmask_jax.data.pipeline import training_batches
from genmask_jax.data.sources import generate_source, segment_source, texts
from genmask_jax.inference.load import load
from genmask_jax.inference.reasoner import Reasoner
from genmask_jax.instruction import factory
from genmask_jax.instruction.config import InstructionConfig
from genmask_jax.instruction.qwen.config import (
    QwenConfig,
    QwenInstructionConfig,
    QwenTextConfig,
    QwenVisionConfig,
)
from genmask_jax.parameters.names import flat_paths
from genmask_jax.public_weights import qwen
from genmask_jax.public_weights.parts import write_part
from genmask_jax.system import make_networks
from genmask_jax.training.genmask import GenMaskTask
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.fields import to_json
from tests.conftest import micro_config, start
from tests.instruction.qwen import reference
from tests.test_end_to_end import LAUNCH, Interrupted, at_batch, crash, one_line_error, run_script

SHAPE = QwenConfig(
    QwenTextConfig(
        vocab_size=300,
        hidden_size=16,
        depth=2,
        num_heads=2,
        num_kv_heads=1,
        ffn_size=24,
        mrope_section=(2, 1, 1),
    ),
    QwenVisionConfig(
        depth=2, hidden_size=16, num_heads=2, ffn_size=24, patch_size=4, window_size=16, full_attention=(1,)
    ),
)


def qwen_config(micro_vae: str, **changes) -> TrainConfig:
    encoder = QwenInstructionConfig(
        **{"shape": SHAPE, "image_token_budgets": (16,), "max_text_tokens": 20, **changes}
    )
    config = micro_config(micro_vae)
    return dataclasses.replace(config, instruction=InstructionConfig(name="qwen", qwen=encoder))


def encode(data, vae, out, **options):
    shared = {"compute_dtype": "float32", "dtype": "float32", "shard": 0, "num_shards": 1, "batch_size": 4}
    encode_shard(data, vae, epath.Path(out), num_eval_examples=4, **shared, **options)


def assert_equal(one, two):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(two))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """(hub's folder, directory of imported weights) of a miniature Qwen2.5-VL."""
    directory = tmp_path_factory.mktemp("weights")
    hub = epath.Path(reference.save_hub(directory / "hub", reference.reference_vl()))
    qwen.copy_hub_files(hub, epath.Path(directory))
    write_part(qwen.open_qwen(hub), epath.Path(directory), lambda nbytes: None)
    return hub, str(directory)


@pytest.fixture(scope="module")
def run(micro_vae, tmp_path_factory):
    """(workdir, config, last state) of a run with random, frozen weights."""
    workdir, config = tmp_path_factory.mktemp("qwen") / "run", qwen_config(micro_vae)
    state, _ = start(config, workdir)
    return workdir, config, jax.device_get(state)


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(run, tmp_path):
    _, config, expected = run
    with pytest.raises(Interrupted):
        start(config, tmp_path / "run", batches=at_batch(3, crash))
    state, _ = start(config, tmp_path / "run", resume=True)
    assert_equal(state, expected)
    assert "instruction" not in state.params  # it is frozen


def test_scripts_score_and_sample(run, tmp_path):
    workdir, _, _ = run
    done = run_script(
        "evaluate", f"--checkpoint={workdir}", "--count=4", "--num_images=2", f"--workdir={tmp_path}",
        "--batch_size=4", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "metrics.json").read_text())["count"] == 4
    Image.fromarray(reference.photograph(50, 40)).save(tmp_path / "photo.png")
    arguments = (f"--checkpoint={workdir}", "--image=photo.png", "--text=Which one is hot?", "--out=out")
    done = run_script("sample", *arguments, "--reason", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.strip().splitlines()
    assert first.startswith("'Which one is hot?' asks for: ")
    description, segmented = (
        first.partition("asks for: ")[2],
        last.partition("% is ")[2].partition("; wrote")[0],
    )
    assert ast.literal_eval(description) == ast.literal_eval(segmented)
    assert Image.open(tmp_path / "out/photo_mask.png").size == (50, 40)


def test_reasoning_needs_qwen_and_an_image(run, micro_run, tmp_path):
    Image.fromarray(reference.photograph(50, 40)).save(tmp_path / "photo.png")
    flags = ("--text=Which one is hot?", "--reason")
    done = run_script("sample", f"--checkpoint={micro_run[0]}", "--image=photo.png", *flags, cwd=tmp_path)
    one_line_error(done, "--reason", "tiny", "does not generate text")
    one_line_error(
        run_script("sample", f"--checkpoint={run[0]}", *flags, cwd=tmp_path), "--reason", "--image"
    )


def test_embeddings_of_imported_weights_are_those_of_transformers(weights, micro_vae, tmp_path):
    import torch

    config = qwen_config(micro_vae, weights=weights[1], layer=2)
    encoder = factory.build(config.instruction, tmp_path)
    networks = make_networks(config, *load_vae(micro_vae), encoder)
    image, text = reference.photograph(32, 32), "the red star"
    row = jax.tree.map(lambda x: jax.numpy.asarray(x[None]), encoder.preparer(text, image))
    model = networks.merge(networks.init_params(jax.random.key(0)), networks.frozen)
    embeds, mask = model.instruction(row)
    prompt = config.instruction.qwen.prompts.phrase.format(text=text)
    content = [{"type": "image"}, {"type": "text", "text": prompt}]
    processor = reference.processor()
    whole = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    theirs = reference.Qwen2_5_VLForConditionalGeneration.from_pretrained(weights[0]).eval()
    with torch.no_grad():
        inputs = processor(text=[whole], images=[image], return_tensors="pt")
        expected = theirs(**inputs, output_hidden_states=True).hidden_states[2][0].numpy()
    expected = expected[row["output_index"][0][np.asarray(mask[0])]]
    assert np.abs(np.asarray(embeds[0])[mask[0]] - expected).max() <= 1e-4 * np.abs(expected).max()
    assert not (tmp_path / "tokenizer.json").exists()  # the weights have their own


@pytest.mark.slow
def test_a_text_only_model_ignores_the_image(micro_vae, tmp_path):
    hub = epath.Path(reference.save_hub(tmp_path / "hub", reference.reference_text()))
    qwen.copy_hub_files(hub, epath.Path(tmp_path))
    write_part(qwen.open_qwen(hub), epath.Path(tmp_path), lambda nbytes: None)
    config = qwen_config(micro_vae, weights=str(tmp_path))
    encoder = factory.build(config.instruction, tmp_path)
    assert encoder.needs_image  # to distinguish segmentation from generation
    one, two = (encoder.preparer("the red star", reference.photograph(size, 32)) for size in (32, 50))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert one.keys() == encoder.preparer("the red star").keys()
    state, _ = start(config, tmp_path / "run")
    assert np.isfinite(state.metrics["loss"])
    with pytest.raises(UserError, match="cannot read images"):
        Reasoner(config.instruction, tmp_path, dtype="float32", batch_size=1)


def test_a_run_needs_the_weights_that_it_started_with(weights, micro_vae, tmp_path):
    copied = shutil.copytree(weights[1], tmp_path / "weights")
    config = qwen_config(micro_vae, weights=str(copied), lora_rank=1)
    encoder = factory.build(config.instruction, tmp_path / "run" / "instruction")
    encoder.save(epath.Path(tmp_path / "run" / "instruction"))
    factory.build(config.instruction, tmp_path / "run" / "instruction")
    other = reference.reference_vl()
    other.model.language_model.layers[0].self_attn.q_proj.weight.data *= 1.001
    shutil.rmtree(copied)
    hub = epath.Path(reference.save_hub(tmp_path / "hub", other))
    qwen.copy_hub_files(hub, epath.Path(copied))
    write_part(qwen.open_qwen(hub), epath.Path(copied), lambda nbytes: None)
    with pytest.raises(UserError, match=r"not the weights that the run in .*run started with"):
        factory.build(config.instruction, tmp_path / "run" / "instruction")


def test_the_reasoner_answers_batches_of_any_shapes_and_frees_its_weights(weights, micro_vae, tmp_path):
    import gc

    config = qwen_config(micro_vae, weights=weights[1], image_token_budgets=(16, 64))
    images = [reference.photograph(*size) for size in ((32, 32), (70, 50), (20, 60), (64, 64), (60, 20))]
    questions = [f"Which is number {i}?" for i in range(5)]
    gc.collect()
    before = {id(x) for x in jax.live_arrays()}
    reasoner = Reasoner(config.instruction, tmp_path, dtype="float32", batch_size=2)
    together = reasoner(images, questions)
    alone = [reasoner([image], [question])[0] for image, question in zip(images, questions, strict=True)]
    assert together == alone
    assert len(set(together)) > 1
    gc.disable()  # weights must be freed without it
    try:
        del reasoner
        assert sum(x.nbytes for x in jax.live_arrays() if id(x) not in before) < 10_000
    finally:
        gc.enable()


def test_an_invalid_flag_does_not_overwrite_an_existing_run(run, tmp_path):
    workdir, config, _ = run
    copied = shutil.copytree(workdir, tmp_path / "run")
    before = sorted(str(path) for path in copied.rglob("*"))
    path = LAUNCH.parent / "configs/genmask_qwen_debug.py"
    arguments = (f"--config={path}", f"--config.vae={config.vae}", f"--workdir={copied}", "--overwrite")
    for field, words in (
        ("layer=9", "layers 1 to 2"),
        ("weights=/nowhere", "config.instruction.qwen.weights=/nowhere"),
        ("shape.text.num_heads=3", "num_heads"),
    ):
        done = run_script("train", *arguments, f"--config.instruction.qwen.{field}", cwd=tmp_path)
        one_line_error(done, words)
    done = run_script("train", *arguments, "--config.init=/nowhere", cwd=tmp_path)
    one_line_error(done, "config.init=/nowhere")
    assert sorted(str(path) for path in copied.rglob("*")) == before


def test_bfloat16_is_near_float32(weights, micro_vae, tmp_path):
    config = qwen_config(micro_vae, weights=weights[1])
    for dtype in ("float32", "bfloat16"):
        changed = dataclasses.replace(config, compute_dtype=dtype)
        encoder = factory.build(changed.instruction, tmp_path)
        networks = make_networks(changed, *load_vae(micro_vae), encoder)
        frozen = dict(flat_paths(networks.frozen["instruction"]))
        assert frozen["text.blocks.q_proj.kernel"][...].dtype == jnp.dtype(dtype)
        row = jax.tree.map(lambda x: x[None], encoder.preparer("a star", reference.photograph(32, 32)))
        model = networks.merge(networks.init_params(jax.random.key(0)), networks.frozen)
        embeds, mask = jax.jit(model.instruction)(row)
        if dtype == "float32":
            expected = embeds
    difference = jnp.linalg.norm(jnp.where(mask[..., None], embeds - expected, 0))
    assert 0 < difference < 0.05 * jnp.linalg.norm(jnp.where(mask[..., None], expected, 0))


@pytest.mark.parametrize(
    "changes", [{"train_layers": 1}, pytest.param({"lora_rank": 2}, marks=pytest.mark.slow)], ids=str
)
def test_part_of_it_can_be_trained(weights, micro_vae, tmp_path, changes):
    config = qwen_config(micro_vae, weights=weights[1], **changes)
    loop = dataclasses.replace(config.loop, num_steps=3)
    optimizer = dataclasses.replace(config.optimizer, instruction_lr_scale=1.0)
    state, _ = start(dataclasses.replace(config, loop=loop, optimizer=optimizer), tmp_path / "run")
    trained = dict(flat_paths(state.params["instruction"]))
    whole = dict(flat_paths(nnx.state(reference.imported(weights[0])[0])))
    if "train_layers" in changes:
        assert all(name.startswith("text.top_blocks.") for name in trained)
        assert len(trained) == 12
        for name, value in trained.items():
            start_value = np.asarray(whole[name.replace("top_blocks", "blocks")][...])[2:]
            average = dict(flat_paths(state.ema_params["instruction"]))[name]
            for moved in (np.abs(np.asarray(x[...]) - start_value).max() for x in (value, average)):
                assert 0 < moved < 0.05, name
    else:
        assert all(".lora." in name for name in trained)
        assert len(trained) == 2 * 7
        assert all(np.any(np.asarray(value[...])) for value in trained.values())
    # The run's directory has all files that sampling needs.
    done = run_script(
        "sample", f"--checkpoint={tmp_path / 'run'}", "--text=a star", "--out=out", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_cached_embeddings_equal_the_encoders(run, micro_vae, tmp_path):
    """Training on them works, and a cache of another encoder, or for a trained one, is refused."""
    _, config, _ = run
    vae, data = load_vae(micro_vae), config.data
    encoder = factory.build(config.instruction, tmp_path / "instruction", texts(data, 400))  # as in `start`
    encode(data, vae, tmp_path, instruction=encoder, count=8)
    cached = dataclasses.replace(data, latents=str(tmp_path))
    store.need_matching_instruction(tmp_path, encoder)
    networks = make_networks(config, *vae, encoder)
    model = networks.merge(networks.init_params(jax.random.key(0)), networks.frozen)
    embed = jax.jit(model.instruction)
    source = {"segment": segment_source(data, "train"), "generate": generate_source(data, "train")}
    for task in store.TASKS:
        for i, example in enumerate(store.CachedLatents(str(tmp_path), task)[i] for i in range(8)):
            words = {"text": example["text"]} | ({"null": ""} if task == "generate" else {})
            for name, text in words.items():
                image = source[task][i]["image"] if task == "segment" else None
                row = jax.tree.map(lambda x: x[None], encoder.preparer(text, image))
                embeds, mask = embed(row)
                np.testing.assert_array_equal(example[f"{name}_mask"], mask[0])
                expected = np.where(mask[0][:, None], embeds[0], 0)
                np.testing.assert_allclose(example[f"{name}_embeds"], expected, atol=1e-4)
    options = {"batch_size": 4, "part": (0, 1), "condition_dropout": 0.5, "seed": 0}
    encoder_of_cache = cached_instruction(str(tmp_path), encoder)
    batch = next(training_batches(cached, encoder_of_cache.preparer, **options))
    assert set(batch["segment"]["instruction"]) == {"text_embeds", "text_mask"}
    cached_networks = make_networks(config, *vae, encoder_of_cache)
    assert "instruction" not in cached_networks.frozen  # the encoder is not on the device
    task = GenMaskTask(cached_networks, config)
    batch = jax.tree.map(jnp.asarray, batch)
    loss = task.loss(
        cached_networks.init_params(jax.random.key(0)), cached_networks.frozen, batch, jax.random.key(1)
    )[0]
    assert np.isfinite(loss)
    _, scores = start(dataclasses.replace(config, data=cached), tmp_path / "run")
    # Validation uses cached embeddings, and has the same scores as with the encoder.
    trained, own, _ = load(tmp_path / "run")
    expected_scores = GenMaskTask(trained, own).evaluate(
        trained.params, 0, epath.Path(tmp_path), lambda: None
    )
    assert {name: expected_scores[name] for name in scores} == pytest.approx(scores, abs=1e-6)
    with pytest.raises(UserError, match=r"has no embeddings of 'another text'"):
        encoder_of_cache.preparer("another text")
    with pytest.raises(
        UserError, match=r"of 4 validation examples, not of config\.loop\.num_eval_examples 5"
    ):
        store.need_matching_instruction(tmp_path, encoder, 5)

    def refusal(**changes):
        other = factory.build(qwen_config(micro_vae, **changes).instruction, tmp_path, texts(data))
        with pytest.raises(UserError) as raised:
            store.need_matching_instruction(tmp_path, other)
        return str(raised.value)

    assert "another config.instruction" in refusal(layer=1)
    assert "config.instruction is trained" in refusal(lora_rank=2)


def test_encoders_of_images_refuse_caches_without_instructions(run, micro_vae, tmp_path):
    _, config, _ = run
    encode(config.data, load_vae(micro_vae), tmp_path, count=4)
    encoder = factory.build(config.instruction, run[0] / "instruction")
    with pytest.raises(UserError, match=r"encode again with launch/encode_latents\.py --instruction"):
        store.need_matching_instruction(tmp_path, encoder)
    tiny = factory.build(micro_config(micro_vae).instruction, tmp_path / "tiny", texts(config.data, 100))
    store.need_matching_instruction(tmp_path, tiny)


@pytest.mark.slow
def test_the_loss_is_the_same_on_a_mesh(weights, micro_vae, tmp_path):
    """On 8 simulated devices, in a separate process: data 2 x fsdp 2 x tensor 2, weights read in parts."""
    config = qwen_config(micro_vae, weights=weights[1], train_layers=1)
    program = """
        import os, sys, json
        os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=8"
        import jax, numpy as np
        from genmask_jax import sharding
        from genmask_jax.config import TrainConfig
        from genmask_jax.config.checks import from_config_dict
        from genmask_jax.data.pipeline import training_batches
        from genmask_jax.instruction import factory
        from genmask_jax.system import make_networks
        from genmask_jax.checkpoints.runs import load_vae
        from genmask_jax.training.genmask import GenMaskTask
        from genmask_jax.parameters import rules
        from genmask_jax.parameters.names import flat_paths
        rules.FSDP_MIN_SIZE = 64
        config = from_config_dict(TrainConfig, json.loads(open("config.json").read()))
        encoder = factory.build(config.instruction, ".")
        options = {"batch_size": 8, "part": (0, 1), "condition_dropout": 0.1, "seed": 0}
        batch = next(training_batches(config.data, encoder.preparer, **options))
        mesh = sharding.make_mesh(sharding.MeshConfig(data=2, fsdp=2, tensor=2))
        for mesh in (None, mesh):
            networks = make_networks(config, *load_vae(config.vae), encoder, mesh)
            shapes = networks.abstract_params()
            shardings = networks.plan.shardings(shapes) if mesh else None
            params = jax.jit(networks.init_params, out_shardings=shardings)(jax.random.key(0))
            task = GenMaskTask(networks, config)
            params = task.start(params)
            placed = sharding.to_devices(batch, mesh) if mesh else jax.device_put(batch)
            loss, _ = jax.jit(task.loss)(params, networks.frozen, placed, jax.random.key(1))
            print("loss", float(loss))
            if mesh:
                for tree in (networks.frozen["instruction"], params["instruction"]):
                    flat = dict(flat_paths(tree))
                    kernel = next(x for name, x in flat.items() if name.endswith("mlp.gate_proj.kernel"))[...]
                    assert 4 * np.prod(kernel.sharding.shard_shape(kernel.shape)) == kernel.size
    """
    (tmp_path / "config.json").write_text(to_json(config))
    root = str(pathlib.Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": root},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    one, many = (float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("loss"))
    assert many == pytest.approx(one, rel=1e-5)
