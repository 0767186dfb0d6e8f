"""Where a catalog's files are: on this machine or in an object store, one file or a folder."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from dedup_job.config import CatalogConfig
from dedup_job.errors import CatalogError, ConfigError, ImageRejected
from dedup_job.io.object_store import open_object_store, rejection
from dedup_job.io.uris import check_http, local_folder, redact, split_scheme

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp")
_SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}


@dataclass(frozen=True)
class CatalogFiles:
    """The files of a catalog.

    `format` is parquet, csv, jsonl or images; `root` the folder that holds them; `files` their
    absolute locations in the order of the catalog (of images: none, they are listed when read).
    """

    format: str
    root: str
    files: tuple[str, ...]


def catalog_base(config: CatalogConfig) -> str:
    """Return what relative image URIs are relative to: the image root, else the catalog's folder.

    Returns:
        An absolute local folder, or an s3, gs or http(s) prefix.

    Raises:
        CatalogError: no catalog is given, or its location is not supported.
        ConfigError: `catalog.image_root` is not a folder or a URI of a supported scheme, or is an
            http(s) URL that is more than a prefix.
    """
    if config.image_root is not None:
        setting = "catalog.image_root"
        base = _absolute(config.image_root, setting, ("s3", "gs", "http", "https"))
        _check_web_base(base, setting)
        return base
    location = _catalog_location(config)
    return location if is_folder(location) else location.rpartition("/")[0] or "/"


def find_catalog(config: CatalogConfig) -> CatalogFiles:
    """Find the catalog's files and decide their format.

    Raises:
        CatalogError: nothing is there, or nothing that is a catalog.
    """
    location = _catalog_location(config)
    with explained(location):
        if is_folder(location):
            return _find_in_folder(location, config.format)
    with opened(location) as stream:
        head = stream.read(4096)
    if config.format == "images":
        raise CatalogError(f"catalog {redact(location)} is a file; format 'images' needs a folder")
    form = _sniff(location, head) if config.format == "auto" else config.format
    return CatalogFiles(form, location.rpartition("/")[0] or "/", (location,))


def open_file(location: str) -> BinaryIO:
    """Open a local path or an s3 or gs URI for reading at any position.

    Raises:
        CatalogError: a pipe or device: a catalog is read more than once, and opening one may hang.
    """
    if location.startswith("/"):
        mode = os.stat(location).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise CatalogError("it is not a regular file")
        return open(location, "rb")
    store = open_object_store(split_scheme(location)[0])
    return cast(BinaryIO, store.open(location, "rb"))


def is_folder(location: str) -> bool:
    """Whether a local path or an object prefix is a folder."""
    if location.startswith("/"):
        return os.path.isdir(location)
    with explained(location):
        return bool(open_object_store(split_scheme(location)[0]).isdir(location))


def list_files(folder: str) -> list[str]:
    """List the files below a folder by their relative names, sorted; hidden ones left out.

    Hidden is what Spark and Hive hide: a name, or a folder's name, that starts with `.` or `_`.
    """
    names = _walk_local(folder) if folder.startswith("/") else _list_objects(folder)
    return sorted(
        name for name in names if not any(part[:1] in (".", "_") for part in name.split("/"))
    )


@contextmanager
def opened(location: str) -> Iterator[BinaryIO]:
    """Open a catalog file; what is wrong with it, whoever finds it, is told with its location."""
    with explained(location):
        try:
            with open_file(location) as stream:
                yield stream
        except CatalogError as error:
            raise CatalogError(f"catalog {redact(location)}: {error}") from None


@contextmanager
def explained(location: str) -> Iterator[None]:
    """Turn what a file system raises into a one-line CatalogError."""
    shown = redact(location)
    try:
        yield
    except (CatalogError, ConfigError):
        raise
    except FileNotFoundError:
        raise CatalogError(f"catalog not found: {shown} (--catalog PATH)") from None
    except OSError as error:
        problem = error.strerror or type(error).__name__
        if not location.startswith("/"):
            problem = rejection(error, split_scheme(location)[0]).detail
        raise CatalogError(f"catalog {shown} cannot be read: {problem}") from None
    except Exception as error:
        module = type(error).__module__.partition(".")[0]
        if module not in ("botocore", "aiobotocore", "aiohttp", "gcsfs", "google"):
            raise
        problem = rejection(error, split_scheme(location)[0]).detail
        raise CatalogError(f"catalog {shown} cannot be read: {problem}") from None


def _catalog_location(config: CatalogConfig) -> str:
    if not config.path.strip():
        raise CatalogError(
            "no catalog given; use --catalog PATH (a file or folder, s3:// or gs://)"
        )
    try:
        return _absolute(config.path, "catalog.path", ("s3", "gs"))
    except ConfigError as error:
        raise CatalogError(str(error)) from None


def _absolute(location: str, setting: str, remote: tuple[str, ...]) -> str:
    scheme, _ = split_scheme(location)
    if scheme in remote:
        return location.strip().rstrip("/")
    if scheme and scheme != "file" and "://" in location:
        raise ConfigError(
            f"{setting}: scheme {scheme!r} is not supported; use a path, {', '.join(remote)}"
        )
    try:
        folder = local_folder(location)
    except ImageRejected as rejected:
        raise ConfigError(f"{setting}: {rejected.detail}") from None
    if folder is None:
        raise ConfigError(f"{setting}: {redact(location)!r} is not a path")
    return folder


def _check_web_base(base: str, setting: str) -> None:
    """Refuse what a prefix of URLs cannot carry: paths are put behind it, and reports show it."""
    scheme, rest = split_scheme(base)
    if scheme not in ("http", "https"):
        return
    for mark, what in (("?", "a query ('?')"), ("#", "a fragment ('#')")):
        if mark in rest:
            raise ConfigError(
                f"{setting}: {what} cannot stand in a prefix; write whole URLs into the catalog"
            )
    try:
        check_http(rest)
    except ImageRejected as rejected:
        raise ConfigError(f"{setting}: {rejected.detail}") from None


def _find_in_folder(folder: str, wanted: str) -> CatalogFiles:
    names = list_files(folder)
    by_format: dict[str, list[str]] = {}
    for name in names:
        form = "images" if name.lower().endswith(IMAGE_SUFFIXES) else _by_suffix(name)
        if form:
            by_format.setdefault(form, []).append(name)
    catalogs = [form for form in by_format if form != "images"]
    if wanted == "auto" and len(catalogs) > 1:
        raise CatalogError(
            f"catalog folder {redact(folder)} mixes {' and '.join(sorted(catalogs))}; "
            "choose with --set catalog.format=..."
        )
    form = wanted if wanted != "auto" else (catalogs or [*by_format, ""])[0]
    if form not in by_format:
        what = "no catalog files and no photos" if wanted == "auto" else f"no {wanted} files"
        raise CatalogError(f"catalog folder {redact(folder)} holds {what}")
    if form == "images":
        return CatalogFiles(form, folder, ())
    return CatalogFiles(form, folder, tuple(f"{folder}/{name}" for name in by_format[form]))


def _sniff(location: str, head: bytes) -> str:
    """The format of a file: by its magic number, else its suffix, else its first character."""
    if head.startswith(b"PAR1"):
        return "parquet"
    first = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    return _by_suffix(location) or ("jsonl" if first == b"{" else "csv")


def _by_suffix(name: str) -> str:
    return _SUFFIXES.get(os.path.splitext(name)[1].lower(), "")


def _walk_local(folder: str) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield os.path.relpath(os.path.join(parent, name), folder)


def _list_objects(folder: str) -> Iterator[str]:
    scheme, rest = split_scheme(folder)
    store: Any = open_object_store(scheme)
    prefix = rest.removeprefix("//").rstrip("/") + "/"
    for path in store.find(prefix):
        yield path.removeprefix(prefix)
