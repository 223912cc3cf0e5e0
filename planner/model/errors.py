"""The one exception that users meet."""


class InputError(ValueError):
    """Input that cannot be used: its message is one line that names what, where, got, expected, and what to do.

    Command lines print the message and exit with status 2. Besides, only what the machine says is caught there
    (OSError, MemoryError), so that a traceback always means a defect of ours.
    """
