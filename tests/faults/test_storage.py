"""Full disks, quotas, removed and slow folders, buckets: one line, and nothing that was saved is lost.

`pytest -m slow -s` prints the counts of docs/reliability.md.
"""

import collections
import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from absl import logging
from conftest import micro_config, start
from etils import epath
from etils.epath import backend, gpath

from genmask_jax import cli
from genmask_jax.training import loop
from genmask_jax.training import start as training_start
from genmask_jax.training.charts import Charts
from genmask_jax.training.checkpoints import Checkpoints
from genmask_jax.utils import paths
from genmask_jax.utils.digests import check_digests, write_digests
from genmask_jax.utils.errors import DamagedError, StorageError, reading
from genmask_jax.utils.paths import Appender, write_text, writing
from tests.faults import faulty_storage

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EROFS, errno.EIO])
def test_an_error_of_the_storage_is_one_line_with_path_and_fix(tmp_path, number):
    write_text(tmp_path / "a.txt", "before")

    def write():
        with paths.replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("part")
            raise OSError(number, os.strerror(number))

    with pytest.raises(StorageError) as caught:
        write()
    assert str(caught.value).startswith(f"{tmp_path}/a.txt: {os.strerror(number)}; ")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "before"


def test_errors_of_libraries_are_recognised_and_others_pass(tmp_path):
    with pytest.raises(StorageError, match="make room"), writing(tmp_path):
        raise RuntimeError("writing record: No space left on device [os_error_code='28']")
    with pytest.raises(ValueError, match="a bug"), writing(tmp_path):
        raise ValueError("a bug")
    with pytest.raises(FileNotFoundError), writing(tmp_path / "out"):
        (tmp_path.parent / "elsewhere" / "input").read_bytes()


def test_a_stale_handle_is_no_damage(tmp_path):
    with (
        pytest.raises(StorageError, match="x: Stale file handle; mount"),
        reading("x", "delete it"),
    ):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    with pytest.raises(DamagedError, match="delete it"), reading("x", "delete it"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_commands_print_one_line(tmp_path, capsys):
    def main():
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), f"{tmp_path}/file")

    with pytest.raises(SystemExit) as caught:
        cli.guard(main)
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path}/file: Read-only file system; make the disk writable, then run")


def test_a_removed_folder_is_noticed_by_the_next_row(tmp_path):
    rows = Appender(tmp_path / "run" / "metrics.jsonl")
    (tmp_path / "run").mkdir()
    rows.append(b"{}\n")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(StorageError, match="its folder was deleted"):
        rows.append(b"{}\n")


class Bucket(backend._OsPathBackend):
    """A bucket in a local folder. It has no folders and no append; `calls` may fail, or list objects late.

    root: the folder.
    failing: number of calls that fail.
    unlisted: names that are not listed yet.
    """

    def __init__(self, root: pathlib.Path):
        self.root, self.failing, self.unlisted, self.delay = root, 0, set(), 0.0

    def local(self, path) -> str:
        if self.failing:
            self.failing -= 1
            raise RuntimeError("503 Service Unavailable")  # gcsfs raises its own errors
        time.sleep(self.delay)
        local = self.root / os.fspath(path).removeprefix("gs://")
        local.parent.mkdir(parents=True, exist_ok=True)
        return str(local)

    def open(self, path, mode):
        assert "a" not in mode, "buckets have no append"
        return super().open(self.local(path), mode)

    def listdir(self, path):
        return [name for name in super().listdir(self.local(path)) if name not in self.unlisted]


for name in ("exists", "isdir", "makedirs", "mkdir", "rmtree", "remove", "stat"):
    method = getattr(backend._OsPathBackend, name)
    setattr(Bucket, name, lambda self, path, _method=method, **o: _method(self, self.local(path), **o))


@pytest.fixture
def bucket(tmp_path, monkeypatch) -> Bucket:
    """What gs:// paths of `epath` use."""
    made = Bucket(tmp_path / "bucket")
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", made)
    return made


def test_rows_are_written_to_buckets_now_and_then(bucket, monkeypatch):
    path, clock = epath.Path("gs://b/run/metrics.jsonl"), [0.0]
    path.write_text("old\n")
    monkeypatch.setattr(paths.time, "monotonic", lambda: clock[0])
    rows = Appender(path)
    rows.append(b"1\n")
    assert path.read_text() == "old\n"
    rows.flush()
    assert path.read_text() == "old\n1\n"
    clock[0] = paths.REWRITE_SECONDS
    rows.append(b"2\n")
    assert path.read_text() == "old\n1\n2\n"
    bucket.failing = 1
    rows.append(b"3\n")
    with pytest.raises(StorageError, match="cannot be written: 503 Service"):
        rows.flush()
    rows.flush()
    assert path.read_text() == "old\n1\n2\n3\n"


def test_paths_of_buckets_are_not_made_local():
    assert str(paths.resolved("gs://b/run")) == "gs://b/run"
    assert str(paths.resolved("run")) == f"{os.getcwd()}/run"


