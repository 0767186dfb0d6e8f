"""A run looked at before it starts: machine, model, warehouse, executors, catalog; nothing is written.

The order is that of a run, and what would end a run at once (exit code 2) ends the look as well.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

from pyspark.sql import SparkSession

from dedup_job.config import JobConfig
from dedup_job.errors import ConfigError, DedupError, ModelContractError, one_line
from dedup_job.io.bundles import ShippedBundle, ship_bundle
from dedup_job.io.catalog import Part, catalog_base, plan_catalog
from dedup_job.io.decisions import read_decisions
from dedup_job.io.lease import read_lease
from dedup_job.io.machine import Machine, find_java, read_machine
from dedup_job.io.manifests import newest_published
from dedup_job.io.session import count_cores, open_session, under_spark_submit
from dedup_job.io.storage import Folder, open_warehouse
from dedup_job.io.warehouse_access import WarehouseAccess, look_at_warehouse
from dedup_job.nightly.estimate import Estimate, Estimates, estimate_run
from dedup_job.nightly.executors import Executor, ask_executors
from dedup_job.nightly.findings import Finding, Level
from dedup_job.nightly.gates import check_acceptance
from dedup_job.nightly.look_ahead import (
    CatalogFigures,
    SampleFigures,
    look_at_catalog,
    sample_photos,
)
from dedup_job.nightly.machine_checks import (
    check_core_memory,
    check_driver_limit,
    check_executors,
    check_java,
    check_machine,
    check_scratch,
    explain_failed_look,
)
from dedup_job.nightly.memory import check_delta, recall_runs
from dedup_job.nightly.photo_stage import Model, count_task_threads
from dedup_job.nightly.run_checks import (
    check_catalog,
    check_decisions,
    check_disk,
    check_lease,
    check_sample,
    check_warehouse,
)
from dedup_job.pipeline import choose_run_date, open_model
from dedup_job.settings import Settings, current_environment
from dedup_job.stages.photo_plan import Trust

_PYSPARK_MEMORY = "spark.executor.pyspark.memory"


@dataclass
class Preflight:
    """What was found, as far as the look came.

    Attributes:
        tell: called with every finding as it is found.
    """

    tell: Callable[[Finding], None]
    findings: list[Finding] = field(default_factory=list)
    executors: list[Executor] = field(default_factory=list)
    catalog: CatalogFigures | None = None
    sample: SampleFigures | None = None
    estimates: list[Estimate] = field(default_factory=list)

    def add(self, findings: Iterable[Finding]) -> None:
        """Keep findings, and tell them."""
        for finding in findings:
            self.findings.append(finding)
            self.tell(finding)

    @property
    def failures(self) -> list[str]:
        """What failed, each once."""
        failed = [one.what for one in self.findings if one.level is Level.FAIL]
        return [*dict.fromkeys(failed)]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "ok": not self.failures,
            "findings": [asdict(finding) for finding in self.findings],
            "executors": [asdict(executor) for executor in self.executors],
            "catalog": asdict(self.catalog) if self.catalog else None,
            "sample": asdict(self.sample) if self.sample else None,
            "estimates": [asdict(estimate) for estimate in self.estimates],
        }


@dataclass(frozen=True)
class _Task:
    """What is looked at: each part only where it was given."""

    settings: Settings
    run_date: date
    warehouse: Folder | None
    parts: Sequence[Part]

    @property
    def config(self) -> JobConfig:
        return self.settings.config


def examine(
    settings: Settings, tell: Callable[[Finding], None], *, is_dry_run: bool = False
) -> Preflight:
    """Look at everything that `settings` name.

    Args:
        settings: as of a run; catalog and warehouse may be missing.
        tell: called with every finding.
        is_dry_run: catalog and warehouse may not be missing.

    Raises:
        ConfigError, CatalogError: what ends a run with exit code 2.
        DedupError: what an earlier run left cannot be read.
    """
    task = _open_task(settings, is_dry_run)
    found = Preflight(tell)
    machine = read_machine()
    found.add([*check_machine(machine), *check_driver_limit(machine)])
    java = None if under_spark_submit() else find_java(current_environment())
    if java is not None:
        found.add([check_java(java)])
    model = _try_model(found, task)
    access = _look_at_warehouse(found, task)
    if task.config.decisions:
        found.add([check_decisions(read_decisions(task.config.decisions))])
    if found.failures:
        _tell_what_is_left(found)
        return found
    if task.warehouse and model and task.config.catalog.mode == "delta":
        newest = newest_published(task.warehouse)
        check_delta(newest, task.run_date, model.manifest.model_id, settings.as_dict())
    spark = open_session()
    _ask_executors(found, task, spark, machine, model, access)
    if task.parts and task.warehouse and model and access and not found.failures:
        _look_ahead(found, task, spark, task.warehouse, model, access)
    elif task.parts and found.failures:
        _tell_what_is_left(found)
    return found


def _open_task(settings: Settings, is_dry_run: bool) -> _Task:
    config = settings.config
    check_acceptance(config)
    if is_dry_run and not config.catalog.path:
        raise ConfigError("catalog.path is missing; give --catalog PATH")
    if config.catalog.path and not config.warehouse:
        raise ConfigError(
            "warehouse is missing; give --warehouse DIR (it need not exist): what is known there "
            "need not be fetched"
        )
    warehouse = open_warehouse(config.warehouse) if config.warehouse else None
    parts = plan_catalog(config.catalog) if config.catalog.path else []
    return _Task(settings, choose_run_date(config), warehouse, parts)


def _try_model(found: Preflight, task: _Task) -> Model | None:
    """Load the bundle here and compare its golden embeddings, as a run does before it starts."""
    try:
        model = open_model(task.config)
    except ConfigError:
        raise
    except DedupError as error:
        found.add([_unusable_model(error)])
        return None
    detail = f"{model.directory}, {model.manifest.dim} dimensions, golden embeddings agree"
    found.add([Finding(Level.OK, "model", detail)])
    return model


def _unusable_model(error: DedupError) -> Finding:
    detail = f"{error}; install the package again, export the bundle again, or name another"
    return Finding(Level.FAIL, "model", f"{detail} with --model BUNDLE")


def _look_at_warehouse(found: Preflight, task: _Task) -> WarehouseAccess | None:
    if task.warehouse is None:
        return None
    access = look_at_warehouse(task.warehouse)
    found.add(check_warehouse(task.warehouse.uri, access, []))
    if not access.problem:
        found.add(check_lease(read_lease(task.warehouse)))
    return access


def _tell_what_is_left(found: Preflight) -> None:
    what = ", ".join(found.failures)
    found.add([Finding(Level.WARN, "all else", f"not looked at, as it needs: {what}")])


def _ask_executors(
    found: Preflight,
    task: _Task,
    spark: SparkSession,
    machine: Machine,
    model: Model | None,
    access: WarehouseAccess | None,
) -> None:
    pyspark_memory = spark.conf.get(_PYSPARK_MEMORY, None)
    decode_memory_mb = task.config.images.decode_memory_mb
    try:
        bundle = _ship(spark, task.config, model)
    except ModelContractError as error:  # it lacks what model.runtime needs
        found.add([_unusable_model(error)])
        return
    try:
        found.executors = ask_executors(
            spark, count_cores(spark), bundle, count_task_threads(spark), task.warehouse
        )
    except (
        Exception
    ) as error:  # a worker that dies of a limit ends the Spark job, which is the news
        found.add([explain_failed_look(_root_cause(error), pyspark_memory, decode_memory_mb)])
        return
    wanted = spark.conf.get("spark.executor.instances", None)
    found.add(
        check_executors(
            machine,
            found.executors,
            decode_memory_mb,
            pyspark_memory,
            int(wanted) if wanted else None,
        )
    )
    if task.warehouse and access:
        on_executors = check_warehouse(task.warehouse.uri, access, found.executors)
        found.add(finding for finding in on_executors if finding.level is not Level.OK)


def _ship(spark: SparkSession, config: JobConfig, model: Model | None) -> ShippedBundle | None:
    if model is None:
        return None
    return ship_bundle(spark, model.directory, model.manifest, config.model.runtime)


def _look_ahead(
    found: Preflight,
    task: _Task,
    spark: SparkSession,
    warehouse: Folder,
    model: Model,
    access: WarehouseAccess,
) -> None:
    """The catalog, a sample of its photos, and what the run would take."""
    config, settings = task.config, task.settings
    memory = recall_runs(spark, warehouse, task.run_date, is_shadow=config.shadow)
    trust = Trust(task.run_date, config.fetch.revalidate_days)
    base = catalog_base(config.catalog)
    n_cores = count_cores(spark)
    with look_at_catalog(spark, settings, task.parts, base, memory, model, trust) as look:
        found.catalog = look.figures
        found.add(check_catalog(look.figures, config.gates.max_reject_rate))
        found.sample = sample_photos(spark, config, model, look, n_cores)
    if found.sample:
        found.add([check_sample(found.sample, config.gates.max_reject_rate)])
    estimates = estimate_run(
        found.catalog,
        found.sample,
        n_cores,
        model.manifest.dim,
        config.candidates,
        has_verifier=model.manifest.has_verifier,
        verified_per_photo=config.match.verify_pairs_per_photo if model.verifies else None,
    )
    found.estimates = estimates.all()
    found.add(_check_room(found, spark, access, estimates))


def _check_room(
    found: Preflight, spark: SparkSession, access: WarehouseAccess, estimates: Estimates
) -> list[Finding]:
    overhead = spark.conf.get("spark.executor.memoryOverhead", None)
    needed_mb = int(estimates.core_memory_mb.value)
    return [
        *check_core_memory(found.executors, needed_mb, overhead),
        *check_disk(access, estimates.warehouse_bytes),
        *check_scratch(found.executors, estimates.staging_bytes.value),
    ]


def _root_cause(error: Exception) -> str:
    """The line of a Spark error that says most: the last one of Python, else the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    from_python = [line for line in lines if "Error: " in line and not line.startswith("at ")]
    return one_line(Exception(from_python[-1] if from_python else (lines or [""])[0]))
