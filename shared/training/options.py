"""The command line of a recipe, made from its dataclass."""

import dataclasses
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import keras

from shared.backends.runtime import machine_name
from shared.errors import UsageError
from shared.files import replacing
from shared.training.command_line import parse_command_line
from shared.training.ranges import Count, NonNegative, Positive, out_of_range, ranged
from shared.training.tracking.tracker import trackers_named

Preset = Literal["test", "smoke", "small", "full"]

# What may differ between a run and its continuation, because it changes nothing in the result.
FREE_ON_RESUME = ("out", "resume", "data_dir", "checkpoint_seconds", "target", "track", "track_model")


@dataclasses.dataclass(kw_only=True)
class Options:
    """What every recipe understands. A recipe's `Config` inherits this, adds its own fields and fills `presets`."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"test": {}, "smoke": {}, "full": {}}
    """What presets set beside the defaults, which are those of "small"; "test" beside those of "smoke".

    The learning rates of "test" are low: high ones amplify rounding, and backends could not agree to the last digits.
    """
    free_on_resume: ClassVar[tuple[str, ...]] = ()
    """Options of the recipe's own that may change with `--resume`, because they change nothing in the training."""
    beside_result: ClassVar[tuple[str, ...]] = ()
    """Options of the recipe's own that change no number by which runs of its presets are compared."""

    preset: Preset = "small"
    """Size of the experiment: seconds, a minute on two cores, minutes on a laptop, or the reference for one GPU."""
    data: str = "auto"
    """Data set by name; auto takes the recipe's own, or the embedded one where that cannot be had."""
    data_dir: Path | None = None
    """Where data are kept (default: $KERAS_RECIPES_DATA, else ~/.cache/keras-recipes)."""
    epochs: Count
    """Passes over the training data."""
    batch_size: Count
    """Examples per step."""
    learning_rate: Positive
    """The highest learning rate."""
    seed: ranged(int, least=0, most=2**32 - 1) = 0
    """Seed of initial weights, shuffling, augmentation and dropout."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Type that layers compute in; weights are always float32, and float32 is never rounded to TF32 in products."""
    out: Path | None = None
    """Directory of the run (default: runs/RECIPE-BACKEND-TIME)."""
    resume: bool = False
    """Go on with the run in --out, also to more --epochs; options not given are those it was started with."""
    checkpoint_seconds: NonNegative = 60.0
    """Seconds between checkpoints, besides those at the end of each epoch."""
    initial_weights: Path | None = None
    """Start from the weights in this .weights.h5 or .keras file."""
    track: str = ""
    """Experiment trackers, separated by commas: tensorboard, mlflow, wandb."""
    track_model: bool = False
    """Send model.keras to the trackers too; TensorBoard takes none."""
    target: ranged(float, optional=True) = None
    """Exit with code 1 if the result is worse than this."""

    def __post_init__(self):
        for name in ("data_dir", "out", "initial_weights"):
            if getattr(self, name) is not None:
                setattr(self, name, Path(getattr(self, name)))
        trackers_named(self.track)
        for name, rule in out_of_range(self):
            self.require(name, False, rule)

    def require(self, name: str, holds: bool, rule: str) -> None:
        """Raises a UsageError that names the option, its value and the rule, unless the rule holds."""
        if not holds:
            raise UsageError(f"--{name.replace('_', '-')} {rule}, not {getattr(self, name)}")

    @classmethod
    def for_preset(cls, preset: str, **changes: Any) -> Self:
        """The options of a preset, some of them changed: what `--preset` gives on the command line."""
        basis = cls.presets["smoke"] if preset == "test" else {}
        return cls(**{"preset": preset, **basis, **cls.presets.get(preset, {}), **changes})

    def is_of_preset(self, name: str) -> bool:
        """Whether an option has the value that the preset gives it, rather than another that was asked for."""
        return getattr(self, name) == getattr(self.for_preset(self.preset), name)

    def beside_preset(self) -> dict[str, str]:
        """The options that make this another experiment than the preset, by name; the data and the seed apart."""
        preset, same = self.for_preset(self.preset), ("preset", "data", "seed", *FREE_ON_RESUME, *self.beside_result)
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in same}
        return {name: str(value) for name, value in values.items() if value != getattr(preset, name)}


@dataclasses.dataclass
class Start:
    """The options on which the defaults of all others depend."""

    preset: Preset = "small"
    out: Path | None = None
    resume: bool = False


def parse_options(config_class: type[Options], arguments: list[str] | None = None) -> Options:
    """Reads the command line into a `config_class`.

    Defaults are those of the preset that the command line names; with `--resume`, those of the run that it goes on
    with.

    Raises:
        UsageError: an unknown option, or a value of the wrong type or out of range.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    seen, _ = parse_command_line(Start, arguments, return_unknown_args=True, add_help=False)
    if seen.resume and seen.out and (seen.out / "config.json").exists():
        _, _, started = read_config(seen.out, config_class)
        default = dataclasses.replace(started, resume=False)
    else:
        default = config_class.for_preset(seen.preset)
    return parse_command_line(config_class, arguments, default=default)


def write_config(directory: Path, recipe: str, config: Options) -> None:
    """Writes config.json: the recipe, the backend, the options, and by what command, code and machine it was run."""
    facts = {
        "recipe": recipe,
        "backend": keras.config.backend(),
        "command": f"KERAS_BACKEND={keras.config.backend()} {shlex.join(['python', *sys.argv])}",
        "commit": source_commit(),
        "machine": machine_name(),
        "options": {field.name: getattr(config, field.name) for field in dataclasses.fields(config)},
    }
    with replacing(directory / "config.json") as path:
        path.write_text(json.dumps(facts, indent=1, default=str) + "\n", encoding="utf-8")


def source_commit() -> str | None:
    """The git commit of this code, with "-dirty" where it was changed since; None where git does not track it."""
    file = Path(globals().get("__file__", "notebook"))  # a notebook has no file
    describe = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    # An installed package may lie within the repository of another project.
    tracked = [["ls-files", "--error-unmatch", file.name]] if "__file__" in globals() else []
    try:
        for arguments in (*tracked, describe):
            process = subprocess.run(
                ["git", "-C", str(file.parent), *arguments], capture_output=True, encoding="utf-8", check=True
            )
        return process.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def read_config(directory: Path, config_class: type[Options], other_code: bool = False) -> tuple[str, str, Options]:
    """Reads config.json: the recipe, the backend and the options that the run in `directory` was started with.

    Args:
        directory: of the run.
        config_class: the `Config` of its recipe.
        other_code: whether options that the recipe does not have any more are passed over.

    Raises:
        UsageError: the file is damaged, or its options are not those of `config_class`.
    """
    path = directory / "config.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        options = {name: tuple(value) if isinstance(value, list) else value for name, value in facts["options"].items()}
        known = {field.name for field in dataclasses.fields(config_class)} if other_code else options
        options = {name: value for name, value in options.items() if name in known}
        return facts["recipe"], facts["backend"], config_class(**options)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} does not hold the options of this recipe ({error}): name another directory") from None
