"""Every kind of write, on storage that fails at many places; started by test_storage.py.

Each case writes to a folder. It is written once to count bytes and calls, then once for each fault, and again
without the fault. A case ends with what it reads back, which must be the same as without faults.

    python tests/faults/storage_cases.py FOLDER POINTS CASE ...
"""

import collections
import contextlib
import errno
import hashlib
import json
import pathlib
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

import tests.conftest

sys.modules.setdefault("conftest", tests.conftest)

import numpy as np
from etils import epath
from flax import nnx

from genmask_jax.checkpoints.packed import PackedReader, write_weights
from genmask_jax.checkpoints.runs import load_vae, save_vae
from genmask_jax.data.latents import encode, store
from genmask_jax.data.prepared import records
from genmask_jax.data.prepared.prepare import prepare
from genmask_jax.inference.segmentation import Segmentation
from genmask_jax.models.vae import VAE, VAEConfig
from genmask_jax.parameters.files import write_tensors
from genmask_jax.training.charts import Charts
from genmask_jax.training.checkpoints import Checkpoints
from genmask_jax.utils.errors import UserError, describe_storage_error
from genmask_jax.utils.paths import Appender, write_text
from genmask_jax.utils.sheets import generation_sheet
from tests.faults.faulty_storage import faulty
from tests.faults.test_damaged_checkpoints import Position, content, state
from tests.raw_trees import folder_tree

VAE_CONFIG = VAEConfig(8, 8, 4, (1,), 1, 4)
PIXELS = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)


def texts(folder: pathlib.Path) -> Any:
    """config.json, a report and the like."""
    write_text(folder / "config.json", "x" * 20_000)
    return (folder / "config.json").read_text()


def rows(folder: pathlib.Path) -> Any:
    """metrics.jsonl: what was appended before a fault stays."""
    path = folder / "metrics.jsonl"
    path.unlink(missing_ok=True)
    appender = Appender(path)
    for step in range(20):
        appender.append(json.dumps({"step": step, "loss": "0" * 200}).encode() + b"\n")
    return path.read_text()


def events(folder: pathlib.Path) -> Any:
    """TensorBoard events."""
    charts = Charts(epath.Path(folder), 0)
    for step in range(20):
        charts.scalars(step, {f"loss_{i}": 1.0 for i in range(8)})
    charts.flush()
    newest = max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return newest.stat().st_size


def first_checkpoint(folder: pathlib.Path) -> None:
    run = Checkpoints(folder)
    run.save(state(2), Position({"next": 2}))
    run.close()


def restore(folder: pathlib.Path) -> Any:
    """The step, a digest of all that is restored, and the scores."""
    run, position = Checkpoints(folder), Position()
    step, restored = run.latest_step(), content(run.restore(state(0), position), position)
    run.close()
    return step, hashlib.sha256(repr(restored).encode()).hexdigest(), run.scores(step)


def checkpoints(folder: pathlib.Path) -> Any:
    """A second checkpoint, and its scores."""
    with contextlib.closing(Checkpoints(folder)) as run:
        if run.latest_step() == 2:
            run.save(state(4), Position({"next": 4}))
        run.record_scores(4, {"score": 0.5})
    return restore(folder)


def vae(folder: pathlib.Path) -> Any:
    """The VAE of a run."""
    save_vae(folder, VAE_CONFIG, nnx.state(VAE(VAE_CONFIG, rngs=nnx.Rngs(0))))
    return store.fingerprint(*load_vae(folder))


def packed(folder: pathlib.Path) -> Any:
    """The weights of a packed model."""
    write_weights(epath.Path(folder), {"a": np.arange(18_000, dtype=np.float32)}, step=3)
    return PackedReader(folder).read("a").sum()


