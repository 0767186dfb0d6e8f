"""What earlier runs leave to this one.

Two runs matter, mostly the same one: the *newest* published run, whose state says what need not be
done again, and the *base*, the last one published before this run date, whose groups give their ids.
They differ when a night is run again, and when an older night is filled in.
"""

import logging
from dataclasses import dataclass
from datetime import date

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dedup_job.config import JobConfig
from dedup_job.errors import ConfigError, DedupError
from dedup_job.io.manifests import (
    RunManifest,
    find_table,
    last_published_before,
    newest_published,
    published_for,
    read_manifest,
)
from dedup_job.io.storage import Folder
from dedup_job.io.tables import StoredTable, read_table
from dedup_job.stages.candidates import Carried, SearchEffort
from dedup_job.tables import (
    CATALOG_IMAGES,
    DUPLICATE_GROUPS,
    DUPLICATE_PAIRS,
    PAIR_DECISIONS,
    REVIEW_SAMPLE,
    SCORED_PAIRS,
    SEARCHED_CONTENTS,
)

logger = logging.getLogger("dedup_job")
STATE_FORMAT = 2  # manifests before it name a state without what a second night needs
# Other limits or rules would judge a remembered photo, or read a remembered row, differently.
_LIMITS = ("images.max_", "images.min_", "fetch.max_bytes")
_ROW_RULES = (
    "catalog.block_by",
    "catalog.conflict",
    "catalog.canonical_order",
    "catalog.variant_column",
)


@dataclass(frozen=True)
class Memory:
    """See the module. `spark` reads what they left; either run is None where there is none."""

    spark: SparkSession
    warehouse: Folder
    newest: RunManifest | None
    base: RunManifest | None

    @property
    def state(self) -> RunManifest | None:
        """The newest run, where its state can be read."""
        return self.newest if self.newest and self.newest.format >= STATE_FORMAT else None

    def catalog_images(self) -> DataFrame | None:
        """CATALOG_IMAGES of the newest run."""
        if self.state is None:
            return None
        return read_table(self.spark, find_table(self.warehouse, self.state, CATALOG_IMAGES.name))

    def judged_photos(self, settings: dict[str, dict[str, object]]) -> DataFrame | None:
        """CATALOG_IMAGES of the newest run, if it judged photos by tonight's limits.

        Args:
            settings: tonight's, as a manifest keeps them.
        """
        if self.state is None or changed(self.state, settings, _LIMITS):
            return None
        return self.catalog_images()

    def carried(self, model_id: str, verifier_id: str | None, config: JobConfig) -> Carried | None:
        """Scored pairs of the newest run, if tonight's model and search would find them alike.

        What another verifier said of them is forgotten.
        """
        search = self.state.facts.get("search") if self.state else None
        if self.state is None or not isinstance(search, dict):
            return None
        wanted = {"mode": config.candidates.search, "seed": config.candidates.seed}
        if self.state.facts["model_id"] != model_id or any(search[k] != wanted[k] for k in wanted):
            logger.info("candidates: another model or search than last time; all pairs anew")
            return None
        contents, pairs = (
            read_table(self.spark, find_table(self.warehouse, self.state, table.name))
            for table in (SEARCHED_CONTENTS, SCORED_PAIRS)
        )
        if search.get("verifier") != verifier_id:
            pairs = pairs.withColumn("score", F.lit(None).cast("float"))
        effort = SearchEffort(search["level"], search["n_trees"], search["fan_out"])
        return Carried(contents, pairs, search["kept_floor"], effort)

    def decided_before(self) -> StoredTable | None:
        """PAIR_DECISIONS of the newest run, where it has them."""
        if self.newest is None or PAIR_DECISIONS.name not in self.newest.tables:
            return None
        return find_table(self.warehouse, self.newest, PAIR_DECISIONS.name)

    def drawn_before(self) -> StoredTable | None:
        """REVIEW_SAMPLE of the base run, where it has one."""
        if self.base is None or REVIEW_SAMPLE.name not in self.base.tables:
            return None
        return find_table(self.warehouse, self.base, REVIEW_SAMPLE.name)

    def stored_base_groups(self) -> StoredTable | None:
        """DUPLICATE_GROUPS of the base run, where it lies."""
        return self._stored_base(DUPLICATE_GROUPS.name)

    def base_groups(self) -> DataFrame | None:
        """DUPLICATE_GROUPS of the base run."""
        return self._base_report(DUPLICATE_GROUPS.name)

    def base_pairs(self) -> DataFrame | None:
        """DUPLICATE_PAIRS of the base run."""
        return self._base_report(DUPLICATE_PAIRS.name)

    def _base_report(self, name: str) -> DataFrame | None:
        stored = self._stored_base(name)
        return None if stored is None else read_table(self.spark, stored)

    def _stored_base(self, name: str) -> StoredTable | None:
        return None if self.base is None else find_table(self.warehouse, self.base, name)


def recall_runs(
    spark: SparkSession, warehouse: Folder, run_date: date, *, is_shadow: bool
) -> Memory:
    """Find the runs that matter. A shadow run compares with what is published for its own date."""
    base = published_for(warehouse, run_date) if is_shadow else None
    return Memory(
        spark,
        warehouse,
        newest_published(warehouse),
        base or last_published_before(warehouse, run_date),
    )


def would_be_held_again(
    warehouse: Folder, run_id: str, settings: dict[str, dict[str, object]]
) -> bool:
    """Whether a gate held a run back, and nothing that is set tonight opens that gate.

    Who starts such a run once more has changed what no setting shows: a photo server is back, a
    folder is mounted. So its photos are to be looked at again.

    Args:
        warehouse: the warehouse.
        run_id: the run whose work could be continued.
        settings: tonight's, as a manifest keeps them.
    """
    try:
        run = read_manifest(warehouse, run_id)
    except DedupError:  # no or no readable manifest: nothing says that it was held
        return False
    return run.status == "held" and not changed(run, settings, ("gates.", "accept"))


def check_delta(
    newest: RunManifest | None,
    run_date: date,
    model_id: str,
    settings: dict[str, dict[str, object]],
) -> None:
    """A delta builds on the newest run: it must be there, not later, and of the same rules.

    Raises:
        ConfigError: run a snapshot first.
    """
    problem = None
    if newest is None or newest.format < STATE_FORMAT:
        problem = "needs a published run to build on"
    elif date.fromisoformat(newest.run_date) > run_date:
        problem = f"of {run_date} cannot build on the later run of {newest.run_date}"
    elif newest.facts["model_id"] != model_id:
        problem = "needs the embeddings of this model for the whole catalog"
    elif keys := changed(newest, settings, (*_ROW_RULES, *_LIMITS)):
        problem = f"cannot change {', '.join(keys)}, which all rows must share"
    if problem:
        raise ConfigError(f"catalog.mode: a delta {problem}; run once with --catalog-mode snapshot")


def changed(
    manifest: RunManifest, settings: dict[str, dict[str, object]], prefixes: tuple[str, ...]
) -> list[str]:
    """Keys below `prefixes` whose values differ between a run and tonight's settings."""
    return [
        key
        for key, setting in settings.items()
        if key.startswith(prefixes)
        and manifest.config.get(key, {}).get("value") != setting["value"]
    ]
