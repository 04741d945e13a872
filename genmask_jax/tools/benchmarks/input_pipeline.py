"""Measures examples per second of the input pipeline and of the training step."""

import functools
import io
import json
import tempfile
import time
from typing import Any

import grain
import jax
import numpy as np
import safetensors.numpy
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from PIL import Image
from rich.table import Table

from genmask_jax.checkpoints.runs import load_vae
from genmask_jax.config import TrainConfig
from genmask_jax.data.pipeline import batches_of, endless, training_batches
from genmask_jax.data.refershapes.source import ReferShapesSegment
from genmask_jax.data.sources import generates, rows_by_task, texts
from genmask_jax.instruction import factory
from genmask_jax.sharding import make_mesh, part_of_batch, to_devices
from genmask_jax.system import make_networks
from genmask_jax.tools.benchmarks.timing import time_interleaved
from genmask_jax.training.genmask import GenMaskTask
from genmask_jax.training.optimizer import make_optimizer
from genmask_jax.training.state import init_state, make_init
from genmask_jax.training.step import make_train_step
from genmask_jax.utils.console import console

NUM_JPEGS = 64
"""Number of different JPEG images."""


class JpegSource:
    """Reads images as JPEG and masks as PNG from an ArrayRecord, and decodes them."""

    def __init__(self, path: str, *, masks: bool):
        self.records: Any = grain.sources.ArrayRecordDataSource(path)
        self.masks = masks

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = safetensors.numpy.load(self.records[index])
        names = ("image", "mask") if self.masks else ("image",)
        arrays = {name: np.asarray(Image.open(io.BytesIO(record[name].tobytes()))) for name in names}
        return {**arrays, "text": record["text"].tobytes().decode(), "id": str(index)}


def write_jpegs(path: epath.Path, size: int) -> None:
    """Writes scenes with noise, which makes decoding as slow as for photographs."""
    scenes, rng = ReferShapesSegment("train", size, 0), np.random.default_rng(0)
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for i in range(NUM_JPEGS):
        scene, files = scenes[i], {"image": io.BytesIO(), "mask": io.BytesIO()}
        noisy = scene["image"] + rng.normal(0, 12, scene["image"].shape)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(files["image"], "JPEG", quality=90)
        Image.fromarray(scene["mask"]).save(files["mask"], "PNG")
        record = {name: np.frombuffer(file.getvalue(), np.uint8) for name, file in files.items()}
        writer.write(
            safetensors.numpy.save({**record, "text": np.frombuffer(scene["text"].encode(), np.uint8)})
        )
    writer.close()


def examples_per_second(batches: Any, batch_size: int, duration: float) -> float:
    """Measures the rate of reading batches for `duration` seconds, after a warm-up."""
    for _ in range(4):
        next(batches)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < duration:
        next(batches)
        count += batch_size
    return count / (time.perf_counter() - start)


def step_seconds(config: TrainConfig, encoder: Any, batch: Any) -> float:
    """Median seconds of a training step on a batch in host memory."""
    mesh, loop = make_mesh(config.mesh), config.loop
    networks = make_networks(config, *load_vae(config.vae), encoder, mesh)
    task, plan = GenMaskTask(networks, config), networks.plan
    tx = make_optimizer(config.optimizer, loop, plan)
    initial, shardings = init_state(make_init(task.init_params, tx, task.metric_names), config.seed, plan)
    step = make_train_step(task.loss, tx, loop, plan, shardings)
    state = [initial]

    def run() -> None:
        state[0] = jax.block_until_ready(step(state[0], task.frozen, to_devices(batch, mesh)))

    return time_interleaved({"step": run}, 8)["step"].median


def measure(config: TrainConfig, jpeg_size: int, duration: float) -> dict[str, Any]:
    """Runs the benchmark; prints a table, then a line of JSON, which it also returns.

    Raises:
        UserError: the config's VAE is missing.
    """
    load_vae(config.vae)
    encoder = factory.build(config.instruction, "", texts(config.data))
    size = config.loop.global_batch_size
    options = {"batch_size": size, "condition_dropout": config.condition_dropout, "seed": config.seed}
    options["part"] = part_of_batch(make_mesh(config.mesh))
    read = functools.partial(training_batches, config.data, encoder.preparer, **options)
    rates = {"data": examples_per_second(read(), size, duration)}
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/jpegs.arrayrecord"
        write_jpegs(epath.Path(path), jpeg_size)
        segments, images = JpegSource(path, masks=True), JpegSource(path, masks=False)
        seed = config.seed
        batches = batches_of(
            endless(segments, seed),
            endless(images, seed + 1) if generates(config.data) else None,
            encoder.preparer,
            rows=rows_by_task(config.data, size),
            part=options["part"],
            condition_dropout=config.condition_dropout,
            num_workers=config.data.num_workers,
        )
        rates["jpegs"] = examples_per_second(batches, size, duration)
    rates["step"] = size / step_seconds(config, encoder, next(read()))
    table = Table(title=f"{config.name}: batches of {size}")
    table.add_column("")
    table.add_column("examples/s", justify="right")
    table.add_row(f"input pipeline: {config.data.name}, {config.data.size} px", f"{rates['data']:.0f}")
    table.add_row(f"input pipeline: ArrayRecord of JPEGs, {jpeg_size} px", f"{rates['jpegs']:.0f}")
    table.add_row("training step", f"{rates['step']:.0f}")
    table.add_row("input pipeline / training step", f"{rates['data'] / rates['step']:.1f}")
    console().print(table)
    results = {f"{name}_examples_per_second": rate for name, rate in rates.items()}
    results |= {"ratio": rates["data"] / rates["step"], "jpeg_size": jpeg_size, "batch_size": size}
    print(json.dumps(results))
    return results
