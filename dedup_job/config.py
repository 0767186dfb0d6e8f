"""The settings of a run: frozen, validated, fingerprinted.

`JobConfig` says what may be set; `settings.py` says where values come from. Every field has a unit
in its name or its description, and a default that is safe to leave alone.
"""

import hashlib
import json
from collections.abc import Iterator
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dedup_job.kernels.images import ImageLimits

Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class CatalogConfig(_Section):
    """Where the catalog is and what its columns are called."""

    path: str = Field(
        "", description="Parquet, CSV, JSON Lines file or folder of them, or folder of images"
    )
    format: Literal["auto", "parquet", "csv", "jsonl", "images"] = Field(
        "auto", description="auto, parquet, csv, jsonl or images; auto looks at name and content"
    )
    image_root: str | None = Field(
        None, description="base of relative image URIs; default: the catalog's folder"
    )
    sku_column: str = Field("sku_id", description="catalog column that holds sku_id")
    uri_column: str = Field("image_uri", description="catalog column that holds image_uri")
    version_column: str = Field(
        "image_version",
        description="catalog column that holds image_version, if any; another name than this must be there",
    )
    variant_column: str = Field(
        "variant_group",
        description="catalog column that holds variant_group, if any; another name than this must be there",
    )
    block_by: tuple[str, ...] = Field(
        (), description="only rows with equal values in these columns are compared"
    )
    conflict: tuple[str, ...] = Field(
        (),
        description="no group mixes known values of these columns; pairs that differ are reported",
    )
    canonical_order: str = Field(
        "", description='columns that rank survivors, "in_stock desc, created_at asc"'
    )
    delimiter: str = Field(",", min_length=1, max_length=1, description="of CSV files")
    mode: Literal["snapshot", "delta"] = Field(
        "snapshot",
        description="snapshot: the whole catalog; delta: only the SKUs that are new or changed",
    )


class FetchConfig(_Section):
    """What may be fetched, and how patiently."""

    allow_schemes: tuple[str, ...] = Field(
        ("file", "s3", "gs", "http", "https"), description="URI schemes that may be fetched"
    )
    allow_hosts: tuple[str, ...] = Field(
        (), description="hosts for http(s); '*' = any public address"
    )
    allow_buckets: tuple[str, ...] = Field(("*",), description="buckets for s3 and gs; '*' = any")
    allow_roots: tuple[str, ...] = Field((), description="folders for files, beside the image root")
    max_bytes: int = Field(50_000_000, gt=0, description="larger files are rejected")
    connect_timeout_s: Seconds = Field(5.0, description="seconds to connect")
    read_timeout_s: Seconds = Field(10.0, description="seconds without a byte")
    total_timeout_s: Seconds = Field(
        30.0, description="seconds for one photo, redirects, retries and waits included"
    )
    max_attempts: int = Field(3, ge=1, le=10, description="tries for failures that may pass")
    n_threads: int = Field(
        0, ge=0, le=64, description="fetch threads a task; 0 = 1 for files, 16 for remote"
    )
    revalidate_days: int = Field(
        0,
        ge=0,
        le=365,
        description="days a remote photo counts as unchanged before its server is asked again",
    )


class ImagesConfig(_Section):
    """Limits of photos: of their headers (`kernels.images.ImageLimits`), and of decoding one."""

    max_pixels: int = Field(ImageLimits.max_pixels, gt=0, description="width times height")
    max_side_px: int = Field(ImageLimits.max_side_px, gt=0, description="longer side")
    min_side_px: int = Field(ImageLimits.min_side_px, gt=0, description="shorter side")
    max_aspect: float = Field(
        ImageLimits.max_aspect, ge=1, description="longer side over shorter side"
    )
    decode_timeout_s: Seconds = Field(30.0, description="seconds to decode one photo")
    decode_memory_mb: int = Field(
        2048, ge=64, description="megabytes that decoding one photo may take"
    )


class ModelConfig(_Section):
    """Which model runs, on what."""

    bundle: str = Field(
        "", description="bundle directory; empty = the one that ships with the package"
    )
    runtime: Literal["litert", "tensorflow"] = Field(
        "litert", description="litert (int8, CPU) or tensorflow (GPU executors)"
    )


class MatchConfig(_Section):
    """When two products are one."""

    target_precision: Fraction = Field(
        0.97, description="precision of grouped pairs that the threshold is solved for"
    )
    min_probability: float = Field(
        0.8,
        ge=0,
        lt=1,
        description="of one product, for every pair by itself: a target is an average, and the last "
        "pairs under it may be little more than guesses; a target below this turns it off",
    )
    min_cosine: float | None = Field(
        None, gt=0, le=1, description="explicit threshold instead of a target"
    )
    verify: bool = Field(
        True,
        description="look at candidate pairs again with the model's pair verifier, if it has one",
    )
    verify_pairs_per_photo: float = Field(
        20.0,
        gt=0,
        description="unrelated pairs that are verified, a photo: more find more, and cost time",
    )
    sku_match: Literal["any", "main", "majority"] = Field(
        "any", description="how many photos of two SKUs must agree: any, main or majority"
    )
    max_skus_per_photo: int = Field(
        20, ge=2, description="a content of more products of one block is a placeholder"
    )
    max_near_skus: int = Field(
        200,
        ge=20,
        description="nearly the same photo of more products of one block is a placeholder",
    )
    look_alikes_per_sku: float = Field(
        1.0,
        ge=0,
        description="other products of nearly the same photo (colourways, prints) a SKU has",
    )
    chaining: Literal["components", "star", "average"] = Field(
        "average", description="how groups are kept from chaining: components, star or average"
    )


