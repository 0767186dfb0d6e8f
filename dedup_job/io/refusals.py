"""Photos that the `fetch` settings refuse by their URI: no host is looked up, no file is opened."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pyarrow as pa

from dedup_job.errors import ImageRejected
from dedup_job.io.addresses import is_named
from dedup_job.io.fetch_policy import FetchPolicy
from dedup_job.io.uris import local_path, resolve, split_object, split_scheme

REFUSALS_DDL = "refusal string"


@dataclass(frozen=True)
class FindRefusals:
    """Turns batches of `source_uri` into one `refusal` each, null where a photo may be asked for.

    What only a look can tell (links out of a root, the addresses behind a host) is left to the fetch.
    """

    policy: FetchPolicy

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Run one task."""
        for batch in batches:
            found = [refusal(uri, self.policy) for uri in batch.column(0).to_pylist()]
            yield pa.RecordBatch.from_pydict({"refusal": pa.array(found, pa.string())})


def refusal(uri: str, policy: FetchPolicy) -> str | None:
    """Why a policy refuses a URI, naming the setting; None when it does not.

    Args:
        uri: absolute, as `uris.resolve` returns it.
        policy: of the run.
    """
    try:
        uri = resolve(uri, "/")
    except ImageRejected as rejected:
        return rejected.detail
    scheme, _ = split_scheme(uri)
    if scheme not in policy.schemes:
        return f"scheme {scheme!r} is not in fetch.allow_schemes"
    if scheme == "file":
        return _refused_file(local_path(uri), policy)
    if scheme in ("s3", "gs"):
        bucket, _ = split_object(uri)
        allowed = bucket in policy.buckets or "*" in policy.buckets
        return None if allowed else f"bucket {bucket} is not in fetch.allow_buckets"
    return _refused_host(uri, policy)


def _refused_file(path: str, policy: FetchPolicy) -> str | None:
    folders = {*policy.roots, *map(os.path.realpath, policy.roots)}
    if _is_below(path, folders) or _is_below(os.path.realpath(path), folders):
        return None
    return "file outside the image root; fetch.allow_roots can add its folder"


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(os.path.commonpath([path, folder]) == folder for folder in folders)


def _refused_host(uri: str, policy: FetchPolicy) -> str | None:
    parts = urlsplit(uri)
    host = parts.hostname or ""
    try:
        host = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        return "not a valid host name (fetch.allow_hosts)"
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if "*" in policy.hosts or is_named(host, port, policy.hosts):
        return None
    return f"host {host} is not in fetch.allow_hosts"
