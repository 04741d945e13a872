"""Measures speed and memory on this machine.

    python launch/benchmark.py train_step --size=8x384 --peer=diffusers
    python launch/benchmark.py sampler --size=l --image_size=256
    python launch/benchmark.py vae --image_size=512
    python launch/benchmark.py input_pipeline --config=configs/genmask_tiny.py
    python launch/benchmark.py instruction --size=vl_7b --layers=1 --peer=transformers

train_step: forward, backward and AdamW of the DiT alone, compared with a peer.
instruction: Qwen2.5-VL with random weights (the complete vision tower, and --layers layers of the language
model): encoding an image and a text, and generating text.
sampler: a mask from end to end (VAE encoder, one pass of the DiT, VAE decoder), with random bfloat16 weights.
vae: Wan 2.1's VAE alone, with random weights.
input_pipeline: examples per second of a config's input pipeline, of its training step, and of reading JPEGs
from ArrayRecords.
Each benchmark prints a table and a last line of JSON.
"""

import argparse
import dataclasses
from typing import Any

from genmask_jax import cli
from genmask_jax.instruction.qwen.config import SIZES
from genmask_jax.utils import config_files


def main() -> None:
    parser = cli.make_parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    add_train_step(commands)
    add_sampler(commands)
    add_vae(commands)
    add_input_pipeline(commands)
    add_instruction(commands)
    arguments = cli.parse(parser)
    cli.configure_cpu()
    if getattr(arguments, "peer", None):
        cli.allocate_on_demand()
    cli.use_compilation_cache()
    cli.guard(lambda: arguments.measure(arguments))


def add_train_step(commands: Any) -> None:
    parser = commands.add_parser("train_step", help="seconds per training step", allow_abbrev=False)
    parser.add_argument("--size", default="8x384", help="tiny, s, b, l, xl, or DEPTHxWIDTH (default: 8x384)")
    parser.add_argument(
        "--peer", choices=["diffusers"], help="library to compare with (needs the extra test)"
    )
    parser.add_argument("--batch_size", type=positive, default=4)
    parser.add_argument(
        "--frames", type=positive, choices=[1, 2], default=1, help="2: also a clean frame with timestep 0"
    )
    parser.add_argument("--height", type=positive, default=32, help="height of the latents (default: 32)")
    parser.add_argument("--width", type=positive, default=64, help="width of the latents (default: 64)")
    parser.add_argument("--text_tokens", type=positive, default=128)
    parser.add_argument("--text_dim", type=positive, default=384)
    parser.add_argument("--rounds", type=positive, default=4, help="rounds of three steps each (default: 4)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument(
        "--remat",
        default="none",
        choices=["none", "matrices", "attention", "all"],
        help="see config.model.remat",
    )
    parser.set_defaults(measure=measure_train_step)


def add_sampler(commands: Any) -> None:
    parser = commands.add_parser("sampler", help="seconds and memory for masks", allow_abbrev=False)
    parser.add_argument("--size", default="l", choices=["tiny", "s", "b", "l", "xl"])
    parser.add_argument("--image_size", type=positive, default=256, help="side in pixels")
    parser.add_argument("--batch_size", type=positive, default=1)
    parser.add_argument("--repeats", type=positive, default=3)
    parser.set_defaults(measure=measure_sampler)


def add_vae(commands: Any) -> None:
    parser = commands.add_parser("vae", help="seconds and memory for the VAE", allow_abbrev=False)
    parser.add_argument("--image_size", type=positive, default=256, help="side in pixels")
    parser.add_argument("--batch_size", type=positive, default=1)
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=positive, default=3)
    parser.set_defaults(measure=measure_vae)


def add_input_pipeline(commands: Any) -> None:
    parser = commands.add_parser("input_pipeline", help="examples per second", allow_abbrev=False)
    parser.add_argument(
        "--config", required=True, help="a training config: a file, or a name such as genmask_tiny"
    )
    parser.add_argument("--vae", help="directory of a VAE; the config's by default")
    parser.add_argument("--jpeg_size", type=positive, default=512, help="side in pixels (default: 512)")
    parser.add_argument(
        "--seconds", type=positive, default=10, help="seconds to read each source (default: 10)"
    )
    parser.set_defaults(measure=measure_input_pipeline)


def add_instruction(commands: Any) -> None:
    parser = commands.add_parser("instruction", help="seconds and memory for Qwen", allow_abbrev=False)
    parser.add_argument("--size", default="vl_7b", choices=SIZES)
    parser.add_argument(
        "--layers", type=positive, default=1, help="layers of the language model (default: 1)"
    )
    parser.add_argument("--image_size", type=positive, default=504, help="side in pixels (default: 504)")
    parser.add_argument("--batch_size", type=positive, default=1)
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument(
        "--peer", choices=["transformers"], help="library to compare with (needs the extra test)"
    )
    parser.add_argument("--repeats", type=positive, default=3)
    parser.set_defaults(measure=measure_instruction)


def positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def measure_train_step(arguments: argparse.Namespace) -> None:
    from genmask_jax.tools.benchmarks import train_step
    from genmask_jax.tools.benchmarks.workload import Workload, parse_size

    workload = Workload(
        model=dataclasses.replace(parse_size(arguments.size, arguments.text_dim), remat=arguments.remat),
        batch_size=arguments.batch_size,
        frames=arguments.frames,
        latents=(arguments.height, arguments.width),
        text_tokens=arguments.text_tokens,
        dtype=arguments.dtype,
    )
    train_step.measure(workload, peer=arguments.peer, rounds=arguments.rounds)


def measure_sampler(arguments: argparse.Namespace) -> None:
    from genmask_jax.tools.benchmarks import sampler

    sampler.measure(arguments.size, arguments.image_size, arguments.batch_size, arguments.repeats)


def measure_vae(arguments: argparse.Namespace) -> None:
    from genmask_jax.tools.benchmarks import vae

    vae.measure(arguments.image_size, arguments.batch_size, arguments.dtype, arguments.repeats)


def measure_input_pipeline(arguments: argparse.Namespace) -> None:
    from genmask_jax.config import TrainConfig
    from genmask_jax.config.checks import from_config_dict
    from genmask_jax.tools.benchmarks import input_pipeline

    values = config_files.load_config(arguments.config)
    config = from_config_dict(TrainConfig, values, file=f"--config={arguments.config}")
    config = dataclasses.replace(config, vae=arguments.vae or config.vae)
    input_pipeline.measure(config, arguments.jpeg_size, arguments.seconds)


def measure_instruction(arguments: argparse.Namespace) -> None:
    from genmask_jax.tools.benchmarks import instruction

    fields = ("size", "layers", "image_size", "batch_size", "dtype")
    workload = instruction.EncoderWorkload(**{name: getattr(arguments, name) for name in fields})
    instruction.measure(workload, peer=arguments.peer, repeats=arguments.repeats)


if __name__ == "__main__":
    main()
