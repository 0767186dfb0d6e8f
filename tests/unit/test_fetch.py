import asyncio
import dataclasses
import ipaddress
import os
import pickle
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import formatdate

import pytest

from dedup_job.config import FetchConfig
from dedup_job.errors import ConfigError, ImageRejected, RejectReason
from dedup_job.io import addresses, http_client, object_store
from dedup_job.io.addresses import is_public
from dedup_job.io.fetch import Fetcher, FetchPolicy
from dedup_job.io.uris import file_uri
from dedup_job.kernels.validators import Validator, sane_etag
from tests import servers
from tests.servers import answer

PHOTO = b"\xff\xd8 photo"
LOOPBACK = ("127.0.0.1",)
OLD = "Wed, 01 Jul 2026 02:03:04 GMT"
OLD_AT = datetime(2026, 7, 1, 2, 3, 4, tzinfo=UTC)


def make_fetcher(roots=(), backoff_s=0.01, **settings):
    policy = FetchPolicy.from_config(FetchConfig(**settings), [str(root) for root in roots])
    return Fetcher(dataclasses.replace(policy, backoff_s=backoff_s))


def reject(fetcher, uri, reason, *parts, known=None):
    """Fetch what must be rejected; the detail is one line that holds `parts` and no secret."""
    with pytest.raises(ImageRejected) as caught:
        fetcher.fetch(uri, known)
    detail = caught.value.detail
    assert caught.value.reason is reason, detail
    assert "\n" not in detail and "SECRET" not in detail
    for part in parts:
        assert part in detail


# Files


def test_reads_a_file_below_a_root(tmp_path):
    (tmp_path / "50% ü?.jpg").write_bytes(PHOTO)
    assert make_fetcher([tmp_path]).fetch(file_uri(f"{tmp_path}/50% ü?.jpg")).data == PHOTO


def test_an_empty_file_is_left_to_the_decoder(tmp_path):
    (tmp_path / "empty.jpg").touch()
    assert make_fetcher([tmp_path]).fetch(file_uri(f"{tmp_path}/empty.jpg")).data == b""


def test_files_outside_the_roots_are_refused_by_where_they_really_are(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "root-beside"
    root.mkdir()
    outside.mkdir()
    (outside / "a.jpg").write_bytes(PHOTO)
    (root / "link.jpg").symlink_to(outside / "a.jpg")
    (root / "folder").symlink_to(outside)
    hostile = [f"{outside}/a.jpg", f"{root}/link.jpg", f"{root}/folder/a.jpg", "/etc/passwd"]
    hostile.append(f"{root}/../root-beside/a.jpg")
    for path in hostile:
        reject(
            make_fetcher([root]), f"file://{path}", RejectReason.URI_REFUSED, "fetch.allow_roots"
        )
    allowing = make_fetcher([root], allow_roots=(str(outside),))
    assert allowing.fetch(file_uri(f"{root}/link.jpg")).data == PHOTO


def test_what_is_no_regular_file_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "folder.jpg").mkdir()
    fetcher = make_fetcher([tmp_path, "/dev"])
    for path in (tmp_path / "fifo.jpg", tmp_path / "folder.jpg", "/dev/zero"):
        reject(fetcher, file_uri(str(path)), RejectReason.URI_REFUSED, "regular")


def write_aged(path, data, age_s=3600.0):
    """Write a file and set its time, in whole microseconds."""
    path.write_bytes(data)
    modified_ns = int((time.time() - age_s) * 1_000_000) * 1_000
    os.utime(path, ns=(modified_ns, modified_ns))


def fetch_twice(fetcher, uri, between=lambda: None):
    """What the second night gets that knows what the first was told."""
    first = fetcher.fetch(uri)
    assert first.data is not None
    between()
    return first, fetcher.fetch(uri, first.validator)


def test_a_file_with_its_size_and_time_is_not_read_again(tmp_path):
    write_aged(tmp_path / "a.jpg", PHOTO)
    first, second = fetch_twice(make_fetcher([tmp_path]), file_uri(f"{tmp_path}/a.jpg"))
    modified_ns = (tmp_path / "a.jpg").stat().st_mtime_ns
    assert first.validator.n_bytes == len(PHOTO)
    assert first.validator.etag is None
    assert round(first.validator.modified_at.timestamp() * 1e6) == modified_ns // 1000
    assert second.data is None
    assert second.validator == first.validator


