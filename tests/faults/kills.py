"""Kills a command at random moments, runs it again, and compares the result with that of an undisturbed run.

    python tests/faults/kills.py train --kills=1000 --workdir=runs/kills
    python tests/faults/kills.py encode_latents --kills=50 --workdir=runs/kills
    python tests/faults/kills.py train --kills=50 --signal=TERM --workdir=runs/kills

Half of the kills come at a random time after the start, the others up to 30 ms after a random file or folder
appeared, such as the temporary folder of a checkpoint. A command that ends by itself is compared, and started
again in an empty folder. Trainings change their number of workers at random. SIGTERM goes to all processes of
a command, as schedulers send it; the longest times until a line answers it, and until the command has ended,
are printed. Processes are forked from one that has imported everything, but has no JAX devices yet. Prints
counts.
"""

import argparse
import collections
import dataclasses
import importlib
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
MAX_SECONDS_TO_END = 120
CONFIG = """from tests.conftest import micro_config
from genmask_jax.utils.fields import to_config_dict

def get_config():
    return to_config_dict(micro_config({vae!r}, num_steps=16, eval_every_steps=8))
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


@dataclasses.dataclass(frozen=True)
class Target:
    """A command that is killed.

    flags: its flags; {inputs} is a folder with configs, {out} the folder that it writes.
    same: raises AssertionError if the results in two folders differ.
    workers: flag of the number of workers, changed at random; "" if it has none.
    """

    flags: tuple[str, ...]
    same: Callable[[pathlib.Path, pathlib.Path], None]
    workers: str = ""


def same_runs(found: pathlib.Path, expected: pathlib.Path) -> None:
    """Compares checkpoints array by array, the position of the data, metrics.jsonl and TensorBoard events."""
    steps = [sorted(int(p.name) for p in (d / "checkpoints").iterdir()) for d in (found, expected)]
    assert steps[0] == steps[1], f"checkpoints {steps}"
    for step in steps[0]:
        for item in ("train", "ema_params"):
            one, other = (arrays(folder / "checkpoints" / str(step) / item) for folder in (found, expected))
            assert one.keys() == other.keys()
            for name, array in one.items():
                assert np.array_equal(array, other[name]), f"step {step}: {item} {name}"
        positions = [
            json.loads((d / "checkpoints" / str(step) / "data" / "metadata").read_text())
            for d in (found, expected)
        ]
        assert positions[0] == positions[1], f"step {step}: position of the data"
    rows = [list(map(json.loads, (d / "metrics.jsonl").read_text().splitlines())) for d in (found, expected)]
    assert rows[0] == rows[1], "metrics.jsonl"
    one, other = scalars(found), scalars(expected)
    assert one == other, f"TensorBoard: {sorted(set(one.items()) ^ set(other.items()))[:3]}"
    assert (found / "report.html").exists() == (expected / "report.html").exists()
    assert not list(found.glob("damaged_checkpoint_*"))


def arrays(directory: pathlib.Path) -> dict[str, Any]:
    """The arrays of an Orbax checkpoint by name."""
    import jax
    import orbax.checkpoint as ocp

    tree = ocp.PyTreeCheckpointer().restore(directory)
    return {
        jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


def scalars(directory: pathlib.Path) -> collections.Counter:
    """How often TensorBoard shows each scalar, at each step, without those of speed."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if "per_second" not in tag and tag != "minutes_left"]
    return collections.Counter((tag, event.step) for tag in tags for event in events.Scalars(tag))


def same_files(found: pathlib.Path, expected: pathlib.Path) -> None:
    """Compares all files byte by byte."""
    names = [sorted(p.relative_to(d) for p in d.rglob("*") if p.is_file()) for d in (found, expected)]
    assert names[0] == names[1], f"files differ: {set(map(str, names[0])) ^ set(map(str, names[1]))}"
    for name in names[0]:
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name


TARGETS = {
    "train": Target(
        ("--config={inputs}/micro.py", "--workdir={out}", "--resume"), same_runs, "--config.data.num_workers"
    ),
    "train_vae": Target(
        ("--config={inputs}/micro_vae.py", "--workdir={out}", "--resume"),
        same_runs,
        "--config.data.num_workers",
    ),
    "encode_latents": Target(
        ("--config={inputs}/micro.py", "--out={out}", "--count=64", "--num_shards=2", "--shard=0"), same_files
    ),
    "prepare_data": Target(("image_folder", "--raw={inputs}/images", "--out={out}"), same_files),
}


def start(command: str, flags: list[str], log: pathlib.Path) -> int:
    """Forks a process that runs a command; returns its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.setsid()
        with open(log, "ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.argv = [command, *flags]
        module = importlib.import_module(f"genmask_jax.commands.{command}")
        getattr(module, "start", module.main)()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else bool(end.code)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait_for(target: Target, command: str, inputs: pathlib.Path, out: pathlib.Path, log: pathlib.Path) -> int:
    """Runs a command to its end; returns its exit status."""
    child = start(command, [flag.format(inputs=inputs, out=out) for flag in target.flags], log)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_child(function: Callable[..., None], *arguments: Any) -> str:
    """Calls a function in a forked process; returns its error, or ""."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            function(*arguments)
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode()[:4000])
        os._exit(0)
    os.close(write)
    with open(read, "rb") as answer:
        said = answer.read().decode()
    os.waitpid(child, 0)
    return said


def entries(folder: pathlib.Path) -> Iterator[str]:
    """All files and folders below a folder, which changes meanwhile."""
    for parent, folders, files in os.walk(folder):
        yield from (os.path.relpath(os.path.join(parent, name), folder) for name in (*folders, *files))