class CandidatesConfig(_Section):
    """How neighbours are searched."""

    search: Literal["annoy", "exact"] = Field("annoy", description="annoy, or exact (brute force)")
    target_recall: Fraction = Field(
        0.99, description="recall the search must reach, measured in every run"
    )
    max_cell_rows: int = Field(16_384, ge=16, description="contents a cell holds at most")
    n_trees: int = Field(
        32, ge=1, description="where the search starts; raised until the target is met"
    )
    fan_out: int = Field(
        3, ge=1, description="cells a content is looked up in, where a block has several"
    )
    max_effort: int = Field(
        4, ge=0, le=8, description="how often trees, search_k and fan_out may be doubled"
    )
    exact_below_rows: int = Field(
        20_000, ge=0, description="smaller cells are searched exactly: quicker than Annoy there"
    )
    recall_queries: int = Field(1_000, ge=1, description="queries whose recall is measured exactly")
    seed: int = Field(2026, description="of indexes, samples and cells")


class EmbedConfig(_Section):
    """How the embedding stage is cut into tasks."""

    photos_per_task: int = Field(2_000, ge=1, description="photos a task takes at most")
    prefetch: int = Field(32, ge=1, description="photos decoded ahead of inference, at most")
    chunk_photos: int = Field(
        0,
        ge=0,
        description="photos after which a killed run can continue; 0 = about a minute of work",
    )
    known_contents: int = Field(
        1_000_000,
        ge=0,
        description="most frequent embedded contents that workers recognise in what they fetch",
    )


class GatesConfig(_Section):
    """What holds a run back; `--accept GATE --reason TEXT` lets one through. See nightly/gates.py."""

    max_reject_rate: Share = Field(0.2, description="rejects: share of catalog rows rejected")
    max_row_drop: Share = Field(0.2, description="row_drop: share of rows fewer than last run")
    max_group_size: int = Field(500, ge=2, description="largest_group: SKUs of one group")
    max_grouped_share_change: Share = Field(
        0.1, description="drift: change of the share of rows in groups against the last run"
    )
    max_threshold_change: Share = Field(
        0.05, description="drift: change of the solved threshold against the last run"
    )


class GalleryConfig(_Section):
    """The page on which people look at groups."""

    max_groups: int = Field(
        10_000, ge=0, description="groups shown, the least certain of all; 0 = no gallery"
    )


class LeaseConfig(_Section):
    """The lock on a warehouse."""

    ttl_s: Seconds = Field(
        120.0, description="seconds without a heartbeat after which another run takes over"
    )


class JobConfig(_Section):
    """Everything a run can be told."""

    catalog: CatalogConfig = CatalogConfig()
    warehouse: str = Field("", description="where the tables live: a path, s3:// or gs://")
    decisions: str = Field(
        "", description="CSV or Parquet of what people decided about pairs of SKUs; empty = none"
    )
    run_date: date | None = Field(None, description="partition to publish; null = today in UTC")
    fetch: FetchConfig = FetchConfig()
    images: ImagesConfig = ImagesConfig()
    model: ModelConfig = ModelConfig()
    match: MatchConfig = MatchConfig()
    candidates: CandidatesConfig = CandidatesConfig()
    embed: EmbedConfig = EmbedConfig()
    gates: GatesConfig = GatesConfig()
    gallery: GalleryConfig = GalleryConfig()
    lease: LeaseConfig = LeaseConfig()
    accept: tuple[str, ...] = Field((), description="gates that this run may break")
    reason: str = Field("", description="why; kept in the run's manifest")
    shadow: bool = Field(False, description="report what would change, publish nothing")
    keep_runs: int | None = Field(
        None, ge=1, description="published runs to keep; null = all of them"
    )
    dollars_per_core_hour: float | None = Field(
        None, gt=0, description="price, to report cost per million photos"
    )

    @model_validator(mode="after")
    def _columns_are_distinct(self) -> "JobConfig":
        if self.catalog.sku_column == self.catalog.uri_column:
            raise ValueError("catalog.sku_column and catalog.uri_column must differ")
        return self

    def image_limits(self) -> ImageLimits:
        """The header limits as the decoder takes them."""
        settings = self.images.model_dump(exclude={"decode_timeout_s", "decode_memory_mb"})
        return ImageLimits(**settings)

    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) over every setting that can change the result.

        Where the warehouse is, how patient a fetch is and how tasks are cut do not change it.
        """
        settings = self.model_dump(
            mode="json",
            exclude={
                "warehouse": True,
                "decisions": True,
                "run_date": True,
                "embed": True,
                "gates": True,
                "gallery": True,
                "lease": True,
                "accept": True,
                "reason": True,
                "shadow": True,
                "keep_runs": True,
                "dollars_per_core_hour": True,
                "catalog": {"path", "image_root"},
                "model": {"bundle"},
                "images": {"decode_timeout_s", "decode_memory_mb"},
                "fetch": {
                    "connect_timeout_s",
                    "read_timeout_s",
                    "total_timeout_s",
                    "max_attempts",
                    "n_threads",
                },
            },
        )
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def leaves(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Dotted key, value and description of every setting, in declaration order."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, field.description or ""
