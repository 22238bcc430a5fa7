"""The directory of a run, exclusive to it."""

import dataclasses
import datetime
import itertools
import json
import sys
from pathlib import Path

import keras
from filelock import FileLock, Timeout

from shared.errors import UsageError
from shared.files import remove_unfinished, replacing
from shared.training.options import FREE_ON_RESUME, Options, read_config, source_commit, write_config


def open_run_directory(recipe: str, config: Options) -> tuple[Path, FileLock | None]:
    """Creates and locks the directory of a run and writes config.json, or reopens it with `--resume`; see `Run`.

    Returns:
        The directory and its lock; None for a reopened run, which locks it only to train.
    """
    if config.resume and config.out is None:
        raise UsageError("--resume needs --out, the directory of the run to resume")
    try:
        directory = config.out or new_directory(Path("runs"), f"{recipe}-{keras.config.backend()}")
        if config.resume and (directory / "config.json").exists():
            check_same_run(directory, recipe, config)
            return directory, None
        ours = ("config.json", ".lock")
        if foreign := [path for path in directory.rglob("*") if path.is_file() and path.name not in ours]:
            remedy = "there is no run to resume" if config.resume else "add --resume to resume the run in it"
            raise UsageError(f"{directory} holds {foreign[0].name} already: {remedy}, or take another --out")
        lock = take_directory(directory)
        write_config(directory, recipe, config)
    except OSError as error:
        raise UsageError(f"cannot write to {directory} ({error.strerror}): take another --out") from None
    return directory, lock


def new_directory(parent: Path, name: str) -> Path:
    """Creates a new directory named by the time, with a number if the name is taken."""
    parent.mkdir(parents=True, exist_ok=True)
    first = directory = parent / f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    for number in itertools.count(2):
        try:
            directory.mkdir()
            break
        except FileExistsError:
            directory = first.with_name(f"{first.name}-{number}")
    return directory


def take_directory(directory: Path) -> FileLock:
    """Locks a directory for training by this process, and removes unfinished files of an earlier one.

    Returns:
        The lock, held until it is released or the process ends, even by kill -9. The same process can take it again: a
        notebook resumes the run that it interrupted.

    Raises:
        UsageError: another process holds the lock.
        OSError: the directory cannot be written.
    """
    (directory / "checkpoint").mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / "checkpoint" / ".lock", is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"another process trains in {directory}: let it end, or take another --out") from None
    for folder in (directory, directory / "checkpoint"):
        remove_unfinished(folder)
    return lock


def check_same_run(directory: Path, recipe: str, config: Options) -> None:
    """Refuses to resume a run of another recipe, on another backend or with other options."""
    started_recipe, started_backend, started = read_config(directory, type(config))
    if started_recipe != recipe:
        raise UsageError(f"{directory} is a run of {started_recipe}, not of {recipe}: take another --out")
    if started_backend != keras.config.backend():
        raise UsageError(f"{directory} was started on {started_backend}: set KERAS_BACKEND={started_backend}")
    for field in dataclasses.fields(config):
        here, there = getattr(config, field.name), getattr(started, field.name)
        longer = field.name == "epochs" and here > there
        if field.name not in (*FREE_ON_RESUME, *config.free_on_resume) and here != there and not longer:
            option = field.name.replace("_", "-")
            raise UsageError(
                f"{directory} was started with --{option} {there}, not {here}: leave the option out, "
                "or start another run with another --out"
            )


def changed_on_resume(directory: Path, config: Options) -> dict[str, str]:
    """Options of the recipe that differ from those with which the run in `directory` was started."""
    *_, started = read_config(directory, type(config))
    values = {name: getattr(config, name) for name in config.free_on_resume}
    return {name: str(value) for name, value in values.items() if value != getattr(started, name)}


def note_continuation(directory: Path, epochs: int) -> dict[str, list]:
    """Records in config.json that this process resumes a run, with its commit and number of epochs.

    Returns:
        "commits" that trained the run, and "epochs" that were asked for, both in order and without repetitions.
    """
    path = directory / "config.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    so_far = {
        "commits": facts.get("commits", [facts.get("commit")]),
        "epochs": facts.get("epochs", [facts["options"]["epochs"]]),
    }
    if (here := source_commit()) != (last := so_far["commits"][-1]):
        print(f"WARNING: the code is {here} now, and was {last}: the result will say so", file=sys.stderr)
    noted = {name: list(dict.fromkeys([*so_far[name], now])) for name, now in (("commits", here), ("epochs", epochs))}
    if noted != so_far:
        facts["options"]["epochs"] = epochs  # so that --resume alone continues to here
        with replacing(path) as unfinished:
            unfinished.write_text(json.dumps(facts | noted, indent=1) + "\n", encoding="utf-8")
    return noted
