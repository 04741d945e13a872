"""Serves a web page that segments and generates with a trained model.

    python launch/demo.py --checkpoint=refershapes
    python launch/demo.py --checkpoint=runs/mine/model --port=7861

Open the printed address. By default, it is available only on this machine. --host=0.0.0.0 serves other
machines; use a proxy with TLS and passwords in that case. Needs pip install "genmask-jax[demo]".
docs/demo.md describes the page, its limits and its API.
"""

import argparse
import os
import pathlib
import signal
import warnings

from genmask_jax import cli
from genmask_jax.pretrained import DEFAULT_MODEL
from genmask_jax.tools.demo import limits
from genmask_jax.utils.errors import UnknownWordWarning, UserError
from genmask_jax.utils.extras import need

LOOPBACK = "127.0.0.1"


def main() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument(
        "--checkpoint",
        default=DEFAULT_MODEL,
        help=f"directory or name of a trained model (default: {DEFAULT_MODEL})",
    )
    parser.add_argument("--step", default="last", help="last, best, or a step")
    parser.add_argument("--host", default=LOOPBACK, help=f"address to serve at (default: {LOOPBACK})")
    parser.add_argument("--port", type=int, default=7860, help="port (default: 7860)")
    parser.add_argument(
        "--per_minute",
        type=int,
        default=limits.MAX_REQUESTS_PER_MINUTE,
        help=f"requests per visitor and minute (default: {limits.MAX_REQUESTS_PER_MINUTE})",
    )
    parser.add_argument(
        "--max_seconds",
        type=float,
        default=limits.MAX_SECONDS,
        help=f"longest time of a request, without its time in the queue (default: {limits.MAX_SECONDS:g})",
    )
    arguments = cli.parse(parser)
    cli.reuse_freed_memory()
    cli.use_compilation_cache()
    cli.guard(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> None:
    """Serves the page until the process is interrupted. Raises UserError."""
    from genmask_jax.inference.load import load

    need("gradio", "demo", "the page")
    if arguments.per_minute < 1:
        raise UserError(f"--per_minute={arguments.per_minute} must be positive")
    if not arguments.max_seconds > 0:
        raise UserError(f"--max_seconds={arguments.max_seconds} must be positive")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    from genmask_jax.tools.demo import page, server
    from genmask_jax.tools.demo.handlers import Handlers

    warnings.simplefilter("ignore", UnknownWordWarning)  # the page shows unknown words to the visitor
    networks, config, step = load(arguments.checkpoint, arguments.step)
    handlers = Handlers(networks, config)
    print("compiling ...", flush=True)
    handlers.warm_up()
    handlers.max_seconds = arguments.max_seconds
    name = f"{pathlib.PurePath(arguments.checkpoint).name} ({config.name}, step {step})"
    blocks = page.build(handlers, name, arguments.per_minute)
    # Deletes the page's files also when a service manager stops it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.serve(blocks, handlers, arguments.host, arguments.port)
    except OSError as error:
        raise UserError(f"--host={arguments.host} --port={arguments.port}: {error}") from error


if __name__ == "__main__":
    main()
