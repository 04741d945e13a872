"""Every file of a checkpoint is damaged: the damage is found, and the checkpoint before it is used.

`pytest -m slow -s` prints the counts of docs/reliability.md.
"""

import collections
import pathlib
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import micro_config, start

from genmask_jax.training.checkpoints import Checkpoints
from genmask_jax.training.skipping import no_skips
from genmask_jax.training.state import TrainState
from genmask_jax.utils.digests import DIGESTS, check_digests, write_digests
from genmask_jax.utils.errors import DamagedError
from tests.faults.damage import Fault, a_fault_of_each, faults_of, files_below

UNUSED = ("_CHECKPOINT_METADATA", "commit_success.txt")
"""Files of Orbax, written after the digests, without anything that is restored."""


class Position:
    """The position of a data iterator."""

    def __init__(self, state=None):
        self.state = state

    def get_state(self):
        return self.state

    def set_state(self, state):
        self.state = state


def content(state, position):
    """All bytes that a checkpoint keeps."""
    leaves = jax.tree.leaves(state)
    raw = (
        jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in leaves
    )
    return [np.asarray(x).tobytes() for x in raw], position.state


class Saved:
    """A run's checkpoints 2 and 4, of which copies are damaged.

    whole: the folder of both checkpoints.
    template: a state with their shapes.
    scratch: folder of the copies.
    """

    def __init__(self, whole: pathlib.Path, template: TrainState, scratch: pathlib.Path):
        self.whole, self.template, self.scratch = whole, template, scratch
        self.newest = self.restore()[0]
        shutil.rmtree(self.copy() / "4")
        self.older = self.read()[0]
        assert self.older != self.newest

    def copy(self) -> pathlib.Path:
        shutil.rmtree(self.scratch, ignore_errors=True)
        return pathlib.Path(shutil.copytree(self.whole, self.scratch / "checkpoints"))

    def read(self):
        checkpoints, position = Checkpoints(self.scratch), Position()
        restored = content(checkpoints.restore(self.template, position), position)
        scores = checkpoints.scores(4)
        checkpoints.close()
        return restored, scores

    def restore(self, fault: Fault | None = None):
        """Restores a copy, with a fault in checkpoint 4."""
        copy = self.copy()
        if fault:
            fault.apply(copy / "4")
        return self.read()

    def outcome(self, fault: Fault) -> str:
        """What a restart does: "found", "scores found", "no matter" or "silently wrong"."""
        restored, scores = self.restore(fault)
        if restored == self.older:
            return "found" if (self.scratch / "damaged_checkpoint_4").exists() else "not set aside"
        if restored != self.newest:
            return "silently wrong"
        if fault.path.parts[0] == "metrics":
            return "silently wrong" if scores else "scores found"
        return "no matter"


def state(step):
    params = {"w": jnp.arange(4096.0).reshape(64, 64) + step}  # Orbax keeps small arrays with its metadata
    return TrainState(
        step=jnp.int32(step),
        params=params,
        ema_params={"w": params["w"] / 3},
        opt_state=(params,),
        key=jax.random.key_data(jax.random.key(step)),
        metrics={"loss": jnp.float32(step)},
        skips=no_skips(),
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Checkpoints of a few arrays."""
    folder = tmp_path_factory.mktemp("small")
    checkpoints = Checkpoints(folder)
    for step, score in ((2, 0.9), (4, 0.5)):
        checkpoints.save(state(step), Position({"next": step}))
        checkpoints.record_scores(step, {"score": score})
    checkpoints.close()
    return Saved(folder / "checkpoints", state(0), tmp_path_factory.mktemp("damaged") / "run")


def test_damage_to_any_file_is_found_and_changes_no_number(small, caplog):
    faults = a_fault_of_each(small.whole / "4")
    assert {fault.path for fault in faults} == set(files_below(small.whole / "4"))
    for fault in faults:
        name, outcome = str(fault.path), small.outcome(fault)
        expected = "no matter" if name in UNUSED else "scores found" if "metrics" in name else "found"
        assert (str(fault), outcome) == (str(fault), expected)
        if expected == "found":
            assert f"{small.scratch}/checkpoints/4/{fault.path}" in caplog.text or fault.path.name == DIGESTS
        caplog.clear()


def compare_regions(checkpoint: pathlib.Path, scratch: pathlib.Path, flips: int, cuts: int) -> int:
    """Compares digests after each fault of a copy; returns the number of faults, all of which were found."""
    count = 0
    for item in ("train", "ema_params", "data", "metrics"):
        copy = pathlib.Path(shutil.copytree(checkpoint / item, scratch / item))
        for fault in faults_of(copy, flips, cuts):
            whole = (copy / fault.path).read_bytes()
            fault.apply(copy)
            with pytest.raises(DamagedError, match=str(copy)):
                check_digests(copy)
            (copy / fault.path).write_bytes(whole)
            count += 1
        check_digests(copy)
    return count


def test_regions_of_each_file_are_in_its_digest(small, tmp_path):
    compare_regions(small.whole / "4", tmp_path, flips=4, cuts=2)


def test_checkpoints_without_digests_are_restored_and_missing_files_are_not(small):
    copy = small.copy()
    for path in copy.rglob(DIGESTS):
        path.unlink()
    assert small.read()[0] == small.newest
    copy = small.copy()
    (copy / "4" / "data" / "metadata").unlink()
    assert small.read()[0] == small.older


def test_a_cut_array_without_digests_is_set_aside(small):
    copy = small.copy()
    for path in (copy / "4").rglob(DIGESTS):
        path.unlink()
    for path in (copy / "4" / "train" / "ocdbt.process_0" / "d").iterdir():
        path.write_bytes(b"")
    assert small.read()[0] == small.older


@pytest.mark.slow
def test_a_micro_run_in_every_region(micro_vae, tmp_path):
    scores = iter((0.9, 0.5))  # keeps both checkpoints

    def evaluate(original):
        return lambda *arguments: original(*arguments) | {"score": next(scores)}

    template, _ = start(micro_config(micro_vae), tmp_path / "run", evaluate=evaluate)
    saved = Saved(tmp_path / "run" / "checkpoints", template, tmp_path / "damaged")
    counts = collections.Counter()
    for fault in faults_of(saved.whole / "4", flips=4, cuts=2):
        outcome = saved.outcome(fault)
        assert (outcome == "no matter") == (str(fault.path) in UNUSED), (fault, outcome)
        counts[fault.kind, outcome] += 1
    compared = compare_regions(saved.whole / "4", tmp_path / "regions", flips=64, cuts=8)
    print(f"\n{len(files_below(saved.whole / '4'))} files, restored: {dict(counts)}, compared: {compared}")
    assert not any(outcome in ("silently wrong", "not set aside") for _, outcome in counts)


@pytest.mark.slow
def test_the_cost_of_digests(tmp_path):
    for i in range(4):
        (tmp_path / str(i)).write_bytes(np.random.default_rng(i).bytes(25_000_000))
    seconds = []
    for call in (write_digests, check_digests):
        begin = time.perf_counter()
        call(tmp_path)
        seconds.append(time.perf_counter() - begin)
    print(f"\n100 MB: {seconds[0]:.2f} s to write digests, {seconds[1]:.2f} s to compare them")
