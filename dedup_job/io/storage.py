"""One door to files, local or in an object store: a folder with a handful of verbs.

Warehouse and staging go through here on the driver and on executors alike, so that one code path
serves a laptop and S3 (the pip-installed Spark carries no object-store jars).
"""

import logging
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from dedup_job.errors import ConfigError, DedupError, one_line
from dedup_job.io.object_store import error_code, open_object_store

logger = logging.getLogger("dedup_job")
# What a warehouse holds beside its report tables; see docs/architecture.md.
RUNS_FOLDER, STATE_FOLDER, STAGING_FOLDER = "_runs", "_state", "_staging"
_EXISTS_CODES = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs"}  # as written -> as the store is opened


@dataclass(frozen=True)
class Folder:
    """A folder by absolute URI (`/path`, `s3://bucket/prefix`, `gs://...`); cheap to pickle."""

    uri: str

    @property
    def is_local(self) -> bool:
        """Whether renames inside this folder are atomic."""
        return "://" not in self.uri

    def child(self, *names: str) -> "Folder":
        """The folder below this one."""
        return Folder("/".join([self.uri.rstrip("/"), *names]))

    def path(self, name: str) -> str:
        """URI of a file in this folder."""
        return f"{self.uri.rstrip('/')}/{name}"

    def create(self) -> None:
        """Make a local folder and its parents; object stores need none."""
        if self.is_local:
            try:
                Path(self.uri).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DedupError(f"cannot write to {self.uri}: {error.strerror}") from None

    def open_write(self, name: str) -> BinaryIO:
        """Open a file for writing; in an object store it appears when closed."""
        return cast(BinaryIO, self._filesystem().open(self.path(name), "wb"))

    def open_read(self, name: str) -> BinaryIO:
        """Open a file for reading at any position."""
        return cast(BinaryIO, self._filesystem().open(self.path(name), "rb"))

    def read_bytes(self, name: str) -> bytes | None:
        """The whole file, or None when there is none."""
        try:
            return cast(bytes, self._filesystem().cat_file(self.path(name)))
        except FileNotFoundError:
            return None

    def replace_bytes(self, name: str, data: bytes) -> None:
        """Write a small file in one step: readers see the old or the new one, whole."""
        if not self.is_local:
            self._filesystem().pipe_file(self.path(name), data)
            return
        self.create()
        temporary = Path(self.path(f".{name}.{uuid.uuid4().hex}"))
        _write_durably(temporary, data)
        temporary.replace(self.path(name))

    def create_exclusive(self, name: str, data: bytes) -> bool:
        """Write a small file that must not exist yet, whole and in one step.

        Returns:
            Whether this call made it; of several at once, on any host, exactly one does.
        """
        if not self.is_local:
            try:
                # If-None-Match: * on S3, ifGenerationMatch=0 on Google Cloud Storage
                self._filesystem().pipe_file(self.path(name), data, mode="create")
            except Exception as error:
                if isinstance(error, FileExistsError) or error_code(error) in _EXISTS_CODES:
                    return False
                raise
            return True
        self.create()
        temporary = Path(self.path(f".{name}.{uuid.uuid4().hex}"))
        _write_durably(temporary, data)
        try:
            os.link(temporary, self.path(name))
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        return True

    def file_names(self) -> list[str]:
        """Names of the files directly in this folder, sorted; empty when it does not exist."""
        try:
            entries: list[dict[str, Any]] = self._filesystem().ls(self.uri, detail=True)
        except FileNotFoundError:
            return []
        return sorted(e["name"].rsplit("/", 1)[-1] for e in entries if e["type"] == "file")

    def folder_names(self) -> list[str]:
        """Names of the folders directly in this folder, sorted; empty when it does not exist."""
        try:
            entries: list[dict[str, Any]] = self._filesystem().ls(self.uri, detail=True)
        except FileNotFoundError:
            return []
        names = (e["name"].rstrip("/").rsplit("/", 1)[-1] for e in entries if e["type"] != "file")
        return sorted(names)

    def copy_in(self, source: "Folder", name: str, new_name: str) -> None:
        """Copy a file of another folder of the same store into this one."""
        self._filesystem().copy(source.path(name), self.path(new_name))

    def move_in(self, source: "Folder", name: str, new_name: str) -> None:
        """Move a file of another folder of the same store into this one.

        A rename locally; in an object store a copy, and the source is left to be deleted.
        """
        if self.is_local:
            Path(source.path(name)).replace(self.path(new_name))
        else:
            self.copy_in(source, name, new_name)

    def place(self, source: "Folder", name: str, new_name: str) -> None:
        """Let a name show a file of another folder of the same store, in one step.

        Who reads the name meanwhile gets what it showed before or what it shows now, whole. Locally
        no bytes are copied where the file system has hard links.
        """
        if not self.is_local:
            self.copy_in(source, name, new_name)
            return
        temporary = self.path(f".{new_name}.{uuid.uuid4().hex}")
        try:
            os.link(source.path(name), temporary)
        except OSError:  # no hard links here (some network mounts)
            shutil.copyfile(source.path(name), temporary)
        os.replace(temporary, self.path(new_name))

    def delete_file(self, name: str) -> None:
        """Delete one file; one that is gone already is no error."""
        try:
            self._filesystem().rm_file(self.path(name))
        except FileNotFoundError:
            return

    def delete(self) -> None:
        """Delete the folder and all below it, if it exists."""
        try:
            self._filesystem().rm(self.uri, recursive=True)
        except FileNotFoundError:
            return

    def try_delete(self) -> bool:
        """Delete the folder; what cannot be deleted is told, and stays for the next clean-up."""
        return _tried(self.delete, self.uri)

    def try_delete_file(self, name: str) -> bool:
        """Delete one file; as `try_delete`."""
        return _tried(lambda: self.delete_file(name), self.path(name))

    def _filesystem(self) -> Any:
        if self.is_local:
            return fsspec.filesystem("file")
        scheme = self.uri.split("://", 1)[0]
        if scheme not in _SCHEMES:
            raise ConfigError(
                f"{self.uri}: scheme {scheme!r} is not supported; use a path, s3:// or gs://"
            )
        return open_object_store(_SCHEMES[scheme])


def _tried(delete: Callable[[], None], what: str) -> bool:
    try:
        delete()
    except Exception as error:  # stores raise many types; clutter fails nothing
        logger.warning("could not delete %s: %s", what, one_line(error))
        return False
    return True


def _write_durably(path: Path, data: bytes) -> None:
    """Write a file so that its name never outlives its content in a power cut."""
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def open_warehouse(location: str) -> Folder:
    """The warehouse folder of `--warehouse`: a local path is made absolute, a URI kept.

    Raises:
        ConfigError: empty, or a scheme that is not supported.
    """
    if not location:
        raise ConfigError("warehouse is missing; give --warehouse DIR (a path, s3:// or gs://)")
    if location.startswith("file:"):
        location = "/" + location.removeprefix("file:").lstrip("/")
    if "://" not in location:
        return Folder(str(Path(location).expanduser().absolute()))
    folder = Folder(location.rstrip("/"))
    folder._filesystem()
    return folder