@pytest.mark.parametrize("size_changes", [True, False])
@pytest.mark.parametrize("time_changes", [True, False])
def test_a_file_is_read_again_when_its_size_or_time_changed(tmp_path, size_changes, time_changes):
    path = tmp_path / "a.jpg"
    write_aged(path, PHOTO)
    other = PHOTO[::-1] + b"x" * size_changes

    def change():
        status = path.stat()
        path.write_bytes(other)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1000 * time_changes))

    _, second = fetch_twice(make_fetcher([tmp_path]), file_uri(str(path)), change)
    assert second.data == (other if size_changes or time_changes else None)


@pytest.mark.parametrize(
    ("modified_ns", "is_trusted"),
    [
        (1_000_000_000_900_000_000, False),
        (1_000_000_000_940_000_000, False),
        (1_000_000_001_500_000_000, False),  # in the future: a clock is wrong
        (999_999_999_000_000_000, False),  # a whole second may be all that the file system keeps
        (1_000_000_000_000_000_000, False),
        (1_000_000_000_840_000_000, True),
        (999_999_998_000_000_000, True),
        (-1_000_000, True),
    ],
)
def test_a_file_written_a_moment_ago_is_not_trusted(tmp_path, monkeypatch, modified_ns, is_trusted):
    path = tmp_path / "a.jpg"
    path.write_bytes(PHOTO)
    os.utime(path, ns=(modified_ns, modified_ns))
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000_945_000_000)
    first, second = fetch_twice(make_fetcher([tmp_path]), file_uri(str(path)))
    assert (first.validator.modified_at is not None) == is_trusted
    assert (second.data is None) == is_trusted


def test_a_file_that_is_written_while_its_time_stands_still_is_seen(tmp_path):
    path, fetcher = tmp_path / "a.jpg", make_fetcher([tmp_path])
    known = None
    for number in range(200):
        path.write_bytes(b"%04d" % number)
        fetched = fetcher.fetch(file_uri(str(path)), known)
        assert fetched.data == b"%04d" % number
        known = fetched.validator


def test_a_known_file_that_went_or_grew_too_large_is_rejected(tmp_path):
    path, fetcher = tmp_path / "a.jpg", make_fetcher([tmp_path], max_bytes=10)
    write_aged(path, PHOTO)
    known = fetcher.fetch(file_uri(str(path))).validator
    path.unlink()
    reject(fetcher, file_uri(str(path)), RejectReason.NOT_FOUND, known=known)
    path.write_bytes(b"x" * 11)
    reject(fetcher, file_uri(str(path)), RejectReason.TOO_MANY_BYTES, known=known)


def test_file_problems_have_their_own_reasons(tmp_path):
    (tmp_path / "big.jpg").write_bytes(b"x" * 11)
    (tmp_path / "exact.jpg").write_bytes(b"x" * 10)
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    fetcher = make_fetcher([tmp_path], max_bytes=10)
    assert fetcher.fetch(file_uri(f"{tmp_path}/exact.jpg")).data == b"x" * 10
    for name, reason in [
        ("big.jpg", RejectReason.TOO_MANY_BYTES),
        ("no.jpg", RejectReason.NOT_FOUND),
        ("exact.jpg/x.jpg", RejectReason.NOT_FOUND),
        ("n" * 300, RejectReason.NOT_FOUND),
        ("loop.jpg", RejectReason.NOT_FOUND),
    ]:
        reject(fetcher, file_uri(f"{tmp_path}/{name}"), reason)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_is_access_denied(tmp_path):
    (tmp_path / "a.jpg").write_bytes(PHOTO)
    (tmp_path / "a.jpg").chmod(0)
    reject(make_fetcher([tmp_path]), file_uri(f"{tmp_path}/a.jpg"), RejectReason.ACCESS_DENIED)


