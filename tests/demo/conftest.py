"""The page of the micro model, served on this machine."""

import socket

import pytest

pytest.importorskip("gradio", reason="needs requirements-demo.txt")

from genmask_jax.demo import limits, page
from genmask_jax.demo.handlers import Handlers
from genmask_jax.inference.load import load


@pytest.fixture(scope="session")
def handlers(micro_run) -> Handlers:
    networks, config, _ = load(str(micro_run[0]))
    return Handlers(networks, config)


@pytest.fixture(scope="session")
def address(handlers):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    blocks = page.build(handlers, "micro", per_minute=100)
    blocks.queue(max_size=limits.MAX_WAITING, default_concurrency_limit=2)
    blocks.launch(server_port=port, prevent_thread_lock=True, quiet=True, theme=page.theme(), css=page.CSS)
    yield f"http://127.0.0.1:{port}"
    blocks.close()
