"""The search tries meshes, picks the policy with the least recomputation, and ranks candidates."""

import dataclasses

from genmask_jax.sharding import MeshConfig
from genmask_jax.tools.estimates.estimate import Estimate
from genmask_jax.tools.estimates.search import meshes, rank, search
from tests.conftest import micro_config

ACTIVATION_BYTES = {"none": 40, "matrices": 20, "attention": 12, "all": 10}
"""Bytes of activations in a mock estimate by policy; weights take 32 bytes / fsdp."""


def mock_compile(tried):
    def compile_(config):
        tried.append((config.mesh.fsdp, config.model.remat))
        memory = ACTIVATION_BYTES[config.model.remat] + 32 / config.mesh.fsdp
        return Estimate(memory <= 30, memory, 30, 1.0, estimated_step_seconds=float(config.mesh.fsdp))

    return compile_


def test_meshes_divide_the_devices():
    config = micro_config("")
    assert [c.mesh.fsdp for c in meshes(config, 8, 1)] == [1, 2, 4, 8]
    assert [c.mesh.fsdp for c in meshes(config, 12, 1)] == [1, 2, 4]
    assert [c.mesh.fsdp for c in meshes(config, 8, 2)] == [1, 2, 4]  # each slice has all parameters
    halved = dataclasses.replace(config, mesh=MeshConfig(tensor=2))
    assert [(c.mesh.fsdp, c.mesh.tensor) for c in meshes(halved, 8, 1)] == [(1, 2), (2, 2), (4, 2)]


def test_the_first_policy_that_fits_is_taken_and_the_fastest_comes_first():
    tried = []
    found = list(search(micro_config(""), 4, 1, mock_compile(tried)))
    assert [(f.config.mesh.fsdp, f.config.model.remat, f.estimate.fits) for f in found] == [
        (1, "all", False),
        (2, "attention", True),
        (4, "matrices", True),
    ]
    assert tried == [(1, r) for r in ACTIVATION_BYTES] + [(2, r) for r in list(ACTIVATION_BYTES)[:3]] + [
        (4, r) for r in list(ACTIVATION_BYTES)[:2]
    ]
    assert [f.name for f in rank(found)] == [
        "fsdp 2, tensor 1, remat attention",
        "fsdp 4, tensor 1, remat matrices",
        "fsdp 1, tensor 1, remat all",
    ]
