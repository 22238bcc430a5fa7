"""Tracking with MLflow."""

import logging
import os
import time
from pathlib import Path
from typing import Any

from filelock import FileLock

from shared.training.tracking.tracker import scalar_names


class MlflowTracker:
    """Logs to the server or store that MLFLOW_TRACKING_URI names, else to mlflow.db beside the run's directory.

    MLflow's telemetry is off, unless MLFLOW_DISABLE_TELEMETRY says otherwise.
    """

    def start(self, directory: Path, identity: str, facts: dict[str, Any]) -> str:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.entities import Param, RunTag
        from mlflow.tracking import MlflowClient
        from mlflow.version import VERSION

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # else it reports each table that it creates
        parent, server = directory.resolve().parent, os.environ.get("MLFLOW_TRACKING_URI")
        uri = server or f"sqlite:///{parent / 'mlflow.db'}"
        with FileLock(parent / ".mlflow.lock"):  # runs that start together would all create the tables
            self.client = MlflowClient(uri)
            place = None if server else (parent / "mlflow-artifacts").as_uri()
            experiment = self.client.get_experiment_by_name(facts["recipe"])
            known = experiment.experiment_id if experiment else self.client.create_experiment(facts["recipe"], place)
        found = self.client.search_runs([known], f"tags.keras_recipes_run = '{identity}'")
        if found:
            run = found[0]
            self.client.update_run(run.info.run_id, status="RUNNING")
        else:
            run = self.client.create_run(known, run_name=directory.name, tags={"keras_recipes_run": identity})
        self.run_id = run.info.run_id
        self.latest = dict(run.data.metrics)

        # A parameter of MLflow cannot change: what a resume does change becomes a tag.
        options = {name: str(value) for name, value in facts["options"].items()}
        first = run.data.params
        params = [Param(name, value) for name, value in options.items() if name not in first]
        changed = {f"resumed.{name}": value for name, value in options.items() if first.get(name, value) != value}
        said = {name: str(facts.get(name)) for name in ("backend", "machine", "command")}
        tags = {"mlflow.source.git.commit": str(facts.get("commit")), **said, **changed}
        self.client.log_batch(self.run_id, params=params, tags=[RunTag(*tag) for tag in tags.items()])
        return f"uvx mlflow@{VERSION} ui --backend-store-uri {uri}"  # mlflow-skinny has no pages

    def log(self, values: dict[str, float], step: int) -> None:
        """Logs metrics of a step, all or none."""
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        self.client.log_batch(self.run_id, [Metric(name, value, now, step) for name, value in values.items()])
        self.latest |= values

    def scalars(self, phase: str, row: dict[str, float]) -> None:
        if row["epoch"] > self.latest.get(f"{phase}/epoch" if phase else "epoch", 0):
            self.log(scalar_names(phase, row), row["epoch"])

    def figure(self, path: Path, epoch: int, series: str) -> None:
        self.client.log_artifact(self.run_id, str(path), f"figures/{series}".rstrip("/"))

    def finish(self, result: dict[str, Any], model: Path | None) -> None:
        values = {f"result/{name}": value for name, value in (result["metrics"] | {"epochs": result["epochs"]}).items()}
        if result["epochs"] > self.latest.get("result/epochs", 0):
            self.log(values, result["epochs"])
        self.client.log_dict(self.run_id, result, "result.json")
        if model:
            self.client.log_artifact(self.run_id, str(model))
        self.client.set_terminated(self.run_id)

    def interrupt(self) -> None:
        self.client.set_terminated(self.run_id, "KILLED")
