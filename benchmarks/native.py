"""What the native baselines of all frameworks share: which options they know, and what they read from a Keras model."""

from shared.errors import UsageError


def require_options(config, **known):
    """Refuses options that a baseline does not know.

    Args:
        config: options of the recipe.
        known: the only value of each option with which the baseline is the same as the recipe.

    Raises:
        UsageError: an option has another value.
    """
    needed = [f"--{name.replace('_', '-')} {value}" for name, value in known.items() if getattr(config, name) != value]
    if needed:
        raise UsageError(f"the native baseline needs {' '.join(needed)}: add that, or leave out --native")


def dropout_rate(model):
    """That of a Keras model's first dropout layer: 0 where a comparison turned it off, whatever the options say."""
    return next(layer.rate for layer in model.layers if hasattr(layer, "rate"))