def test_digests_of_objects_that_are_listed_late(bucket):
    folder = epath.Path("gs://b/data")
    for name in ("a", "b"):
        (folder / name).write_text(name)
    write_digests(folder)
    bucket.unlisted = {"a"}
    check_digests(folder)
    (folder / "a").unlink()
    with pytest.raises(DamagedError, match="b/data/a is missing"):
        check_digests(folder)


def test_digests_that_are_written_again_leave_themselves_out(tmp_path):
    (tmp_path / "a.json").write_text("a")
    for _ in range(3):
        write_digests(tmp_path, [path.name for path in tmp_path.glob("*.json")])
        check_digests(tmp_path)


def test_charts_in_a_bucket_are_read_by_tensorboard(bucket):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    charts = Charts(epath.Path("gs://b/run"), 0)
    charts.scalars(1, {"loss": 1.0})
    charts.scalars(2, {"loss": 2.0})
    charts.flush()
    events = accumulator.EventAccumulator(str(bucket.root / "b" / "run")).Reload()
    assert [(x.step, x.value) for x in events.Scalars("loss")] == [(1, 1.0), (2, 2.0)]


@pytest.mark.slow
def test_a_run_in_a_bucket_has_all_its_files(micro_vae, bucket, tmp_path, monkeypatch):
    """Arrays are written by TensorStore's own client of buckets: they stay in a local folder here."""
    monkeypatch.setattr(loop, "Checkpoints", lambda workdir: Checkpoints(tmp_path / "arrays"))
    monkeypatch.setattr(training_start, "save_vae", lambda *arguments: None)
    bucket.delay = 0.01
    start(micro_config(micro_vae), "gs://b/run")
    run = bucket.root / "b" / "run"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "learning_rate" in row] == [1, 2, 3, 4]
    assert {"config.json", "metrics.jsonl", "parameters.txt", "samples", "sessions.jsonl"} <= set(
        os.listdir(run)
    )
    assert list(run.glob("events.out.tfevents.*"))


@pytest.mark.slow
def test_every_kind_of_write_fails_in_many_places(tmp_path):
    """Full disks, quotas, stale handles, read-only folders and I/O errors; see storage_cases.py."""
    command = [sys.executable, "tests/faults/storage_cases.py", str(tmp_path / "work"), "8"]
    environment = faulty_storage.environment(tmp_path) | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    totals = collections.Counter()
    for line in map(json.loads, filter(lambda text: text.startswith("{"), done.stdout.splitlines())):
        print(f"\n{line['case']}: {line['counts']} in {line['seconds']} s", end="")
        for fault, outcome, count in line["counts"]:
            assert outcome in ("named", "written", "not reached"), (line["case"], fault, outcome)
            totals[outcome] += count
    print(f"\n{dict(totals)}")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "share"), [(errno.ENOSPC, 0.3), (errno.ENOSPC, 0.8), (errno.ESTALE, 0.6)])
def test_a_run_continues_after_the_storage_failed(micro_vae, micro_run, tmp_path, number, share):
    """In a process of its own; then with --resume, it ends like a run without faults."""
    program = f"""
import sys, tests.conftest
sys.modules.setdefault("conftest", tests.conftest)
from genmask_jax import cli
from tests.faults.faulty_storage import faulty
import pathlib
def main():
    with faulty(pathlib.Path({str(tmp_path / "run")!r}), {number}, **{{!r}}):
        tests.conftest.start(tests.conftest.micro_config({micro_vae!r}), {str(tmp_path / "run")!r})
cli.guard(main)
"""
    size = sum(path.stat().st_size for path in pathlib.Path(micro_run[0]).rglob("*") if path.is_file())
    limit = (
        {"after_bytes": int(share * size)} if number == errno.ENOSPC else {"after_calls": int(share * 1000)}
    )
    environment = faulty_storage.environment(tmp_path) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program.replace("{!r}", repr(limit))]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("error:")]
    assert f"{tmp_path}/run" in line
    assert line.endswith("run the command again (trainings with --resume)")
    state, _ = start(micro_config(micro_vae), tmp_path / "run", resume=True)
    logging.info("resumed after: %s", line)
    jax.tree.map(np.testing.assert_array_equal, state.params, micro_run[2].params)


@pytest.mark.slow
def test_slow_storage_delays_a_run_but_does_not_fail_it(tmp_path):
    """1 s for each call: a file of a few calls takes as many seconds."""
    program = f"""
import pathlib, time
from genmask_jax.utils.paths import Appender, write_text
from tests.faults.faulty_storage import faulty
folder, begin = pathlib.Path({str(tmp_path)!r}), time.monotonic()
with faulty(folder, seconds_per_call=1) as library:
    write_text(folder / "config.json", "x")
    Appender(folder / "metrics.jsonl").append(b"x")
    print(library.fault_calls(), time.monotonic() - begin)
"""
    environment = faulty_storage.environment(tmp_path) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    calls, seconds = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert int(calls) <= float(seconds) < int(calls) + 3
    assert (tmp_path / "config.json").read_text() == (tmp_path / "metrics.jsonl").read_text() == "x"
