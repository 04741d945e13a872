"""Validation of a VAE: every example counts once."""

import jax
import numpy as np
import pytest

from genmask_jax.config import DataConfig, LoopConfig, VAETrainConfig
from genmask_jax.data.sources import segment_source
from genmask_jax.evaluation.metrics import intersection_union
from genmask_jax.models.vae import VAEConfig
from genmask_jax.training import vae
from genmask_jax.utils.hosts import gather_rows


@pytest.fixture(scope="module")
def task() -> vae.VAETask:
    return vae.VAETask(
        VAETrainConfig(
            name="micro",
            vae=VAEConfig(8, 8, 4, (1,), 1, 4),
            data=DataConfig(size=32),
            loop=LoopConfig(num_eval_examples=256),
        )
    )


@pytest.mark.parametrize("count", [3, 33])
def test_each_example_counts_once_on_any_number_of_hosts(task, monkeypatch, count):
    """Splits that no batch of 32 divides, scored here one by one."""
    whole = segment_source(task.config.data, "val")
    split = [whole[i] for i in range(count)]
    monkeypatch.setattr(vae, "segment_source", lambda config, name: split)
    params = jax.jit(task.init_params)(jax.random.key(0))
    ious, psnr = [], []
    for example in split:
        one = jax.tree.map(
            lambda x: np.repeat(x[None], vae.EVAL_BATCH_SIZE, 0), (example["image"], example["mask"])
        )
        truth, output = jax.device_get(task._reconstruct(params, *one))
        overlap, union = intersection_union(output[vae.EVAL_BATCH_SIZE].mean(-1) > 0, example["mask"])
        ious.append(overlap / union)
        error = np.clip(output[0], -1, 1) - truth[0]
        psnr.append(10 * np.log10(4 / np.square(error).mean()))
    expected = {"mask_mIoU": np.mean(ious), "image_psnr": np.mean(psnr), "score": np.mean(ious)}

    polled = []
    alone = task._score(params, None, lambda: polled.append(0))
    assert alone == pytest.approx(expected, rel=1e-5)
    assert len(polled) == -(-count // vae.EVAL_BATCH_SIZE)

    hosts = []
    for host in range(2):  # what each of two hosts has, put together
        monkeypatch.setattr(jax, "process_index", lambda host=host: host)
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(vae, "gather_rows", lambda rows: hosts.append(rows) or [[1, 1, 1.0]])
        task._score(params, None)
    assert not hosts[0].keys() & hosts[1].keys()
    monkeypatch.undo()
    monkeypatch.setattr(vae, "segment_source", lambda config, name: split)
    monkeypatch.setattr(vae, "gather_rows", lambda _: gather_rows(hosts[0] | hosts[1]))
    assert task._score(params, None) == alone
