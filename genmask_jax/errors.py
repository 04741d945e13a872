"""The one exception for errors that the user can fix."""


class UserError(Exception):
    """Bad input: its message is one line that names the file, field or flag and says how to fix it.

    The scripts in `launch/` print the line and exit with status 1, without a traceback.
    """


class DamagedError(UserError):
    """Stored parameters that are there but cannot be read."""
