"""The gallery of a published run: what it shows, and the page, from the run's tables alone."""

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from dedup_job.gallery.cards import Row, build_cards
from dedup_job.gallery.page import render_page
from dedup_job.io.manifests import (
    RunManifest,
    find_table,
    newest_published,
    threshold_of,
    verifier_of,
)
from dedup_job.io.storage import Folder
from dedup_job.io.tables import StoredTable, read_batches, read_where
from dedup_job.io.thumbnails import GALLERY_FOLDER, delete_thumbnails, thumbnails_there
from dedup_job.tables import (
    CATALOG_IMAGES,
    DUPLICATE_GROUPS,
    DUPLICATE_PAIRS,
    GROUP_CHANGES,
    PAIR_DECISIONS,
    PHOTO_DIGITS,
    REVIEW_SAMPLE,
)

MAX_GROUPS = 10_000
PAGE = "index.html"
SHOWN_PHOTOS = 4  # of a SKU, as in gallery.js


@dataclass(frozen=True)
class Shown:
    """What a gallery shows.

    Attributes:
        rows: of DUPLICATE_GROUPS.
        groups: their ids.
        sample: those of them that were drawn at random.
        photos: of their SKUs.
    """

    rows: list[Row]
    groups: set[str]
    sample: frozenset[str]
    photos: dict[str, list[str]]

    @property
    def thumbnails(self) -> set[str]:
        """Photos that a reader sees."""
        return {photo for of_sku in self.photos.values() for photo in of_sku[:SHOWN_PHOTOS]}


def choose_shown(warehouse: Folder, manifest: RunManifest, max_groups: int) -> Shown:
    """The `max_groups` least certain groups of a run, and those drawn at random."""
    stored = find_table(warehouse, manifest, DUPLICATE_GROUPS.name)
    sample = _sample(warehouse, manifest)
    groups = least_certain(stored, max_groups) | sample
    rows = list(read_where(stored, "group_id", groups))
    skus = {row["sku_id"] for row in rows}
    return Shown(rows, groups, frozenset(sample), _photos(warehouse, manifest, skus))


def write_gallery(warehouse: Folder, manifest: RunManifest, shown: Shown) -> str:
    """Write the page of a run, with the thumbnails that are there; returns where it lies."""
    there = thumbnails_there(warehouse)
    cards = build_cards(
        shown.rows,
        read_where(find_table(warehouse, manifest, DUPLICATE_PAIRS.name), "group_id", shown.groups),
        _changes(warehouse, manifest, shown.groups),
        _decisions(warehouse, manifest),
        shown.photos,
        shown.sample,
        with_scores=verifier_of(manifest.facts) is not None,
    )
    data = {
        "run_date": manifest.run_date,
        "store": warehouse.uri,
        "about": _about(manifest, len(cards)),
        "groups": cards,
        "thumbnails": dict.fromkeys(sorted(shown.thumbnails & there), 1),
    }
    gallery = warehouse.child(GALLERY_FOLDER)
    gallery.create()
    gallery.replace_bytes(PAGE, render_page(data).encode())
    return gallery.path(PAGE)


def forget_photos(warehouse: Folder, contents: Collection[str]) -> None:
    """Delete the thumbnails of contents, and write the page anew, if there is one.

    The page goes first: whatever fails then, it names nobody any more.
    """
    gallery = warehouse.child(GALLERY_FOLDER)
    had_page = PAGE in gallery.file_names()
    gallery.delete_file(PAGE)
    delete_thumbnails(warehouse, {content[:PHOTO_DIGITS] for content in contents})
    manifest = newest_published(warehouse) if had_page else None
    if manifest is not None:
        write_gallery(warehouse, manifest, choose_shown(warehouse, manifest, most_groups(manifest)))


def drop_unseen(warehouse: Folder, manifest: RunManifest) -> int:
    """Delete thumbnails that the gallery of a run does not show; returns how many."""
    there = thumbnails_there(warehouse)
    if not there:
        return 0
    unseen = there - choose_shown(warehouse, manifest, most_groups(manifest)).thumbnails
    delete_thumbnails(warehouse, unseen)
    return len(unseen)


