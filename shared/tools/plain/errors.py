"""Mistakes of users."""


class UsageError(SystemExit):
    """A mistake in the options or the data, which ends the program with its message."""
