"""What `fuzz.py` tries."""

import dataclasses
import random
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Target:
    """A reader to try.

    make: makes an input.
    read: reads it and checks the result; raises UserError if the input is refused.
    """

    make: Callable[[random.Random], Any]
    read: Callable[[Any], None]
