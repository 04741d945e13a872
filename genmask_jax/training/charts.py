"""Event files for TensorBoard, if it is installed."""

import io
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from absl import logging
from etils import epath
from PIL import Image

from genmask_jax.utils.extras import installed
from genmask_jax.utils.paths import Appender


class Charts:
    """Writes scalars and images for `tensorboard --logdir`; without a directory, it writes nothing.

    TensorBoard's own writer reports errors of the storage late, and needs TensorFlow to write to buckets.
    """

    def __init__(self, workdir: epath.Path | None, step: int):
        """`step`: step that the run continues from. TensorBoard drops what it shows of later steps."""
        self._writer = None
        if workdir is None:
            return
        if not installed("tensorboard"):
            logging.info('no TensorBoard events: pip install "genmask-jax[tensorboard]" to have them')
            return
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # for TensorFlow, if it is installed
        self._writer = Appender(workdir / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}")
        self._add(0, file_version="brain.Event:2")
        self._add(step + 1, session_log={"status": "START"})

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        summary = {"value": [{"tag": name, "simple_value": value} for name, value in values.items()]}
        self._add(step, summary=summary)

    def image(self, step: int, name: str, content: bytes) -> None:
        """`content`: bytes of an image file, such as a PNG."""
        width, height = Image.open(io.BytesIO(content)).size
        image = {"width": width, "height": height, "colorspace": 3, "encoded_image_string": content}
        self._add(step, summary={"value": [{"tag": name, "image": image}]})

    def flush(self) -> None:
        """Writes what waits (see `Appender`). Raises StorageError if that fails."""
        if self._writer is not None:
            self._writer.flush()

    def _add(self, step: int, **content: Any) -> None:
        """Adds an event. Raises StorageError if it cannot be written."""
        if self._writer is None:
            return
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        event = Event(step=step, wall_time=time.time(), **content)
        RecordWriter(record).write(event.SerializeToString())
        self._writer.append(record.getvalue())