def test_access_denied_is_told_apart(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(PHOTO)

    def deny(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    fetcher = make_fetcher([tmp_path])
    monkeypatch.setattr(os, "open", deny)
    reject(fetcher, file_uri(f"{tmp_path}/a.jpg"), RejectReason.ACCESS_DENIED)


def test_only_allowed_schemes_are_fetched(tmp_path):
    fetcher = make_fetcher([tmp_path], allow_schemes=("s3",))
    reject(fetcher, "file:///a.jpg", RejectReason.URI_REFUSED, "fetch.allow_schemes")
    reject(fetcher, "simplecache::file:///a", RejectReason.URI_REFUSED, "fetch.allow_schemes")


def test_policy_travels_and_knows_local_roots_only():
    policy = FetchPolicy.from_config(
        FetchConfig(allow_roots=("file:///mnt/x%20y", "rel")), ["s3://bucket/photos", "/shop"]
    )
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert policy.roots == ("/shop", "/mnt/x y", os.path.abspath("rel"))


# Which addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.1.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "fd00::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_addresses_that_are_not_public(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111"])
def test_addresses_that_are_public(address):
    assert is_public(ipaddress.ip_address(address))


def test_nothing_is_fetched_by_http_until_hosts_are_allowed(photo_server):
    photo_server.routes["/a.jpg"] = PHOTO
    url = photo_server.url("/a.jpg")
    reject(make_fetcher(), url, RejectReason.URI_REFUSED, "fetch.allow_hosts")
    reject(make_fetcher(allow_hosts=("*",)), url, RejectReason.URI_REFUSED, "fetch.allow_hosts")
    assert photo_server.requests == []
    assert make_fetcher(allow_hosts=LOOPBACK).fetch(url).data == PHOTO
    assert make_fetcher(allow_hosts=(f"127.0.0.1:{photo_server.port}",)).fetch(url).data == PHOTO
    reject(make_fetcher(allow_hosts=("127.0.0.1:1",)), url, RejectReason.URI_REFUSED)


@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
        "[::ffff:127.0.0.1]",
        "localhost",
        "0",
        "LOCALHOST.",
        "[::1]",
        "127.0.0.1.",
        "①②⑦.0.0.1",
    ],
)
@pytest.mark.parametrize("allow_hosts", [("*",), ("cdn.example",)])
def test_odd_spellings_are_judged_by_where_they_lead(photo_server, host, allow_hosts):
    photo_server.routes["/a.jpg"] = PHOTO
    fetcher = make_fetcher(allow_hosts=allow_hosts)
    reject(fetcher, photo_server.url("/a.jpg", host), RejectReason.URI_REFUSED)
    assert photo_server.requests == []


def fake_dns(monkeypatch, answers):
    """`answers`: host -> list of IPv4 addresses, or a list of such lists, one a look-up."""
    real = socket.getaddrinfo

    def look_up(host, port, *args, **kwargs):
        if host not in answers:
            return real(host, port, *args, **kwargs)
        found = answers[host].pop(0) if isinstance(answers[host][0], list) else answers[host]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in found]

    monkeypatch.setattr(addresses.socket, "getaddrinfo", look_up)


def test_a_name_is_refused_if_any_of_its_addresses_is_private(photo_server, monkeypatch):
    fake_dns(monkeypatch, {"mixed.example": ["1.1.1.1", "127.0.0.1"]})
    url = photo_server.url("/a.jpg", "mixed.example")
    reject(make_fetcher(allow_hosts=("*",)), url, RejectReason.URI_REFUSED, "not public")
    assert photo_server.requests == []


def test_a_named_host_may_be_private_but_never_the_metadata_service(photo_server, monkeypatch):
    fake_dns(monkeypatch, {"cdn.example": ["127.0.0.1"], "evil.example": ["169.254.169.254"]})
    photo_server.routes["/a.jpg"] = PHOTO
    fetcher = make_fetcher(allow_hosts=("CDN.example", "evil.example"))
    assert fetcher.fetch(photo_server.url("/a.jpg", "cdn.example")).data == PHOTO
    reject(fetcher, "http://evil.example/a.jpg", RejectReason.URI_REFUSED, "link-local")


@pytest.mark.parametrize(
    "address",
    [
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:ec2::254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
    ],
)
def test_metadata_services_that_are_not_link_local_need_their_address(monkeypatch, address):
    fake_dns(monkeypatch, {"cdn.example": [address], address: [address]})
    assert not is_public(ipaddress.ip_address(address))
    for allowed in ("cdn.example", "*"):
        with pytest.raises(ImageRejected, match="not public"):
            addresses.permitted_addresses("cdn.example", 80, (allowed,), 1)
    assert addresses.permitted_addresses(address, 80, (address,), 1)


def test_the_name_is_looked_up_once_so_that_it_cannot_be_rebound(photo_server, monkeypatch):
    photo_server.routes["/a.jpg"] = PHOTO
    answers = {"rebind.example": [["1.1.1.1"], ["127.0.0.1"]]}
    fake_dns(monkeypatch, answers)
    opened = []

    def refuse_connection(address, *_args):
        opened.append(address.sockaddr[0])
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(http_client, "_open", refuse_connection)
    fetcher = make_fetcher(allow_hosts=("*",), max_attempts=1)
    url = photo_server.url("/a.jpg", "rebind.example")
    reject(fetcher, url, RejectReason.UNREACHABLE)
    assert opened == ["1.1.1.1"]
    reject(fetcher, url, RejectReason.URI_REFUSED)


