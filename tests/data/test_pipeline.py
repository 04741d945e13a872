"""Batches: two halves, the same for the same seed, resumable, divided between hosts."""

import numpy as np
import pytest
from absl import flags

from genmask_jax.config import DataConfig
from genmask_jax.data import pipeline


def preparer(text, image=None):
    """Codes of the text's characters."""
    return {"input_ids": np.array([ord(c) for c in text.ljust(64)[:64]], np.int32)}


def batches(seed=0, dropout=0.1, size=4, workers=0):
    config = DataConfig(size=32, num_workers=workers)
    return pipeline.training_batches(config, preparer, batch_size=size, condition_dropout=dropout, seed=seed)


def same(a, b):
    for half in ("segment", "generate"):
        for name in set(a[half]) - {"instruction"}:
            np.testing.assert_array_equal(a[half][name], b[half][name])
        np.testing.assert_array_equal(
            a[half]["instruction"]["input_ids"], b[half]["instruction"]["input_ids"]
        )


def test_a_batch_has_two_halves():
    batch = next(batches())
    assert batch["segment"]["images"].shape == batch["generate"]["images"].shape == (2, 32, 32, 3)
    assert batch["segment"]["masks"].shape == (2, 32, 32)
    assert batch["segment"]["images"].dtype == np.uint8
    assert set(np.unique(batch["segment"]["masks"])) == {0, 1}


def test_order_depends_on_the_seed_alone():
    first, again, other = batches(), batches(), batches(seed=1)
    for _ in range(3):
        one = next(first)
        same(one, next(again))
        assert not np.array_equal(one["segment"]["images"], next(other)["segment"]["images"])


def test_position_can_be_saved_and_restored():
    iterator = batches()
    for _ in range(3):
        next(iterator)
    position = iterator.get_state()
    expected = [next(iterator) for _ in range(3)]
    fresh = batches()
    fresh.set_state(position)
    for batch in expected:
        same(batch, next(fresh))


def test_dropout_empties_prompts_of_pictures_only():
    empty = 0
    iterator = batches(dropout=0.5, size=8)
    for _ in range(16):
        batch = next(iterator)
        empty += (batch["generate"]["instruction"]["input_ids"] == ord(" ")).all(1).sum()
        assert not (batch["segment"]["instruction"]["input_ids"] == ord(" ")).all(1).any()
    assert 18 <= empty <= 46  # 32 of 64 expected


def test_hosts_see_disjoint_examples(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pipeline.jax, "process_count", lambda: 2)
    seen = []
    for host in range(2):
        monkeypatch.setattr(pipeline.jax, "process_index", lambda host=host: host)
        iterator = batches()
        seen.append({next(iterator)["segment"]["images"].tobytes() for _ in range(4)})
    assert not seen[0] & seen[1]


def test_worker_processes_change_nothing_but_who_works():
    flags.FLAGS.mark_as_parsed()  # Grain's workers read absl's flags
    here, there = batches(), batches(workers=2)
    try:
        for _ in range(3):
            one = next(here)
            state = there.get_state()
            same(one, next(there))
        there.set_state(state)
        same(one, next(there))
    finally:
        there.close()
