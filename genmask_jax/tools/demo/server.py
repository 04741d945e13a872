"""Serves the page, with its limits."""

import gradio as gr
from starlette.middleware import Middleware

from genmask_jax.tools.demo import limits, page
from genmask_jax.tools.demo.guard import Guard
from genmask_jax.tools.demo.handlers import Handlers


def serve(blocks: gr.Blocks, handlers: Handlers, host: str, port: int, *, background: bool = False) -> None:
    """Serves a page that `page.build` made, until the process is interrupted.

    Args:
        blocks: the page.
        handlers: its handlers.
        host: address to serve at.
        port: port to serve at.
        background: return at once, and serve from a thread, without messages.

    Raises:
        OSError: the port is in use.
    """
    # Without `api_open=False`, clients could run the model without the queue, many at once.
    blocks.queue(max_size=limits.MAX_QUEUE_SIZE, default_concurrency_limit=2, api_open=False)
    blocks.launch(
        server_name=host,
        server_port=port,
        **page.appearance(handlers),
        max_file_size=limits.MAX_FILE_SIZE,
        state_session_capacity=limits.MAX_SESSIONS,
        footer_links=["api"],
        share=False,
        app_kwargs={"middleware": [Middleware(Guard, uploads=handlers.uploads)]},
        prevent_thread_lock=background,
        quiet=background,
    )
