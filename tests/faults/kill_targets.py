"""The commands that `kills.py` and `full_disk.py` disturb, their inputs, and how results are compared."""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

MAX_DIFFERENCE = 1e-4
"""Between runs on different meshes, which sum gradients in another order; relative to the largest value."""
CONFIG = """from tests.conftest import micro_config
from genmask_jax.utils.fields import to_config_dict

def get_config():
    return to_config_dict(micro_config({vae!r}, num_steps={num_steps}, eval_every_steps=8))
"""
VAE_CONFIG = """from genmask_jax.utils.config_files import base_config

def get_config():
    config = base_config("vae_tiny", __file__)
    config.data.size = 32
    config.vae.update(base_dim=8, decoder_base_dim=8, channels=4)
    config.loop.update(num_steps=16, global_batch_size=4, eval_every_steps=8, checkpoint_every_steps=4)
    config.loop.update(num_eval_examples=4, log_every_steps=1)
    return config
"""
SWEEP = """from genmask_jax.config import SweepConfig, VariantConfig
from genmask_jax.utils.fields import to_config_dict

def get_config():
    return to_config_dict(SweepConfig(
        name="micro",
        base={base!r},
        variants={{
            "one": VariantConfig(evaluate={{"mask_steps": 1}}),
            "two": VariantConfig(evaluate={{"mask_steps": 2}}),
            "weighted": VariantConfig(train={{"segment_weight": 2.0}}),
        }},
        reference="one",
        metrics=("mIoU",),
        seeds=(0,),
        evaluate={{"split": "test", "count": 4, "num_images": 1}},
    ))
"""
FINETUNE = (
    "--config.loop.num_steps=8", "--config.loop.eval_every_steps=4", "--config.loop.checkpoint_every_steps=2",
    "--config.loop.global_batch_size=4", "--config.optimizer.warmup_steps=1", "--config.data.size=32",
    "--vae.loop.num_steps=8", "--vae.loop.checkpoint_every_steps=2", "--vae.loop.global_batch_size=4",
    "--vae.loop.num_eval_examples=8", "--vae.optimizer.warmup_steps=1",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Variation:
    """How a command is started, which must not change its result.

    flags: more flags.
    processes: number of processes.
    devices: number of pretend devices of each.
    """

    flags: tuple[str, ...] = ()
    processes: int = 1
    devices: int = 1


@dataclasses.dataclass(frozen=True)
class Target:
    """A command that is disturbed.

    command: name of the command.
    flags: its flags; {inputs} is a folder with configs and data, {out} the folder that it writes.
    same: raises AssertionError if the results in two folders differ.
    variations: one is chosen at random for each start; the undisturbed run uses the first.
    refusal: the error of a command that had finished before it was killed, if it refuses to run again.
    """

    command: str
    flags: tuple[str, ...]
    same: Callable[[pathlib.Path, pathlib.Path], None]
    variations: tuple[Variation, ...] = (Variation(),)
    refusal: str = ""


def same_runs(found: pathlib.Path, expected: pathlib.Path, tolerance: float = 0) -> None:
    """Compares checkpoints array by array, the position of the data, metrics.jsonl and TensorBoard events."""
    steps = [sorted(int(p.name) for p in (d / "checkpoints").iterdir()) for d in (found, expected)]
    assert steps[0][-1] == steps[1][-1], f"last checkpoints {steps}"
    assert tolerance or steps[0] == steps[1], f"checkpoints {steps}"
    for step in sorted(set(steps[0]) & set(steps[1])):
        for item in ("train", "ema_params"):
            one, other = (arrays(folder / "checkpoints" / str(step) / item) for folder in (found, expected))
            assert one.keys() == other.keys()
            for name, array in one.items():
                assert close(array, other[name], tolerance), f"step {step}: {item} {name}"
        positions = [
            json.loads((d / "checkpoints" / str(step) / "data" / "metadata").read_text())
            for d in (found, expected)
        ]
        assert positions[0] == positions[1], f"step {step}: position of the data"
    rows = [list(map(json.loads, (d / "metrics.jsonl").read_text().splitlines())) for d in (found, expected)]
    if tolerance:
        rows = [[(row["step"], sorted(row)) for row in one] for one in rows]
    assert rows[0] == rows[1], "metrics.jsonl"
    one, other = (
        (
            collections.Counter((tag, step) for tag, step, _ in scalars(d).elements())
            if tolerance
            else scalars(d)
        )
        for d in (found, expected)
    )
    assert one == other, f"TensorBoard: {sorted(set(one.items()) ^ set(other.items()))[:3]}"
    assert (found / "report.html").exists() == (expected / "report.html").exists()
    assert not list(found.glob("damaged_checkpoint_*"))


def close_runs(found: pathlib.Path, expected: pathlib.Path) -> None:
    """Compares runs on different meshes: the same steps, rows and positions of the data, and close arrays."""
    same_runs(found, expected, MAX_DIFFERENCE)


def close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> bool:
    if not tolerance or not np.issubdtype(expected.dtype, np.floating):
        return np.array_equal(found, expected)
    return bool(np.abs(found - expected).max(initial=0) <= tolerance * np.abs(expected).max(initial=0))


def arrays(directory: pathlib.Path) -> dict[str, Any]:
    """The arrays of an Orbax checkpoint by name."""
    import jax
    import orbax.checkpoint as ocp

    checkpointer = ocp.PyTreeCheckpointer()
    shapes = checkpointer.metadata(directory).item_metadata.tree
    to_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
    tree = checkpointer.restore(directory, restore_args=to_numpy)
    return {
        jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


def scalars(directory: pathlib.Path) -> collections.Counter:
    """How often TensorBoard shows each (name, step, value), without those of speed."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if "per_second" not in tag and tag != "minutes_left"]
    return collections.Counter(
        (tag, event.step, event.value) for tag in tags for event in events.Scalars(tag)
    )


def same_files(found: pathlib.Path, expected: pathlib.Path) -> None:
    """Compares all files byte by byte."""
    names = [sorted(p.relative_to(d) for p in d.rglob("*") if p.is_file()) for d in (found, expected)]
    assert names[0] == names[1], f"files differ: {set(map(str, names[0])) ^ set(map(str, names[1]))}"
    for name in names[0]:
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name


def same_weights(found: pathlib.Path, expected: pathlib.Path) -> None:
    """Compares imported weights array by array, and their JSON files."""
    parts = [sorted(path.name for path in folder.iterdir()) for folder in (found, expected)]
    assert parts[0] == parts[1], f"parts {parts}"
    for part in parts[0]:
        for name in ("config.json", "import.json"):
            assert (found / part / name).read_text() == (expected / part / name).read_text(), f"{part}/{name}"
        one, other = (arrays(folder / part / "params") for folder in (found, expected))
        assert one.keys() == other.keys()
        for name, array in one.items():
            assert np.array_equal(array, other[name]), f"{part}: {name}"


def same_finetuning(found: pathlib.Path, expected: pathlib.Path) -> None:
    """Compares the prepared images, the VAE, the model, and its scores."""
    for folder in ("vae", "model"):
        same_runs(found / folder, expected / folder)
    same_files(found / "data", expected / "data")
    assert scores(found / "model" / "evaluation_val") == scores(expected / "model" / "evaluation_val")


def same_sweeps(found: pathlib.Path, expected: pathlib.Path) -> None:
    """Compares the trainings, and all scores of the sweep."""
    for path in sorted((expected / "runs").glob("*/model")):
        same_runs(found / path.relative_to(expected), path)
    for path in sorted((expected / "runs").glob("*/evaluation")):
        assert scores(found / path.relative_to(expected)) == scores(path)
    lines = [list(map(json.loads, (d / "results.jsonl").read_text().splitlines())) for d in (found, expected)]
    kept = [[(line["variant"], line["seed"], line["scores"]) for line in one] for one in lines]
    assert kept[0] == kept[1], "results.jsonl"
    assert (found / "figure.svg").exists()
    assert (found / "table.md").exists()


def scores(evaluation: pathlib.Path) -> dict[str, Any]:
    """The scores of an evaluation, without its speed and paths."""
    values = json.loads((evaluation / "metrics.json").read_text())
    return {name: x for name, x in values.items() if name not in ("seconds_per_image", "checkpoint")}


def on_mesh(processes: int, devices: int, **axes: int) -> Variation:
    return Variation(tuple(f"--config.mesh.{axis}={size}" for axis, size in axes.items()), processes, devices)


TRAIN = ("--workdir={out}", "--resume")
WORKERS = tuple(Variation((f"--config.data.num_workers={n}",)) for n in (0, 0, 2))
MESHES = (
    on_mesh(1, 1, fsdp=1, tensor=1),
    on_mesh(1, 2, fsdp=1, tensor=1),
    on_mesh(1, 2, fsdp=2, tensor=1),
    on_mesh(1, 2, fsdp=1, tensor=2),
    on_mesh(1, 4, fsdp=2, tensor=2),
    on_mesh(2, 1, fsdp=2, tensor=1),
)
TARGETS = {
    "train": Target("train", ("--config={inputs}/micro.py", *TRAIN), same_runs, WORKERS),
    "train_meshes": Target(
        "train",
        ("--config={inputs}/micro.py", "--config.loop.global_batch_size=8", *TRAIN),
        close_runs,
        MESHES,
    ),
    "train_processes": Target(
        "train",
        ("--config={inputs}/micro.py", "--config.mesh.fsdp=2", *TRAIN),
        same_runs,
        (Variation(processes=2), Variation(processes=2), Variation(devices=2)),
    ),
    "train_vae": Target("train_vae", ("--config={inputs}/micro_vae.py", *TRAIN), same_runs, WORKERS),
    "encode_latents": Target(
        "encode_latents",
        ("--config={inputs}/micro.py", "--out={out}", "--count=64", "--num_shards=2", "--shard=0"),
        same_files,
    ),
    "prepare_data": Target(
        "prepare_data", ("image_folder", "--raw={inputs}/images", "--out={out}"), same_files
    ),
    "import_weights": Target(
        "import_weights", ("wan", "--from={inputs}/hub", "--out={out}", "--overwrite"), same_weights
    ),
    "export_weights": Target(
        "export_weights",
        ("wan", "--from={inputs}/imported", "--out={out}"),
        same_files,
        refusal="is not empty; give a new directory",
    ),
    "finetune": Target("finetune", ("--raw={inputs}/images", "--workdir={out}", *FINETUNE), same_finetuning),
    "sweep": Target("sweep", ("--config={inputs}/sweep.py", "--workdir={out}"), same_sweeps),
}


def make_inputs(inputs: pathlib.Path) -> None:
    """Writes configs, a VAE, images, public weights and their import."""
    from flax import nnx

    from genmask_jax.checkpoints.runs import save_vae
    from genmask_jax.models.vae import VAE, VAEConfig
    from genmask_jax.public_weights import wan
    from genmask_jax.public_weights.parts import write_part
    from tests.public_weights.reference import reference_dit, reference_vae, save

    config = VAEConfig(8, 8, 4, (1,), 1, 4)
    save_vae(inputs / "vae", config, nnx.state(VAE(config, rngs=nnx.Rngs(0))))
    write_images(inputs / "images")
    save(inputs / "hub", reference_dit(), reference_vae(base_dim=4), max_shard_size="40KB")
    for part in wan.open_wan(as_epath(inputs / "hub"), ("dit", "vae"), None):
        write_part(part, as_epath(inputs / "imported"), lambda _: None)
    (inputs / "micro_vae.py").write_text(VAE_CONFIG)
    (inputs / "short.py").write_text(CONFIG.format(vae=str(inputs / "vae"), num_steps=4))
    (inputs / "sweep.py").write_text(SWEEP.format(base=str(inputs / "short.py")))
    (inputs / "micro.py").write_text(CONFIG.format(vae=str(inputs / "vae"), num_steps=16))


def as_epath(path: pathlib.Path) -> Any:
    from etils import epath

    return epath.Path(path)


def write_images(folder: pathlib.Path) -> None:
    """Writes 40 images of squares with masks and a phrase."""
    from PIL import Image, ImageDraw

    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    (folder / "phrases.txt").write_text("the square\n")
    for i in range(40):
        for name, mode, colours in (("images", "RGB", ("navy", "red")), ("masks", "L", (0, 255))):
            image = Image.new(mode, (48, 40), colours[0])
            ImageDraw.Draw(image).rectangle((8 + i % 9, 6, 30 + i % 7, 28 + i % 11), fill=colours[1])
            image.save(folder / name / f"{i:02d}.png")
