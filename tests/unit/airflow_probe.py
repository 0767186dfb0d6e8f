"""Run by an interpreter that has Airflow: what it makes of the DAG file, as JSON on stdout."""

import json
import os
import sys
import tempfile
from pathlib import Path

_SCRIPT = '#!/bin/sh\necho "$0 $*" >> "$SEEN"\nexit "${{{name}_CODE:-0}}"\n'


def main(dag_file: str) -> None:
    home = Path(tempfile.mkdtemp())
    os.environ |= {"AIRFLOW_HOME": str(home), "SEEN": str(home / "seen")}
    os.environ |= {"AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    for name in ("spark-submit", "dedup-job", "curl"):
        script = home / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(_SCRIPT.format(name=name.replace("-", "_").upper()))
        script.chmod(0o755)
    os.environ["PATH"] = f"{home / 'bin'}:{os.environ['PATH']}"

    import airflow
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_file)
    dag = bag.dags["nightly_dedup"]
    run = dag.get_task("run")
    run.cwd = None
    context = {"ds": "2026-11-23"}
    run.render_template_fields(context)
    outcomes, mails = {}, []
    example = sys.modules[type(run).__module__]
    example.SmtpNotifier = lambda **mail: lambda context: mails.append(mail)
    for code in range(4):
        os.environ["SPARK_SUBMIT_CODE"] = str(code)
        try:
            run.execute(context)
            outcomes[code] = "ok"
        except Exception as error:
            outcomes[code] = [kind.__name__ for kind in type(error).__mro__]
            example.alert({"exception": error})
    found = {
        "version": airflow.__version__,
        "import_errors": bag.import_errors,
        "tasks": {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks},
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "retries": run.retries,
        "ran": (home / "seen").read_text().splitlines(),
        "outcomes": outcomes,
        "mails": mails,
    }
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
