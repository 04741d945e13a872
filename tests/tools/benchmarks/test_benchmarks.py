"""Benchmarks measure the same work in both implementations, and count its FLOPs."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx

from genmask_jax.instruction.qwen.config import QwenConfig, QwenTextConfig, QwenVisionConfig
from genmask_jax.models.dit import DiT
from genmask_jax.models.vae import VAEConfig
from genmask_jax.public_weights import qwen_names
from genmask_jax.tools.benchmarks import diffusers_peer, instruction, sampler, timing, train_step, vae
from genmask_jax.tools.benchmarks.workload import Workload, make_ours, parse_size
from genmask_jax.utils.errors import UserError


def workload(frames=1):
    model = parse_size("2x64", text_dim=32)
    return Workload(model, batch_size=2, frames=frames, latents=(8, 12), text_tokens=10)


@pytest.mark.parametrize("frames", [1, 2])
def test_ours_and_the_peer_train_alike(frames):
    """Three steps of AdamW from the same weights have the same losses."""
    work = workload(frames)
    model = diffusers_peer.make_model(work)
    ours = make_ours(work, diffusers_peer.our_params(model, work))
    peer = diffusers_peer.make_peer(model, work, compiled=False)
    losses = [(ours(), peer()) for _ in range(3)]
    np.testing.assert_allclose(*np.transpose(losses), rtol=1e-5)
    assert losses[0][0] > losses[1][0] > losses[2][0]


def test_flops_match_xlas_count():
    work = workload()
    assert work.tokens == 24
    graph, params = nnx.split(nnx.eval_shape(lambda: DiT(work.model, rngs=nnx.Rngs(0))))
    inputs = jax.tree.map(jax.numpy.asarray, work.inputs())

    def forward(params):
        return nnx.merge(graph, params)(inputs["latents"], inputs["timesteps"], inputs["text_embeds"])

    counted = jax.jit(forward).lower(params).compile().cost_analysis()["flops"]
    assert work.flops / 3 == pytest.approx(counted, rel=0.15)  # XLA counts norms and the like as well


@pytest.mark.parametrize("size", ["7x100", "x64", "0x64", "huge"])
def test_unknown_sizes(size):
    with pytest.raises(UserError, match="give tiny, s, b, l, xl, or DEPTHxWIDTH"):
        parse_size(size, 32)


def test_a_step_alone_is_reported(capsys, monkeypatch):
    monkeypatch.setattr(timing, "MATMUL_SIZE", 256)
    results = train_step.measure(workload(), peer=None, rounds=1)
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == results
    assert last["ours_seconds"] > 0
    assert last["peer_seconds"] is None
    assert last["gflops_per_second"] == pytest.approx(workload().flops / last["ours_seconds"] / 1e9)
    assert last["attention"] == {"ours": "matrix products"}
    assert last["products"] == "float32"
    assert last["versions"]["jax"] == jax.__version__


def test_a_peer_is_reported_next_to_ours(capsys, monkeypatch):
    """A compiled peer that fails is reported as failed, and PyTorch uses a fused attention kernel."""
    monkeypatch.setattr(timing, "MATMUL_SIZE", 256)
    make_peer = diffusers_peer.make_peer

    def eager_only(*arguments, compiled):
        if compiled:
            raise OSError
        return make_peer(*arguments, compiled=compiled)

    monkeypatch.setattr(diffusers_peer, "make_peer", eager_only)
    work = dataclasses.replace(workload(), dtype="bfloat16")
    results = train_step.measure(work, peer="diffusers", rounds=1)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == results
    assert set(results["seconds"]) == {"ours", "diffusers"}
    assert results["failed"] == {"diffusers, torch.compile": "OSError"}
    assert results["attention"]["diffusers"].startswith("flash_attention")


def test_masks_are_reported(capsys, monkeypatch):
    monkeypatch.setattr(sampler, "VAEConfig", lambda: VAEConfig(8, 8, 4, (1,), 1, 4))
    results = sampler.measure("tiny", 32, 2, 1)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == results
    assert list(results["seconds"]["ours"])[1] == "DiT, one pass over 32 tokens"
    assert results["peak_resident_bytes"] > 2**27


def test_a_vae_is_reported(capsys, monkeypatch):
    monkeypatch.setattr(vae, "VAEConfig", lambda: VAEConfig(8, 8, 4, (1,), 1, 4))
    results = vae.measure(32, 2, "float32", 1)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == results
    assert set(results["seconds"]["ours"]) == {"encoder", "decoder"}
    with pytest.raises(UserError, match="stride 4"):
        vae.measure(33, 1, "float32", 1)


@pytest.mark.parametrize("peer", [None, "transformers"])
def test_an_encoder_is_reported(capsys, monkeypatch, peer):
    text = QwenTextConfig(400, 32, 3, 4, 2, 48, mrope_section=(2, 1, 1))
    vision = QwenVisionConfig(2, 16, 2, 24, patch_size=4, window_size=16, full_attention=(1,))
    monkeypatch.setitem(instruction.SIZES, "vl_7b", QwenConfig(text, vision))
    workload = instruction.EncoderWorkload("vl_7b", 2, 32, 2, "float32")
    results = instruction.measure(workload, peer=peer, repeats=1)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == results
    assert [name.partition(",")[0] for name in results["seconds"]["ours"]] == [
        "vision tower",
        "language model",
        "both",
        "both",
        "preparing one image and its prompt",
    ]
    assert len(results["seconds"].get("transformers", {})) == (2 if peer else 0)
    parameters = sum(x.size for x in jax.tree.leaves(qwen_names.abstract_state(workload.config)))
    assert results["parameters"] == parameters
