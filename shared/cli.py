"""The command `recipes`."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shared.command_line import parse_command_line
from shared.data.images import data_directory
from shared.doctor import report_backends, report_data, report_disk
from shared.errors import UsageError
from shared.files import cache_directory, replacing
from shared.records import PROJECT, headline_record, recipe_paths, recipes_table, record_run, task_of, with_tables


@dataclass
class List:
    """Names the recipes, what each does and the best result recorded for it."""

    def run(self) -> int:
        for path in recipe_paths():
            record = headline_record(path.stem)
            print(f"{path.stem}\n  task        {task_of(path)}")
            if record is None:
                print("  result      not yet measured")
            else:
                print(f"  data        {record['data']}")
                print(f"  parameters  {record['parameters']:,}")
                print(
                    f"  result      {record['metric']} {record['value']:.4f} ({record['backend']}, {record['preset']})"
                )
        return 0


@dataclass
class Doctor:
    """Says which backends, data and disk space there are, and how to mend what is missing."""

    data_dir: Path | None = None
    """Where data are looked for."""

    def run(self) -> int:
        print(f"backends in {sys.executable} (chosen by KERAS_BACKEND={os.environ.get('KERAS_BACKEND', '')})")
        works = report_backends()
        if works:
            report_data(self.data_dir)
            print("disk")
            report_disk({"data": data_directory(self.data_dir), "cache": cache_directory(), "runs": Path("runs")})
        return 0 if works else 1


@dataclass
class Record:
    """Puts the result of a run under results/, with its command, commit and machine."""

    run_directory: Annotated[Path, tyro.conf.Positional]
    """Directory of a finished run."""

    def run(self) -> int:
        print(record_run(self.run_directory))
        return 0


@dataclass
class Tables:
    """Makes the tables of the README from results/."""

    write: bool = False
    """Put them into README.md instead of printing the table of recipes."""

    def run(self) -> int:
        if not self.write:
            print(recipes_table())
            return 0
        readme = PROJECT / "README.md"
        with replacing(readme) as path:
            path.write_text(with_tables(readme.read_text()))
        return 0


def main() -> None:
    """Runs the command `recipes`. Exit codes: 0 done, 1 no backend works, 2 wrong use."""
    commands = List | Doctor | Record | Tables
    try:
        command = parse_command_line(commands, prog="recipes", description="Deep-learning recipes in Keras 3.")
        sys.exit(command.run())
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
