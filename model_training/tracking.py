"""A training as a run of MLflow: settings, command, figures over steps, quality of the bundle.

Of MLflow only the client is used (extra `[mlflow]`), and no artefacts are stored: the run directory
and the bundle hold them. A run whose training is resumed goes on in MLflow too.
"""

import json
import math
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dedup_job.errors import ConfigError, one_line
from model_training.config import ExperimentConfig
from model_training.watchers import Watcher

RUN_FILE = "mlflow.json"
# Unless the caller's environment says otherwise: no telemetry, and no minutes of waiting for a server.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
_OF_THE_EXTRA = ("mlflow", "alembic", "sqlalchemy")
_EXPERIMENT = "catalog-dedup"
# A store that failed is not asked again for so long: every try may wait for its time-out.
_PAUSE_S = 300.0


def without_credentials(text: str) -> str:
    """A text whose URIs have no user name, password or query."""
    return re.sub(r"(://[^\s?]*)\?\S*", r"\1", re.sub(r"://[^\s?#]*@", "://", text))


class MlflowRun(Watcher):
    """Writes to a tracking server or a database.

    A store that fails later costs five minutes of the record and a line on stderr, not the training.

    Args:
        uri: `http(s)://...`, `sqlite:///FILE` or another tracking URI.
        command: what was run, without secrets.

    Raises:
        ConfigError: nothing answers at `uri`, or it is no tracking URI.
        ModuleNotFoundError: the extra is not installed.
    """

    def __init__(self, uri: str, command: str) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self._uri, self._command, self._failures = uri, command, (MlflowException, OSError)
        self._run_id, self._away_until = "", 0.0
        try:
            self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            self._experiment = self._find_experiment()
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] in _OF_THE_EXTRA:
                raise
            raise ConfigError(self._complaint(error)) from None  # a database's driver
        except self._failures as error:
            raise ConfigError(self._complaint(error)) from None

    def on_start(
        self, config: ExperimentConfig, run_dir: Path, views: int, total: int | None
    ) -> None:
        """Open a run, or the one of the training that is resumed."""
        if views and self._reopen(run_dir / RUN_FILE):
            return
        settings = _flatten(config.model_dump(mode="json", exclude={"data_note"}))
        tags = {"command": self._command, "run_dir": str(run_dir.resolve())}
        if config.data_note:
            tags["mlflow.note.content"] = config.data_note
        self._try(lambda: self._open(run_dir, settings, tags))

    def on_figures(self, group: str, step: int, figures: dict[str, float]) -> None:
        """Log them as metrics `group/name`."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(f"{group}/{name}", float(value), now, step)
            for name, value in figures.items()
            if math.isfinite(value)  # a database may have no NaN
        ]
        if self._run_id:
            self._try(lambda: self._client.log_batch(self._run_id, metrics=metrics))

    def on_fact(self, name: str, value: str) -> None:
        """Set it as a tag."""
        if self._run_id:
            self._try(lambda: self._client.set_tag(self._run_id, name, value))

    def close(self, error: BaseException | None) -> None:
        """End the run: FINISHED, KILLED (Ctrl-C), or FAILED with the error as a tag."""
        if not self._run_id:
            return
        status = "FINISHED"
        if error is not None:
            status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            self.on_fact("error", without_credentials(one_line(error)))
        self._away_until = 0.0
        self._try(lambda: self._client.set_terminated(self._run_id, status))

    def _find_experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        return found.experiment_id if found else self._client.create_experiment(name)

    def _open(self, run_dir: Path, settings: dict[str, str], tags: dict[str, str]) -> None:
        from mlflow.entities import Param

        run = self._client.create_run(self._experiment, tags=tags, run_name=run_dir.resolve().name)
        self._run_id = run.info.run_id
        self._client.log_batch(self._run_id, params=[Param(k, v) for k, v in settings.items()])
        known = {"uri": without_credentials(self._uri), "run_id": self._run_id}
        (run_dir / RUN_FILE).write_text(json.dumps(known) + "\n", encoding="utf-8")

    def _reopen(self, path: Path) -> bool:
        """Go on with the run that `path` names, if it is of this store and still there."""
        if not path.is_file():
            return False
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["uri"] != without_credentials(self._uri):
            return False
        try:
            self._client.update_run(known["run_id"], status="RUNNING")
        except self._failures:
            return False
        self._run_id = known["run_id"]
        return True

    def _try(self, call: Callable[[], Any]) -> None:
        if time.monotonic() < self._away_until:
            return
        try:
            call()
        except self._failures as error:
            self._away_until = time.monotonic() + _PAUSE_S
            sys.stderr.write(f"{self._complaint(error)} (the training goes on)\n")

    def _complaint(self, error: BaseException) -> str:
        return without_credentials(f"--mlflow-uri {self._uri}: {one_line(error)}")


def _flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = str(value)
    return flat
