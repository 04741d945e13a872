"""Batches: two halves, the same for the same seed, resumable, divided between hosts."""

import contextlib
import multiprocessing
import os
import signal

import jax
import numpy as np
import pytest
from absl import flags

from genmask_jax.config import DataConfig, MixtureConfig
from genmask_jax.data import pipeline, sources
from genmask_jax.utils.errors import UserError


class Characters:
    """Codes of the text's characters."""

    limit = "64 characters"

    def truncate(self, text):
        return text[:64]

    def __call__(self, text, image=None):
        return {"input_ids": np.array([ord(c) for c in text.ljust(64)[:64]], np.int32)}


CHARACTERS = Characters()


def batches(seed=0, dropout=0.1, size=4, workers=0, part=(0, 1), preparer=CHARACTERS, mixture=(1, 1)):
    config = DataConfig(size=32, num_workers=workers, mixture=MixtureConfig(*mixture))
    options = {"batch_size": size, "part": part, "condition_dropout": dropout, "seed": seed}
    return pipeline.training_batches(config, preparer, **options)


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


def test_dropout_empties_prompts_of_images_only():
    empty = 0
    iterator = batches(dropout=0.5, size=8)
    for _ in range(16):
        batch = next(iterator)
        empty += (batch["generate"]["instruction"]["input_ids"] == ord(" ")).all(1).sum()
        assert not (batch["segment"]["instruction"]["input_ids"] == ord(" ")).all(1).any()
    assert 18 <= empty <= 46  # 32 of 64 expected


def test_a_batch_has_the_shares_of_the_mixture():
    for mixture in ((3, 1), (1, 3)):
        batch = next(batches(size=8, mixture=mixture))
        assert (len(batch["segment"]["masks"]), len(batch["generate"]["images"])) == (
            2 * mixture[0],
            2 * mixture[1],
        )


@pytest.mark.parametrize(("hosts", "mixture"), [(2, (1, 1)), (4, (1, 1)), (2, (3, 1))])
def test_hosts_share_the_batches_of_one(hosts, mixture):
    options = {"size": 16, "dropout": 0.5, "mixture": mixture}
    alone = batches(**options)
    parts = [batches(**options, part=(host, hosts)) for host in range(hosts)]
    for _ in range(3):
        together = jax.tree.map(lambda *rows: np.concatenate(rows), *map(next, parts))
        same(next(alone), together)


def test_the_position_of_one_host_is_that_of_any():
    alone, part = batches(size=8), batches(size=8, part=(1, 2))
    next(alone)
    next(part)
    assert alone.get_state() == part.get_state()


class KillsWorker(Characters):
    """Ends the process that it runs in, as the kernel does when memory runs out."""

    def __call__(self, text, image=None):
        assert multiprocessing.parent_process() is not None
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_one_line():
    flags.FLAGS.mark_as_parsed()
    with pytest.raises(UserError, match=r"was killed .* fewer config\.data\.num_workers") as caught:
        pipeline.draw(batches(workers=1, preparer=KillsWorker()))
    assert "\n" not in str(caught.value)


def test_a_position_is_the_same_for_any_number_of_workers():
    """What one drew is not drawn by the next, whatever their numbers of worker processes."""
    flags.FLAGS.mark_as_parsed()  # Grain's workers read absl's flags
    alone = batches()
    expected = [next(alone) for _ in range(9)]
    position = {"batches": 1}
    for workers in (2, 1, 3, 0):
        with contextlib.closing(batches(workers=workers)) as resumed:
            resumed.set_state(position)
            began = position["batches"]
            for i in range(began, began + 2):
                same(next(resumed), expected[i])
            position = resumed.get_state()
    assert position == {"batches": 9}


def test_a_position_is_reached_without_what_lies_before_it(monkeypatch):
    read = []
    source = type(sources.segment_source(DataConfig(size=32), "train"))
    draw = source.__getitem__
    monkeypatch.setattr(source, "__getitem__", lambda self, i: read.append(i) or draw(self, i))
    with contextlib.closing(batches()) as resumed:
        resumed.set_state({"batches": 10**9})
        next(resumed)
    assert 0 < len(read) < 50


@pytest.mark.parametrize(
    "state",
    [
        {"next_index": 3},
        {"iterators_in_use_states": [{"next_index": 2}, {"next_index": 1}], "next_index_in_cycle": 1},
    ],
)
def test_positions_of_grain_in_older_checkpoints_are_read(state):
    alone, resumed = batches(), batches()
    expected = [next(alone) for _ in range(4)]
    resumed.set_state(state)
    same(next(resumed), expected[3])
    assert resumed.get_state() == {"batches": 4}


def test_a_state_that_is_no_position_is_refused():
    with pytest.raises(UserError, match="no position in the data"):
        batches().set_state({"sources": []})


def test_a_mixture_and_a_vae_resume_anywhere(benchmark_data):
    data = DataConfig(name="refcoco_joint", path=str(benchmark_data.out), size=32, generate="none")
    options = {"batch_size": 4, "part": (0, 1), "seed": 0}
    for make in (
        lambda: pipeline.training_batches(data, CHARACTERS, condition_dropout=0.1, **options),
        lambda: pipeline.image_batches(data, **options),
    ):
        alone, resumed = make(), make()
        for _ in range(5):
            next(alone)
        resumed.set_state(alone.get_state())
        for _ in range(3):
            jax.tree.map(np.testing.assert_array_equal, next(resumed), next(alone))
