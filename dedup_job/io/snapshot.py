"""What a run read: the catalog's files as they were, told without reading them again."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from dedup_job.io.catalog import Part
from dedup_job.io.catalog_files import IMAGE_SUFFIXES, explained, list_files
from dedup_job.io.object_store import open_object_store
from dedup_job.io.uris import redact, split_scheme
from dedup_job.version import VERSION

_SHOWN_FILES = 100
_LARGE_BYTES, _LARGE_FILES = 50_000_000, 500_000  # a row of a catalog takes about 100 bytes


def snapshot_catalog(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Name, size and version of every file of a catalog.

    Args:
        parts: from `plan_catalog`.

    Returns:
        One dictionary a file: `file`, `n_bytes`, `version` (modification time or ETag). A folder of
        images is one entry: `n_files`, `n_bytes` of all, and a digest over their names, sizes and
        versions.

    Raises:
        CatalogError: a file vanished meanwhile.
    """
    locations = list(dict.fromkeys(part.location for part in parts))
    if parts[0].format == "images":
        return [_describe_folder(locations[0])]
    return [_describe(location) for location in locations]


def inputs_digest(snapshot: Iterable[dict[str, Any]], *facts: object) -> str:
    """SHA-256 (64 hex digits) over a catalog snapshot and whatever else decides a run's result.

    The version of this package counts: another one may take other steps.
    """
    text = json.dumps([list(snapshot), facts, VERSION], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def shown_snapshot(snapshot: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A snapshot short enough for a manifest: the first files, and how many more there are."""
    more = len(snapshot) - _SHOWN_FILES
    return snapshot if more <= 0 else [*snapshot[:_SHOWN_FILES], {"more_files": more}]


def is_large(snapshot: Iterable[dict[str, Any]]) -> bool:
    """Whether a catalog has about half a million rows or more, as far as its files tell."""
    files = list(snapshot)
    n_images = sum(file.get("n_files", 0) for file in files)
    n_bytes = sum(file["n_bytes"] for file in files if "n_files" not in file)
    return n_images >= _LARGE_FILES or n_bytes >= _LARGE_BYTES


def _describe(location: str) -> dict[str, Any]:
    n_bytes, version = _stat(location)
    return {"file": redact(location), "n_bytes": n_bytes, "version": version}


def _describe_folder(folder: str) -> dict[str, Any]:
    names = [name for name in list_files(folder) if name.lower().endswith(IMAGE_SUFFIXES)]
    digest, total = hashlib.sha256(), 0
    for name, (n_bytes, version) in zip(names, _stat_all(folder, names), strict=True):
        total += n_bytes
        digest.update(f"{name}\0{n_bytes}\0{version}\n".encode("utf-8", "surrogateescape"))
    return {
        "file": redact(folder),
        "n_files": len(names),
        "n_bytes": total,
        "version": digest.hexdigest(),
    }


def _stat_all(folder: str, names: list[str]) -> Iterator[tuple[int, str]]:
    if folder.startswith("/"):
        yield from (_stat(f"{folder}/{name}") for name in names)
        return
    with explained(folder):  # one listing, not a request for every object
        scheme, rest = split_scheme(folder)
        prefix = rest.removeprefix("//").rstrip("/")
        listed = open_object_store(scheme).find(f"{prefix}/", detail=True)
    yield from (_version(listed[f"{prefix}/{name}"]) for name in names)


def _stat(location: str) -> tuple[int, str]:
    with explained(location):
        if location.startswith("/"):
            status = os.stat(location)
            return status.st_size, datetime.fromtimestamp(status.st_mtime, UTC).isoformat()
        return _version(open_object_store(split_scheme(location)[0]).info(location))


def _version(info: dict[str, Any]) -> tuple[int, str]:
    version = info.get("ETag") or info.get("etag") or info.get("LastModified") or ""
    return int(info["size"]), str(version).strip('"')