def test_a_name_that_does_not_resolve_is_unreachable(monkeypatch):
    def fail(*_args, **_kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(addresses.socket, "getaddrinfo", fail)
    reject(make_fetcher(allow_hosts=("*",)), "http://no.example/a", RejectReason.UNREACHABLE)


def test_a_slow_resolver_does_not_hold_the_fetch(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(addresses.socket, "getaddrinfo", lambda *_a, **_k: release.wait(10) and [])
    fetcher = make_fetcher(allow_hosts=("*",), connect_timeout_s=0.1, max_attempts=1)
    reject(fetcher, "http://slow.example/a.jpg", RejectReason.UNREACHABLE, "not resolved")
    release.set()


# Redirects


def test_redirects_are_followed_three_times(photo_server):
    photo_server.routes |= {f"/{n}": servers.redirect(f"/{n + 1}") for n in range(4)}
    photo_server.routes["/3"] = servers.redirect(photo_server.url("/4"), 308)
    photo_server.routes["/4"] = PHOTO
    fetcher = make_fetcher(allow_hosts=LOOPBACK)
    assert fetcher.fetch(photo_server.url("/1")).data == PHOTO
    reject(fetcher, photo_server.url("/0"), RejectReason.HTTP_ERROR, "redirects")


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/a",
        "http://localhost:{port}/secret",
        "http://[::1/",
        "http://u:SECRET@127.0.0.1:{port}/secret",
        "//0x7f000001:{port}/secret",
    ],
)
def test_redirects_to_elsewhere_are_refused(photo_server, location):
    location = location.format(port=photo_server.port)
    photo_server.routes |= {"/a.jpg": servers.redirect(location), "/secret": PHOTO}
    fetcher = make_fetcher(allow_hosts=LOOPBACK)
    reject(fetcher, photo_server.url("/a.jpg"), RejectReason.URI_REFUSED, "fetch.allow_")
    assert photo_server.paths() == ["/a.jpg"]


def test_a_redirect_loop_ends(photo_server):
    photo_server.routes["/a.jpg"] = servers.redirect("/a.jpg")
    fetcher = make_fetcher(allow_hosts=LOOPBACK)
    reject(fetcher, photo_server.url("/a.jpg"), RejectReason.HTTP_ERROR)
    assert len(photo_server.requests) == 4


# Answers


@pytest.mark.parametrize(
    ("status", "reason", "n_requests"),
    [
        (204, RejectReason.HTTP_ERROR, 1),
        (304, RejectReason.HTTP_ERROR, 1),
        (400, RejectReason.HTTP_ERROR, 1),
        (401, RejectReason.ACCESS_DENIED, 1),
        (403, RejectReason.ACCESS_DENIED, 1),
        (404, RejectReason.NOT_FOUND, 1),
        (410, RejectReason.NOT_FOUND, 1),
        (429, RejectReason.HTTP_ERROR, 3),
        (500, RejectReason.HTTP_ERROR, 3),
        (503, RejectReason.HTTP_ERROR, 3),
    ],
)
def test_statuses(photo_server, status, reason, n_requests):
    photo_server.routes["/a.jpg"] = answer(status=status)
    url = photo_server.url("/a.jpg?sig=SECRET")
    reject(make_fetcher(allow_hosts=LOOPBACK), url, reason, str(status))
    assert len(photo_server.requests) == n_requests


@pytest.mark.parametrize("first", [answer(status=429), answer(status=500), servers.reset])
def test_passing_failures_are_tried_again(photo_server, first):
    photo_server.routes["/a.jpg"] = [first, PHOTO]
    assert make_fetcher(allow_hosts=LOOPBACK).fetch(photo_server.url("/a.jpg")).data == PHOTO
    assert len(photo_server.requests) == 2


def test_back_off_doubles_and_retry_after_is_capped(photo_server):
    photo_server.routes["/a.jpg"] = [
        answer(status=503),
        answer(status=503),
        answer(status=503, Retry_After="9999"),
        PHOTO,
    ]
    waits = []
    policy = FetchPolicy.from_config(FetchConfig(allow_hosts=LOOPBACK, max_attempts=4), [])
    assert (
        http_client.fetch_http(photo_server.url("/a.jpg"), policy, sleep=waits.append).data == PHOTO
    )
    assert 0.25 <= waits[0] <= 0.75
    assert 0.5 <= waits[1] <= 1.5
    assert waits[2] == 10.0


def test_no_wait_outlasts_the_total_deadline(photo_server):
    photo_server.routes["/a.jpg"] = answer(status=503, Retry_After="5")
    fetcher = make_fetcher(allow_hosts=LOOPBACK, total_timeout_s=2)
    started = time.monotonic()
    reject(fetcher, photo_server.url("/a.jpg"), RejectReason.HTTP_ERROR, "503")
    assert time.monotonic() - started < 1.5
    assert len(photo_server.requests) == 1


