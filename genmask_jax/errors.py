"""The one exception for what a user can mend."""


class UserError(Exception):
    """Bad input: its message is one line that names the file, field or flag and says what to do.

    The scripts in `launch/` print the line and exit with status 1, without a traceback.
    """
