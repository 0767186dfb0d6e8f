"""Every table of this project, column by column, declared once.

Rendered from here: Arrow schemas (what is written), Spark schemas (what stages return), and the
report dictionary in the docs. Columns are added, never renamed: other programs read them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 1
PHOTO_DIGITS = 16  # of a content_sha256, where a decision names a photo

_ARROW: dict[str, pa.DataType] = {
    "string": pa.string(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "array<float>": pa.list_(pa.float32()),
    "array<int>": pa.list_(pa.int32()),
    "array<string>": pa.list_(pa.string()),
    "binary": pa.binary(),
}


@dataclass(frozen=True)
class Column:
    """One column. `type` is a Spark SQL type name, a key of the Arrow map above."""

    name: str
    type: str
    meaning: str
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """One table: a name, what one row is, and its columns in order."""

    name: str
    row: str
    columns: tuple[Column, ...]

    @property
    def column_names(self) -> list[str]:
        """Column names in order."""
        return [column.name for column in self.columns]

    @property
    def arrow(self) -> pa.Schema:
        """Arrow schema, with `schema_version` and the column meanings in the metadata."""
        fields = [
            pa.field(c.name, _ARROW[c.type], c.nullable, metadata={"comment": c.meaning})
            for c in self.columns
        ]
        return pa.schema(fields, metadata={"schema_version": str(SCHEMA_VERSION)})

    @property
    def ddl(self) -> str:
        """Spark DDL, as `mapInArrow` and `createDataFrame` take it."""
        return ", ".join(
            f"`{c.name}` {c.type}{'' if c.nullable else ' NOT NULL'}" for c in self.columns
        )


def _table(name: str, row: str, *columns: Column) -> Table:
    return Table(name, row, columns)


_RUN_ID = Column("run_id", "string", "the run that wrote this row")
_SHA = Column("content_sha256", "string", "SHA-256 of the photo file, 64 hex digits")
_EMBEDDING = Column("embedding", "array<float>", "unit L2 norm, `dim` of the model long")
# Spark copies an array float by float on every way to Python and back, bytes at once.
_VECTOR = Column("embedding", "binary", "the embedding's float32 values, little-endian")

DUPLICATE_GROUPS = _table(
    "duplicate_groups",
    "a SKU in a group of two or more",
    Column(
        "group_id",
        "string",
        "the group; stays the same from night to night (docs/adr/0011)",
    ),
    Column(
        "sku_id", "string", "the member; of products with variants, the SKU that stands for them"
    ),
    Column("canonical_sku_id", "string", "the survivor: the SKU to keep"),
    Column("is_canonical", "boolean", "whether this row is the survivor"),
    Column("group_size", "int", "members of the group"),
    Column(
        "cosine_to_canonical", "float", "best photo pair with the survivor; 1.0 for an exact copy"
    ),
    Column(
        "min_pair_cosine", "float", "the lowest best-photo-pair cosine among all pairs of the group"
    ),
    Column(
        "match_type",
        "string",
        "exact: shares a photo file with another member, not necessarily the survivor; near: by "
        "likeness alone; decision: because people said so",
    ),
    Column(
        "group_first_seen",
        "date",
        "run date on which the group was born",
    ),
    Column(
        "member_since",
        "date",
        "run date since which the SKU is in this group without a break",
    ),
    Column("variant_group", "string", "the product whose sizes this SKU stands for", nullable=True),
    _RUN_ID,
)

DUPLICATE_PAIRS = _table(
    "duplicate_pairs",
    "a pair of SKUs that matched",
    Column("sku_id_a", "string", "the smaller id of the two"),
    Column("sku_id_b", "string", "the larger id of the two"),
    Column("image_uri_a", "string", "photo of a in the best pair, without credentials or query"),
    Column("image_uri_b", "string", "photo of b in the best pair, without credentials or query"),
    Column("uri_key_a", "string", "SHA-256 of image_uri_a without its query string"),
    Column("uri_key_b", "string", "SHA-256 of image_uri_b without its query string"),
    Column("n_matching_photos", "int", "photo pairs at or above the threshold, copies included"),
    Column("cosine", "float", "cosine similarity of the best photo pair; 1.0 for an exact copy"),
    Column(
        "score",
        "float",
        "what the threshold acts on: the verifier's score of the best photo pair, 1.0 for an exact "
        "copy; the cosine where the run verified no pairs",
    ),
    Column("match_probability", "float", "calibrated probability that the two are one product"),
    Column(
        "match_type",
        "string",
        "exact: share a photo file; near: by likeness alone; decision: below the threshold, but "
        "people said that they are the same",
    ),
    Column("group_id", "string", "the group both are in; null when parted", nullable=True),
    Column(
        "parted_by",
        "string",
        "why the two are in no group together: decision (people said that they, or two of those "
        "they are grouped with, are different), conflict or chaining; null when grouped",
        nullable=True,
    ),
    Column(
        "is_new",
        "boolean",
        "whether the pair was absent from the last published run before this run date",
    ),
    Column("model_id", "string", "the model that made the embeddings"),
    _RUN_ID,
    Column("decision", "string", "what people said of the two: same or different", nullable=True),
)

GROUP_CHANGES = _table(
    "group_changes",
    "a group whose members changed since the last published run before this run date",
    Column("change", "string", "created, grown, shrunk, merged, split or dissolved"),
    Column("group_id", "string", "the group"),
    Column(
        "previous_group_ids",
        "array<string>",
        "groups of that run from which members came, its own id included; sorted",
    ),
    Column("added_sku_ids", "array<string>", "members now and not then, sorted"),
    Column("removed_sku_ids", "array<string>", "members then and not now, sorted"),
    _RUN_ID,
)

REJECTED_IMAGES = _table(
    "rejected_images",
    "a catalog row that could not be used",
    Column(
        "catalog_row",
        "string",
        "position in the catalog, from 0; `file:position` for several files",
    ),
    Column("sku_id", "string", "as in the catalog", nullable=True),
    Column("image_uri", "string", "as in the catalog, without credentials or query", nullable=True),
    Column("reason", "string", "from the closed list in the reject dictionary"),
    Column("detail", "string", "one line for a person"),
    _RUN_ID,
)

PLACEHOLDER_IMAGES = _table(
    "placeholder_images",
    "a photo shown by too many products to mean anything",
    _SHA,
    Column(
        "n_skus",
        "bigint",
        "products that use it, variants folded, over the blocks where it is a placeholder",
    ),
    Column("image_uri", "string", "an example, without credentials or query"),
    Column(
        "near_sha256",
        "string",
        "where too many products show nearly this photo: the content they are all close to; null "
        "where too many show this very file",
        nullable=True,
    ),
    _RUN_ID,
)

LOOK_ALIKE_IDS = _table(
    "look_alike_ids",
    "a SKU whose id looks like another SKU's, and is treated as another",
    Column("sku_id", "string", "as in the catalog"),
    Column(
        "skeleton",
        "string",
        "what the id looks like: invisible characters, spaces, full width, composed letters and "
        "letters of other alphabets that are drawn alike are one; equal for ids that look alike",
    ),
    Column("n_skus", "bigint", "SKUs with this skeleton"),
    _RUN_ID,
)

_DECISION = (
    Column("decision_row", "bigint", "row of the decisions file, from 0"),
    Column("sku_id_a", "string", "the smaller id of the two; null when rejected", nullable=True),
    Column("sku_id_b", "string", "the larger id of the two; null when rejected", nullable=True),
    Column("decision", "string", "same or different; null when rejected", nullable=True),
    Column("decided_by", "string", "as in the file", nullable=True),
    Column("decided_at", "timestamp", "UTC", nullable=True),
    Column("note", "string", "as in the file", nullable=True),
    Column(
        "photos_a",
        "array<string>",
        f"photos of a that the decision was made on: {PHOTO_DIGITS} digits of each content_sha256",
    ),
    Column("photos_b", "array<string>", "those of b"),
    Column(
        "outcome",
        "string",
        "applied; contradicted: another decision wins; reopened: a photo it was made on is gone; "
        "superseded: a later row about the same pair counts; absent: a SKU has no usable photo "
        "tonight; rejected: the row cannot be read",
    ),
    Column("detail", "string", "one line for a person; null when applied", nullable=True),
)

PAIR_DECISIONS = _table(
    "pair_decisions",
    "a row of the decisions file, with what became of it",
    *_DECISION,
    Column("group_id", "string", "the group of both when the two are in one", nullable=True),
    _RUN_ID,
)

REVIEW_SAMPLE = _table(
    "review_sample",
    "a member of a group that was drawn at random for review, tonight or on a night before",
    Column("drawn_on", "date", "run date of the night that drew the group"),
    Column("group_id", "string", "the group as it was then"),
    Column("sku_id", "string", "the member"),
    Column("canonical_sku_id", "string", "the survivor"),
    _RUN_ID,
)

RUNS = _table(
    "runs",
    "a run",
    _RUN_ID,
    Column("status", "string", "published"),
    Column("started_at", "timestamp", "UTC"),
    Column("finished_at", "timestamp", "UTC"),
    Column("model_id", "string", "the model that made the embeddings"),
    Column("calibration_id", "string", "the calibration that set threshold and probabilities"),
    Column("config_fingerprint", "string", "SHA-256 over every setting that can change the result"),
    Column("min_cosine", "double", "pairs of a lower cosine are not reported"),
    Column("target_precision", "double", "null when min_cosine was given", nullable=True),
    Column("target_recall", "double", "of the candidate search"),
    Column("n_catalog_rows", "bigint", "rows of the catalog"),
    Column("n_embedded", "bigint", "rows whose photo content was embedded in this run"),
    Column(
        "n_reused",
        "bigint",
        "rows whose photo content was embedded by an earlier run",
    ),
    Column("n_shared_content", "bigint", "rows whose content another row brought first"),
    Column("n_placeholder", "bigint", "rows that show a placeholder"),
    Column("n_rejected", "bigint", "rows in rejected_images"),
    Column("n_pairs", "bigint", "rows of duplicate_pairs"),
    Column("n_groups", "bigint", "groups"),
    Column("n_grouped_skus", "bigint", "rows of duplicate_groups"),
    Column("version", "string", "version of this package"),
    Column(
        "min_score",
        "double",
        "the threshold: pairs at or above this score are reported; equal to min_cosine where the run "
        "verified no pairs; null in runs of earlier versions",
        nullable=True,
    ),
)

RUN_METRICS = _table(
    "run_metrics",
    "a figure of a run",
    Column("stage", "string", "catalog, embeddings, candidates, groups, reports or run"),
    Column("metric", "string", "name of the figure"),
    Column("value", "double", "the figure; null when it could not be measured", nullable=True),
    Column("unit", "string", "rows, photos, s, 1, USD, ..."),
    _RUN_ID,
)

REPORT_TABLES = (
    DUPLICATE_GROUPS,
    DUPLICATE_PAIRS,
    GROUP_CHANGES,
    REJECTED_IMAGES,
    PLACEHOLDER_IMAGES,
    LOOK_ALIKE_IDS,
    PAIR_DECISIONS,
    REVIEW_SAMPLE,
    RUNS,
    RUN_METRICS,
)

IMAGE_EMBEDDINGS = _table(
    "image_embeddings",
    "a photo content with its embedding, of one model (partition `model_id`)",
    _SHA,
    _EMBEDDING,
    Column(
        "picture",
        "binary",
        "JPEG of the photo as the model takes it, by which pairs are verified; null where the model "
        "has no verifier",
        nullable=True,
    ),
)

CATALOG_IMAGES = _table(
    "catalog_images",
    "a catalog row whose photo was read, as last seen; rows that left stay for 30 days",
    Column("sku_id", "string", "as in the catalog"),
    Column("uri_key", "string", "SHA-256 of the URI without its query string"),
    Column("image_version", "string", "as in the catalog", nullable=True),
    Column("etag", "string", "what the store said", nullable=True),
    Column("n_bytes", "bigint", "file size", nullable=True),
    Column("modified_at", "timestamp", "what the store said, UTC", nullable=True),
    _SHA,
    Column("width", "int", "pixels, as displayed; null when rejected", nullable=True),
    Column("height", "int", "pixels, as displayed; null when rejected", nullable=True),
    Column("last_seen", "date", "run date of the last catalog that held this row"),
    Column("in_catalog", "boolean", "whether the catalog of the newest run holds this row"),
    Column("image_uri", "string", "without credentials or query"),
    Column("fetch_key", "string", "SHA-256 of the URI, its query string included, signatures not"),
    Column("checked_on", "date", "run date on which the store was last asked for the photo"),
    Column("reason", "string", "why the content is rejected; null when usable", nullable=True),
    Column("detail", "string", "null when usable", nullable=True),
    Column("catalog_row", "string", "as in rejected_images"),
    Column("position", "bigint", "order of the catalog's rows"),
    Column("variant_group", "string", "as in the catalog", nullable=True),
    Column("product", "string", "what is compared: the variant group or the SKU"),
    Column("block", "string", "values of the --block-by columns, JSON"),
    Column("conflict", "string", "values of the --conflict columns, JSON"),
    Column("order_values", "array<string>", "values of the --canonical-order columns"),
)

SEARCHED_CONTENTS = _table(
    "searched_contents",
    "a photo content whose pairs within its block are all in scored_pairs",
    Column("block", "string", "values of the --block-by columns, JSON"),
    _SHA,
)

SCORED_PAIRS = _table(
    "scored_pairs",
    "a pair of photo contents, down to a margin below the search floor",
    Column("sha_a", "string", "content_sha256, the smaller of the two"),
    Column("sha_b", "string", "content_sha256, the larger of the two"),
    Column("cosine", "float", "exact cosine similarity"),
    Column("score", "float", "of the verifier, 0 to 1; null: not verified", nullable=True),
)

STATE_TABLES = (IMAGE_EMBEDDINGS, CATALOG_IMAGES, SEARCHED_CONTENTS, SCORED_PAIRS)

# Tables between stages: never published, but as firmly declared.

RAW_CATALOG = _table(
    "raw_catalog",
    "a row of the catalog as it stands there, usable or not",
    Column("catalog_row", "string", "as in rejected_images; lines without a row are counted"),
    Column("position", "bigint", "total order of the catalog's rows; file k starts at k * 2^40"),
    Column("sku_id", "string", "as in the catalog", nullable=True),
    Column("image_uri", "string", "as in the catalog; may carry credentials", nullable=True),
    Column("image_version", "string", "as in the catalog", nullable=True),
    Column("variant_group", "string", "as in the catalog", nullable=True),
    Column("block_values", "array<string>", "of the --block-by columns, may hold nulls"),
    Column("conflict_values", "array<string>", "of the --conflict columns, may hold nulls"),
    Column("order_values", "array<string>", "of the --canonical-order columns, may hold nulls"),
    Column("malformed", "string", "why the row cannot be read; null when it can", nullable=True),
)

CATALOG_REJECTS = _table(
    "catalog_rejects",
    "a catalog row that does not name a SKU and a photo: rejected_images before its run_id",
    Column("catalog_row", "string", "as in rejected_images"),
    Column("position", "bigint", "as in raw_catalog"),
    Column("sku_id", "string", "as in the catalog", nullable=True),
    Column("image_uri", "string", "as in the catalog, without credentials or query", nullable=True),
    Column("reason", "string", "from the closed list in the reject dictionary"),
    Column("detail", "string", "one line for a person"),
)

CATALOG_ROWS = _table(
    "catalog_rows",
    "a catalog row that names a SKU and a photo",
    Column("catalog_row", "string", "as in rejected_images"),
    Column("position", "bigint", "as in raw_catalog"),
    Column("sku_id", "string", "as in the catalog"),
    Column("image_uri", "string", "as in the catalog, without credentials or query"),
    Column("source_uri", "string", "absolute URI to fetch; may carry a query: never published"),
    Column("fetch_key", "string", "SHA-256 of source_uri without signatures: what is fetched once"),
    Column("uri_key", "string", "SHA-256 of source_uri without its query string"),
    Column("image_version", "string", "as in the catalog", nullable=True),
    Column("variant_group", "string", "as in the catalog", nullable=True),
    # A variant group may be named like another SKU: the prefix keeps the two apart.
    Column(
        "product",
        "string",
        "what is compared: `v:` + variant_group where given, else `s:` + sku_id",
    ),
    Column(
        "block", "string", "JSON array of the --block-by values in order of the setting; '' without"
    ),
    Column("conflict", "string", "JSON array of the --conflict values, as `block`; '' without"),
    Column(
        "order_values", "array<string>", "values of the --canonical-order columns, may hold nulls"
    ),
)

PHOTO_REQUESTS = _table(
    "photo_requests",
    "a photo to fetch, or to ask its store about where an earlier run knows it",
    Column("fetch_key", "string", "as in catalog_rows"),
    Column("source_uri", "string", "absolute URI to fetch; may carry a query: never published"),
    Column("content_sha256", "string", "as last seen; null: fetch in any case", nullable=True),
    Column("width", "int", "as last seen", nullable=True),
    Column("height", "int", "as last seen", nullable=True),
    Column("n_bytes", "bigint", "as last seen", nullable=True),
    Column("etag", "string", "as last seen", nullable=True),
    Column("modified_at", "timestamp", "as last seen, UTC", nullable=True),
    Column("reason", "string", "as last seen", nullable=True),
    Column("detail", "string", "as last seen", nullable=True),
)

PHOTO_PLAN = _table(
    "photo_plan",
    "a photo of the catalog (one per fetch_key) with what an earlier run knows of it",
    *PHOTO_REQUESTS.columns,
    Column("checked_on", "date", "run date on which its store was last asked", nullable=True),
    Column("is_remembered", "boolean", "taken as unchanged without asking its store"),
)

PHOTOS = _table(
    "photos",
    "what became of a photo (one per fetch_key): usable, or rejected with its reason",
    Column("fetch_key", "string", "as in catalog_rows"),
    Column("content_sha256", "string", "null when the photo could not be read", nullable=True),
    Column("width", "int", "pixels, as displayed", nullable=True),
    Column("height", "int", "pixels, as displayed", nullable=True),
    Column("n_bytes", "bigint", "file size", nullable=True),
    Column(
        "embedding",
        "array<float>",
        "null when rejected, when an equal content of the same task carries it, or when an "
        "earlier run embedded the content",
        nullable=True,
    ),
    Column("picture", "binary", "as in image_embeddings, where embedding is", nullable=True),
    Column("reason", "string", "null when usable", nullable=True),
    Column("detail", "string", "null when usable", nullable=True),
    Column("etag", "string", "what the store said", nullable=True),
    Column("modified_at", "timestamp", "what the store said, UTC", nullable=True),
    Column(
        "origin",
        "string",
        "fetched; not_modified: the store was asked and nothing was sent; remembered: not asked",
    ),
    Column("checked_on", "date", "null: in this run", nullable=True),
)

USABLE_ROWS = _table(
    "usable_rows",
    "a catalog row whose photo is usable, placeholders included",
    Column("catalog_row", "string", "as in rejected_images"),
    Column("position", "bigint", "as in catalog_rows"),
    Column("sku_id", "string", "as in the catalog"),
    Column("image_uri", "string", "without credentials or query"),
    Column("uri_key", "string", "as in catalog_rows"),
    Column("image_version", "string", "as in the catalog", nullable=True),
    Column("variant_group", "string", "as in the catalog", nullable=True),
    Column("product", "string", "as in catalog_rows"),
    Column("block", "string", "as in catalog_rows"),
    Column("conflict", "string", "as in catalog_rows"),
    Column("order_values", "array<string>", "as in catalog_rows"),
    _SHA,
    Column("width", "int", "pixels, as displayed"),
    Column("height", "int", "pixels, as displayed"),
    Column("n_bytes", "bigint", "file size"),
    Column("n_pixels", "bigint", "width times height: the resolution that ranks survivors"),
)

PLACEHOLDERS = _table(
    "placeholders",
    "a placeholder of a block, before it is reported",
    Column("block", "string", "as in catalog_rows: only rows of this block count"),
    _SHA,
    Column("n_skus", "bigint", "products of the block that use it, variants folded"),
    Column("image_uri", "string", "the first in the catalog, without credentials or query"),
    Column("near_sha256", "string", "as in placeholder_images", nullable=True),
)

NEAR_LEADERS = _table(
    "near_leaders",
    "a content that is close to the leader of a dense spot of embeddings",
    Column("block", "string", "as in catalog_rows"),
    _SHA,
    Column("leader_sha256", "string", "a content of the same block"),
    Column("cosine", "float", "of the two"),
)

PHOTO_ROWS = _table(
    "photo_rows",
    "a catalog row whose photo is usable and no placeholder of its block",
    Column("position", "bigint", "as in catalog_rows"),
    Column("sku_id", "string", "as in the catalog"),
    Column("product", "string", "as in catalog_rows"),
    Column("variant_group", "string", "as in the catalog", nullable=True),
    Column("block", "string", "as in catalog_rows"),
    Column("conflict", "string", "as in catalog_rows"),
    Column("order_values", "array<string>", "as in catalog_rows"),
    Column("image_uri", "string", "without credentials or query"),
    Column("uri_key", "string", "as in catalog_rows"),
    _SHA,
    Column("n_pixels", "bigint", "width times height: the resolution that ranks survivors"),
)

# IMAGE_EMBEDDINGS as stages read it, see `io.tables.read_vectors`.
EMBEDDED_CONTENTS = _table(IMAGE_EMBEDDINGS.name, IMAGE_EMBEDDINGS.row, _SHA, _VECTOR)

CONTENTS = _table(
    "contents",
    "a distinct photo content of a block, with its embedding: what is searched",
    Column("block", "string", "as in catalog_rows"),
    _SHA,
    _VECTOR,
)

PHOTO_PAIRS = _table(
    "photo_pairs",
    "a pair of photo contents of one block whose cosine reaches the search floor",
    Column("block", "string", "as in catalog_rows"),
    Column("sha_a", "string", "content_sha256, the smaller of the two"),
    Column("sha_b", "string", "content_sha256, the larger of the two"),
    Column("cosine", "float", "exact cosine similarity, float32"),
    Column("score", "float", "of the verifier, 0 to 1; null: not verified", nullable=True),
)

PAIRS_TO_VERIFY = _table(
    "pairs_to_verify",
    "a pair of photo contents, in whatever blocks it met, with what it shows",
    Column("sha_a", "string", "content_sha256, the smaller of the two"),
    Column("sha_b", "string", "content_sha256, the larger of the two"),
    Column("cosine", "float", "exact cosine similarity"),
    Column("picture_a", "binary", "as in image_embeddings"),
    Column("picture_b", "binary", "as in image_embeddings"),
)

VERIFIED_PAIRS = _table(
    "verified_pairs",
    "a pair of photo contents that was verified",
    Column("sha_a", "string", "content_sha256, the smaller of the two"),
    Column("sha_b", "string", "content_sha256, the larger of the two"),
    Column("score", "float", "of the verifier, 0 to 1"),
)

CELL_ROWS = _table(
    "cell_rows",
    "a content in a cell where it is found or looks for pairs",
    Column("block", "string", "as in catalog_rows"),
    Column("cell", "int", "cell of the block, from 0"),
    Column("role", "int", "0 is found, 1 is found and looks, 2 looks"),
    _SHA,
    _VECTOR,
)

CONTENT_PAIR_KEYS = _table(
    "content_pair_keys",
    "a pair of photo contents of one block that brute force found for a sampled query",
    Column("block", "string", "as in catalog_rows"),
    Column("sha_a", "string", "content_sha256, the smaller of the two"),
    Column("sha_b", "string", "content_sha256, the larger of the two"),
)

PRODUCTS = _table(
    "products",
    "a product of a block: what is compared, with the SKU that stands for it",
    Column("block", "string", "as in catalog_rows"),
    Column("product", "string", "as in catalog_rows; with block the key"),
    Column("sku_id", "string", "of the product's SKUs the best: stands for it in every report"),
    Column("variant_group", "string", "of that SKU", nullable=True),
    Column(
        "conflict",
        "string",
        "as in catalog_rows; a value on which the product's SKUs differ is null: unknown",
    ),
    Column("order_values", "array<string>", "of that SKU, as in catalog_rows"),
    Column("n_pixels", "bigint", "of the largest photo of any SKU of the product"),
    Column("main_sha256", "string", "content of the product's first photo in the catalog"),
    Column("n_contents", "int", "distinct photo contents of all SKUs of the product"),
)

JUDGED_DECISIONS = _table(
    "judged_decisions",
    "a row of the decisions file against tonight's catalog: pair_decisions before grouping",
    *_DECISION,
    Column(
        "product_a",
        "string",
        "the SKU that stands for a's product; null where the decision does not count",
        nullable=True,
    ),
    Column("product_b", "string", "that of b", nullable=True),
)

PRODUCT_PAIRS = _table(
    "product_pairs",
    "a pair of products that matched, or that people said are the same, before grouping",
    Column("sku_id_a", "string", "the SKU that stands for the first product; the smaller id"),
    Column("sku_id_b", "string", "the SKU that stands for the second product"),
    Column("image_uri_a", "string", "photo of a in the best pair"),
    Column("image_uri_b", "string", "photo of b in the best pair"),
    Column("uri_key_a", "string", "of image_uri_a"),
    Column("uri_key_b", "string", "of image_uri_b"),
    Column("n_matching_photos", "int", "photo pairs at or above the threshold"),
    Column("cosine", "float", "of the best photo pair; 1.0 for an exact copy"),
    Column("score", "float", "as in duplicate_pairs"),
    Column("match_type", "string", "exact, near or decision"),
    Column("in_conflict", "boolean", "the two differ in a --conflict column"),
    Column("decision", "string", "as in duplicate_pairs", nullable=True),
)

OPEN_PAIRS = _table(
    "open_pairs",
    "pairs of components that the chaining rule could cut; a file holds whole components",
    Column("a", "bigint", "number of a product, in the order of SKU ids"),
    Column("b", "bigint", "number of the other one"),
    Column("score", "float", "as in duplicate_pairs; very large where people called them the same"),
    Column("cannot_link", "boolean", "the two are in conflict, or people called them different"),
    Column("traits_a", "array<int>", "codes of a's values in the --conflict columns, -1 unknown"),
    Column("traits_b", "array<int>", "those of b"),
)

REFINED_NODES = _table(
    "refined_nodes",
    "products of open pairs in their groups",
    Column("node", "bigint", "as in open_pairs"),
    Column("first_node", "bigint", "the smallest node of its group"),
)

NAMED_MEMBERS = _table(
    "named_members",
    "products that are in a group, with the name of the group",
    Column("sku_id", "string", "as in products"),
    Column("group_id", "string", "as in duplicate_groups"),
    Column("match_type", "string", "as in duplicate_groups"),
    Column("group_first_seen", "date", "as in duplicate_groups"),
    Column("member_since", "date", "as in duplicate_groups"),
)

PAIR_PLACES = _table(
    "pair_places",
    "where a pair of product_pairs ended: file by file and row by row as they are stored",
    Column("group_id", "string", "the group both are in; null when parted", nullable=True),
    Column("parted_by", "string", "null, chaining, conflict or decision", nullable=True),
)

GROUPED_PAIRS = _table(
    "grouped_pairs",
    "a pair of products that matched, with where it ended: duplicate_pairs before publishing",
    *PRODUCT_PAIRS.columns[:9],
    Column("match_type", "string", "exact, near or decision"),
    *PAIR_PLACES.columns,
    Column("decision", "string", "as in duplicate_pairs", nullable=True),
)

GROUP_ROWS = _table(
    "group_rows",
    "a SKU in a group of two or more: duplicate_groups before publishing",
    *DUPLICATE_GROUPS.columns[:-1],
)


def arrow_batch(table: Table, rows: Iterable[dict[str, object]]) -> pa.RecordBatch:
    """Build one record batch of a table from dictionaries; a missing column is an error."""
    rows = list(rows)
    arrays = [
        pa.array([row[column.name] for row in rows], type=_ARROW[column.type])
        for column in table.columns
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=table.arrow)
