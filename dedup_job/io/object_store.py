"""Objects in s3 and gs buckets, through fsspec's s3fs and gcsfs.

Endpoint and credentials come from the environment of the process, as those libraries document
(`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, `GOOGLE_APPLICATION_CREDENTIALS`, instance roles, ...).
"""

from typing import Any

from dedup_job.errors import ConfigError, ImageRejected, RejectReason
from dedup_job.io.fetch_policy import FetchPolicy
from dedup_job.io.uris import refused, split_object, split_scheme
from dedup_job.kernels.validators import Fetched, Validator, sane_etag

_EXTRAS = {"s3": "s3", "gs": "gcs"}
_UNREACHABLE = {
    "ConnectionError",
    "HTTPClientError",
    "ClientConnectionError",
    "ConnectTimeoutError",
}
_TIMED_OUT = {"TimeoutError", "FSTimeoutError", "ReadTimeoutError"}
_EMPTY_OBJECT_CODES = {"InvalidRange", "416"}  # S3 has no byte range to give of an empty object
_UNCHANGED_CODES = {"304", "NotModified", "412", "PreconditionFailed"}


def open_object_store(scheme: str, policy: FetchPolicy | None = None) -> Any:
    """Return an fsspec filesystem for `s3` or `gs`.

    Raises:
        ConfigError: the package that speaks to this store is not installed.
    """
    import fsspec

    # An instance is kept by fsspec for each thread and set of options, as a start costs half a
    # second; one with a policy is the caller's own, to share among threads.
    options: dict[str, Any] = {"use_listings_cache": False}
    if policy is not None:
        options["skip_instance_cache"] = True
    if policy is not None and scheme == "s3":
        options["config_kwargs"] = {
            "connect_timeout": policy.connect_timeout_s,
            "read_timeout": policy.read_timeout_s,
            "retries": {"mode": "standard", "total_max_attempts": policy.max_attempts},
        }
    try:
        store = fsspec.filesystem(scheme, **options)
    except (ImportError, ValueError):
        raise ConfigError(
            f"{scheme}:// needs another package: pip install 'catalog-dedup[{_EXTRAS[scheme]}]'"
        ) from None
    if policy is not None:
        store.retries = 1  # s3fs would repeat all of botocore's attempts five times
    return store


def check_bucket(uri: str, policy: FetchPolicy) -> None:
    """Check that a policy allows the bucket of an s3 or gs URI, before its store is opened.

    Raises:
        ImageRejected: URI_REFUSED.
    """
    bucket, _ = split_object(uri)
    if bucket not in policy.buckets and "*" not in policy.buckets:
        raise refused(f"bucket {bucket} is not in fetch.allow_buckets")


def fetch_object(
    store: Any, uri: str, policy: FetchPolicy, known: Validator | None = None
) -> Fetched:
    """Fetch one object, if it changed, with a ranged request of at most `policy.max_bytes` + 1 bytes.

    An s3 store is asked and read in one request. A gs store is asked first, as gcsfs has no
    conditional read: an object that is replaced in between gets an ETag that is too old, and so is
    read once more another night.

    Raises:
        ImageRejected: NOT_FOUND, ACCESS_DENIED, HTTP_ERROR, UNREACHABLE, TIMEOUT or TOO_MANY_BYTES.
    """
    from fsspec.asyn import sync

    bucket, key = split_object(uri)
    scheme, _ = split_scheme(uri)
    limit = policy.max_bytes
    read = _read_s3 if scheme == "s3" else _read_gs
    etag = None if known is None else sane_etag(known.etag)
    try:
        fetched: Fetched | None = sync(
            store.loop,
            read,
            store,
            f"{bucket}/{key}",
            limit + 1,
            etag,
            timeout=policy.total_timeout_s,
        )
    except Exception as error:  # botocore, aiohttp and gcsfs raise dozens of types
        code = error_code(error)
        if code in _EMPTY_OBJECT_CODES:
            return Fetched(b"", Validator(n_bytes=0))
        if etag is None or code not in _UNCHANGED_CODES:
            raise rejection(error, scheme) from None
        fetched = None
    if fetched is None:
        return Fetched(None, known or Validator())
    if len(fetched.data or b"") > limit:
        raise ImageRejected(
            RejectReason.TOO_MANY_BYTES, f"over the limit {limit} (fetch.max_bytes)"
        )
    return fetched


async def _read_s3(store: Any, path: str, n_bytes: int, etag: str | None) -> Fetched:
    """The first `n_bytes` of an object; raises what s3fs makes of a 304 when `etag` still holds."""
    bucket, key, _ = store.split_path(path)
    condition = {} if etag is None else {"IfNoneMatch": etag}
    answer = await store._call_s3(
        "get_object", Bucket=bucket, Key=key, Range=f"bytes=0-{n_bytes - 1}", **condition
    )
    try:
        data = await answer["Body"].read()
    finally:
        answer["Body"].close()
    return Fetched(
        data, Validator(sane_etag(answer.get("ETag")), len(data), answer.get("LastModified"))
    )


async def _read_gs(store: Any, path: str, n_bytes: int, etag: str | None) -> Fetched | None:
    """The first `n_bytes` of an object; None when `etag` still holds."""
    said = sane_etag((await store._info(path)).get("etag"))
    if etag is not None and etag == said:
        return None
    data = await store._cat_file(path, start=0, end=n_bytes)
    return Fetched(data, Validator(said, len(data)))


def rejection(error: BaseException, scheme: str) -> ImageRejected:
    """Translate what an object store library raised; its message, which may quote keys, is left."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, FileNotFoundError):
        return ImageRejected(RejectReason.NOT_FOUND, f"no such {scheme} object or bucket")
    if isinstance(error, PermissionError):
        return ImageRejected(RejectReason.ACCESS_DENIED, f"{scheme} denies access")
    if any("Credential" in name for name in names):
        return ImageRejected(RejectReason.ACCESS_DENIED, f"no {scheme} credentials found")
    if names & _UNREACHABLE and not names & {"ReadTimeoutError"}:
        return ImageRejected(
            RejectReason.UNREACHABLE, f"no connection to {scheme}: {type(error).__name__}"
        )
    if names & _TIMED_OUT:
        return ImageRejected(RejectReason.TIMEOUT, f"{scheme} answers too slowly (fetch timeouts)")
    what = error_code(error) or type(error).__name__
    return ImageRejected(RejectReason.HTTP_ERROR, f"{scheme} error {what[:60]}")


def error_code(error: BaseException | None) -> str:
    """The store's own error code, which s3fs keeps in the cause of the error it raises."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""