@pytest.mark.parametrize("behaviour", [servers.hang, servers.drip, servers.drip_headers])
def test_a_server_that_holds_on_meets_the_deadlines(photo_server, behaviour):
    photo_server.routes["/a.jpg"] = behaviour
    fetcher = make_fetcher(allow_hosts=LOOPBACK, read_timeout_s=0.4, total_timeout_s=0.6)
    started = time.monotonic()
    reject(fetcher, photo_server.url("/a.jpg"), RejectReason.TIMEOUT, "fetch.")
    assert time.monotonic() - started < 2
    assert len(photo_server.requests) == 1


def test_a_body_over_the_limit_is_not_read_to_its_end(photo_server):
    photo_server.routes |= {
        "/endless": servers.endless_chunks,
        "/announced": servers.lying_length(b"x", 10**12),
        "/exact": b"x" * 100_000,
        "/over": b"x" * 100_001,
    }
    fetcher = make_fetcher(allow_hosts=LOOPBACK, max_bytes=100_000)
    assert len(fetcher.fetch(photo_server.url("/exact")).data) == 100_000
    for path in ("/endless", "/announced", "/over"):
        url = photo_server.url(path)
        reject(fetcher, url, RejectReason.TOO_MANY_BYTES, "fetch.max_bytes")


def test_answers_that_lie(photo_server):
    photo_server.routes |= {
        "/short": servers.lying_length(PHOTO, len(PHOTO) + 5),
        "/gzip": servers.gzipped(PHOTO),
        "/reset": servers.reset,
        "/smtp": servers.not_http,
    }
    fetcher = make_fetcher(allow_hosts=LOOPBACK)
    for path, reason in [
        ("/short", RejectReason.TRUNCATED),
        ("/gzip", RejectReason.HTTP_ERROR),
        ("/reset", RejectReason.UNREACHABLE),
        ("/smtp", RejectReason.HTTP_ERROR),
    ]:
        reject(fetcher, photo_server.url(path), reason)
    assert {headers["Accept-Encoding"] for _, headers in photo_server.requests} == {"identity"}


def test_a_closed_port_is_unreachable_after_retries():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    fetcher = make_fetcher(allow_hosts=LOOPBACK)
    reject(fetcher, f"http://127.0.0.1:{port}/a", RejectReason.UNREACHABLE, "refused")


def test_paths_are_sent_percent_encoded_once(photo_server):
    photo_server.routes |= {"/a%20%C3%BC%20b.jpg": PHOTO, "/": PHOTO}
    fetcher = make_fetcher(allow_hosts=LOOPBACK)
    assert fetcher.fetch(photo_server.url("/a ü%20b.jpg?q=x y&z=%2F#part")).data == PHOTO
    assert fetcher.fetch(photo_server.url("")).data == PHOTO
    assert photo_server.paths() == ["/a%20%C3%BC%20b.jpg?q=x%20y&z=%2F", "/"]
    assert photo_server.requests[0][1]["Host"] == f"127.0.0.1:{photo_server.port}"


# Asking before fetching


@pytest.mark.parametrize(
    ("etag", "modified"),
    [('"v1"', None), ('W/"v1"', None), (None, OLD), ('"v1"', OLD), ("v1-bare", None), ('""', None)],
)
def test_an_unchanged_photo_is_not_sent_again(photo_server, etag, modified):
    photo_server.routes["/a.jpg"] = servers.versioned(PHOTO, etag, modified)
    fetcher = make_fetcher(allow_hosts=LOOPBACK)
    first, second = fetch_twice(fetcher, photo_server.url("/a.jpg"))
    assert first.validator == Validator(etag, len(PHOTO), OLD_AT if modified else None)
    assert second.data is None
    assert second.validator == first.validator
    assert photo_server.count("/a.jpg") == 2
    headers = photo_server.requests[1][1]
    assert (headers.get("If-None-Match"), headers.get("If-Modified-Since")) == (etag, modified)


def test_a_changed_photo_is_sent(photo_server):
    photo_server.routes["/a.jpg"] = [
        servers.versioned(PHOTO, '"v1"', OLD),
        servers.versioned(b"new", '"v2"', OLD),
    ]
    fetcher = make_fetcher(allow_hosts=LOOPBACK)
    _, second = fetch_twice(fetcher, photo_server.url("/a.jpg"))
    assert second.data == b"new"
    assert second.validator == Validator('"v2"', 3, OLD_AT)


def test_a_first_request_and_one_with_a_size_alone_ask_for_the_photo(photo_server):
    photo_server.routes["/a.jpg"] = servers.versioned(PHOTO)
    fetcher = make_fetcher(allow_hosts=LOOPBACK)
    first, second = fetch_twice(fetcher, photo_server.url("/a.jpg"))
    assert first.validator == Validator(n_bytes=len(PHOTO))
    assert second.data == PHOTO
    assert not any("If-" in name for _, headers in photo_server.requests for name in headers)


