"""The DAG of docs/examples: its commands are ours, and Airflow takes it where there is one.

AIRFLOW_PYTHON names an interpreter with Airflow 3, which does not share our environment.
"""

import importlib.util
import json
import os
import runpy
import shlex
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest

from dedup_job.arguments import build_parser, build_run_parser, parse, settings_from
from dedup_job.config import LeaseConfig
from dedup_job.errors import ConfigError

DAG_FILE = Path(__file__).parents[2] / "docs" / "examples" / "airflow_nightly_dedup.py"
PROBE = Path(__file__).with_name("airflow_probe.py")
RENDERED = {"{{ ds }}": "2026-11-23", "{{ logical_date.isoweekday() }}": "1"}


class Task(SimpleNamespace):
    """An operator that keeps what it was given."""

    made: ClassVar[list["Task"]] = []

    def __init__(self, **given):
        super().__init__(**given)
        Task.made.append(self)

    def __rshift__(self, others):
        self.downstream = [other.task_id for other in others]


class Dag(SimpleNamespace):
    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


@pytest.fixture
def dag(monkeypatch):
    """The DAG file, run with stand-ins for what it takes from Airflow: the DAG, and its tasks."""
    stands_in = {
        "airflow.providers.smtp.notifications.smtp": {"SmtpNotifier": object},
        "airflow.providers.standard.operators.bash": {"BashOperator": Task},
        "airflow.sdk": {"DAG": Dag, "CronTriggerTimetable": lambda *a, **k: (a, k)},
        "airflow.sdk.exceptions": {
            "AirflowFailException": type("AirflowFailException", (Exception,), {}),
            "AirflowSkipException": type("AirflowSkipException", (Exception,), {}),
        },
    }
    for name in stands_in:
        parts = name.split(".")
        for end in range(1, len(parts)):
            monkeypatch.setitem(sys.modules, ".".join(parts[:end]), ModuleType(parts[end - 1]))
    for name, members in stands_in.items():
        module = ModuleType(name)
        module.__dict__.update(members)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(Task, "made", [])
    example = runpy.run_path(str(DAG_FILE))
    return example["dag"], {task.task_id: task for task in Task.made}


def commands(text):
    """The simple commands of a shell line, as lists of words."""
    for template, value in RENDERED.items():
        text = text.replace(template, value)
    assert "{{" not in text
    words = shlex.shlex(text, posix=True, punctuation_chars=True)
    words.whitespace_split, words.commenters = True, ""
    found = [[]]
    for word in words:
        if set(word) <= set(";|&"):
            found.append([])
        else:
            found[-1].append(word)
    return [command for command in found if command]


def arguments_of(command):
    """What our own parser makes of a command; None for one that is not ours."""
    if command[0] == "dedup-job":
        return parse(build_parser(), command[1:])
    if command[0] == "spark-submit":
        script = command.index("jobs/nightly_dedup.py")
        return parse(build_run_parser("nightly_dedup.py"), command[script + 1 :])
    return None


def test_every_command_is_one_that_our_parser_takes(dag):
    _, tasks = dag
    found = {
        name: [given for one in commands(task.bash_command) if (given := arguments_of(one))]
        for name, task in tasks.items()
    }
    assert [len(given) for given in found.values()] == [1] * len(tasks)
    settings = settings_from(found["run"][0]).config
    assert str(settings.run_date) == "2026-11-23" and "2026-11-23" in settings.catalog.path
    assert {given.warehouse for (given,) in found.values()} == {settings.warehouse}
    kinds = {name: given.command for name, (given,) in found.items() if name != "run"}
    assert kinds == {
        "metrics": "metrics",
        "lineage": "lineage",
        "export": "export-csv",
        "compact_on_sundays": "compact",
    }


def test_a_renamed_option_would_be_noticed():
    with pytest.raises(ConfigError, match="--nightly"):
        arguments_of(["spark-submit", "jobs/nightly_dedup.py", "--nightly", "x"])
    with pytest.raises(ConfigError, match="invalid choice"):
        arguments_of(["dedup-job", "metric", "--warehouse", "W"])


def test_what_is_submitted_lies_in_the_checkout(dag):
    _, tasks = dag
    assert (DAG_FILE.parents[2] / "jobs" / "nightly_dedup.py").is_file()
    makefile = (DAG_FILE.parents[2] / "Makefile").read_text()
    assert "$(DIST)/environment.tar.gz" in makefile
    assert "dist/environment.tar.gz#environment" in tasks["run"].bash_command


def test_runs_never_overlap_and_retries_outlast_a_lease(dag):
    dag, tasks = dag
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    assert dag.default_args["retry_delay"] > timedelta(seconds=LeaseConfig().ttl_s)
    assert set(tasks["run"].downstream) == set(tasks) - {"run"}
    assert tasks["run"].skip_on_exit_code == [2, 3]


def _airflow():
    if importlib.util.find_spec("airflow"):
        return sys.executable
    return os.environ.get("AIRFLOW_PYTHON")


@pytest.mark.skipif(not _airflow(), reason="AIRFLOW_PYTHON names no interpreter with Airflow")
def test_airflow_takes_the_dag_and_tells_exit_codes_apart():
    done = subprocess.run(
        [str(_airflow()), str(PROBE), str(DAG_FILE)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["import_errors"] == {} and found["version"].startswith("3.")
    assert (found["catchup"], found["max_active_runs"], found["retries"]) == (False, 1, 2)
    assert found["tasks"].pop("run") == []
    assert set(map(tuple, found["tasks"].values())) == {("run",)} and len(found["tasks"]) == 4
    for line in found["ran"]:
        assert str(arguments_of(["spark-submit", *line.split()[1:]]).run_date) == "2026-11-23"
    outcomes = found["outcomes"]
    assert outcomes["0"] == "ok"
    assert outcomes["1"][0] == "AirflowException", "is tried again"
    assert outcomes["2"][0] == "AirflowFailException", "is not tried again"
    assert outcomes["3"][:2] == ["Held", "AirflowFailException"]
    told = [mail["to"] for mail in found["mails"]]
    assert told == ["on-call@example.com", "on-call@example.com", "catalog@example.com"]
    assert "gate" in found["mails"][2]["html_content"]
