"""Web servers that misbehave, each a real one on loopback that `fetch.allow_hosts` names.

What arrives goes to the decoder, as it does in the job. An answer of a case ends with the number of
requests where it is not one: what may pass is tried again, what will not is not.
"""

import time
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from dedup_job.errors import ImageRejected
from dedup_job.kernels.images import prepare
from tests import servers
from tests.hostile.cases import Case
from tests.photos import jpeg
from tests.servers import answer, redirect
from tests.unit.test_fetch import make_fetcher

_PHOTO = jpeg(1, 40, 60)
_SECRET = "hunter2"
_PATIENCE_S = 5.0  # a case that holds the fetch for longer has found no deadline
# Short deadlines: servers that hold on meet them soon.
_DEADLINES = {"read_timeout_s": 0.3, "total_timeout_s": 0.4}
_MAX_BYTES = 100_000
_HTTP_ERROR, _THRICE = "reject: http_error", "reject: http_error after 3 requests"
_REFUSED, _UNREACHABLE = "reject: uri_refused", "reject: unreachable after 3 requests"


def ask(routes: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Fetch `/a.jpg?token=...` of a server and decode what comes.

    Args:
        routes: as of `PhotoServer`; `/photo.jpg` is a photo.
        settings: of the section `fetch`.
    """
    settings = {"allow_hosts": ("127.0.0.1",), "max_bytes": _MAX_BYTES} | dict(settings)
    with servers.serve_photos() as server:
        server.routes |= {"/photo.jpg": _PHOTO, **deepcopy(dict(routes))}  # it takes lists apart
        started = time.monotonic()
        try:
            data = make_fetcher(**settings).fetch(server.url(f"/a.jpg?token={_SECRET}")).data
            got = _decoded(data)
        except ImageRejected as rejected:
            assert rejected.detail.isprintable() and _SECRET not in rejected.detail
            got = f"reject: {rejected.reason}"
        assert time.monotonic() - started < _PATIENCE_S
        n_requests = len(server.requests)
    return got if n_requests == 1 else f"{got} after {n_requests} requests"


def _decoded(data: bytes | None) -> str:
    assert data is not None
    prepare(data, 32, 0.0)
    return "ok"


def _case(what: str, expected: str, route: Any, *more: Any, **settings: Any) -> Case:
    """`more`: routes of `/1`, `/2` and so on."""
    routes = {"/a.jpg": route, **{f"/{n}": behave for n, behave in enumerate(more, 1)}}
    return Case(what, expected, lambda _folder: ask(routes, settings))


def _raw(*pieces: bytes) -> servers.Behaviour:
    """An answer byte by byte, as no server library would write it."""

    def behave(handler: Any) -> None:
        for piece in pieces:
            handler.wfile.write(piece)

    return behave


def _for_ever(head: bytes, again: bytes) -> servers.Behaviour:
    """A beginning, then the same bytes until the client has enough."""

    def behave(handler: Any) -> None:
        handler.wfile.write(head)
        while not handler.owner.stopping.is_set():
            handler.wfile.write(again)

    return behave


def _towards(location: str) -> servers.Behaviour:
    """A redirect to a location in which `{port}` is the server's own."""

    def behave(handler: Any) -> None:
        redirect(location.format(port=handler.owner.port))(handler)

    return behave


def _close(handler: Any) -> None:
    """Accepts the request and closes."""


def _tell_nothing(handler: Any) -> None:
    """Answers with a photo to who sends no cookie, no referrer and no credentials."""
    told = {"Cookie", "Referer", "Authorization"} & set(handler.headers)
    answer(b"" if told else _PHOTO)(handler)


_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
_COOKIE = "session=1; Domain=127.0.0.1"

_REDIRECTS = (
    _case("302 to a path of the same server", "ok after 2 requests", redirect("/photo.jpg")),
    _case("308 to a relative path", "ok after 2 requests", redirect("photo.jpg", 308)),
    _case(
        "3 redirects",
        "ok after 4 requests",
        redirect("/1"),
        redirect("/2"),
        redirect("/photo.jpg"),
    ),
    _case(
        "4 redirects",
        "reject: http_error after 4 requests",
        redirect("/1"),
        redirect("/2"),
        redirect("/3"),
        redirect("/photo.jpg"),
    ),
    _case("a redirect loop", "reject: http_error after 4 requests", redirect("/a.jpg")),
    _case("302 without a location", _HTTP_ERROR, answer(status=302)),
    _case("300 Multiple Choices", _HTTP_ERROR, answer(status=300, Location="/photo.jpg")),
    _case("302 to a host that is not named", _REFUSED, _towards("http://localhost:{port}/1")),
    _case("302 to another spelling of itself", _REFUSED, _towards("http://127.1:{port}/1")),
    _case("302 to //0x7f000001", _REFUSED, _towards("//0x7f000001:{port}/photo.jpg")),
    _case("302 to the cloud's metadata service", _REFUSED, redirect("http://169.254.169.254/")),
    _case("302 to a private address", _REFUSED, redirect("http://10.0.0.1/")),
    _case(
        "302 to a private address, with fetch.allow_hosts=* beside the name",
        _REFUSED,
        redirect("http://10.0.0.1/"),
        allow_hosts=("127.0.0.1", "*"),
    ),
    _case("302 to file:///etc/passwd", _REFUSED, redirect("file:///etc/passwd")),
    _case("302 to s3://bucket/a.jpg", _REFUSED, redirect("s3://bucket/a.jpg")),
    _case("302 to data:", _REFUSED, redirect("data:image/png;base64,AAAA")),
    _case("302 to javascript:", _REFUSED, redirect("javascript:alert(1)")),
    _case("302 to a chained URI", _REFUSED, redirect("simplecache::http://127.0.0.1/a.jpg")),
    _case("302 to a malformed URL", _REFUSED, redirect("http://[::1/")),
    _case(
        "302 with a user name and password",
        _REFUSED,
        _towards(f"http://user:{_SECRET}@127.0.0.1:{{port}}/photo.jpg"),
    ),
    _case(
        "302 to https while fetch.allow_schemes is http alone",
        _REFUSED,
        redirect("https://127.0.0.1/a.jpg"),
        allow_schemes=("http",),
    ),
    _case(
        "302 that sets a cookie: the next server is told nothing",
        "ok after 2 requests",
        answer(status=302, Location="/1", Set_Cookie=_COOKIE),
        _tell_nothing,
    ),
)
_BODIES = (
    _case("a photo", "ok", _PHOTO),
    _case("a photo that is called text/html", "ok", answer(_PHOTO, Content_Type="text/html")),
    _case("a photo with a cookie", "ok", answer(_PHOTO, Set_Cookie=_COOKIE)),
    _case("200 and an HTML error page", "reject: not_image", b"<!DOCTYPE html><h1>Sorry</h1>"),
    _case("200 and JSON", "reject: not_image", b'{"error": "not found"}'),
    _case("200 and nothing", "reject: empty_file", b""),
    _case("half a photo", "reject: truncated", _PHOTO[: len(_PHOTO) // 2]),
    _case(
        "Content-Length larger than the body",
        "reject: truncated after 3 requests",
        servers.lying_length(_PHOTO, len(_PHOTO) + 5),
    ),
    _case(
        "Content-Length smaller than the body",
        "reject: truncated",
        servers.lying_length(_PHOTO, len(_PHOTO) // 2),
    ),
    _case("Content-Length below zero", "ok", servers.lying_length(_PHOTO, -5)),
    _case("Content-Length that is no number", "ok", answer(_PHOTO, Content_Length="many")),
    _case(
        "Content-Length of a terabyte", "reject: too_many_bytes", servers.lying_length(b"x", 10**12)
    ),
    _case("no Content-Length", "ok", _raw(_OK + b"\r\n", _PHOTO)),
    _case("a body over fetch.max_bytes", "reject: too_many_bytes", bytes(_MAX_BYTES + 1)),
    _case("a body without end", "reject: too_many_bytes", _for_ever(_OK + b"\r\n", bytes(50_000))),
    _case("chunks without end", "reject: too_many_bytes", servers.endless_chunks),
    _case(
        "chunks of a byte, without end",
        "reject: timeout",
        _for_ever(_CHUNKED, b"1\r\nx\r\n"),
        **_DEADLINES,
        max_bytes=100_000_000,
    ),
    _case("a chunk of 2^64 bytes that ends", _UNREACHABLE, _raw(_CHUNKED, b"f" * 16 + b"\r\nxxx")),
    _case("a chunk size that is no number", _UNREACHABLE, _raw(_CHUNKED, b"zz\r\nxxx")),
    _case("a chunk size of 1 MB", _HTTP_ERROR, _raw(_CHUNKED, b"1" * 1_000_000)),
    _case("a gzip body, though identity was asked", _HTTP_ERROR, servers.gzipped(_PHOTO)),
    _case("a gzip body of 100 MB in 100 KB", _HTTP_ERROR, servers.gzipped(bytes(100_000_000))),
    _case("Content-Encoding: br", _HTTP_ERROR, answer(_PHOTO, Content_Encoding="br")),
    _case(
        "Content-Encoding: identity, gzip",
        _HTTP_ERROR,
        answer(_PHOTO, Content_Encoding="identity, gzip"),
    ),
)
_STATUSES = (
    _case("204 No Content", _HTTP_ERROR, answer(status=204)),
    _case("206, though no range was asked", _HTTP_ERROR, answer(_PHOTO[:9], status=206)),
    _case("304, though nothing was asked", _HTTP_ERROR, answer(status=304)),
    _case("400", _HTTP_ERROR, answer(status=400)),
    _case("401", "reject: access_denied", answer(status=401, WWW_Authenticate="Basic")),
    _case("403", "reject: access_denied", answer(status=403)),
    _case("404", "reject: not_found", answer(b"<html>", status=404)),
    _case("407 Proxy Authentication Required", _HTTP_ERROR, answer(status=407)),
    _case("410", "reject: not_found", answer(status=410)),
    _case("429", _THRICE, answer(status=429)),
    _case(
        "429 with Retry-After of a day: the night does not wait",
        _HTTP_ERROR,
        answer(status=429, Retry_After="86400"),
        total_timeout_s=2,
    ),
    _case("429 with a Retry-After that is no number", _THRICE, answer(status=429, Retry_After="x")),
    _case("500", _THRICE, answer(status=500)),
    _case("503", _THRICE, answer(status=503)),
    _case("503, then a photo", "ok after 2 requests", [answer(status=503), answer(_PHOTO)]),
    _case("status 999", _THRICE, _raw(b"HTTP/1.1 999 No\r\n\r\n")),
    _case("status 1000", _HTTP_ERROR, _raw(b"HTTP/1.1 1000 No\r\n\r\n")),
    _case("101 Switching Protocols", _HTTP_ERROR, _raw(b"HTTP/1.1 101 Up\r\n\r\n")),
    _case(
        "100 Continue, without end",
        "reject: timeout",
        _for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        **_DEADLINES,
    ),
)
_CONVERSATIONS = (
    _case("never answers", "reject: timeout", servers.hang, **_DEADLINES),
    _case("a body that drips, a byte at a time", "reject: timeout", servers.drip, **_DEADLINES),
    _case("headers that drip", "reject: timeout", servers.drip_headers, **_DEADLINES),
    _case("a reset in the middle of the body", _UNREACHABLE, servers.reset),
    _case("a reset, then a photo", "ok after 2 requests", [servers.reset, answer(_PHOTO)]),
    _case("closes without a word", _UNREACHABLE, _close),
    _case("a greeting of another protocol", _HTTP_ERROR, servers.not_http),
    _case("a photo without headers (HTTP/0.9)", _HTTP_ERROR, _raw(_PHOTO)),
    _case("ICY 200 OK", _HTTP_ERROR, _raw(b"ICY 200 OK\r\n\r\n", _PHOTO)),
    _case("100,000 headers", _HTTP_ERROR, _raw(_OK, b"X-A: b\r\n" * 100_000, b"\r\n", _PHOTO)),
    _case("a header of 1 MB", _HTTP_ERROR, _raw(_OK, b"X-A: " + b"b" * 1_000_000, b"\r\n\r\n")),
    _case("a status line of 1 MB", _HTTP_ERROR, _raw(b"HTTP/1.1 200 " + b"O" * 1_000_000)),
    _case("headers without end", _HTTP_ERROR, _for_ever(_OK, b"X-A: b\r\n")),
    _case("a header that is no header", "ok", _raw(_OK, b"\xff\x00 no colon\r\n\r\n", _PHOTO)),
    _case("an ETag of a megabyte of quotes", _HTTP_ERROR, answer(_PHOTO, ETag='"' * 1_000_000)),
)

CASES: tuple[Case, ...] = (*_REDIRECTS, *_BODIES, *_STATUSES, *_CONVERSATIONS)
