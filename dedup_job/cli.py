"""`dedup-job`: the command line, its exit codes, and where its words go.

The summary goes to stdout, everything else to stderr. Exit codes: 0 done; 1 the run failed; 2 bad
arguments, configuration or catalog; 3 a quality gate held the run back and nothing was published.
"""

import argparse
import json
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from dedup_job.arguments import build_parser, build_run_parser, parse, settings_from
from dedup_job.commands.safe_text import visible
from dedup_job.errors import (
    CatalogError,
    ConfigError,
    DedupError,
    GateError,
    ModelContractError,
)

logger = logging.getLogger("dedup_job")
_KINDS: dict[str, type[DedupError]] = {
    kind.__name__: kind
    for kind in (ConfigError, CatalogError, ModelContractError, GateError, DedupError)
}

_MEMORY = (
    "raise spark.executor.memoryOverhead (600 MB and more per core), or lower "
    "candidates.max_cell_rows"
)
# What Spark's text holds -> what it means. First match wins.
_SPARK_FAILURES = {
    "Python worker exited unexpectedly": f"a Python worker was killed, mostly for memory; {_MEMORY}",
    "ExecutorLostFailure": f"an executor was lost, mostly for memory; {_MEMORY}",
    "bigger than spark.driver.maxResultSize": "too many pairs for the driver; raise "
    "spark.driver.maxResultSize and spark.driver.memory (see docs/operations.md)",
    "java.lang.OutOfMemoryError": "the JVM ran out of memory; raise spark.driver.memory or "
    "spark.executor.memory with spark-submit",
    "No space left on device": "a disk is full: the warehouse's, or Spark's spark.local.dir",
    "No module named": "the workers' Python lacks a package; name the right environment with "
    "spark.pyspark.python and ship the project with --py-files",
}


def run_and_exit() -> None:
    """Entry point of the console script."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run one `dedup-job` command; returns the exit code."""
    command = shlex.join(["dedup-job", *arguments])
    return _guarded(lambda: _dispatch(parse(build_parser(), arguments), command))


def main_nightly(arguments: Sequence[str]) -> int:
    """Run the job as `jobs/nightly_dedup.py`; returns the exit code."""
    command = f"spark-submit ... jobs/nightly_dedup.py {shlex.join(arguments)}"
    return _guarded(lambda: _run(parse(build_run_parser("nightly_dedup.py"), arguments), command))


def _guarded(command: Callable[[], None]) -> int:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(message)s")
    logger.setLevel(logging.INFO)
    # A stopped service or evicted pod gets SIGTERM: leave as after Ctrl-C, with staging cleaned up.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        command()
    except DedupError as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        print("error: interrupted; _runs/latest.json names the last published run", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (the interpreter flushes it at exit)
        return 0
    except Exception as error:
        if os.environ.get("DEDUP_TRACEBACK"):
            raise
        return _explain(error)
    return 0


def _complain(message: str) -> None:
    # An error may quote a file name or a cell of the catalog: it must not steer the terminal.
    print(f"error: {visible(message)}", file=sys.stderr)


def _interrupt(signal_number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _explain(error: Exception) -> int:
    """Say what failed in one line; an error that an executor raised on purpose keeps its code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in lines:
        name, _, message = line.removeprefix("dedup_job.errors.").partition(": ")
        kind = _KINDS.get(name) if line.startswith("dedup_job.errors.") else None
        if kind is not None:
            _complain(message)
            return kind.exit_code
    for sign, sentence in _SPARK_FAILURES.items():
        if sign in str(error):
            _complain(f"the run failed: {sentence}")
            return 1
    from_python = [line for line in lines if "Error: " in line and not line.startswith("at ")]
    text = from_python[-1] if from_python else (lines or [""])[0]
    _complain(f"the run failed: {type(error).__name__}: {text[:400]}")
    print("set DEDUP_TRACEBACK=1 to see where", file=sys.stderr)
    return 1


def _dispatch(arguments: argparse.Namespace, command: str) -> None:
    if arguments.command in ("run", "doctor"):
        _run(arguments, command)
    elif arguments.command == "demo":
        from dedup_job.commands.demo import demo

        demo(arguments.directory)
    elif arguments.command == "show":
        from dedup_job.commands.show import show

        show(
            arguments.warehouse,
            run_id=arguments.run_id,
            run_date=arguments.run_date,
            top=arguments.top,
            as_json=arguments.json,
        )
    elif arguments.command == "runs":
        from dedup_job.commands.runs import show_runs

        show_runs(arguments.warehouse, keep_runs=arguments.keep_runs, as_json=arguments.json)
    elif arguments.command == "views":
        from dedup_job.commands.views import print_views

        print_views(arguments.warehouse, arguments.dialect)
    elif arguments.command == "compact":
        from dedup_job.commands.compact import compact_warehouse

        compact_warehouse(arguments.warehouse)
    elif arguments.command == "forget":
        from dedup_job.commands.forget import forget_skus

        forget_skus(arguments.warehouse, arguments.sku_ids)
    elif arguments.command == "explain":
        from dedup_job.commands.explain import explain

        explain(
            arguments.warehouse,
            arguments.sku_a,
            arguments.sku_b,
            arguments.model,
            arguments.out,
        )
    elif arguments.command == "compare":
        from dedup_job.commands.compare import compare

        compare(
            arguments.photo_a,
            arguments.photo_b,
            arguments.model,
            arguments.out,
            as_json=arguments.json,
        )
    elif arguments.command == "find":
        from dedup_job.commands.find import find

        find(
            arguments.warehouse,
            arguments.photo,
            arguments.top,
            arguments.model,
            rebuild=arguments.rebuild,
            as_json=arguments.json,
        )
    elif arguments.command in ("export-delta", "export-iceberg"):
        from dedup_job.commands import lakehouse

        name = arguments.command.replace("-", "_")
        exported = getattr(lakehouse, name)(arguments.warehouse, arguments.out, arguments.run_id)
        n_rows = sum(exported.values())
        print(f"{len(exported)} tables, {n_rows} rows written to {arguments.out}")
    elif arguments.command == "metrics":
        from dedup_job.commands.metrics import metrics

        text = metrics(arguments.warehouse, arguments.out)
        print(f"written to {arguments.out}\n" if arguments.out else text, end="")
    elif arguments.command == "lineage":
        from dedup_job.commands.lineage import lineage

        print(json.dumps(lineage(arguments.warehouse, arguments.run_id)))
    elif arguments.command == "review":
        from dedup_job.commands.review import review

        print(review(arguments.warehouse, arguments.max_groups))
    elif arguments.command == "export-csv":
        from dedup_job.commands.export_csv import export_csv

        n_rows = export_csv(arguments.warehouse, arguments.table, arguments.out, arguments.run_id)
        print(f"{n_rows} rows written to {arguments.out}")
    else:
        from dedup_job.commands.export_embeddings import export_embeddings

        n_rows = export_embeddings(arguments.warehouse, arguments.out)
        print(f"{n_rows} embeddings written to {arguments.out}")


def _run(arguments: argparse.Namespace, command: str) -> None:
    settings = replace(settings_from(arguments), command=command)
    if arguments.print_config:
        print("\n".join(settings.lines()))
        return
    is_dry_run = getattr(arguments, "dry_run", False)
    if is_dry_run or getattr(arguments, "command", "run") == "doctor":
        from dedup_job.commands.doctor import doctor

        doctor(settings, as_json=arguments.json, is_dry_run=is_dry_run)
        return
    from dedup_job.pipeline import run

    result = run(settings)
    print(json.dumps(result.as_dict(), indent=2) if arguments.json else result.summary())
