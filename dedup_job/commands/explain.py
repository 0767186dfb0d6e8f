"""`dedup-job explain SKU_A SKU_B`: why two SKUs are together, or are not; and since when."""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from dedup_job.commands.compare import write_explanation
from dedup_job.commands.photo_query import Likeness, Photo, PhotoModel, cosine_of
from dedup_job.commands.run_photos import Row, RunPhotos
from dedup_job.commands.safe_text import visible
from dedup_job.errors import ConfigError, ImageRejected
from dedup_job.gallery.explanation import explain_photos
from dedup_job.io.manifests import (
    RunManifest,
    find_table,
    has_data,
    list_runs,
    read_manifest,
    threshold_of,
    verifier_of,
)
from dedup_job.io.storage import Folder, open_warehouse
from dedup_job.io.tables import read_where
from dedup_job.tables import (
    DUPLICATE_GROUPS,
    DUPLICATE_PAIRS,
    PAIR_DECISIONS,
)

# 8 ms each. Two SKUs seldom have more pairs of photos; of those that do, the most alike count.
_MOST_VERIFIED = 50


def explain(warehouse: str, sku_a: str, sku_b: str, bundle: str, out: str | None = None) -> None:
    """Print why two SKUs are in one group or not, and draw it.

    Args:
        warehouse: as `--warehouse`.
        sku_a: as in the catalog.
        sku_b: another one.
        bundle: as `--model`; must be the model of the run.
        out: a .png or .html to write.

    Raises:
        DedupError: nothing was published there, or it cannot be read.
        ConfigError: a SKU is not in the catalog, its photos cannot be read, or the bundle is another model's.
    """
    if sku_a == sku_b:
        raise ConfigError("explain takes two different SKUs")
    smaller, larger = sorted((sku_a, sku_b))
    folder = open_warehouse(warehouse)
    manifest = read_manifest(folder)
    facts = list(_facts(folder, manifest, smaller, larger))
    model = PhotoModel(bundle, manifest)
    run_photos = RunPhotos(folder, manifest)
    photos = [_photos(run_photos, model, sku) for sku in (smaller, larger)]
    found, a, b = _best_pair(photos[0], photos[1], model)
    facts[:0] = [
        ("best photos now", _figures(found, manifest)),
        ("threshold", str(threshold_of(manifest.facts))),
    ]
    title = f"{visible(smaller)} and {visible(larger)}"
    if out is not None:
        explained = explain_photos(a.pixels, b.pixels, model.embed_pixels)
        write_explanation(Path(out), title, facts, a.pixels, b.pixels, explained)
    print(title)
    for name, text in facts:
        print(f"  {name:<18} {text}")
    if out is not None:
        print(f"  {'picture':<18} {out}")


def _facts(warehouse: Folder, manifest: RunManifest, a: str, b: str) -> Iterator[tuple[str, str]]:
    pair, group = _pair(warehouse, manifest, a, b), _groups(warehouse, manifest, a, b)
    yield "verdict", _verdict(pair, group, a, b)
    if pair:
        yield (
            "best photos then",
            f"{visible(pair['image_uri_a'])} and {visible(pair['image_uri_b'])}",
        )
        yield "matching photos", str(pair["n_matching_photos"])
    for row in _said(warehouse, manifest, a, b):
        who = f" by {visible(row['decided_by'])}" if row["decided_by"] else ""
        when = f" on {row['decided_at']:%Y-%m-%d}" if row["decided_at"] else ""
        detail = f" ({visible(row['detail'])})" if row["detail"] else ""
        yield "people said", f"{row['decision']}{who}{when}: {row['outcome']}{detail}"
    for run in list_runs(warehouse):
        if run.status == "published" and has_data(warehouse, run):
            yield f"night {run.run_date}", _then(warehouse, run, a, b)


def _verdict(pair: Row | None, group: dict[str, str], a: str, b: str) -> str:
    if group.get(a) is not None and group.get(a) == group.get(b):
        joined = "by people" if pair and pair["match_type"] == "decision" else None
        how = joined or (f"as {pair['match_type']} pair" if pair else "through other members")
        return f"together in {group[a]}, {how}"
    if pair is None:
        return "not together: no photo pair of theirs reaches the threshold, or their blocks differ"
    reasons = {
        "decision": "people said that they, or two of those they are grouped with, are different",
        "conflict": "they differ in a --conflict column",
        "chaining": "the rest of their groups is too unlike (match.chaining)",
    }
    return f"a match, but not together: {reasons.get(pair['parted_by'], 'unknown')}"


def _then(warehouse: Folder, run: RunManifest, a: str, b: str) -> str:
    group, pair = _groups(warehouse, run, a, b), _pair(warehouse, run, a, b)
    likeness = "no match"
    if pair:
        scale = threshold_of(run.facts).scale
        likeness = f"{scale} {pair[scale]:.4f}"
    if group.get(a) is not None and group.get(a) == group.get(b):
        return f"together in {group[a]}, {likeness}"
    return f"apart ({pair['parted_by']}), {likeness}" if pair else "apart, no match"


def _pair(warehouse: Folder, run: RunManifest, a: str, b: str) -> Row | None:
    stored = find_table(warehouse, run, DUPLICATE_PAIRS.name)
    rows = read_where(stored, "sku_id_a", [a])
    return next((row for row in rows if row["sku_id_b"] == b), None)


def _groups(warehouse: Folder, run: RunManifest, a: str, b: str) -> dict[str, str]:
    stored = find_table(warehouse, run, DUPLICATE_GROUPS.name)
    return {row["sku_id"]: row["group_id"] for row in read_where(stored, "sku_id", [a, b])}


def _said(warehouse: Folder, run: RunManifest, a: str, b: str) -> Iterator[Row]:
    if PAIR_DECISIONS.name in run.tables:
        stored = find_table(warehouse, run, PAIR_DECISIONS.name)
        yield from (row for row in read_where(stored, "sku_id_a", [a]) if row["sku_id_b"] == b)


def _photos(photos: RunPhotos, model: PhotoModel, sku: str) -> list[Photo]:
    """The photos of a SKU as the model takes them: read anew, or else from their thumbnails."""
    rows = photos.rows_of([sku]).get(sku)
    if not rows:
        raise ConfigError(f"SKU {visible(sku)} has no usable photo in run {photos.run_id}")
    found, problem = [], ""
    for row in rows:
        try:
            found.append(photos.use(row, model.see))
        except ImageRejected as refusal:
            problem = refusal.detail
    if not found:
        raise ConfigError(f"no photo of SKU {visible(sku)} can be read: {problem}")
    return found


def _best_pair(
    photos_a: Sequence[Photo], photos_b: Sequence[Photo], model: PhotoModel
) -> tuple[Likeness, Photo, Photo]:
    """The pair of photos by which the job would judge two SKUs."""
    pairs = [(cosine_of(a, b), a, b) for a, b in product(photos_a, photos_b)]
    pairs.sort(key=lambda pair: -pair[0])
    judged = [
        (model.likeness(cosine, a.shown, b.shown), a, b) for cosine, a, b in pairs[:_MOST_VERIFIED]
    ]
    return min(judged, key=lambda pair: pair[0].rank)


def _figures(found: Likeness, manifest: RunManifest) -> str:
    figures = f"cosine {found.cosine:.4f}, probability {found.probability:.4f}"
    if verifier_of(manifest.facts) is None:
        return figures
    if found.score is None:
        return f"{figures}; not verified: below cosine {manifest.facts['min_cosine']:.3f}"
    return f"score {found.score:.4f}, {figures}"
