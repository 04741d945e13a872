"""The console that tables are printed on."""

import sys

from rich.console import Console


def console() -> Console:
    """A console as wide as the terminal, or wide enough for any table if the output is redirected.

    It prints brackets as they are: names of files and configs may have them.
    """
    return Console(width=None if sys.stdout.isatty() else 180, markup=False)
