"""Receives the body of each request before Gradio sees it, with limits of size and time.

Gradio limits the size of a file, but not that of other bodies, has no time limit, and leaves the file of a
broken upload on disk.
"""

import asyncio
import contextlib
import pathlib
import tempfile
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import IO, Any

from genmask_jax.tools.demo import limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

UPLOAD = "/gradio_api/upload"
CLOSED = (
    "/gradio_api/file=http",
    "/gradio_api/file/",
    "/gradio_api/process_recording",
    "/gradio_api/deep_link",
)
"""Beginnings of unused paths of Gradio, which load from other servers, run ffmpeg, or write files."""
BYTES_IN_MEMORY, CHUNK = 1 << 20, 1 << 16


class Guard:
    """ASGI middleware: refuses bodies that are too large or too slow, and deletes old uploads."""

    def __init__(self, app: Callable[..., Awaitable[None]], uploads: pathlib.Path):
        """`uploads`: the folder of Gradio's uploads."""
        self.app, self.uploads = app, uploads

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"].startswith(CLOSED):
            await _refuse(send, 404, "This page does not have this address.")
            return
        headers = dict(scope["headers"])
        if b"transfer-encoding" in headers:
            await _refuse(send, 411, "Send a Content-Length, not a body in chunks of unknown number.")
            return
        too_large = int(headers.get(b"content-length", 0)) > limits.MAX_BODY_BYTES
        with tempfile.SpooledTemporaryFile(BYTES_IN_MEMORY) as body:
            try:
                async with asyncio.timeout(limits.MAX_UPLOAD_SECONDS):
                    complete = await _read(receive, None if too_large else body)
            except TimeoutError:
                seconds = limits.MAX_UPLOAD_SECONDS
                await _refuse(send, 408, f"The upload took longer than {seconds} seconds.")
                return
            if too_large:
                await _refuse(send, 413, f"This is too large; send at most {limits.MAX_FILE_SIZE.upper()}.")
            elif complete:
                if scope["path"].startswith(UPLOAD):
                    delete_old_files(self.uploads)
                body.seek(0)
                await self.app(scope, _replay(body, receive), send)


def delete_old_files(folder: pathlib.Path) -> None:
    """Deletes files older than UPLOAD_SECONDS, all but the newest MAX_UPLOADS, and empty folders."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    newest = sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)
    oldest_kept = time.time() - limits.UPLOAD_SECONDS
    for i, path in enumerate(newest):
        if i >= limits.MAX_UPLOADS or path.stat().st_mtime < oldest_kept:
            path.unlink()
            with contextlib.suppress(OSError):  # it has other files
                path.parent.rmdir()


async def _read(receive: Receive, body: IO[bytes] | None) -> bool:
    """Writes a body to a file, or drops it, so that a client that sends to the end reads the answer.

    Returns:
        Whether the body came to its end; False if the client disconnected.
    """
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return False
        if body is not None:
            body.write(message.get("body", b""))
        if not message.get("more_body", False):
            return True


def _replay(body: IO[bytes], receive: Receive) -> Receive:
    """Returns a function that gives the messages of a body in a file, and then those of `receive`."""
    complete = False

    async def replayed() -> Message:
        nonlocal complete
        if complete:
            return await receive()
        chunk = body.read(CHUNK)
        complete = len(chunk) < CHUNK
        return {"type": "http.request", "body": chunk, "more_body": not complete}

    return replayed


async def _refuse(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