def most_groups(manifest: RunManifest) -> int:
    """`gallery.max_groups` of a run."""
    setting = manifest.config.get("gallery.max_groups", {})
    return int(setting.get("value", MAX_GROUPS))


def least_certain(groups: StoredTable, n: int) -> set[str]:
    """The groups whose least alike members are least alike, `n` at most; streams."""

    def lowest() -> Iterator[tuple[float, str]]:
        for part in read_batches(groups, ["group_id", "min_pair_cosine", "is_canonical"]):
            one_each = part.filter(part["is_canonical"])
            yield from zip(
                one_each["min_pair_cosine"].to_pylist(),
                one_each["group_id"].to_pylist(),
                strict=True,
            )

    return {group_id for _, group_id in heapq.nsmallest(n, lowest())}


def _changes(warehouse: Folder, manifest: RunManifest, shown: set[str]) -> dict[str, str]:
    if manifest.base_run_id is None:  # a first run: everything is new, so nothing stands out
        return {}
    stored = find_table(warehouse, manifest, GROUP_CHANGES.name)
    return {row["group_id"]: row["change"] for row in read_where(stored, "group_id", shown)}


def _sample(warehouse: Folder, manifest: RunManifest) -> set[str]:
    if REVIEW_SAMPLE.name not in manifest.tables:
        return set()
    tonight = date.fromisoformat(manifest.run_date)
    stored = find_table(warehouse, manifest, REVIEW_SAMPLE.name)
    return {
        row["group_id"]
        for part in read_batches(stored, ["drawn_on", "group_id"])
        for row in part.to_pylist()
        if row["drawn_on"] == tonight
    }


def _decisions(warehouse: Folder, manifest: RunManifest) -> Iterable[Row]:
    if PAIR_DECISIONS.name not in manifest.tables:
        return []
    stored = find_table(warehouse, manifest, PAIR_DECISIONS.name)
    return read_where(stored, "outcome", {"reopened"})


def _photos(warehouse: Folder, manifest: RunManifest, skus: set[str]) -> dict[str, list[str]]:
    """The photos of each SKU's product, in the order of the catalog."""
    images = find_table(warehouse, manifest, CATALOG_IMAGES.name)
    columns = ["sku_id", "block", "product", "position", "content_sha256", "in_catalog", "reason"]
    products: dict[tuple[str, str], str] = {}
    values = pa.array(sorted(skus), pa.string())
    for part in read_batches(images, columns):
        for row in part.filter(pc.is_in(part["sku_id"], value_set=values)).to_pylist():
            products[row["block"], row["product"]] = row["sku_id"]
    names = pa.array(sorted({product for _, product in products}), pa.string())
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for part in read_batches(images, columns):
        kept = pc.and_(pc.is_in(part["product"], value_set=names), part["in_catalog"])
        for row in part.filter(kept).to_pylist():
            sku = products.get((row["block"], row["product"]))
            if sku is not None and row["reason"] is None:
                found[sku].append((row["position"], row["content_sha256"][:PHOTO_DIGITS]))
    return {sku: [*dict.fromkeys(photo for _, photo in sorted(of))] for sku, of in found.items()}


def _about(manifest: RunManifest, n_shown: int) -> str:
    threshold, n_groups = threshold_of(manifest.facts), int(manifest.facts["n_groups"])
    which = "" if n_shown == n_groups else f", of which {n_shown} are shown, the least certain"
    lines = (
        f"{n_groups} groups{which}. Run {manifest.run_id}, threshold: {threshold}. The least "
        "certain come first."
    )
    reviewed = manifest.facts.get("reviewed") or {"n_groups": 0}
    if not reviewed["n_groups"]:
        return (
            f"{lines} Review the random sample, and the next run tells the precision of all groups."
        )
    share = reviewed["n_right"] / reviewed["n_groups"]
    return (
        f"{lines} Of {reviewed['n_groups']} reviewed groups that were drawn at random {share:.1%} are "
        f"right (95 % interval {reviewed['low']:.1%} to {reviewed['high']:.1%})."
    )
