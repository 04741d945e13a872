"""The console that tables are printed on."""

import sys

from rich.console import Console


def console() -> Console:
    """A console as wide as the terminal, or wide enough for any table if the output is redirected."""
    return Console() if sys.stdout.isatty() else Console(width=180)
