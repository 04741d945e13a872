"""Event files for TensorBoard, if it is installed."""

import io
import os
import time
from collections.abc import Mapping

from absl import logging
from etils import epath
from PIL import Image

from genmask_jax.utils.extras import installed


class Charts:
    """Writes scalars and images for `tensorboard --logdir`; without a directory, it writes nothing."""

    def __init__(self, workdir: epath.Path | None, step: int):
        """`step`: step that the run continues from. TensorBoard drops what it shows of later steps."""
        self._writer = None
        if workdir is None:
            return
        if not installed("tensorboard"):
            logging.info('no TensorBoard events: pip install "genmask-jax[tensorboard]" to have them')
            return
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # for TensorFlow, if it is installed
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(workdir))
        self._add(step + 1, session_log={"status": "START"})

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._add(step, summary={"value": [{"tag": k, "simple_value": x} for k, x in values.items()]})

    def image(self, step: int, name: str, content: bytes) -> None:
        """`content`: bytes of an image file, such as a PNG."""
        width, height = Image.open(io.BytesIO(content)).size
        image = {"width": width, "height": height, "colorspace": 3, "encoded_image_string": content}
        self._add(step, summary={"value": [{"tag": name, "image": image}]})

    def flush(self) -> None:
        """Writes everything to disk, which otherwise happens every two minutes."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _add(self, step: int, **content: dict) -> None:
        if self._writer is None:
            return
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

        self._writer.add_event(Event(step=step, wall_time=time.time(), **content))
