"""The command `recipes`."""

import datetime
import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from shared.backends.choice import (
    BACKENDS,
    backends_named,
    chosen_backend,
    installed_backends,
    require_backend,
    require_extra,
)
from shared.data.places import data_directory
from shared.errors import UsageError
from shared.files import cache_directory, replacing
from shared.tools.compare.comparison import Comparison
from shared.tools.compare.report import report_html
from shared.tools.compare.summary import failed, report_text
from shared.tools.copying import check_copy, copied_source
from shared.tools.doctor import report_backends, report_data, report_disk
from shared.tools.exporting.formats import FormatName, export_run
from shared.tools.exporting.records import record_export
from shared.tools.notebook import copied_notebook
from shared.tools.pages import all_pages, recipes_table
from shared.tools.project import recipe_path, recipe_paths, task_of
from shared.tools.records import headline_records, record_comparison, record_run, result_and_time
from shared.tools.track import track_run
from shared.training.command_line import parse_command_line, replace_what_cannot_be_shown
from shared.training.ranges import Count, Positive, out_of_range, ranged


@dataclass
class List:
    """Lists the recipes with their tasks and best recorded results."""

    def run(self) -> int:
        for path in recipe_paths():
            records = headline_records(path.stem)
            print(f"{path.stem}\n  task        {task_of(path)}")
            if not records:
                print("  result      not yet measured")
            else:
                result, time = result_and_time(records)
                print(f"  data        {records[0]['data']}")
                print(f"  parameters  {records[0]['parameters']:,}")
                print(f"  result      {result}\n  time        {time}")
        return 0


@dataclass
class Doctor:
    """Reports backends, data and disk space, and suggests fixes."""

    data_dir: Path | None = None
    """Where data are looked for."""
    backends: bool = False
    """Also compute on each backend, which takes seconds, and name its device."""

    def run(self) -> int:
        print(f"backends in {sys.executable} (chosen by KERAS_BACKEND={os.environ.get('KERAS_BACKEND', '')})")
        works = report_backends(tried=self.backends)
        report_data(self.data_dir)
        print("disk")
        report_disk({"data": data_directory(self.data_dir), "cache": cache_directory(), "runs": Path("runs")})
        return 0 if works else 1


@dataclass
class Predict:
    """Predicts with the model of a finished run, for images, texts or classes. Needs KERAS_BACKEND, any one.

    recipes predict RUN --help  shows its inputs and options.
    """

    run_directory: Annotated[Path, tyro.conf.Positional]
    """Directory of a finished run, whatever backend trained it."""
    inputs: tyro.conf.Suppress[tuple[str, ...]] = ()

    def run(self) -> int:
        require_backend()
        from shared.tools.predict import predict_from  # imports Keras, which the other commands do without

        return predict_from(self.run_directory, list(self.inputs))


@dataclass
class Serve:
    """Serves the model of a finished run as a web page and an API. Needs KERAS_BACKEND, any one."""

    run_directory: Annotated[Path, tyro.conf.Positional]
    """Directory of a finished run, whatever backend trained it."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0: all of this machine's, open to whoever reaches them."""
    port: ranged(int, least=0, most=65535) = 8000
    """Port to listen on; 0: a free one."""
    engine: Literal["auto", "onnx", "keras"] = "auto"
    """The model that recipes export wrote, in ONNX Runtime, or Keras; auto: the former if there is one."""
    max_megabytes: Positive = 16
    """Largest request."""
    max_megapixels: Positive = 50
    """Largest image."""
    max_seconds: Positive = 60
    """Longest time that a request may take."""
    max_requests: Count = 32
    """Most requests at once: one is answered, the others wait."""

    def run(self) -> int:
        for name, rule in out_of_range(self):
            raise UsageError(f"--{name.replace('_', '-')} {rule}, not {getattr(self, name)}")
        require_extra("serve", "fastapi", "python_multipart", "uvicorn")
        if self.engine == "onnx":
            require_extra("export", "onnxruntime")
        require_backend()
        from shared.tools.serving.app import Limits  # as the next, imports Keras and what only the extra brings
        from shared.tools.serving.engines import ENGINES
        from shared.tools.serving.server import serve_from

        sizes = int(self.max_megabytes * 2**20), int(self.max_megapixels * 1e6)
        limits = Limits(*sizes, self.max_seconds, self.max_requests)
        return serve_from(self.run_directory, self.host, self.port, limits, ENGINES[self.engine])


