"""Which photos need no second look: what an earlier run knows of them, and whether it still holds.

A photo is *remembered*, and not even asked for, when the catalog gives it the same `image_version`
as before, or when its remote store was asked within `revalidate_days`. Else, where the store gave an
ETag or a modification time, the store is *asked* and sends the photo only if it changed. All others
are fetched.
"""

from dataclasses import dataclass
from datetime import date
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from dedup_job.errors import RejectReason
from dedup_job.tables import CATALOG_IMAGES, PHOTO_PLAN, PHOTO_REQUESTS, PHOTOS

# Columns of PHOTOS but embedding and picture, which are most of its bytes.
PHOTO_FACTS = [name for name in PHOTOS.column_names if name not in ("embedding", "picture")]
KEEP_DAYS = 30  # rows that left the catalog are remembered this long
_KNOWN = [
    "content_sha256",
    "width",
    "height",
    "n_bytes",
    "etag",
    "modified_at",
    "reason",
    "detail",
    "checked_on",
]
# Rejects that say more of a model, a decoder's version or a machine than of the photo: tried again.
_RETRIED = (
    RejectReason.BAD_EMBEDDING,
    RejectReason.DECODER_CRASH,
    RejectReason.DECODER_TIMEOUT,
    RejectReason.TOO_MUCH_MEMORY,
)
_USABLE = (
    "content_sha256 IS NOT NULL AND ((has_embedding AND reason IS NULL) OR "
    f"reason NOT IN ({', '.join(repr(reason.value) for reason in _RETRIED)}))"
)


@dataclass(frozen=True)
class Trust:
    """For how long an answer of a store stands.

    Attributes:
        run_date: tonight's.
        revalidate_days: days without asking a remote store again; 0: ask every night.
    """

    run_date: date
    revalidate_days: int


def plan_photos(
    rows: DataFrame, remembered: DataFrame | None, embedded: DataFrame, trust: Trust
) -> DataFrame:
    """Decide for every photo of the catalog whether it is remembered, asked for or fetched.

    Args:
        rows: CATALOG_ROWS.
        remembered: CATALOG_IMAGES of the last run; None when there is none to trust.
        embedded: `content_sha256` of every content whose embedding by tonight's model is stored.
        trust: how long an answer stands.

    Returns:
        PHOTO_PLAN. `content_sha256` and what follows are null where the photo must be fetched.
    """
    tonight = rows.groupBy("fetch_key").agg(
        # Of several signatures the last in order is the one that expires last.
        F.max("source_uri").alias("source_uri"),
        _agreed_version(F.collect_set(F.coalesce("image_version", F.lit("")))).alias("version"),
    )
    if remembered is None:
        nothing = [F.lit(None).cast(_type_of(name)).alias(name) for name in _KNOWN]
        plan = tonight.select("*", *nothing, F.lit(False).alias("is_remembered"))
        return plan.select(*PHOTO_PLAN.column_names)
    known = _known_photos(remembered).join(
        embedded.select("content_sha256").distinct().withColumn("has_embedding", F.lit(True)),
        "content_sha256",
        "left",
    )
    known = known.withColumn("has_embedding", F.coalesce("has_embedding", F.lit(False)))
    joined = tonight.join(known.where(_USABLE), "fetch_key", "left")
    is_known = F.col("content_sha256").isNotNull()
    same_version = F.col("version").eqNullSafe(F.col("known_version"))
    versioned = F.col("version").isNotNull()
    is_remembered = F.coalesce(is_known & same_version & (versioned | _recent(trust)), F.lit(False))
    # A new version in the catalog means a new photo, whatever its store says.
    is_asked = is_known & same_version & ~versioned & (_has("etag") | _has("modified_at"))
    kept = F.coalesce(is_remembered | is_asked, F.lit(False))
    columns = {name: F.when(kept, F.col(name)) for name in _KNOWN}
    return joined.withColumns({**columns, "is_remembered": is_remembered}).select(
        *PHOTO_PLAN.column_names
    )


def remembered_photos(plan: DataFrame) -> DataFrame:
    """`PHOTO_FACTS` of PHOTOS, of what needs no request."""
    remembered = plan.where("is_remembered").withColumn("origin", F.lit("remembered"))
    return remembered.select(*PHOTO_FACTS)


