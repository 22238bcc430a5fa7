"""The ways a run can end other than well; `shared.training.run.launch` turns them into exit codes."""


class UsageError(Exception):
    """A mistake of the user's or of their machine's. The message is one line that suggests a fix; exit code 2."""


class TargetMissed(Exception):
    """The run ended well but did not reach `--target`; exit code 1."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after the state was saved. The message says how to go on; exit code 130."""
