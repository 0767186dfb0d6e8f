"""`dedup-job find`: which listings of the catalog look like a photo."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from dedup_job.commands.photo_query import Likeness, Photo, PhotoModel, Shown
from dedup_job.commands.safe_text import visible
from dedup_job.errors import DedupError
from dedup_job.io.embedding_store import EmbeddingStore
from dedup_job.io.manifests import (
    RunManifest,
    find_table,
    read_manifest,
    threshold_of,
    verifier_of,
)
from dedup_job.io.search_index import (
    INDEX_FOLDER,
    Hit,
    SearchIndex,
    build_index,
    index_name,
)
from dedup_job.io.storage import Folder, open_warehouse
from dedup_job.io.tables import read_batches
from dedup_job.tables import CATALOG_IMAGES, DUPLICATE_GROUPS

_FAN_OUT = 12
# A content may be shown by many SKUs, and a SKU show many contents.
_HITS_PER_LISTING = 10
# 8 ms each: those most alike are verified, and what is rarely a match is not.
_VERIFIED_PER_LISTING = 5
Showers = dict[str, list[tuple[str, str]]]  # content -> (SKU, photo)


@dataclass(frozen=True)
class Listing:
    """A SKU that looks like the photo: its most alike photo, and what that means.

    `score` is what the threshold acts on: the verifier's or, where the run verified no pairs, the cosine; None
    where the two photos were not verified, because their cosine is too low.
    """

    sku_id: str
    cosine: float
    match_probability: float
    is_match: bool
    image_uri: str
    group_id: str | None
    score: float | None


def find(
    warehouse: str,
    photo: str,
    top: int,
    bundle: str,
    *,
    rebuild: bool = False,
    as_json: bool = False,
) -> None:
    """Print the SKUs of the last published run whose photos are most like a photo.

    The first call after a run builds the search index, which takes a pass over all embeddings.

    Args:
        warehouse: as `--warehouse`.
        photo: a file.
        top: SKUs to print, at most.
        bundle: as `--model`; must be the model of the run.
        rebuild: build the index in any case.
        as_json: print one JSON object.

    Raises:
        DedupError: nothing was published there, or it cannot be read.
        ConfigError: the photo cannot be used, or the bundle is of another model.
    """
    folder = open_warehouse(warehouse)
    manifest = read_manifest(folder)
    model = PhotoModel(bundle, manifest)
    query = model.open(Path(photo))
    with open_index(folder, manifest, rebuild=rebuild) as index:
        found = look_up(index, model, query, top, manifest)
    if as_json:
        print(
            json.dumps(
                {"run_id": manifest.run_id, "found": [asdict(one) for one in found]}, indent=2
            )
        )
        return
    print("\n".join(_lines(found, manifest)))


def open_index(warehouse: Folder, manifest: RunManifest, *, rebuild: bool = False) -> SearchIndex:
    """The search index of a run; built where it is not there."""
    folder = warehouse.child(INDEX_FOLDER)
    name = index_name(manifest.run_id)
    if rebuild or name not in folder.file_names():
        shown = _showers(warehouse, manifest)
        groups = _groups(warehouse, manifest)
        if not shown:
            raise DedupError(f"run {manifest.run_id} has no usable photo to search")
        build_index(folder, manifest.run_id, _rows(warehouse, manifest, shown, groups), len(shown))
    return SearchIndex(folder, name)


def look_up(
    index: SearchIndex, model: PhotoModel, query: Photo, top: int, manifest: RunManifest
) -> list[Listing]:
    """The SKUs most like a query, each by its most alike photo."""
    listings: dict[str, Listing] = {}
    threshold = threshold_of(manifest.facts).value
    for found, hit in _judged(index, model, query, top):
        is_match = found.score is not None and found.score >= threshold
        for sku, uri, group in zip(hit.sku_ids, hit.image_uris, hit.group_ids, strict=True):
            listing = Listing(
                sku, found.cosine, found.probability, is_match, uri, group or None, found.score
            )
            listings.setdefault(sku, listing)
    return list(listings.values())[:top]


def _judged(
    index: SearchIndex, model: PhotoModel, query: Photo, top: int
) -> list[tuple[Likeness, Hit]]:
    """The contents nearest to a query, the most alike first; of equals the smallest content."""
    hits = index.search(query.embedding, _HITS_PER_LISTING * top, _FAN_OUT)
    to_verify = [hit for hit in hits if model.would_verify(hit.cosine)]
    pictures = index.pictures(to_verify[: _VERIFIED_PER_LISTING * top])
    judged = [
        (model.likeness(hit.cosine, query.shown, Shown(sha, pictures.get(sha))), hit)
        for hit in hits
        for sha in [hit.content_sha256]
    ]
    return sorted(judged, key=lambda one: (one[0].rank, one[1].content_sha256))


def _lines(found: list[Listing], manifest: RunManifest) -> Iterator[str]:
    matches = [one for one in found if one.is_match]
    threshold = threshold_of(manifest.facts)
    if matches:
        yield f"in the catalog: {visible(matches[0].sku_id)} (threshold: {threshold})"
    else:
        yield f"not in the catalog: nothing reaches the threshold, {threshold}"
    yield "  cosine   score  probability  SKU, group, photo"
    for one in found:
        mark = "*" if one.is_match else " "
        where = f"{visible(one.sku_id)}  {one.group_id or '-'}  {visible(one.image_uri)}"
        score = "-" if one.score is None else f"{one.score:.4f}"
        yield f"{mark} {one.cosine:.4f}  {score:>6}  {one.match_probability:11.4f}  {where}"


def _showers(warehouse: Folder, manifest: RunManifest) -> Showers:
    shown: Showers = defaultdict(list)
    columns = ["sku_id", "image_uri", "content_sha256", "in_catalog", "reason"]
    for part in read_batches(find_table(warehouse, manifest, CATALOG_IMAGES.name), columns):
        usable = part.filter(pc.and_(part["in_catalog"], pc.is_null(part["reason"])))
        for sku, uri, sha in zip(*(usable[name].to_pylist() for name in columns[:3]), strict=True):
            shown[sha].append((sku, uri))
    return shown


def _groups(warehouse: Folder, manifest: RunManifest) -> dict[str, str]:
    stored = find_table(warehouse, manifest, DUPLICATE_GROUPS.name)
    columns = ["sku_id", "group_id"]
    parts = (part.select(columns).to_pydict().values() for part in read_batches(stored, columns))
    return {sku: group for part in parts for sku, group in zip(*part, strict=True)}


def _rows(
    warehouse: Folder, manifest: RunManifest, shown: Showers, groups: dict[str, str]
) -> Iterator[pa.Table]:
    """Rows of `search_index.SCHEMA`: each content once, though two runs may have stored it."""
    stored = EmbeddingStore(warehouse, manifest.facts["model_id"]).stored()
    columns = ["content_sha256", "embedding"]
    if verifier_of(manifest.facts) is not None:
        columns.append("picture")
    left = set(shown)
    for part in read_batches(stored, columns):
        shas = part["content_sha256"].to_pylist()
        rows = [i for i, sha in enumerate(shas) if sha in left]
        left.difference_update(shas)
        taken = part.take(pa.array(rows, pa.int64()))
        showers = [sorted(shown[shas[i]]) for i in rows]
        yield pa.table(
            {
                "content_sha256": taken["content_sha256"],
                "sku_ids": [[sku for sku, _ in one] for one in showers],
                "image_uris": [[uri for _, uri in one] for one in showers],
                "group_ids": [[groups.get(sku, "") for sku, _ in one] for one in showers],
                "embedding": taken["embedding"],
                "picture": taken["picture"]
                if "picture" in columns
                else pa.nulls(len(rows), pa.binary()),
            }
        )
