"""One photo over http(s), for a program that is told by strangers where to connect.

Every hop of a redirect is resolved, judged (`addresses.py`) and connected to by the judged address;
TLS still verifies the host's name. Answers are bounded in bytes and in time, whatever the server
does. Proxies of the environment (`http_proxy` and so on) are not used: behind a proxy, the address
that is connected to could not be judged.
"""

import http.client
import io
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from functools import cache
from urllib.parse import quote, urljoin, urlsplit

from dedup_job.errors import ImageRejected, RejectReason
from dedup_job.io.addresses import Address, permitted_addresses
from dedup_job.io.fetch_policy import FetchPolicy
from dedup_job.io.uris import refused, resolve, split_scheme
from dedup_job.kernels.validators import MAX_VALIDATOR_CHARS, Fetched, Validator, sane_etag

_MAX_REDIRECTS = 3
_MAX_RETRY_AFTER_S = 10.0
_READ_BYTES = 65_536
_REDIRECTS = (301, 302, 303, 307, 308)
_FINAL = {
    401: RejectReason.ACCESS_DENIED,
    403: RejectReason.ACCESS_DENIED,
    404: RejectReason.NOT_FOUND,
    410: RejectReason.NOT_FOUND,
}
_URL_SAFE = "/%:@!$&'()*+,;=~?[]"  # what a URL may hold as it is; the rest is percent-encoded
_HEADERS = {
    "User-Agent": "catalog-dedup",
    "Accept": "image/*,*/*;q=0.5",
    "Accept-Encoding": "identity",
    "Connection": "close",
}
# A photo may change again within the second that its Last-Modified names (RFC 9110, 8.8.2.2).
_SETTLED = timedelta(seconds=2)


class Deadline:
    """A moment in time that all waits of one fetch share."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left_s(self) -> float:
        """Seconds left; negative when over."""
        return self._end - time.monotonic()

    def bounded_s(self, seconds: float) -> float:
        """The shorter of `seconds` and what is left; raises TimeoutError when nothing is."""
        left = self.left_s()
        if left <= 0:
            raise TimeoutError("total deadline")
        return min(seconds, left)


@dataclass(frozen=True)
class _Target:
    is_tls: bool
    host: str
    port: int
    host_header: str
    path: str


class _TransientError(Exception):
    """A failure that another attempt may not meet."""

    def __init__(self, reason: RejectReason, detail: str, retry_after_s: float = 0.0) -> None:
        super().__init__(detail)
        self.rejected = ImageRejected(reason, detail)
        self.retry_after_s = retry_after_s


class _Wire(io.RawIOBase):
    """The socket as `http.client` wants it, with every receive under both deadlines.

    A plain socket timeout restarts with each byte, so a server that drips one byte a second would
    hold a fetch for ever.
    """

    def __init__(self, sock: socket.socket, read_timeout_s: float, deadline: Deadline) -> None:
        self._sock = sock
        self._read_timeout_s = read_timeout_s
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._sock.settimeout(self._deadline.bounded_s(self._read_timeout_s))
        return self._sock.recv_into(buffer)

    def sendall(self, data: bytes) -> None:
        """Send a whole request."""
        self._sock.settimeout(self._deadline.bounded_s(self._read_timeout_s))
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        """The buffered reader that `http.client` parses."""
        return io.BufferedReader(_Wire(self._sock, self._read_timeout_s, self._deadline))


def fetch_http(
    uri: str,
    policy: FetchPolicy,
    known: Validator | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Fetch one http(s) URI; a conditional request where `known` says what to ask with.

    429, 5xx and failed connections are tried again, with exponential back-off and jitter, as long as
    `policy.max_attempts` and the total deadline allow. At most 3 redirects are followed.

    Raises:
        ImageRejected: URI_REFUSED, NOT_FOUND, ACCESS_DENIED, HTTP_ERROR, UNREACHABLE, TIMEOUT,
            TOO_MANY_BYTES or TRUNCATED.
    """
    deadline = Deadline(policy.total_timeout_s)
    for attempt in range(1, policy.max_attempts + 1):
        try:
            return _follow(uri, policy, deadline, known)
        except _TransientError as failure:
            backoff_s = policy.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
            wait_s = max(backoff_s, failure.retry_after_s)
            if attempt == policy.max_attempts or wait_s >= deadline.left_s():
                raise failure.rejected from None
            sleep(wait_s)
        except TimeoutError:
            raise _too_slow(policy, deadline) from None
    raise AssertionError("unreachable: the last attempt returns or raises")


