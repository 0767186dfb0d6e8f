"""What people decided, as labelled photo pairs to train on: a table and the photos it names."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from itertools import product
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from dedup_job.commands.output_file import written_whole
from dedup_job.commands.run_photos import Row, RunPhotos
from dedup_job.errors import ConfigError, ImageRejected
from dedup_job.io.decisions import Decision, read_decisions
from dedup_job.io.manifests import find_table, read_manifest
from dedup_job.io.storage import open_warehouse
from dedup_job.io.tables import read_where
from dedup_job.kernels.images import decode
from dedup_job.tables import DUPLICATE_PAIRS, PHOTO_DIGITS

PAIRS_FILE = "pairs.parquet"  # as model_training.sources names it: it may not be imported here
_PHOTOS = "photos"
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
# Of two SKUs with many photos each, pairs of photos that are taken.
_MAX_PAIRS = 9
_SCHEMA = pa.schema(
    [("image_a", pa.string()), ("image_b", pa.string()), ("label", pa.int8())]
    + [(name, pa.string()) for name in ("sku_id_a", "sku_id_b")]
)


@dataclass(frozen=True)
class Collected:
    """How many decisions became what; but for `n_thumbnails` (photos) they add up to the rows of the file.

    `n_similar`, `n_dissimilar`: decisions that gave photo pairs. The others gave none: `n_unusable`
    rows of the file (rejected, repeated), `n_no_photo` (a SKU is not in the run, or none of its photos
    can be read), `n_changed` (the photos decided on are no longer there), `n_one_picture` (both show the
    same file: nothing to learn), `n_ambiguous` (*same*, but which of several photos match is not
    known), `n_contradicted` (*same*, but others said that they, or two they are joined with, differ).
    """

    n_similar: int = 0
    n_dissimilar: int = 0
    n_unusable: int = 0
    n_no_photo: int = 0
    n_changed: int = 0
    n_one_picture: int = 0
    n_ambiguous: int = 0
    n_contradicted: int = 0
    n_thumbnails: int = 0

    def line(self) -> str:
        """For a terminal."""
        used = f"{self.n_similar} same and {self.n_dissimilar} different decisions"
        names = [field.name for field in fields(self)[2:-1]]
        left = [f"{getattr(self, n)} {n[2:].replace('_', ' ')}" for n in names if getattr(self, n)]
        small = f"; {self.n_thumbnails} photos are gone: thumbnails" if self.n_thumbnails else ""
        return used + (f"; not used: {', '.join(left)}" if left else "") + small


def collect_training_pairs(decisions: str, warehouse: str, out: Path) -> Collected:
    """Write `pairs.parquet` (image_a, image_b, label 1 or 0, sku_id_a, sku_id_b) and `photos/`.

    Photos are fetched as that run fetched them; of a photo that is gone its thumbnail is taken. Files are
    named by their content: two calls over the same photos write the same files.

    Args:
        decisions: as `--decisions` of the nightly job.
        warehouse: as `--warehouse`; its last published run says which photos the SKUs have.
        out: a new or empty directory, or one that this wrote before.

    Raises:
        ConfigError: the decisions cannot be read, nothing of them can be used, or `out` holds
            something else.
        DedupError: nothing is published in the warehouse.
    """
    said = read_decisions(decisions)
    folder = open_warehouse(warehouse)
    manifest = read_manifest(folder)
    _prepare(out)
    photos = RunPhotos(folder, manifest)
    rows = photos.rows_of({sku for one in said.decisions for sku in one.pair})
    stored = find_table(folder, manifest, DUPLICATE_PAIRS.name)
    first = {one.sku_id_a for one in said.decisions}
    best = {
        (row["sku_id_a"], row["sku_id_b"]): (row["uri_key_a"], row["uri_key_b"])
        for row in read_where(stored, "sku_id_a", first)
    }
    collector = _Collector(photos, rows, best, out / _PHOTOS)
    table = list(collector.collect(said.decisions))
    collector.count["n_unusable"] = len(said.rejected) + len(said.repeated)
    collected = Collected(**collector.count)
    if not table:
        raise ConfigError(
            f"--decisions: nothing to learn from ({collected.line()}); review groups of the last run"
        )
    with written_whole(out / PAIRS_FILE) as partial:
        pq.write_table(pa.Table.from_pylist(table, _SCHEMA), partial)
    return collected


def _prepare(out: Path) -> None:
    """Make `out` with an empty folder of photos."""
    ours = {PAIRS_FILE, _PHOTOS}
    try:
        if out.is_dir() and (others := sorted({p.name for p in out.iterdir()} - ours)):
            raise ConfigError(
                f"--out {out} holds {others[0]}, which is not of this command; name an empty directory"
            )
        (out / _PHOTOS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written: {error.strerror}") from None


class _Unused(Exception):
    """The count that a decision without photo pairs goes to."""


class _Collector:
    """Turns decisions into rows: all *different* first, then *same*, the newest first.

    So a *same* that would join two that are *different* is left out, however new it is: as in the job.
    """

    def __init__(
        self,
        photos: RunPhotos,
        rows: dict[str, list[Row]],
        best: dict[tuple[str, str], tuple[str, str]],
        folder: Path,
    ) -> None:
        self.count: Counter[str] = Counter()
        self._photos = photos
        self._rows = rows
        self._best = best
        self._folder = folder
        self._saved: dict[str, str | None] = {}
        self._together = _Together()

    def collect(self, decisions: Iterable[Decision]) -> Iterator[dict[str, object]]:
        """Rows of the table."""
        for one in sorted(decisions, key=_different_then_newest):
            try:
                pairs = self._pairs_of(one)
            except _Unused as unused:
                self.count[str(unused)] += 1
                continue
            is_same = one.decision == "same"
            self.count["n_similar" if is_same else "n_dissimilar"] += 1
            for a, b in pairs:
                yield {
                    "image_a": a,
                    "image_b": b,
                    "label": int(is_same),
                    "sku_id_a": one.sku_id_a,
                    "sku_id_b": one.sku_id_b,
                }

    def _pairs_of(self, one: Decision) -> list[tuple[str, str]]:
        """Names of photo pairs; raises _Unused."""
        rows_a = self._rows_of(one.sku_id_a, one.photos_a)
        rows_b = self._rows_of(one.sku_id_b, one.photos_b)
        is_same = one.decision == "same"
        # The pair that matched first: it is what was looked at.
        key = self._best.get(one.pair)
        chosen = sorted(
            product(rows_a, rows_b), key=lambda ends: tuple(r["uri_key"] for r in ends) != key
        )
        if is_same and len(chosen) > 1:
            if tuple(row["uri_key"] for row in chosen[0]) != key:
                raise _Unused("n_ambiguous")
            chosen = chosen[:1]
        names = [(self._save(a), self._save(b)) for a, b in chosen[:_MAX_PAIRS]]
        readable = [(a, b) for a, b in names if a is not None and b is not None]
        if not readable:
            raise _Unused("n_no_photo")
        pairs = list(dict.fromkeys((a, b) for a, b in readable if a != b))
        if not pairs:
            raise _Unused("n_one_picture")
        # Of SKUs, as a chain may lead through other photos of one; of photos, as SKUs may share them.
        for two in ((f"sku {one.sku_id_a}", f"sku {one.sku_id_b}"), *pairs):
            if not self._together.accept(*two, is_same=is_same):
                raise _Unused("n_contradicted")
        return pairs

    def _rows_of(self, sku: str, looked_at: frozenset[str] | None) -> list[Row]:
        rows = self._rows.get(sku, [])
        if not rows:
            raise _Unused("n_no_photo")
        if looked_at is None:
            return rows
        bound = [row for row in rows if row["content_sha256"][:PHOTO_DIGITS] in looked_at]
        if not bound:
            raise _Unused("n_changed")
        return bound

    def _save(self, row: Row) -> str | None:
        """Name of the photo's file below `out`; None where it cannot be read."""
        content = row["content_sha256"]
        if content not in self._saved:
            try:
                data = self._photos.use(row, _decodable, of_the_run=True)
            except ImageRejected:
                self._saved[content] = None
                return None
            found = hashlib.sha256(data).hexdigest()
            self.count["n_thumbnails"] += found != content
            suffix = PurePosixPath(row["image_uri"]).suffix.lower()
            suffix = suffix if suffix in _SUFFIXES and found == content else ".jpg"
            name = found[:PHOTO_DIGITS] + suffix
            with written_whole(self._folder / name) as partial:
                partial.write_bytes(data)
            self._saved[content] = f"{_PHOTOS}/{name}"
        return self._saved[content]


class _Together:
    """What is joined by *same*, and what must not be."""

    def __init__(self) -> None:
        self._group: dict[str, set[str]] = {}
        self._rivals: dict[str, set[str]] = {}

    def accept(self, a: str, b: str, *, is_same: bool) -> bool:
        """Take a pair in, unless it contradicts those before; all *different* come first."""
        if not is_same:
            self._rivals.setdefault(a, set()).add(b)
            self._rivals.setdefault(b, set()).add(a)
            return True
        small, large = sorted((self._group_of(a), self._group_of(b)), key=len)
        if small is large:
            return True
        if any(large & self._rivals.get(photo, set()) for photo in small):
            return False
        large |= small
        for photo in small:
            self._group[photo] = large
        return True

    def _group_of(self, photo: str) -> set[str]:
        return self._group.setdefault(photo, {photo})


def _different_then_newest(one: Decision) -> tuple[bool, float, int]:
    when = one.decided_at or datetime.min.replace(tzinfo=UTC)
    return (
        one.decision == "same",
        -(when - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds(),
        one.row,
    )


def _decodable(data: bytes) -> bytes:
    decode(data)
    return data