@dataclass
class Export:
    """Exports the model of a finished run to a file that runs without Keras, and checks what it computes."""

    run_directory: Annotated[Path, tyro.conf.Positional]
    """Directory of a finished run, whatever backend trained it."""
    format: FormatName = "onnx"
    """ONNX, LiteRT, TensorFlow's SavedModel, or StableHLO for JAX."""
    raw: bool = False
    """Export the model alone: logits in place of probabilities, a detector without non-maximum suppression."""
    int8: bool = False
    """Quantize to integers of 8 bits, an image classifier as ONNX: a quarter of the size."""
    most_loss: float = 1.0
    """With --int8: refuse a loss of more than this many percentage points of accuracy."""
    out: Path | None = None
    """File to write, with model.json beside it (default: RUN/export/FORMAT/model.onnx, or the like)."""

    def run(self) -> int:
        return export_run(
            self.run_directory, self.format, self.out, raw=self.raw, int8=self.int8, most_loss=self.most_loss
        )


@dataclass
class Record:
    """Records the result of a run, the report of a comparison, or what was measured of an export, under results/."""

    run_directory: Annotated[Path, tyro.conf.Positional]
    """Directory of a finished run or comparison, or the model.json of an export."""

    def run(self) -> int:
        if self.run_directory.suffix == ".json":
            print(record_export(self.run_directory))
            return 0
        compared = (self.run_directory / "report.json").exists()
        print(record_comparison(self.run_directory) if compared else record_run(self.run_directory))
        return 0