def _follow(uri: str, policy: FetchPolicy, deadline: Deadline, known: Validator | None) -> Fetched:
    for _ in range(_MAX_REDIRECTS + 1):
        answer = _get(_parse(uri), policy, deadline, known)
        if isinstance(answer, Fetched):
            return answer
        uri = _redirected(uri, answer, policy)
    raise ImageRejected(RejectReason.HTTP_ERROR, f"more than {_MAX_REDIRECTS} redirects")


def _redirected(uri: str, location: str, policy: FetchPolicy) -> str:
    try:
        target = urljoin(uri, location)
    except ValueError:
        raise refused("redirect to a malformed URL (fetch.allow_hosts)") from None
    scheme, _ = split_scheme(target)
    if scheme not in ("http", "https") or scheme not in policy.schemes:
        raise refused(
            f"redirect to scheme {scheme[:40]!r}; only http(s) of fetch.allow_schemes is followed"
        )
    return resolve(target, "")


def _parse(uri: str) -> _Target:
    parts = urlsplit(uri)
    host = parts.hostname or ""
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            raise refused("not a valid host name (fetch.allow_hosts)") from None
    is_tls = parts.scheme == "https"
    port = parts.port or (443 if is_tls else 80)
    shown = f"[{host}]" if ":" in host else host
    path = quote(parts.path or "/", safe=_URL_SAFE)
    if parts.query:
        path += "?" + quote(parts.query, safe=_URL_SAFE)
    # A presigned URL signs the Host header: no port in it unless the URL has one.
    return _Target(is_tls, host, port, f"{shown}:{port}" if parts.port else shown, path)


def _get(
    target: _Target, policy: FetchPolicy, deadline: Deadline, known: Validator | None
) -> Fetched | str:
    """One request: what was fetched, or the location of a redirect."""
    conditions = _conditions(known)
    with _connected(target, policy, deadline) as sock:
        try:
            response = _request(sock, target, policy, deadline, conditions)
            if response.status in _REDIRECTS and response.getheader("Location"):
                return response.getheader("Location") or ""
            if response.status == 304 and known is not None and conditions:
                return Fetched(None, _still_valid(response, known))
            _check_status(response)
            body = _read_body(response, policy.max_bytes)
            etag = sane_etag(response.getheader("ETag"))
            return Fetched(body, Validator(etag, len(body), _modified_at(response)))
        except TimeoutError:
            raise
        except (OSError, http.client.IncompleteRead) as error:
            raise _TransientError(
                RejectReason.UNREACHABLE, f"connection lost: {_name(error)}"
            ) from None
        except (http.client.HTTPException, ValueError) as error:
            raise ImageRejected(
                RejectReason.HTTP_ERROR, f"answer is not HTTP: {_name(error)}"
            ) from None


@contextmanager
def _connected(target: _Target, policy: FetchPolicy, deadline: Deadline) -> Iterator[socket.socket]:
    sock = _connect(target, policy, deadline)
    try:
        yield sock
    finally:
        sock.close()


def _connect(target: _Target, policy: FetchPolicy, deadline: Deadline) -> socket.socket:
    patience_s = deadline.bounded_s(policy.connect_timeout_s)
    problem = "no address"
    try:
        addresses = permitted_addresses(target.host, target.port, policy.hosts, patience_s)
    except socket.gaierror as error:
        problem = f"host name not resolved: {error.strerror}"
        if error.errno == socket.EAI_AGAIN:
            raise _TransientError(RejectReason.UNREACHABLE, problem) from None
        raise ImageRejected(RejectReason.UNREACHABLE, problem) from None
    except TimeoutError as error:
        raise _TransientError(RejectReason.UNREACHABLE, str(error)) from None
    for address in addresses:
        try:
            return _open(address, target, policy, deadline)
        except ssl.SSLError as error:
            raise ImageRejected(RejectReason.UNREACHABLE, f"TLS: {_tls_problem(error)}") from None
        except TimeoutError:
            problem = f"no connection within {policy.connect_timeout_s:g} s"
        except OSError as error:
            problem = f"no connection: {_name(error)}"
    raise _TransientError(RejectReason.UNREACHABLE, problem)


def _open(
    address: Address, target: _Target, policy: FetchPolicy, deadline: Deadline
) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.settimeout(deadline.bounded_s(policy.connect_timeout_s))
        sock.connect(address.sockaddr)
        if target.is_tls:
            sock.settimeout(deadline.bounded_s(policy.connect_timeout_s))
            return _tls_context().wrap_socket(sock, server_hostname=target.host)
        return sock
    except BaseException:
        sock.close()
        raise