def test_redirects_carry_the_question(photo_server):
    photo_server.routes |= {
        "/a.jpg": servers.redirect("/b.jpg"),
        "/b.jpg": servers.versioned(PHOTO, '"v1"', OLD),
    }
    fetcher = make_fetcher(allow_hosts=LOOPBACK)
    _, second = fetch_twice(fetcher, photo_server.url("/a.jpg"))
    assert second.data is None
    assert (photo_server.count("/a.jpg"), photo_server.count("/b.jpg")) == (2, 2)


def test_a_passing_failure_does_not_lose_the_question(photo_server):
    version = servers.versioned(PHOTO, '"v1"')
    photo_server.routes["/a.jpg"] = [version, answer(status=503), version]
    _, second = fetch_twice(make_fetcher(allow_hosts=LOOPBACK), photo_server.url("/a.jpg"))
    assert second.data is None
    assert photo_server.count("/a.jpg") == 3


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ({}, Validator('"v1"', 7, OLD_AT)),
        ({"ETag": '"renamed"'}, Validator('"renamed"', 7, OLD_AT)),
        ({"ETag": "x" * 2000, "Last_Modified": "yesterday"}, Validator('"v1"', 7, OLD_AT)),
    ],
)
def test_not_modified_keeps_what_is_known_where_it_says_nothing(photo_server, told, kept):
    photo_server.routes["/a.jpg"] = answer(status=304, **told)
    fetched = make_fetcher(allow_hosts=LOOPBACK).fetch(
        photo_server.url("/a.jpg"), Validator('"v1"', 7, OLD_AT)
    )
    assert (fetched.data, fetched.validator) == (None, kept)


@pytest.mark.parametrize("known", [None, Validator(n_bytes=7), Validator(etag="*", n_bytes=7)])
def test_not_modified_without_a_question_is_an_error(photo_server, known):
    photo_server.routes["/a.jpg"] = answer(status=304)
    fetcher = make_fetcher(allow_hosts=LOOPBACK)
    reject(fetcher, photo_server.url("/a.jpg"), RejectReason.HTTP_ERROR, "304", known=known)


@pytest.mark.parametrize(
    "told",
    [
        {"ETag": "*"},
        {"ETag": '"a", "b"'},
        {"ETag": '"' + "x" * 1024 + '"'},
        {"ETag": '"caf\u00e9"'},
        {"ETag": 'w/"v1"'},
        {"ETag": ""},
        {"Last_Modified": "yesterday"},
        {"Last_Modified": "0"},
        {"Last_Modified": "Wed, 01 Jul 99999 02:03:04 GMT"},
        {"Last_Modified": "Fri, 31 Dec 9999 23:59:59 -1200"},
        {"Last_Modified": OLD + " " * 2000},
    ],
    ids=str,
)
def test_headers_that_cannot_be_trusted_are_ignored(photo_server, told):
    photo_server.routes["/a.jpg"] = answer(PHOTO, **told)
    fetched = make_fetcher(allow_hosts=LOOPBACK).fetch(photo_server.url("/a.jpg"))
    assert fetched.data == PHOTO
    assert fetched.validator == Validator(n_bytes=len(PHOTO))


@pytest.mark.parametrize(("age_s", "is_trusted"), [(-86_400, False), (0, False), (60, True)])
def test_a_photo_that_may_change_within_the_same_second_is_not_trusted(
    photo_server, age_s, is_trusted
):
    def behave(handler):
        modified = formatdate(time.time() - age_s, usegmt=True)
        answer(PHOTO, Last_Modified=modified)(handler)

    photo_server.routes["/a.jpg"] = behave
    fetched = make_fetcher(allow_hosts=LOOPBACK).fetch(photo_server.url("/a.jpg"))
    assert (fetched.validator.modified_at is not None) == is_trusted


@pytest.mark.parametrize("etag", ['"a"', 'W/"a"', '""', "CJ3m/Q+x=", "d41d8cd9-2"])
def test_etags_as_stores_write_them_are_kept(etag):
    assert sane_etag(f" {etag} ") == etag


@pytest.mark.parametrize("etag", ["*", '"a\r\nX: y"', '"a" b', "", " ", None, 7, '"', "a,b"])
def test_other_etags_are_not(etag):
    assert sane_etag(etag) is None


