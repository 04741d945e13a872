"""The console that tables are printed on."""

import sys

from rich.console import Console


def console() -> Console:
    """A console of the terminal's width, or of 180 columns if the output is redirected.

    Markup is off, because names of files and configs may have brackets.
    """
    return Console(width=None if sys.stdout.isatty() else 180, markup=False)