@dataclass
class Track:
    """Sends finished runs to experiment trackers: options, metrics of each epoch, figures and result."""

    run_directories: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Directories of finished runs."""
    to: str
    """Trackers, separated by commas: tensorboard, mlflow, wandb."""
    model: bool = False
    """Send model.keras too; TensorBoard takes none."""

    def run(self) -> int:
        failed = [each for each in self.run_directories if not track_run(each, self.to, self.model)]
        return 1 if failed else 0


@dataclass
class RunRecipe:
    """Runs a recipe. Where KERAS_BACKEND is not set and Keras's choice is not installed, on a backend that is.

    recipes run NAME --help  shows its options.
    """

    name: Annotated[str, tyro.conf.Positional]
    """Recipe to run."""
    options: tyro.conf.Suppress[tuple[str, ...]] = ()

    def run(self) -> int:
        path, installed, uv = recipe_path(self.name), installed_backends(), os.environ.get("UV")
        if not os.environ.get("KERAS_BACKEND") and (missing := chosen_backend()[0]) not in installed:
            if installed:
                os.environ.update(KERAS_BACKEND=installed[0])
                print(f"{missing} is not installed: runs on {installed[0]}", flush=True)
            elif uv:  # which made an environment for this command
                command = ["uv", "tool", "run", "--from", "keras-recipes[jax]", "keras-recipes", *sys.argv[1:]]
                print(f"no backend is installed: runs on JAX, the lightest:  {shlex.join(command)}", flush=True)
                os.execv(uv, command)
        os.execv(sys.executable, [sys.executable, str(path), *self.options])


@dataclass
class Tables:
    """Makes the tables of README.md and docs/, and the page of each recipe, from results/."""

    write: bool = False
    """Write them instead of printing the table of recipes."""

    def run(self) -> int:
        if not self.write:
            print(recipes_table())
            return 0
        for page, text in all_pages().items():
            page.parent.mkdir(parents=True, exist_ok=True)
            with replacing(page) as path:
                path.write_text(text, encoding="utf-8")
        return 0


@dataclass
class Copy:
    """Writes a recipe to one file that needs nothing from here: in plain Keras, or with --full all that it does."""

    name: Annotated[str | None, tyro.conf.Positional] = None
    """Recipe to copy."""
    directory: Annotated[Path, tyro.conf.Positional] = Path(".")
    """Output directory, created if needed."""
    full: bool = False
    """Copy all that the recipe does here: exact resuming, checked and cached data, fast paths."""
    notebook: bool = False
    """Write a Jupyter notebook."""
    backends: str = ",".join(BACKENDS)
    """Backends that the file requires in its metadata and has code for, separated by commas."""
    force: bool = False
    """Replace an existing file."""
    check: Path | None = None
    """Check whether this copy is current, stale or edited instead; exit code 1 unless it is current."""

    def run(self) -> int:
        if self.check is not None:
            differences = check_copy(self.check)
            print("\n".join(differences) or f"current  {self.check}")
            return 1 if differences else 0
        if self.name is None:
            raise UsageError("name the recipe to copy; recipes list shows them all")
        recipe, backends = recipe_path(self.name), backends_named(self.backends)
        path = self.directory / (recipe.stem + (".ipynb" if self.notebook else ".py"))
        if path.exists() and not self.force:
            raise UsageError(f"{path} exists already: add --force to replace it, or name another directory")
        text = (copied_notebook if self.notebook else copied_source)(recipe, backends, self.full)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with replacing(path) as unfinished:
                unfinished.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write {path} ({error.strerror}): name another directory") from None
        print(path)
        return 0


@dataclass
class Compare:
    """Runs a recipe on several backends in turn and reports speed, memory, result and agreement of the losses.

    All other options are the recipe's, such as --preset smoke. Exit code 1 if a backend failed or the losses do not
    agree.
    """

    name: Annotated[str, tyro.conf.Positional]
    """Recipe to compare."""
    backends: str = ",".join(BACKENDS)
    """Backends, separated by commas."""
    repeats: int = 3
    """Number of rounds; in each the recipe runs once on each backend. 0: only the agreement of the losses."""
    agreement_steps: int = 20
    """Number of training steps whose losses are compared."""
    layers: bool = False
    """Also compare each layer by itself, forward and backward."""
    native: bool = False
    """Run the native baselines too, the same model in plain PyTorch or JAX, where benchmarks/ has one."""
    out: Path | None = None
    """Directory of the report (default: runs/compare-RECIPE-TIME)."""
    recipe_options: tyro.conf.Suppress[tuple[str, ...]] = ()

    def run(self) -> int:
        recipe_path(self.name)
        for option, least in (("repeats", 0), ("agreement_steps", 1)):
            if getattr(self, option) < least:
                raise UsageError(f"--{option.replace('_', '-')} must be at least {least}, not {getattr(self, option)}")
        now = datetime.datetime.now()
        directory = self.out or Path("runs") / f"compare-{self.name}-{now:%Y%m%d-%H%M%S}"
        comparison = Comparison(
            self.name, list(self.recipe_options), backends=backends_named(self.backends), repeats=self.repeats,
            steps=self.agreement_steps, native=self.native, layers=self.layers, directory=directory,
        )  # fmt: skip
        comparison.run()
        command = shlex.join(["recipes", *sys.argv[1:]])
        report = {"command": command, "date": f"{now:%Y-%m-%d}", **comparison.report()}
        for name, text in (("report.json", json.dumps(report, indent=1)), ("report.html", report_html(report))):
            with replacing(directory / name) as path:
                path.write_text(text + "\n", encoding="utf-8")
        print(f"\n{report_text(report)}\n\n{directory / 'report.html'}")
        return 130 if comparison.interrupted else int(failed(report))


def main() -> None:
    """Runs the command `recipes`. Exit codes: 0 done, 1 check failed, 2 wrong use or input, 130 interrupted."""
    replace_what_cannot_be_shown()
    run_recipe = Annotated[RunRecipe, tyro.conf.subcommand("run")]
    commands = List | Compare | Copy | Doctor | Export | Predict | Record | run_recipe | Serve | Tables | Track
    # Everything after `recipes predict RUN`, --help too, is parsed by the run's predictor; after `recipes run NAME`, by
    # the recipe.
    foreign = sys.argv[1:2] in (["predict"], ["run"])
    words, inputs = (sys.argv[1:3], sys.argv[3:]) if foreign else (sys.argv[1:], [])
    try:
        command, further = parse_command_line(
            commands, words, prog="recipes", description="Deep-learning recipes in Keras 3.", return_unknown_args=True
        )
        if isinstance(command, Compare):
            command.recipe_options = tuple(further)
        elif further:
            raise UsageError(f"unrecognized: {' '.join(further)} (see --help)")
        if isinstance(command, Predict):
            command.inputs = tuple(inputs)
        if isinstance(command, RunRecipe):
            command.options = tuple(inputs)
        sys.exit(command.run())
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again at exit
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
