"""A run small enough for a test: a VAE and a DiT of a few thousand parameters on 32 px ReferShapes."""

import dataclasses
import functools
import os
import pathlib
import re
import socket
import warnings
from typing import Any

import jax
import pytest
from etils import epath
from flax import nnx

import tests.typechecker

tests.typechecker.install()

from genmask_jax import cli
from genmask_jax.checkpoints.runs import save_vae
from genmask_jax.config import DataConfig, LoopConfig, OptimizerConfig, SamplerConfig, TrainConfig
from genmask_jax.data.prepared.builders import BUILDERS
from genmask_jax.data.prepared.prepare import prepare
from genmask_jax.instruction.config import InstructionConfig
from genmask_jax.instruction.tiny import TinyTextConfig
from genmask_jax.models.dit import DiTConfig
from genmask_jax.models.vae import VAE, VAEConfig
from genmask_jax.training import start as training_start
from genmask_jax.training.genmask import GenMaskTask

# Most of the time would go into making small programs fast.
FLAGS = [
    *cli.cpu_flags(),
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
]
if jax.__version__.startswith("0.10."):  # XLA refuses to start with a flag that it does not know
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")


def pytest_configure(config: pytest.Config) -> None:
    """Sets what JAX reads when it looks for devices, which no test does before it is collected."""
    on_gpu = config.option.markexpr == "gpu"
    # The compiler for GPUs does not support unoptimised programs.
    os.environ.setdefault("XLA_FLAGS", " ".join(cli.cpu_flags() if on_gpu else FLAGS))
    if on_gpu:  # other processes of the tests need memory on the card too
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    cli.configure_cpu()


def pytest_ignore_collect(collection_path: pathlib.Path, config: pytest.Config) -> bool | None:
    """With `-m gpu`, reads only files that have such tests: others need what `make test-gpu` lacks."""
    if config.option.markexpr != "gpu" or not collection_path.is_file():
        return None
    return None if re.search(r"pytest\.mark\.gpu\b", collection_path.read_text()) else True


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuses to run tests that need a GPU where there is none."""
    needed = any(item.get_closest_marker("gpu") for item in session.items)
    if needed and jax.default_backend() != "gpu":
        pytest.exit(f"tests marked gpu need a GPU, and JAX finds only {jax.devices()}", returncode=1)


# Many tests compile the same small programs, in this process, the other worker's and the scripts'.
CACHE = pathlib.Path(__file__).parent.parent / ".pytest_cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


HEAVY = (
    "test_in_the_system.py",
    "test_end_to_end.py",
    "test_on_benchmarks.py",
    "test_workdir.py",
    "test_lora.py",
    "test_initial_weights.py",
    "test_step.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that workers, each of which takes whole files, end together."""
    items.sort(key=lambda item: HEAVY.index(item.path.name) if item.path.name in HEAVY else len(HEAVY))


def micro_config(vae: str, **loop) -> TrainConfig:
    """Four steps, validated and saved every second."""
    steps = {"num_steps": 4, "log_every_steps": 1, "eval_every_steps": 2, "checkpoint_every_steps": 2}
    return TrainConfig(
        name="micro",
        vae=vae,
        model=DiTConfig(hidden_size=24, depth=2, num_heads=2, ffn_size=32, patch_size=4),
        data=DataConfig(size=32),
        instruction=InstructionConfig(
            tiny=TinyTextConfig(vocab_size=96, hidden_size=16, depth=1, num_heads=2)
        ),
        optimizer=OptimizerConfig(name="muon", warmup_steps=1),
        sampler=SamplerConfig(image_steps=2),
        loop=LoopConfig(**{"global_batch_size": 4, "num_eval_examples": 4, **steps, **loop}),
    )


@pytest.fixture(scope="session")
def programs_made() -> list[str]:
    """Grows by an entry with every program that this process traces, to be compiled or read from disk."""
    made: list[str] = []

    def listen(event: str, _: float, **__: Any) -> None:
        if event == "/jax/core/compile/jaxpr_to_mlir_module_duration":
            made.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return made


@pytest.fixture(scope="session")
def micro_vae(tmp_path_factory) -> str:
    """The --workdir of an (untrained) VAE."""
    directory = tmp_path_factory.mktemp("vae")
    config = VAEConfig(8, 8, 4, (1,), 1, 4)
    save_vae(directory, config, nnx.state(VAE(config, rngs=nnx.Rngs(0))))
    return str(directory)


training_start.texts = functools.partial(training_start.texts, count=400)  # enough for a small vocabulary
training_start.texts_of_split = functools.partial(training_start.texts_of_split, count=400)


def start(config: TrainConfig, workdir, *, batches=None, evaluate=None, **options):
    """What launch/train.py does; `batches` and `evaluate` wrap those of the task."""

    def make_task(networks, config):
        task = GenMaskTask(networks, config)
        if batches is not None:
            task.batches = batches(task.batches)
        if evaluate is not None:
            task.evaluate = evaluate(task.evaluate)
        return task

    return training_start.train_genmask(config, str(workdir), make_task=make_task, **options)


@pytest.fixture(scope="session")
def micro_run(micro_vae, tmp_path_factory):
    """(workdir, config, last state) of an uninterrupted micro run."""
    workdir = tmp_path_factory.mktemp("run") / "micro"
    config = micro_config(micro_vae)
    state, _ = start(config, workdir)
    return workdir, config, jax.device_get(dataclasses.replace(state))


@dataclasses.dataclass(frozen=True)
class BenchmarkData:
    """Raw trees in all public layouts, and the data directory that was prepared from them."""

    raw: pathlib.Path
    out: pathlib.Path
    objects: Any
    reasonseg: dict


@pytest.fixture(scope="session")
def benchmark_data(tmp_path_factory) -> BenchmarkData:
    """All datasets of launch/prepare_data.py, small."""
    import raw_trees  # not there where this file is imported by a process of its own

    raw, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("prepared")
    objects = raw_trees.refer_tree(raw / "refer")
    annotations = raw_trees.reasonseg_tree(raw / "reasonseg", {"train": 12, "val": 7, "test": 5})
    raw_trees.captions_tree(raw / "coco", {"train2017": 30, "val2017": 6})
    raw_trees.folder_tree(raw / "folder", 12)
    folders = {"reasonseg": "reasonseg", "coco_captions": "coco", "image_folder": "folder"}
    for name in BUILDERS:
        source = epath.Path(raw / folders.get(name, "refer"))
        prepare(name, source, epath.Path(out), num_workers=1)
    return BenchmarkData(raw, out, objects, annotations)


@pytest.fixture(scope="session")
def handlers(micro_run):
    """What the web page does, on the micro model."""
    from genmask_jax.inference.load import load
    from genmask_jax.tools.demo.handlers import Handlers

    networks, config, _ = load(str(micro_run[0]))
    return Handlers(networks, config)


@pytest.fixture(scope="session")
def address(handlers):
    """The web page, served on this machine."""
    pytest.importorskip("gradio", reason="needs the extra demo")
    from genmask_jax.tools.demo import page, server

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # Gradio's, which visitors of a terminal would read
        blocks = page.build(handlers, "micro", per_minute=100)
    server.serve(blocks, handlers, "127.0.0.1", port, background=True)
    yield f"http://127.0.0.1:{port}"
    blocks.close()