def test_environment_proxies_are_not_used(photo_server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    photo_server.routes["/a.jpg"] = PHOTO
    assert make_fetcher(allow_hosts=LOOPBACK).fetch(photo_server.url("/a.jpg")).data == PHOTO


def test_threads_share_a_fetcher(photo_server):
    photo_server.routes |= {f"/{n}.jpg": b"%d" % n for n in range(40)}
    fetcher = make_fetcher(allow_hosts=LOOPBACK)
    with ThreadPoolExecutor(8) as pool:
        bodies = pool.map(lambda n: fetcher.fetch(photo_server.url(f"/{n}.jpg")), range(40))
    assert [fetched.data for fetched in bodies] == [b"%d" % n for n in range(40)]


# TLS


@pytest.fixture
def tls_server(tmp_path, monkeypatch):
    """A photo server with a certificate for `localhost`, which this process trusts."""
    pem = tmp_path / "localhost.pem"
    pem.write_bytes(_self_signed("localhost"))
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    http_client._tls_context.cache_clear()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with servers.serve_photos(lambda sock: context.wrap_socket(sock, server_side=True)) as server:
        server.routes["/a.jpg"] = PHOTO
        yield server
    http_client._tls_context.cache_clear()


def _self_signed(name):
    import datetime

    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def test_tls_verifies_the_name_though_it_connects_to_an_address(tls_server, monkeypatch):
    fake_dns(monkeypatch, {"localhost": ["127.0.0.1"], "other.example": ["127.0.0.1"]})
    fetcher = make_fetcher(allow_hosts=("localhost", "other.example"))
    assert fetcher.fetch(f"https://localhost:{tls_server.port}/a.jpg").data == PHOTO
    wrong = f"https://other.example:{tls_server.port}/a.jpg"
    reject(fetcher, wrong, RejectReason.UNREACHABLE, "TLS", "certificate")
    assert tls_server.paths() == ["/a.jpg"]


def test_tls_spoken_to_a_plain_server_is_unreachable(photo_server):
    fetcher = make_fetcher(allow_hosts=LOOPBACK)
    url = photo_server.url("/a.jpg").replace("http:", "https:")
    reject(fetcher, url, RejectReason.UNREACHABLE, "TLS")


# Object stores


def test_reads_objects(s3_server):
    s3_server.create_bucket("photos", {"x/a ü%20?.jpg": PHOTO, "empty": b"", "big": b"x" * 11})
    fetcher = make_fetcher(max_bytes=10)
    assert fetcher.fetch("s3://photos/x/a ü%20?.jpg").data == PHOTO
    assert fetcher.fetch("s3://photos/empty").data == b""
    reject(fetcher, "s3://photos/big", RejectReason.TOO_MANY_BYTES, "fetch.max_bytes")
    reject(fetcher, "s3://photos/no?X-Amz-Signature=SECRET", RejectReason.NOT_FOUND)
    reject(fetcher, "s3://no-such-bucket/a", RejectReason.NOT_FOUND)


def test_threads_share_an_object_store(s3_server):
    s3_server.create_bucket("shared", {f"{n}": b"%d" % n for n in range(20)})
    fetcher = make_fetcher()
    with ThreadPoolExecutor(8) as pool:
        bodies = pool.map(lambda n: fetcher.fetch(f"s3://shared/{n}"), range(20))
    assert [fetched.data for fetched in bodies] == [b"%d" % n for n in range(20)]


def test_an_unchanged_object_is_not_sent_again(s3_server):
    s3_server.create_bucket("asked", {"a": PHOTO})
    fetcher = make_fetcher()
    first, second = fetch_twice(fetcher, "s3://asked/a")
    assert first.validator.etag.startswith('"')
    assert first.validator.n_bytes == len(PHOTO)
    assert abs((datetime.now(UTC) - first.validator.modified_at).total_seconds()) < 60
    assert second.data is None
    assert second.validator == first.validator
    s3_server.create_bucket("asked", {"a": b"new", "b": b""})
    third = fetcher.fetch("s3://asked/a", second.validator)
    assert third.data == b"new"
    assert third.validator.etag != first.validator.etag
    assert fetcher.fetch("s3://asked/b").validator == Validator(n_bytes=0)


@pytest.mark.parametrize(
    ("status", "known", "is_unchanged"),
    [
        (304, Validator('"v1"'), True),
        (412, Validator('"v1"'), True),
        (304, Validator(modified_at=OLD_AT), False),  # an ETag is what s3 is asked with
        (304, Validator("*"), False),
        (304, None, False),
        (403, Validator('"v1"'), False),
    ],
)
def test_an_object_is_unchanged_only_if_it_was_asked_for(
    photo_server, monkeypatch, status, known, is_unchanged
):
    photo_server.routes["/b/SECRET-key"] = answer(status=status)
    s3_environment(monkeypatch, f"http://127.0.0.1:{photo_server.port}")
    fetcher = make_fetcher(max_attempts=1)
    if is_unchanged:
        fetched = fetcher.fetch("s3://b/SECRET-key", known)
        assert (fetched.data, fetched.validator) == (None, known)
        assert photo_server.requests[0][1]["If-None-Match"] == '"v1"'
    else:
        reason = RejectReason.ACCESS_DENIED if status == 403 else RejectReason.HTTP_ERROR
        reject(fetcher, "s3://b/SECRET-key", reason, known=known)
    assert photo_server.count("/b/SECRET-key") == 1


class _FakeGcs:
    """As much of gcsfs as a fetch uses; that package is an extra which tests do without."""

    def __init__(self, objects):
        from fsspec.asyn import get_loop

        self.loop, self.objects, self.n_reads = get_loop(), objects, 0

    async def _info(self, path):
        if path not in self.objects:
            raise FileNotFoundError(path)
        return {"name": path, "etag": f"etag-of-{hash(self.objects[path])}="}

    async def _cat_file(self, path, start, end):
        self.n_reads += 1
        await asyncio.sleep(0)
        return self.objects[path][start:end]


def test_a_gs_object_is_asked_for_first(monkeypatch):
    store = _FakeGcs({"b/a": PHOTO, "b/big": b"x" * 11})
    monkeypatch.setattr("dedup_job.io.fetch.open_object_store", lambda *_: store)
    fetcher = make_fetcher(max_bytes=10)
    _, second = fetch_twice(fetcher, "gs://b/a")
    assert (second.data, store.n_reads) == (None, 1)
    store.objects["b/a"] = b"new"
    assert fetcher.fetch("gs://b/a", second.validator).data == b"new"
    reject(fetcher, "gs://b/big", RejectReason.TOO_MANY_BYTES)
    reject(fetcher, "gs://b/none", RejectReason.NOT_FOUND)


def test_buckets_must_be_allowed(s3_server):
    s3_server.create_bucket("mine", {"a": PHOTO})
    fetcher = make_fetcher(allow_buckets=("mine",))
    assert fetcher.fetch("s3://mine/a").data == PHOTO
    reject(fetcher, "s3://other/a", RejectReason.URI_REFUSED, "fetch.allow_buckets")


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (answer(status=403), RejectReason.ACCESS_DENIED),
        (answer(status=503), RejectReason.HTTP_ERROR),
        (servers.hang, RejectReason.TIMEOUT),
    ],
)
def test_object_store_failures(photo_server, monkeypatch, behaviour, reason):
    photo_server.routes["/b/SECRET-key"] = behaviour
    s3_environment(monkeypatch, f"http://127.0.0.1:{photo_server.port}")
    fetcher = make_fetcher(max_attempts=1, total_timeout_s=2)
    started = time.monotonic()
    reject(fetcher, "s3://b/SECRET-key", reason)
    assert time.monotonic() - started < 30, "the store's own patience is a minute and more"
    assert set(photo_server.paths()) == {"/b/SECRET-key"}


