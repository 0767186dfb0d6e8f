"""Airflow DAG: the nightly run and what follows it. Copy it into the DAG folder, edit the constants.

Written for Airflow 3 (imported and run with 3.3). Airflow stays out of the job's environment: the tasks are
commands of BashOperator, which shows their exit code. SparkSubmitOperator turns every code into one error, and
so would repeat a night that a gate held back or that has a wrong setting. Submit in client deploy mode:
in cluster mode spark-submit may not pass the driver's code on.
"""

from datetime import UTC, datetime, timedelta

from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, CronTriggerTimetable
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

# Holds dist/ of `make dist`, and its environment.tar.gz unpacked; dedup-job and spark-submit are on the PATH.
CHECKOUT = "/opt/catalog-dedup"
# A file a night: a retry reads what the first try read, and so continues it.
CATALOG = "s3://shop/catalog/{{ ds }}.parquet"
WAREHOUSE = "s3://lake/dedup"
ON_CALL = "on-call@example.com"
CATALOG_TEAM = "catalog@example.com"

NEEDS_A_PERSON = {
    2: "arguments, settings or catalog are wrong; the last line of the log names the remedy",
    3: "a quality gate held the night back; look, then run the command at the end of the log",
}


class Held(AirflowFailException):
    """A gate said no: exit code 3."""


class NightlyRun(BashOperator):
    """The job. Exit code 1 is tried again and continues where it stopped; 2 and 3 would end the same."""

    def __init__(self, **kwargs) -> None:
        super().__init__(skip_on_exit_code=list(NEEDS_A_PERSON), **kwargs)

    def execute(self, context):
        """Run it; a code that needs a person fails at once."""
        try:
            return super().execute(context)
        except AirflowSkipException as stopped:
            code = 3 if "exit code 3" in str(stopped) else 2
            kind = Held if code == 3 else AirflowFailException
            raise kind(f"exit code {code}: {NEEDS_A_PERSON[code]}") from stopped


def alert(context) -> None:
    """Mail whoever can help; called when a task has failed for good. Last night's reports stand."""
    error = context.get("exception")
    SmtpNotifier(
        to=CATALOG_TEAM if isinstance(error, Held) else ON_CALL,
        from_email=ON_CALL,
        subject="nightly dedup {{ ds }}: {{ ti.task_id }} failed",
        html_content=f"{error or 'the task was lost'}<br>{{{{ ti.log_url }}}}",
    )(context)


with DAG(
    dag_id="nightly_dedup",
    # This timetable makes `ds` the night itself, and all tries of a night have one `ds`.
    schedule=CronTriggerTimetable("0 2 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,  # two runs cannot share a warehouse: the second would be refused
    default_args={
        "cwd": CHECKOUT,
        "retries": 2,
        "retry_delay": timedelta(
            minutes=10
        ),  # longer than lease.ttl_s, after which a dead run lets go
        "on_failure_callback": alert,
    },
) as dag:
    run = NightlyRun(
        task_id="run",
        bash_command="spark-submit --master yarn --deploy-mode client"
        " --archives dist/environment.tar.gz#environment"
        " --conf spark.pyspark.python=./environment/bin/python"
        " --conf spark.pyspark.driver.python=environment/bin/python"
        " --executor-cores 4 --conf spark.executor.memoryOverhead=2400m"
        " jobs/nightly_dedup.py"
        f" --catalog {CATALOG} --warehouse {WAREHOUSE} --run-date {{{{ ds }}}} --keep-runs 90",
        execution_timeout=timedelta(hours=8),
    )
    # Also after a night that failed: Prometheus then knows how it ended.
    metrics = BashOperator(
        task_id="metrics",
        bash_command=f"dedup-job metrics --warehouse {WAREHOUSE}"
        " --out /var/lib/node_exporter/dedup.prom",
        trigger_rule="all_done",
    )
    lineage = BashOperator(
        task_id="lineage",
        bash_command=f"set -o pipefail; dedup-job lineage --warehouse {WAREHOUSE}"
        " | curl -fsS -H 'Content-Type: application/json' -d @- http://marquez:5000/api/v1/lineage",
    )
    export = BashOperator(
        task_id="export",
        bash_command=f"dedup-job export-csv duplicate_groups --warehouse {WAREHOUSE}"
        " --out /srv/reports/duplicates-{{ ds }}.csv",
    )
    # Here and not in a DAG of its own, as it must not meet a run. 99 means skipped.
    compact = BashOperator(
        task_id="compact_on_sundays",
        bash_command="[ {{ logical_date.isoweekday() }} = 7 ] || exit 99;"
        f" dedup-job compact --warehouse {WAREHOUSE}",
    )
    run >> [metrics, lineage, export, compact]
