"""Steps whose loss or gradient is not finite, or whose gradient is a spike, are skipped and counted."""

import dataclasses
import json

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import micro_config
from etils import epath

from genmask_jax.checkpoints.runs import find_step
from genmask_jax.config import LoopConfig, OptimizerConfig
from genmask_jax.config.checks import validate
from genmask_jax.data.pipeline import Batches, HostRows
from genmask_jax.training import loop
from genmask_jax.training.checkpoints import Checkpoints
from genmask_jax.training.optimizer import make_optimizer
from genmask_jax.training.skipping import AVERAGED_UPDATES
from genmask_jax.training.state import init_state, make_init
from genmask_jax.training.step import NORMS, make_train_step
from genmask_jax.training.stopping import StopRequests
from genmask_jax.utils.errors import UserError
from tests.training.plans import plan_of

METRICS = ("loss", *NORMS)
OPTIMIZER = OptimizerConfig(warmup_steps=1, learning_rate=0.1, b2=0.9)
ROWS = 4
GOOD = np.linspace(-1, 1, 3 * ROWS, dtype=np.float32).reshape(ROWS, 3)


def init_params(key=None):
    del key
    return {"dit": {"kernel": jnp.ones((3, 2))}}


def loss(params, frozen, batch, key):
    del frozen, key
    error = jnp.square(batch @ params["dit"]["kernel"] - 1).mean()
    return error, {"loss": error}


def after(batches, **options):
    """The state after a step on each of the batches."""
    config = LoopConfig(num_steps=1000, log_every_steps=4, **options)
    plan = plan_of(init_params(), OPTIMIZER)
    tx = make_optimizer(OPTIMIZER, config, plan)
    state, shardings = init_state(make_init(init_params, tx, METRICS), 0, plan)
    step = make_train_step(loss, tx, config, plan, shardings)
    for batch in batches:
        state = step(state, None, batch)
    return jax.device_get(state)


