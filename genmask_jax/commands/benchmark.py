"""Measures speed and memory on this machine.

    python launch/benchmark.py train_step --size=8x384 --peer=diffusers
    python launch/benchmark.py sampler --size=l --image_size=256
    python launch/benchmark.py vae --image_size=512
    python launch/benchmark.py input_pipeline --config=configs/genmask_tiny.py
    python launch/benchmark.py instruction --size=vl_7b --layers=1 --peer=transformers

train_step: forward, backward and AdamW of the DiT alone, compared with a peer.
instruction: Qwen2.5-VL with random weights, its whole vision tower and --layers layers of its language model:
encoding an image and a text, and generating text.
sampler: a mask end to end (VAE encoder, one pass of the DiT, VAE decoder), with random bfloat16 weights.
vae: Wan 2.1's VAE alone, with random weights.
input_pipeline: examples per second of a config's input pipeline, of its training step, and of reading JPEGs
from ArrayRecords.
Each benchmark prints a table and a last line of JSON.
"""

import argparse
import dataclasses

from genmask_jax import cli
from genmask_jax.config import files as config_files
from genmask_jax.instruction.qwen.config import SIZES


def main() -> None:
    parser = cli.make_parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    step = commands.add_parser("train_step", help="seconds per training step", allow_abbrev=False)
    step.add_argument("--size", default="8x384", help="tiny, s, b, l, xl, or DEPTHxWIDTH (default: 8x384)")
    step.add_argument("--peer", choices=["diffusers"], help="library to compare with (needs the extra test)")
    step.add_argument("--batch_size", type=positive, default=4)
    step.add_argument(
        "--frames", type=positive, choices=[1, 2], default=1, help="2: also a clean frame with timestep 0"
    )
    step.add_argument("--height", type=positive, default=32, help="height of the latents (default: 32)")
    step.add_argument("--width", type=positive, default=64, help="width of the latents (default: 64)")
    step.add_argument("--text_tokens", type=positive, default=128)
    step.add_argument("--text_dim", type=positive, default=384)
    step.add_argument("--rounds", type=positive, default=4, help="rounds of three steps each (default: 4)")
    step.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    step.add_argument(
        "--remat",
        default="none",
        choices=["none", "matrices", "attention", "all"],
        help="see config.model.remat",
    )
    one = commands.add_parser("sampler", help="seconds and memory for masks", allow_abbrev=False)
    one.add_argument("--size", default="l", choices=["tiny", "s", "b", "l", "xl"])
    one.add_argument("--image_size", type=positive, default=256, help="side in pixels")
    one.add_argument("--batch_size", type=positive, default=1)
    one.add_argument("--repeats", type=positive, default=3)
    latents = commands.add_parser("vae", help="seconds and memory for the VAE", allow_abbrev=False)
    latents.add_argument("--image_size", type=positive, default=256, help="side in pixels")
    latents.add_argument("--batch_size", type=positive, default=1)
    latents.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    latents.add_argument("--repeats", type=positive, default=3)
    data = commands.add_parser("input_pipeline", help="examples per second", allow_abbrev=False)
    data.add_argument(
        "--config", required=True, help="a training config: a file, or a name such as genmask_tiny"
    )
    data.add_argument("--vae", help="directory of a VAE; the config's by default")
    data.add_argument("--jpeg_size", type=positive, default=512, help="side in pixels (default: 512)")
    data.add_argument(
        "--seconds", type=positive, default=10, help="seconds to read each source (default: 10)"
    )
    read = commands.add_parser("instruction", help="seconds and memory for Qwen", allow_abbrev=False)
    read.add_argument("--size", default="vl_7b", choices=SIZES)
    read.add_argument("--layers", type=positive, default=1, help="layers of the language model (default: 1)")
    read.add_argument("--image_size", type=positive, default=504, help="side in pixels (default: 504)")
    read.add_argument("--batch_size", type=positive, default=1)
    read.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    read.add_argument(
        "--peer", choices=["transformers"], help="library to compare with (needs the extra test)"
    )
    read.add_argument("--repeats", type=positive, default=3)
    arguments = cli.parse(parser)
    cli.suit_cpu()
    if getattr(arguments, "peer", None):
        cli.share_card()
    cli.use_compilation_cache()
    cli.guard(lambda: measure(arguments))


def positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def measure(arguments: argparse.Namespace) -> None:
    """Runs the chosen benchmark. Raises UserError."""
    from genmask_jax.config import TrainConfig
    from genmask_jax.config.checks import from_config_dict
    from genmask_jax.tools.benchmarks import input_pipeline, instruction, sampler, train_step, vae
    from genmask_jax.tools.benchmarks.instruction import EncoderWorkload
    from genmask_jax.tools.benchmarks.workload import Workload, parse_size

    if arguments.command == "sampler":
        sampler.measure(arguments.size, arguments.image_size, arguments.batch_size, arguments.repeats)
        return
    if arguments.command == "vae":
        vae.measure(arguments.image_size, arguments.batch_size, arguments.dtype, arguments.repeats)
        return
    if arguments.command == "input_pipeline":
        config = from_config_dict(
            TrainConfig, config_files.load_config(arguments.config), file=f"--config={arguments.config}"
        )
        config = dataclasses.replace(config, vae=arguments.vae or config.vae)
        input_pipeline.measure(config, arguments.jpeg_size, arguments.seconds)
        return
    if arguments.command == "instruction":
        fields = ("size", "layers", "image_size", "batch_size", "dtype")
        encoder = EncoderWorkload(**{name: getattr(arguments, name) for name in fields})
        instruction.measure(encoder, peer=arguments.peer, repeats=arguments.repeats)
        return
    workload = Workload(
        model=dataclasses.replace(parse_size(arguments.size, arguments.text_dim), remat=arguments.remat),
        batch_size=arguments.batch_size,
        frames=arguments.frames,
        latents=(arguments.height, arguments.width),
        text_tokens=arguments.text_tokens,
        dtype=arguments.dtype,
    )
    train_step.measure(workload, peer=arguments.peer, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
