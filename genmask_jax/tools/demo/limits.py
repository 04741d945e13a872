"""Limits of the page: sizes, counts and rates."""

import collections
import concurrent.futures
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from genmask_jax.pretrained import EXAMPLE_PROMPT
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.images import UNREADABLE

MAX_SIDE = 1024
"""Largest side of an image in pixels; larger images are reduced."""
MAX_PHRASES = 6
MAX_CHARACTERS = 200
MAX_FILE_SIZE = "25mb"
MAX_BODY_BYTES = 26 << 20
"""Largest body of a request: a file, and what a form adds to it."""
MAX_PIXELS = 50_000_000
"""Largest number of pixels of an image; a file of 25 MB can have many more, and each takes up to 15 bytes."""
MAX_UPLOAD_SECONDS = 120
"""Longest time that the body of a request may take to arrive."""
MAX_UPLOADS = 200
"""Number of uploaded files that are kept."""
UPLOAD_SECONDS = 3600
"""Time after which an uploaded file is deleted, with the next upload."""
MAX_CANDIDATES = 8
"""Largest number of images per request."""
IMAGE_STEPS = (5, 10, 20, 50)
MAX_GUIDANCE = 10.0
MAX_SEED = 2**31 - 1
MAX_QUEUE_SIZE = 64
"""Largest number of requests in the queue; more are rejected."""
MAX_SESSIONS = 32
"""Largest number of visitors whose last result is in memory; the oldest is dropped."""
MAX_REQUESTS_PER_MINUTE = 60
"""Largest number of requests per visitor and minute."""
MAX_SECONDS = 120.0
"""Longest time of a request, without its time in the queue."""


def limit_size(image: np.ndarray) -> np.ndarray:
    """Reduces an image, uint8 [H, W, 3], to sides of at most MAX_SIDE."""
    height, width = image.shape[:2]
    scale = MAX_SIDE / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def check_pixels(path: str, name: str) -> None:
    """Raises UserError, with `name`, if an image has more than MAX_PIXELS. Reads only its header."""
    try:
        with Image.open(path) as image:
            width, height = image.size
    except UNREADABLE:
        return  # explained where it is read
    if width * height > MAX_PIXELS:
        size = f"{width:,} by {height:,} pixels"
        raise UserError(f"{name}: it has {size}; reduce it to {MAX_PIXELS // 10**6} megapixels.")


def read_phrases(text: Any) -> list[str]:
    """Returns the phrases of a text, separated by line breaks or semicolons. Raises UserError."""
    lines = text.splitlines() if isinstance(text, str) else []
    parts = [" ".join(part.split()) for line in lines for part in line.split(";")]
    phrases = list(dict.fromkeys(part for part in parts if part))
    if not phrases:
        raise UserError("Type what to find, such as: the red star.")
    if len(phrases) > MAX_PHRASES:
        raise UserError(f"These are {len(phrases)} phrases; give at most {MAX_PHRASES}.")
    for phrase in phrases:
        normalize_text(phrase)
    return phrases


def read_number(value: Any, name: str, low: float, high: float) -> float:
    """Returns a number of a request, which may be anything. Raises UserError if it is not in [low, high]."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        raise UserError(f"{name} must be between {low:g} and {high:,}.")
    return value


def normalize_text(text: Any) -> str:
    """Returns the text with single spaces. Raises UserError if it is not a text, is empty or is too long."""
    text = " ".join(text.split()) if isinstance(text, str) else ""
    if not text:
        raise UserError(f"Type what to draw, such as: {EXAMPLE_PROMPT}.")
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"A phrase of {len(text)} characters is too long; give at most {MAX_CHARACTERS}.")
    return text


class RateLimiter:
    """Limits the requests of each visitor per minute."""

    def __init__(self, per_minute: int, max_visitors: int = 1000):
        """`max_visitors`: number of visitors to remember; the one without requests for longest is dropped."""
        self.per_minute, self.max_visitors = per_minute, max_visitors
        self._times: collections.OrderedDict[str, collections.deque[float]] = collections.OrderedDict()

    def count(self, visitor: str) -> None:
        """Counts a request. Raises UserError if there are too many."""
        now = time.monotonic()
        times = self._times.setdefault(visitor, collections.deque())
        self._times.move_to_end(visitor)
        if len(self._times) > self.max_visitors:
            self._times.popitem(last=False)
        while times and now - times[0] > 60:
            times.popleft()
        if len(times) >= self.per_minute:
            wait = int(60 - (now - times[0])) + 1
            raise UserError(f"That was {self.per_minute} requests within a minute; wait {wait} seconds.")
        times.append(now)


class ModelThread:
    """Runs the model in a thread, one call at a time, so that a request may end before its computation."""

    def __init__(self) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "model")
        self._last: concurrent.futures.Future | None = None

    def run(self, end: float, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Returns the result of a function. `end`: the time by `time.monotonic` at which to stop waiting.

        Raises:
            UserError: it takes longer, or an earlier call that took longer is still running.
        """
        if self._last is not None and not self._last.done():
            raise UserError("The model is busy with a request that takes very long; try again in a minute.")
        future = self._pool.submit(function, *arguments, **options)
        try:
            return future.result(None if end == float("inf") else max(0.0, end - time.monotonic()))
        except TimeoutError:
            self._last = future
            raise UserError("This takes too long; ask for fewer images, steps or phrases.") from None
