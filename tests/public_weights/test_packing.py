"""A packed model gives the results of its run, and can be used instead of the run."""

import json
import shutil

import jax
import numpy as np
import pytest
from etils import epath

from genmask_jax.checkpoints.initial_weights import open_weights
from genmask_jax.checkpoints.packed import WEIGHTS
from genmask_jax.checkpoints.runs import find_step, load_vae
from genmask_jax.inference.load import load
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.parameters.names import shapes_of
from genmask_jax.parameters.rules import available_in
from genmask_jax.public_weights.packing import pack_run
from genmask_jax.utils.errors import UserError


def pack(run, out, dtype="float32"):
    return pack_run(epath.Path(run), epath.Path(out), "last", dtype, lambda nbytes: None)


@pytest.fixture(scope="module")
def packed(micro_run, tmp_path_factory):
    """A float32 packed model of a run that was evaluated."""
    out = tmp_path_factory.mktemp("packed")
    run = out / "run"
    shutil.copytree(micro_run[0], run)
    (run / "evaluation_test").mkdir()
    scores = {"checkpoint_step": 4, "mIoU": 0.25, "oIoU": 0.5, "P@0.5": 0.125}
    (run / "evaluation_test/metrics.json").write_text(json.dumps(scores))
    assert "step 4" in pack(run, out / "model")
    return out / "model"


def probabilities(networks):
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    return MaskSampler(networks, networks.config.sampler, batch_size=1)(image, ["the red star"])


def test_a_packed_model_equals_the_run(micro_run, packed, tmp_path):
    networks, config, step = load(packed)
    assert (config.init, step) == ("", 4)
    expected, _, _ = load(micro_run[0])
    jax.tree.map(np.testing.assert_array_equal, *map(jax.device_get, (networks.params, expected.params)))
    jax.tree.map(np.testing.assert_array_equal, load_vae(packed)[1], load_vae(micro_run[0])[1])
    pack(micro_run[0], tmp_path / "half", "float16")
    size = [(path / WEIGHTS).stat().st_size for path in (packed, tmp_path / "half")]
    assert size[1] < 0.6 * size[0]
    half, _, _ = load(tmp_path / "half")
    np.testing.assert_allclose(probabilities(half), probabilities(expected), atol=0.01)


def test_the_card_describes_the_model(packed):
    card = (packed / "README.md").read_text()
    assert "refershapes, 32 px, seed 0" in card
    assert "4 steps of 4 examples" in card
    assert "mIoU 0.2500, oIoU 0.5000, P@0.5 0.1250" in card


def test_a_run_starts_from_a_packed_model(packed):
    start, (networks, _, _) = open_weights(packed), load(packed)
    shapes = shapes_of(networks.params)
    assert available_in(start, shapes) == set(shapes)
    assert start.instruction("tiny") == epath.Path(packed) / "instruction"
    assert start.identity["step"] == 4


def test_a_packed_model_has_one_step(packed):
    assert find_step(packed, "best") == find_step(packed, "4") == 4
    with pytest.raises(UserError, match="no checkpoint '3'; a packed model has one, 4"):
        find_step(packed, "3")


def test_a_truncated_file_is_named(packed, tmp_path):
    shutil.copytree(packed, tmp_path / "cut")
    content = (packed / WEIGHTS).read_bytes()
    (tmp_path / "cut" / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=WEIGHTS):
        load(tmp_path / "cut")