@cache
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()


def _request(
    sock: socket.socket,
    target: _Target,
    policy: FetchPolicy,
    deadline: Deadline,
    conditions: dict[str, str],
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.sock = _Wire(sock, policy.read_timeout_s, deadline)
    headers = {"Host": target.host_header, **_HEADERS, **conditions}
    connection.request("GET", target.path, headers=headers)
    return connection.getresponse()


def _conditions(known: Validator | None) -> dict[str, str]:
    """Headers that ask for the photo only if it is not what is known; empty: fetch in any case."""
    headers: dict[str, str] = {}
    if known is None:
        return headers
    if etag := sane_etag(known.etag):
        headers["If-None-Match"] = etag
    if known.modified_at is not None:
        moment = known.modified_at.astimezone(UTC).replace(microsecond=0)
        headers["If-Modified-Since"] = format_datetime(moment, usegmt=True)
    return headers


def _still_valid(response: http.client.HTTPResponse, known: Validator) -> Validator:
    """What is known, renewed by the answer: a server may name an unchanged photo anew."""
    etag = sane_etag(response.getheader("ETag")) or known.etag
    return Validator(etag, known.n_bytes, _modified_at(response) or known.modified_at)


def _modified_at(response: http.client.HTTPResponse) -> datetime | None:
    """Last-Modified, where by the server's own clock it is old enough to be trusted."""
    modified_at, now = _moment(response, "Last-Modified"), _moment(response, "Date")
    if modified_at is None or (now is not None and now - modified_at < _SETTLED):
        return None
    return modified_at


def _moment(response: http.client.HTTPResponse, header: str) -> datetime | None:
    text = response.getheader(header) or ""
    if len(text) > MAX_VALIDATOR_CHARS:
        return None
    try:
        moment = parsedate_to_datetime(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _check_status(response: http.client.HTTPResponse) -> None:
    status = response.status
    if status == 200:
        encoding = (response.getheader("Content-Encoding") or "identity").strip().lower()
        if encoding != "identity":
            raise ImageRejected(
                RejectReason.HTTP_ERROR,
                f"answer is encoded ({encoding[:40]!r}), identity was asked",
            )
        return
    if status == 429 or status >= 500:
        raise _TransientError(RejectReason.HTTP_ERROR, f"HTTP {status}", _retry_after_s(response))
    raise ImageRejected(_FINAL.get(status, RejectReason.HTTP_ERROR), f"HTTP {status}")


def _retry_after_s(response: http.client.HTTPResponse) -> float:
    """Seconds the server asks for, capped; its other form, a date, is left to the back-off."""
    text = (response.getheader("Retry-After") or "").strip()
    return min(float(text), _MAX_RETRY_AFTER_S) if text.isascii() and text.isdigit() else 0.0


def _read_body(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    announced = response.length
    if announced is not None and announced > max_bytes:
        raise ImageRejected(
            RejectReason.TOO_MANY_BYTES, f"{announced} bytes, limit {max_bytes} (fetch.max_bytes)"
        )
    body = bytearray()
    while part := response.read(min(_READ_BYTES, max_bytes + 1 - len(body))):
        body += part
        if len(body) > max_bytes:
            raise ImageRejected(
                RejectReason.TOO_MANY_BYTES, f"over the limit {max_bytes} (fetch.max_bytes)"
            )
    if announced is not None and len(body) < announced:
        raise _TransientError(
            RejectReason.TRUNCATED, f"connection closed after {len(body)} of {announced} bytes"
        )
    return bytes(body)


def _too_slow(policy: FetchPolicy, deadline: Deadline) -> ImageRejected:
    if deadline.left_s() <= 0:
        detail = f"not complete within {policy.total_timeout_s:g} s (fetch.total_timeout_s)"
    else:
        detail = f"no data for {policy.read_timeout_s:g} s (fetch.read_timeout_s)"
    return ImageRejected(RejectReason.TIMEOUT, detail)


def _tls_problem(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted ({error.verify_message})"
    return (error.reason or type(error).__name__).replace("_", " ").lower()


def _name(error: BaseException) -> str:
    """What kind of error it was; messages are left out, as they may quote the server."""
    strerror = getattr(error, "strerror", None)
    return strerror or type(error).__name__
