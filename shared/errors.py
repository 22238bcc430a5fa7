"""Exceptions that `shared.training.run.launch` turns into exit codes."""


class UsageError(Exception):
    """A mistake of the user or a problem of their machine. The message is one line that suggests a fix; exit code 2."""


class TargetMissed(Exception):
    """The run ended well but did not reach `--target`; exit code 1."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after a checkpoint was saved. The message says how to resume; exit code 130."""