def ended(child: int) -> int | None:
    """The exit status of a process; None while it runs."""
    done, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def wait_for_some_moment(
    child: int, out: pathlib.Path, seconds: float, rng: random.Random
) -> tuple[int | None, str]:
    """Waits for a random time, or until something appears in `out`.

    Returns:
        The exit status of the process (None while it runs), and what appeared.
    """
    deadline, targeted = time.monotonic() + rng.uniform(0, seconds), rng.random() < 0.5
    wanted, seen, said = rng.randint(1, 12), set(entries(out)), "at random"
    while True:
        status = ended(child)
        if status is not None:
            return status, said
        if targeted:
            new = set(entries(out)) - seen
            seen |= new
            wanted -= bool(new)
            if new and wanted <= 0:
                said = sorted(new)[0]
                time.sleep(rng.uniform(0, 0.03))
                break
            time.sleep(0.001)
        elif time.monotonic() > deadline:
            break
        else:
            time.sleep(0.01)
    return None, said


def terminate(child: int, log: pathlib.Path) -> tuple[float, float]:
    """Sends SIGTERM to a process; returns the seconds until it answers or ends, and until it has ended."""
    written, began, answered = log.stat().st_size, time.monotonic(), None
    os.killpg(child, signal.SIGTERM)
    while True:
        has_ended = ended(child) is not None
        seconds = time.monotonic() - began
        if answered is None and (has_ended or b"SIGTERM" in log.read_bytes()[written:]):
            answered = seconds
        if has_ended:
            return answered or seconds, seconds
        assert seconds < MAX_SECONDS_TO_END, f"the process does not end; see {log}"
        time.sleep(0.005)


def make_inputs(inputs: pathlib.Path) -> None:
    """Writes the configs, a VAE and images."""
    from flax import nnx
    from PIL import Image, ImageDraw

    from genmask_jax.checkpoints.runs import save_vae
    from genmask_jax.models.vae import VAE, VAEConfig

    config = VAEConfig(8, 8, 4, (1,), 1, 4)
    save_vae(inputs / "vae", config, nnx.state(VAE(config, rngs=nnx.Rngs(0))))
    (inputs / "micro.py").write_text(CONFIG.format(vae=str(inputs / "vae")))
    (inputs / "micro_vae.py").write_text(VAE_CONFIG)
    for folder in ("images", "masks"):
        (inputs / "images" / folder).mkdir(parents=True)
    (inputs / "images" / "phrases.txt").write_text("the square\n")
    for i in range(40):
        for folder, mode, colours in (("images", "RGB", ("navy", "red")), ("masks", "L", (0, 255))):
            image = Image.new(mode, (48, 40), colours[0])
            ImageDraw.Draw(image).rectangle((8 + i % 9, 6, 30 + i % 7, 28 + i % 11), fill=colours[1])
            image.save(inputs / "images" / folder / f"{i:02d}.png")


def import_everything() -> None:
    """Imports what the commands import, and keeps vocabularies small, as in the tests."""
    import grain.python
    import orbax.checkpoint
    import tensorboard.summary.writer.event_file_writer
    import tokenizers

    import genmask_jax.tools.report
    import genmask_jax.training.start
    import tests.conftest

    assert all((grain, orbax, tensorboard, tokenizers, genmask_jax, tests))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=TARGETS)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--signal", choices=["KILL", "TERM"], default="KILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    import_everything()

    folder, target = arguments.workdir.resolve(), TARGETS[arguments.command]
    inputs, out, log = folder / "inputs", folder / "out", folder / "log.txt"
    folder.mkdir(parents=True, exist_ok=True)
    if not (inputs / "micro.py").exists():
        problem = in_child(make_inputs, inputs)
        assert not problem, problem
    rng = random.Random(arguments.seed)

    def run(out: pathlib.Path) -> int:
        flags = [flag.format(inputs=inputs, out=out) for flag in target.flags]
        if target.workers:
            flags.append(f"{target.workers}={rng.choice([0, 0, 2])}")
        return start(arguments.command, flags, log)

    expected = folder / f"undisturbed_{arguments.command}"
    for _ in range(2):  # the second has compiled programs
        shutil.rmtree(expected, ignore_errors=True)
        began, child = time.monotonic(), run(expected)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == 0, f"the undisturbed run failed; see {log}"
    seconds = time.monotonic() - began
    counts, finished, began, times = collections.Counter(), 0, time.monotonic(), []
    shutil.rmtree(out, ignore_errors=True)
    while sum(counts.values()) < arguments.kills:
        child = run(out)
        status, moment = wait_for_some_moment(child, out, seconds, rng)
        if status is None:
            if arguments.signal == "TERM":
                times.append(terminate(child, log))
            else:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
            counts["at random" if moment == "at random" else "at a file"] += 1
            continue
        assert status == 0, (
            f"after {sum(counts.values())} kills, the run ended with {status}; see {log} and {out}"
        )
        problem = in_child(target.same, out, expected)
        assert not problem, f"after {sum(counts.values())} kills: {problem}; see {out} and {expected}"
        finished += 1
        print(f"{sum(counts.values())} kills", flush=True)
        shutil.rmtree(out)
        log.unlink()
    minutes = (time.monotonic() - began) / 60
    print(f"{arguments.command}: {sum(counts.values())} kills ({dict(counts)}) in {minutes:.1f} min")
    if times:
        answered, gone = (max(column) for column in zip(*times, strict=True))
        print(f"at most {answered:.2f} s until a line or the end, and {gone:.1f} s until the end")
    print(f"{finished} runs ended by themselves, and all equal an undisturbed one")


if __name__ == "__main__":
    main()
