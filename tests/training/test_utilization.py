"""Model FLOPs utilization: counted once, and charted where the peak of the device is known."""

import dataclasses
import json

import jax
import pytest
from conftest import micro_config, start
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from genmask_jax.hardware.cards import CARDS
from genmask_jax.hardware.chips import peak_flops
from genmask_jax.scale import programs
from genmask_jax.sharding import MeshConfig, make_mesh
from genmask_jax.training import loop
from genmask_jax.training.genmask import GenMaskTask

PEAK = 1e9


def series(workdir, tag):
    events = EventAccumulator(str(workdir), size_guidance={"tensors": 0}).Reload()
    return [float(tensor_util.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]


def test_it_is_charted_where_the_peak_is_known(micro_vae, micro_run, tmp_path, monkeypatch):
    config = micro_config(micro_vae)
    monkeypatch.setattr(loop, "peak_flops", lambda kind: PEAK)
    start(config, tmp_path / "run")
    run = programs.describe(config, make_mesh(MeshConfig()))
    per_step = programs.train_flops(run) / (PEAK * jax.device_count())
    found, speed = series(tmp_path / "run", "mfu"), series(tmp_path / "run", "steps_per_second")
    assert [a / b for a, b in zip(found, speed, strict=True)] == pytest.approx([per_step] * 4, rel=1e-4)
    assert "mfu" not in json.loads((micro_run[0] / "metrics.jsonl").read_text().splitlines()[0])
    with pytest.raises(KeyError):
        series(micro_run[0], "mfu")  # nobody knows the peak of a CPU


def test_recomputation_does_not_count(micro_vae):
    """By definition (Chowdhery et al. 2022, appendix B)."""
    config = micro_config(micro_vae)
    again = dataclasses.replace(config, model=dataclasses.replace(config.model, remat="all"))
    one, other = (
        GenMaskTask(run.networks, run.config).flops(programs.batch_shapes(run))
        for run in (programs.describe(c, make_mesh(MeshConfig())) for c in (config, again))
    )
    assert one == other > 0


@pytest.mark.parametrize(("kind", "peak"), [("TPU v5 lite", 197e12), ("TPU v6 lite", 918e12), ("cpu", None)])
def test_peaks(kind, peak):
    assert peak_flops(kind) == peak
    assert all(peak_flops(card.name) == card.peak_flops for card in CARDS.values())