def test_an_object_store_that_is_not_there_is_unreachable(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    s3_environment(monkeypatch, f"http://127.0.0.1:{port}")
    reject(make_fetcher(max_attempts=1), "s3://b/a", RejectReason.UNREACHABLE)


def test_missing_credentials_are_access_denied(monkeypatch, tmp_path):
    s3_environment(monkeypatch, "http://127.0.0.1:1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    reject(make_fetcher(), "s3://b/a", RejectReason.ACCESS_DENIED, "credentials")


def s3_environment(monkeypatch, endpoint):
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "SECRET",
        "AWS_SECRET_ACCESS_KEY": "SECRET",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)


def test_a_missing_package_names_its_extra(monkeypatch):
    import fsspec

    def missing(*_args, **_kwargs):
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    for scheme, extra in [("s3", "s3"), ("gs", "gcs")]:
        with pytest.raises(ConfigError, match=rf"catalog-dedup\[{extra}\]"):
            object_store.open_object_store(scheme)


def test_a_row_whose_store_has_no_package_costs_that_row(monkeypatch):
    def missing(*_args, **_kwargs):
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr("fsspec.filesystem", missing)
    parts = ("catalog-dedup[gcs]", "fetch.allow_schemes")
    reject(make_fetcher(), "gs://b/a", RejectReason.URI_REFUSED, *parts)


def test_a_bucket_that_is_not_allowed_is_refused_before_its_store_is_opened(monkeypatch):
    monkeypatch.delattr("dedup_job.io.fetch.open_object_store")
    reject(
        make_fetcher(allow_buckets=("mine",)),
        "s3://other/a",
        RejectReason.URI_REFUSED,
        "fetch.allow_buckets",
    )
