"""The terminal that tables are printed on."""

import sys

from rich.console import Console


def console() -> Console:
    """As wide as the terminal; wide enough for any table where the output goes elsewhere."""
    return Console() if sys.stdout.isatty() else Console(width=180)
