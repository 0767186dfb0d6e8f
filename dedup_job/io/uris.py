"""What a catalog's `image_uri` means, decided by text alone: nothing here touches disk or network.

The scheme parser is our own, because a general one is too generous: fsspec knows some fifty
protocols and chains them (`simplecache::file:///etc/passwd`). Absolute URIs come out in one form, so
that equal photos have equal text: `file://` + quoted absolute path, `s3://bucket/key`,
`gs://bucket/key`, `http(s)://host/...`.
"""

import hashlib
import os
import posixpath
import re
import unicodedata
from urllib.parse import quote, unquote, urlsplit

from dedup_job.errors import ImageRejected, RejectReason

SCHEMES = ("file", "s3", "gs", "http", "https")
MAX_URI_CHARS = 8192
MAX_HOST_CHARS = 253  # RFC 1035, 2.3.4, as text
_SHOWN_CHARS = 1000
_LOOKED_AT_CHARS = 65_536
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Query parameters of presigned URLs: Amazon S3 and CloudFront, Google Cloud Storage, Azure SAS.
_SIGNING = re.compile(
    r"(?i:x-amz-[a-z0-9-]+|x-goog-[a-z0-9-]+)=|(?:AWSAccessKeyId|GoogleAccessId|Signature|Expires|"
    r"Policy|Key-Pair-Id|sv|ss|srt|sr|sp|st|se|spr|sig|skoid|sktid|skt|ske|sks|skv)="
)
_AUTHORITY_LIKE = re.compile(r"[\w.-]*(:\d*)?|\[[0-9A-Fa-f:.]*\](:\d*)?")


def resolve(image_uri: str, base: str) -> str:
    """Return the absolute URI of a catalog's `image_uri`.

    A relative path is joined to `base`. Under a local folder or a bucket it is a file name: percent
    signs and question marks mean themselves. Under an http(s) base it is a relative URL. `..` may
    lead out of a local base (the fetcher then asks `fetch.allow_roots`), never out of a remote one.
    A path that starts with `/` is a local file whatever the base.

    Args:
        image_uri: as in the catalog.
        base: the image root: an absolute local folder, or an s3, gs or http(s) prefix.

    Raises:
        ImageRejected: URI_REFUSED, in one line that names the setting.
    """
    if len(image_uri) > MAX_URI_CHARS:
        raise refused(f"URI of {len(image_uri)} characters, limit {MAX_URI_CHARS}")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in image_uri):
        raise refused("URI holds a control character or is not valid Unicode")
    scheme, rest = split_scheme(image_uri)
    if not scheme:
        return _resolve_path(image_uri, base)
    if scheme not in SCHEMES:
        raise refused(
            f"scheme {scheme[:40]!r} is not supported; fetch.allow_schemes can hold "
            f"{', '.join(SCHEMES)} (a file name with a colon is written ./NAME)"
        )
    if scheme == "file":
        return file_uri(_path_of_file_uri(rest))
    if scheme in ("s3", "gs"):
        bucket, key = split_object(f"{scheme}:{rest}")
        return f"{scheme}://{bucket}/{key}"
    check_http(rest)
    return f"{scheme}:{rest}"


def split_scheme(uri: str) -> tuple[str, str]:
    """Split into (lower-case scheme, what follows its colon); ("", uri) without a scheme."""
    stripped = uri.strip()
    match = _SCHEME.match(stripped)
    if match is None:
        return "", uri
    return match[1].lower(), stripped[match.end() :]


def split_object(uri: str) -> tuple[str, str]:
    """Split an s3 or gs URI into (bucket, key).

    Raises:
        ImageRejected: URI_REFUSED when it is chained, has no bucket or no key, or holds `..`.
    """
    scheme, rest = split_scheme(uri)
    bucket, _, key = rest.removeprefix("//").partition("/")
    if "::" in rest:
        raise refused("chained URIs ('::') are never fetched; see fetch.allow_schemes")
    if not rest.startswith("//") or not _BUCKET.fullmatch(bucket) or not key:
        raise refused(f"expected {scheme}://BUCKET/KEY with a bucket of fetch.allow_buckets")
    if ".." in key.split("/"):  # a gateway before the store may take it for a step up
        raise refused("'..' in a key could leave the bucket (fetch.allow_buckets)")
    return bucket, key


def file_uri(path: str) -> str:
    """Return the `file://` URI of an absolute local path; `.` and `..` are resolved as text."""
    return "file://" + quote("/" + posixpath.normpath(path).lstrip("/"))


def local_path(uri: str) -> str:
    """Return the absolute path of a URI that `file_uri` made."""
    return unquote(uri.removeprefix("file://"))