def photo_requests(plan: DataFrame, n_tasks: int) -> DataFrame:
    """`PHOTO_REQUESTS` of all others, spread over `n_tasks` tasks; a task is the unit of retry."""
    requests = plan.where("NOT is_remembered").select(*PHOTO_REQUESTS.column_names)
    return requests.repartition(n_tasks, "fetch_key")


def remember_images(
    rows: DataFrame,
    photos: DataFrame,
    carried: DataFrame | None,
    before: DataFrame | None,
    run_date: date,
) -> DataFrame:
    """`CATALOG_IMAGES`: what a later night compares with.

    Args:
        rows: CATALOG_ROWS.
        photos: `PHOTO_FACTS` of PHOTOS; those that could not be read at all are tried again every
            night.
        carried: CATALOG_IMAGES rows that count as tonight's, see `carried_rows`.
        before: CATALOG_IMAGES of the last run; its rows that left the catalog stay `KEEP_DAYS`.
        run_date: tonight's.
    """
    tonight = F.lit(run_date)
    read = photos.where("content_sha256 IS NOT NULL")
    seen = rows.join(read, "fetch_key").withColumn("checked_on", F.coalesce("checked_on", tonight))
    current = [seen] if carried is None else [seen, carried]
    names = CATALOG_IMAGES.column_names
    now = [
        frame.withColumn("last_seen", tonight).withColumn("in_catalog", F.lit(True)).select(*names)
        for frame in current
    ]
    images = reduce(DataFrame.unionByName, now)
    if before is None:
        return images
    row = ["sku_id", "uri_key"]
    left = before.where(F.date_diff(tonight, "last_seen") <= KEEP_DAYS)
    left = left.join(images.select(*row).distinct(), row, "left_anti")
    return images.unionByName(left.withColumn("in_catalog", F.lit(False)).select(*names))


def carried_rows(before: DataFrame, mentioned: DataFrame) -> DataFrame:
    """CATALOG_IMAGES rows of a delta night's SKUs that the delta does not mention.

    Args:
        before: CATALOG_IMAGES of the last run.
        mentioned: `sku_id` of every row of the delta, rejected ones included.
    """
    current = before.where("in_catalog AND reason IS NULL")
    return current.join(mentioned.select("sku_id").distinct(), "sku_id", "left_anti")


def _known_photos(remembered: DataFrame) -> DataFrame:
    """One row a photo, as the last run that saw it knew it."""
    facts = [name for name in _KNOWN if name != "checked_on"]
    newest = F.max(F.struct("last_seen", "checked_on", *facts)).alias("newest")
    versions = F.collect_set(
        F.struct("last_seen", F.coalesce("image_version", F.lit("")).alias("v"))
    )
    grouped = remembered.groupBy("fetch_key").agg(newest, versions.alias("versions"))
    latest = F.transform(
        F.filter("versions", lambda seen: seen["last_seen"] == F.col("newest.last_seen")),
        lambda seen: seen["v"],
    )
    return grouped.select("fetch_key", "newest.*", _agreed_version(latest).alias("known_version"))


def _agreed_version(versions: Column) -> Column:
    """The version on which all rows of a photo agree, else null; '' stands for none."""
    return F.when(F.size(versions) == 1, F.nullif(F.element_at(versions, 1), F.lit("")))


def _recent(trust: Trust) -> Column:
    """Whether a remote store was asked so lately that it need not be asked again.

    Photos that were first read in one night come due over the second half of the period, or every
    period would end in a night that asks for all of them.
    """
    if not trust.revalidate_days:
        return F.lit(False)
    spread = F.pmod(F.xxhash64("fetch_key"), F.lit(trust.revalidate_days // 2 + 1))
    due = F.lit(trust.revalidate_days) - spread
    age = F.date_diff(F.lit(trust.run_date), F.col("checked_on"))
    is_remote = ~F.col("source_uri").startswith("file:")
    return is_remote & (age >= 0) & (age < due)


def _has(name: str) -> Column:
    return F.col(name).isNotNull()


def _type_of(name: str) -> str:
    return next(column.type for column in PHOTO_PLAN.columns if column.name == name)