def with_value(value):
    batch = GOOD.copy()
    batch[1, 2] = value
    return batch


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("microbatches", [1, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bad_batch_changes_nothing_but_the_step(value, microbatches):
    options = {"grad_accumulation_steps": microbatches}
    bad = with_value(value)
    before, skipped = after([GOOD, GOOD], **options), after([GOOD, GOOD, bad, bad], **options)
    unchanged = ("params", "ema_params", "opt_state", "key", "metrics")
    same(*[[getattr(state, name) for name in unchanged] for state in (before, skipped)])
    assert (skipped.step, skipped.skips.in_a_row, skipped.skips.total) == (4, 2, 2)
    # Later updates are those of a run without the bad batches.
    on = after([GOOD, GOOD, bad, bad, GOOD / 2, GOOD], **options)
    without = after([GOOD, GOOD, GOOD / 2, GOOD], **options)
    same((on.params, on.opt_state), (without.params, without.opt_state))
    assert (on.skips.in_a_row, on.skips.total) == (0, 2)


def test_means_are_over_the_updates_of_a_window():
    bad = with_value(np.nan)
    losses = [float(after([GOOD] * count).metrics["loss"]) * count for count in (1, 2, 3)]
    means = [
        float(after(batches).metrics["loss"])
        for batches in ([GOOD, bad, GOOD, bad], [bad, GOOD, GOOD], [GOOD, GOOD, bad, bad, bad, GOOD])
    ]
    np.testing.assert_allclose(means, [losses[1] / 2, losses[1] / 2, losses[2] - losses[1]], rtol=1e-5)


def test_a_spike_is_skipped_if_the_config_says_so():
    spike = GOOD * 100
    usual = [GOOD * (1 + 0.5 * (i % 2)) for i in range(AVERAGED_UPDATES)]
    assert after([*usual, spike]).skips.total == 0
    guarded = after([*usual, spike, GOOD], max_grad_norm_ratio=20.0)
    assert (guarded.skips.total, guarded.skips.in_a_row) == (1, 0)
    assert after([spike, *usual[:10], spike], max_grad_norm_ratio=20.0).skips.total == 0  # too early to judge


def test_a_ratio_below_one_is_refused():
    config = micro_config("vae", max_grad_norm_ratio=0.5)
    with pytest.raises(UserError, match=r"loop\.max_grad_norm_ratio must be above 1, or 0 for no limit"):
        validate(config)


@dataclasses.dataclass
class Numbers:
    """Examples in order; all of the batches of the steps `bad` are NaN."""

    bad: tuple[int, ...]

    def __len__(self):
        return 100 * ROWS

    def __getitem__(self, index):
        step, row = index // ROWS + 1, index % ROWS
        return {"x": GOOD[row] * (np.nan if step in self.bad else step), "id": f"{step}-{row}", "text": "a"}


class Task:
    """A task for the loop: a linear regression."""

    metric_names = METRICS
    frozen = None
    init_params = staticmethod(init_params)
    loss = staticmethod(loss)

    def __init__(self, bad):
        self.bad, self.plan = bad, plan_of(init_params(), OPTIMIZER)

    def start(self, params):
        return params

    def batches(self, batch_size, part):
        examples = grain.MapDataset.source(Numbers(self.bad)).repeat()
        rows = HostRows(examples.map(lambda example: example["x"]), batch_size, part)
        return Batches(rows.batch(batch_size), {"segment": (examples, batch_size)}, 0)

    def flops(self, batch):
        raise NotImplementedError

    def evaluate(self, ema_params, step, directory, check_stop):
        return {"score": 1.0}


def train(workdir, *bad, **options):
    """Six steps, each of which is logged and saved."""
    steps = {"num_steps": 6, "global_batch_size": ROWS, "eval_every_steps": 6, "checkpoint_every_steps": 1}
    config = dataclasses.replace(micro_config("vae", **{**steps, **options}), optimizer=OPTIMIZER)
    workdir.mkdir(exist_ok=True)
    with StopRequests("stopped") as stop:
        state, _ = loop.train(Task(bad), config, epath.Path(workdir), stop)
    return jax.device_get(state)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_skipped_steps_are_reported_with_their_examples(tmp_path, caplog):
    with caplog.at_level("WARNING"):
        state = train(tmp_path, 3)
    assert (state.step, state.skips.total) == (6, 1)
    assert "step 3: the loss is not finite; its update is skipped (1 in this run)" in caplog.text
    assert lines(tmp_path / "skipped_steps.jsonl") == [
        {
            "step": 3,
            "reason": "the loss is not finite",
            "examples": {"segment": [{"id": f"3-{row}", "text": "a"} for row in range(ROWS)]},
        }
    ]
    logged = [row for row in lines(tmp_path / "metrics.jsonl") if "learning_rate" in row]
    assert [row.get("skipped_steps") for row in logged] == [None, None, 1, 1, 1, 1]
    assert ["loss" in row for row in logged] == [True, True, False, True, True, True]
    assert logged[2]["learning_rate"] == logged[1]["learning_rate"] != logged[3]["learning_rate"]


def test_too_many_skipped_steps_stop_the_run_which_resumes_past_them(tmp_path):
    run, bad = tmp_path / "run", (3, 4)
    message = r"step 4: the loss is not finite, so 2 steps in a row .*max_skipped_steps=1; .*--resume"
    for _ in range(2):  # and again, with the same limit
        with pytest.raises(UserError, match=message):
            train(run, *bad, max_skipped_steps=1)
        assert find_step(run, "last") == 2
        assert [row["step"] for row in lines(run / "skipped_steps.jsonl")] == [3, 4]
    resumed = train(run, *bad, max_skipped_steps=2)
    same(resumed, train(tmp_path / "whole", *bad))
    assert [row["step"] for row in lines(run / "skipped_steps.jsonl")] == [3, 4]
    assert [row["step"] for row in lines(run / "metrics.jsonl") if "learning_rate" in row] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]


def test_no_skipped_step_replaces_a_checkpoint_until_an_update(tmp_path, monkeypatch):
    saved, save = [], Checkpoints.save

    def record(self, state, data):
        saved.append(int(state.step))
        save(self, state, data)

    monkeypatch.setattr(Checkpoints, "save", record)
    train(tmp_path, 2, 3, checkpoint_every_steps=2)
    assert saved == [4, 6]
    saved.clear()
    train(tmp_path / "shifted", 2, 6, checkpoint_every_steps=2, num_steps=6)
    assert saved == [3, 4, 6]  # the last step is saved in any case
