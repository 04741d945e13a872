"""The loss by noise level, and what a run charts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmask_jax.training import noise_levels


def test_ratios_of_means_are_the_means_of_each_bin():
    rng = np.random.default_rng(0)
    totals, seen = {}, {}
    for _ in range(3):  # three steps of a window
        t, errors = rng.random(16).astype(np.float32), rng.random(16).astype(np.float32)
        for name, value in noise_levels.by_noise_level(
            "segment", jnp.asarray(errors), jnp.asarray(t)
        ).items():
            totals[name] = totals.get(name, 0.0) + float(value) / 3
        for level, error in zip(t, errors, strict=True):
            seen.setdefault(min(int(level * 8), 7), []).append(error)
    assert set(totals) == set(noise_levels.metric_names("segment"))
    rest, means = noise_levels.split({"loss": 1.0, **totals})
    assert rest == {"loss": 1.0}
    assert len(means) == len(seen)
    for k, errors in seen.items():
        name = f"loss_segment_by_noise/{k / 8:.3f}-{(k + 1) / 8:.3f}"
        assert means[name] == pytest.approx(np.mean(errors), rel=1e-5)


def test_levels_of_zero_and_one_are_in_the_outer_bins():
    found = jax.device_get(
        noise_levels.by_noise_level("generate", jnp.ones(4), jnp.array([0.0, 1.0, 1.0, 0.5]))
    )
    shares = [float(found[f"noise_generate_{k}_share"]) for k in range(8)]
    assert shares == [0.25, 0, 0, 0, 0.25, 0, 0, 0.5]


def test_a_run_charts_them_and_its_log_does_not(micro_run):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = event_accumulator.EventAccumulator(str(micro_run[0]), size_guidance={"tensors": 0}).Reload()
    tags = set(events.Tags()["tensors"]) | set(events.Tags()["scalars"])
    assert any(tag.startswith("loss_segment_by_noise/") for tag in tags)
    assert any(tag.startswith("val_mIoU/") for tag in tags)
    assert {"update_norm", "grad_norm", "examples_per_second"} <= tags
    assert "noise_segment_0_sum" not in (micro_run[0] / "metrics.jsonl").read_text()


def test_profiles_are_means_of_the_last_points_at_the_middle_of_each_bin():
    curves = {
        "loss": [(1, 5.0)],
        "loss_segment_by_noise/0.875-1.000": [(step, float(step)) for step in range(1, 11)],
        "loss_segment_by_noise/0.000-0.125": [(1, 3.0)],
    }
    (profile,) = noise_levels.profiles(curves).values()
    assert [t for t, _ in profile] == [(k + 0.5) / 8 for k in range(8)]
    np.testing.assert_equal([loss for _, loss in profile], [3.0, *[np.nan] * 6, 8.0])