def local_folder(location: str) -> str | None:
    """Return the absolute path a setting names, or None when it names something remote."""
    scheme, rest = split_scheme(location)
    if scheme == "file":
        return posixpath.normpath(_path_of_file_uri(rest))
    if scheme in SCHEMES:
        return None
    return os.path.abspath(os.path.expanduser(location))


def redact(uri: str) -> str:
    """Return a URI as it may be shown: without userinfo, query and fragment; works on garbage.

    A question mark always counts as the start of a query, also in a file name: a report that cuts a
    rare name short is better than one that publishes a signature. Control characters become U+FFFD
    and at most 1000 characters are kept.
    """
    kept = re.split(r"[?#]", uri, maxsplit=1)[0]
    head, slashes, authority = kept.partition("//")
    if kept != uri and slashes and "/" not in authority and "@" in uri[len(kept) :]:
        kept = f"{head}//[redacted]"  # the '?' or '#' stood inside a password
    else:
        if len(kept) > _LOOKED_AT_CHARS:  # a segment that is cut could hide that it is a password
            kept = kept[:_LOOKED_AT_CHARS].rpartition("/")[0] + "/..."
        kept = "".join(_without_userinfo(kept))
    shown = "".join(
        "\ufffd" if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") else character
        for character in kept[:_SHOWN_CHARS]
    )
    return shown + ("..." if len(kept) > _SHOWN_CHARS else "")


def uri_key(uri: str) -> str:
    """SHA-256 (64 hex digits) of a URI without its query string: stable while signatures change."""
    return _sha256(uri.partition("?")[0])


def fetch_key(uri: str) -> str:
    """SHA-256 (64 hex digits) of what names a photo: `?id=1` and `?id=2` are two photos.

    A signature in a query changes every night and names nothing: it is left out.
    """
    path, mark, query = uri.partition("?")
    if not mark or not uri.startswith(("http:", "https:")):
        return _sha256(uri)
    kept = [part for part in query.split("&") if not _SIGNING.match(part)]
    return _sha256(f"{path}?{'&'.join(kept)}" if kept else path)


def refused(detail: str) -> ImageRejected:
    """Make the error for a URI that may not be fetched; `detail` names the setting."""
    return ImageRejected(RejectReason.URI_REFUSED, detail)


def _resolve_path(path: str, base: str) -> str:
    if "::" in path:
        raise refused("chained URIs ('::') are never fetched; see fetch.allow_schemes")
    folder = local_folder(base)
    if path.startswith("/"):
        return file_uri(path)
    if folder is not None:
        return file_uri(posixpath.join(folder, path))
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise refused("'..' would leave the image root (catalog.image_root)")
    return resolve(f"{base.rstrip('/')}/{'/'.join(parts)}", base)


def _path_of_file_uri(rest: str) -> str:
    if "::" in rest:
        raise refused("chained URIs ('::') are never fetched; see fetch.allow_schemes")
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host.lower() not in ("", "localhost"):
            raise refused("file: URI of another host; mount it and add it to fetch.allow_roots")
        rest = slash + path
    if not rest.startswith("/"):
        raise refused("expected file:///ABSOLUTE/PATH inside the image root or fetch.allow_roots")
    try:
        path = unquote(rest, errors="strict")
    except UnicodeDecodeError:
        raise refused("file: URI is not percent-encoded UTF-8 (fetch.allow_roots)") from None
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in path):
        raise refused("file: URI holds an encoded control character (fetch.allow_roots)")
    return path


def check_http(rest: str) -> None:
    """Check what follows `http:` or `https:`.

    Raises:
        ImageRejected: URI_REFUSED when it has no valid host, or a user name or password.
    """
    if not rest.startswith("//") or "\\" in rest:
        raise refused("expected http(s)://HOST/PATH with a host of fetch.allow_hosts")
    try:
        parts = urlsplit("http:" + rest)
        has_host = 0 < len(parts.hostname or "") <= MAX_HOST_CHARS and parts.port != 0
    except ValueError:
        has_host = False
    if not has_host:
        raise refused("no valid host and port; fetch.allow_hosts names the hosts allowed")
    if "@" in parts.netloc:
        raise refused("user name or password in the URL; fetch.allow_hosts takes hosts alone")


def _without_userinfo(text: str) -> list[str]:
    """Pieces of `text` in which userinfo is dropped from every segment that could hold it."""
    pieces = re.split(r"([/\\])", text)
    for i in range(0, len(pieces), 2):
        is_authority = i >= 4 and pieces[i - 2] == "" and pieces[i - 1] == pieces[i - 3] == "/"
        userinfo, at, host = pieces[i].rpartition("@")
        if at and (is_authority or ":" in userinfo):
            pieces[i] = host
        elif is_authority and not _AUTHORITY_LIKE.fullmatch(pieces[i]):
            pieces[i] = "[redacted]"
    return pieces


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