def exported(folder: pathlib.Path) -> Any:
    """Weights for other libraries."""
    write_tensors(epath.Path(folder), "model", {"a": 72_000}, [("a", np.arange(18_000, dtype=np.float32))])
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def images(folder: pathlib.Path) -> Any:
    """A sheet of samples, and the files of a result."""
    generation_sheet([PIXELS] * 2, ["a", "b"], epath.Path(folder / "sheet.png"))
    result = Segmentation(
        image=PIXELS,
        phrases=("a",),
        masks=np.ones((1, 96, 96), bool),
        probabilities=np.full((1, 96, 96), 0.7, np.float32),
        scores=np.ones(1, np.float32),
        uncertainty=None,
        threshold=0.5,
    )
    paths = [folder / "sheet.png", *result.save(folder, ("mask", "overlay", "rle"))]
    return [hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest() for path in paths]


def prepared(folder: pathlib.Path) -> Any:
    """A prepared dataset; the second call continues it."""
    raw = folder.with_name("raw")
    if not raw.exists():
        folder_tree(raw, 12)
    prepare("image_folder", epath.Path(raw), epath.Path(folder), num_workers=1)
    directory = records.find(folder, "image_folder")
    records.open_split.cache_clear()
    return [len(records.Items(str(directory), "train", kind)) for kind in records.ITEM_KINDS]


def latents(folder: pathlib.Path) -> Any:
    """A shard of cached latents."""
    example = {"text": "a", "image_latents": np.zeros((8, 8, 4), np.float32)}
    with encode.record_writer(epath.Path(folder / "segment.arrayrecord")) as writer:
        for _ in range(40):
            writer.write(store.pack(example, "float32"))
    return hashlib.sha256((folder / "segment.arrayrecord").read_bytes()).hexdigest()


BEFORE = {checkpoints: first_checkpoint}
CASES = {
    case.__name__: case
    for case in (texts, rows, events, checkpoints, vae, packed, exported, images, prepared, latents)
}
BYTE_FAULTS = (errno.ENOSPC, errno.EDQUOT)
CALL_FAULTS = (errno.ESTALE, errno.EROFS, errno.EIO)


def try_faults(case: Callable[[pathlib.Path], Any], folder: pathlib.Path, points: int) -> collections.Counter:
    """Injects each fault at `points` places; returns counts by the fault's name and the outcome."""

    def fresh() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        BEFORE.get(case, lambda folder: None)(folder)

    fresh()
    expected = case(folder)
    fresh()
    with faulty(folder) as library:
        case(folder)
        num_bytes, num_calls = library.fault_bytes(), library.fault_calls()
    counts = collections.Counter()
    for number in (*BYTE_FAULTS, *CALL_FAULTS):
        for i in range(points):
            fresh()
            at = {"after_bytes": i * num_bytes // points} if number in BYTE_FAULTS else {}
            with faulty(folder, number, **(at or {"after_calls": i * num_calls // points})) as library:
                outcome = outcome_of(case, folder)
                happened = library.fault_failed() > 0
            name = errno.errorcode[number]
            counts[name, outcome if happened else "not reached"] += 1
            again = repeat(case, folder)
            assert again == expected, (case.__name__, name, at, i, again, expected)
    return counts


def repeat(case: Callable[[pathlib.Path], Any], folder: pathlib.Path) -> Any:
    """Runs a case again. Threads of a failed save, which a restarted process lacks, may write for a while."""
    for _ in range(20):
        with contextlib.suppress(UserError):
            return case(folder)
        time.sleep(0.2)
    return case(folder)


def outcome_of(case: Callable[[pathlib.Path], Any], folder: pathlib.Path) -> str:
    """ "named" (a command ends with one line that names the path), "written" (what failed was not needed), or
    the error."""
    try:
        case(folder)
    except Exception as error:
        line = str(error) if isinstance(error, UserError) else describe_storage_error(error)
        named = str(folder) in line and "\n" not in line
        return "named" if named else f"{type(error).__name__}: {error}"
    return "written"


def main() -> None:
    folder, points, *names = sys.argv[1:]
    for name in names or CASES:
        begin = time.perf_counter()
        counts = try_faults(CASES[name], pathlib.Path(folder) / name, int(points))
        rows = [[fault, outcome, count] for (fault, outcome), count in counts.items()]
        seconds = round(time.perf_counter() - begin, 1)
        print(json.dumps({"case": name, "seconds": seconds, "counts": rows}), flush=True)


if __name__ == "__main__":
    main()
