"""Photo bytes from wherever a catalog says they are, within the rules of a `FetchPolicy`.

A store that was asked before is asked whether the photo changed, and sends it only if it did.
"""

import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from typing import Any

from dedup_job.errors import ConfigError, ImageRejected, RejectReason
from dedup_job.io.fetch_policy import FetchPolicy
from dedup_job.io.http_client import fetch_http
from dedup_job.io.object_store import check_bucket, fetch_object, open_object_store
from dedup_job.io.uris import local_path, refused, resolve, split_scheme
from dedup_job.kernels.validators import Fetched, Validator, utc_from_ns

__all__ = ["FetchPolicy", "Fetcher", "open_fetch"]

_FILE_REASONS = {
    errno.ENOENT: RejectReason.NOT_FOUND,
    errno.ENOTDIR: RejectReason.NOT_FOUND,
    errno.ENAMETOOLONG: RejectReason.NOT_FOUND,
    errno.ELOOP: RejectReason.NOT_FOUND,
    errno.EACCES: RejectReason.ACCESS_DENIED,
    errno.EPERM: RejectReason.ACCESS_DENIED,
}
# A file that is written twice within one tick of its file system's clock keeps its time. As in git's
# index ("racily clean" entries), a time this young says nothing about what comes after it.
_TICK_NS = 50_000_000
_COARSE_TICK_NS = 2_000_000_000  # where times have no fraction of a second (FAT, some mounts)
_SECOND_NS = 1_000_000_000


def open_fetch(policy: FetchPolicy) -> Callable[[str, Validator | None], Fetched]:
    """The fetch function of one task."""
    return Fetcher(policy).fetch


class Fetcher:
    """Fetches photos. One per task; its threads share it.

    Args:
        policy: what may be fetched, and how patiently.
    """

    def __init__(self, policy: FetchPolicy) -> None:
        self._policy = policy
        self._roots = [os.path.realpath(root) for root in policy.roots]
        self._stores: dict[str, Any] = {}
        self._lock = threading.Lock()

    def fetch(self, uri: str, known: Validator | None = None) -> Fetched:
        """Fetch one photo, if it changed; an empty file is `b""`, for the decoder to reject.

        Args:
            uri: absolute, as `uris.resolve` returns it (it is checked again).
            known: what its store said when it was last fetched; None: fetch in any case.

        Returns:
            The bytes, or None where the store says that they are those of `known`; and what the
            store says about them. A file is unchanged when size and modification time are.

        Raises:
            ImageRejected: with one of the reasons URI_REFUSED to TOO_MANY_BYTES, or TRUNCATED.
        """
        uri = resolve(uri, "/")
        scheme, _ = split_scheme(uri)
        if scheme not in self._policy.schemes:
            raise refused(f"scheme {scheme!r} is not in fetch.allow_schemes")
        if scheme == "file":
            return self._fetch_file(local_path(uri), known)
        if scheme in ("http", "https"):
            return fetch_http(uri, self._policy, known)
        check_bucket(uri, self._policy)
        return fetch_object(self._store(scheme), uri, self._policy, known)

    def _store(self, scheme: str) -> Any:
        with self._lock:
            if scheme not in self._stores:
                try:
                    self._stores[scheme] = open_object_store(scheme, self._policy)
                except ConfigError as error:  # one stranger's gs:// row must not end the night
                    raise refused(f"{error}, or leave it out of fetch.allow_schemes") from None
            return self._stores[scheme]

    def _fetch_file(self, path: str, known: Validator | None) -> Fetched:
        real = os.path.realpath(path)
        if not any(os.path.commonpath([real, root]) == root for root in self._roots):
            raise refused("file outside the image root; fetch.allow_roots can add its folder")
        try:
            return self._read_regular(real, known)
        except OSError as error:
            reason = _FILE_REASONS.get(error.errno or 0, RejectReason.UNREACHABLE)
            raise ImageRejected(reason, error.strerror or type(error).__name__) from None

    def _read_regular(self, path: str, known: Validator | None) -> Fetched:
        """Read a regular file; anything else is refused before it is opened, for it may hang."""
        _check_regular(os.stat(path).st_mode)
        # Between check and open the path may be swapped: no link is followed, no FIFO waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            _check_regular(status.st_mode)
            limit = self._policy.max_bytes
            if status.st_size > limit:
                raise ImageRejected(
                    RejectReason.TOO_MANY_BYTES,
                    f"{status.st_size} bytes, limit {limit} (fetch.max_bytes)",
                )
            if known is not None and _is_same_file(status, known):
                return Fetched(None, known)
            validator = _file_validator(status)  # before the read: it says how old the file was
            return Fetched(stream.read(limit), validator)


def _check_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise refused("not a regular file; only those inside fetch.allow_roots are read")


def _is_same_file(status: os.stat_result, known: Validator) -> bool:
    modified_at = utc_from_ns(status.st_mtime_ns)
    return modified_at is not None and (status.st_size, modified_at) == (
        known.n_bytes,
        known.modified_at,
    )


def _file_validator(status: os.stat_result) -> Validator:
    is_coarse = status.st_mtime_ns % _SECOND_NS == 0
    age_ns = time.time_ns() - status.st_mtime_ns
    is_racy = age_ns < (_COARSE_TICK_NS if is_coarse else _TICK_NS)
    return Validator(
        n_bytes=status.st_size, modified_at=None if is_racy else utc_from_ns(status.st_mtime_ns)
    )
