"""URIs that a stranger may write into a catalog, and where the fetcher stops each."""

from typing import Any

from tests.hostile.cases import Case
from tests.hostile.fetching import SECRET, fetch_as_a_row

REFUSED, UNREACHABLE, NOT_FOUND = (
    f"reject: {reason}" for reason in ("uri_refused", "unreachable", "not_found")
)
_ANY = {"allow_hosts": ("*",)}


def _case(
    what: str,
    uri: str,
    expected: str = REFUSED,
    names: dict[str, list[str]] | None = None,
    **settings: Any,
) -> Case:
    return Case(what, expected, lambda folder: fetch_as_a_row(uri, folder, names or {}, settings))


def _any_host(host: str, what: str = "", names: dict[str, list[str]] | None = None) -> Case:
    """A host under `fetch.allow_hosts=*`, which stands for every public address and no other."""
    what = f"{what or f'http://{host}/'}, with fetch.allow_hosts=*"
    return _case(what, f"http://{host}/a.jpg", REFUSED, names, **_ANY)


_FILES = (
    _case("a file name in the image root", "a.jpg", "ok"),
    _case("a name in Unicode", "ünï.jpg", "ok"),
    _case("a name with a question mark", "q?x.jpg", "ok"),
    _case("FILE:// in capitals, inside the image root", "FILE://{photos}/a.jpg", "ok"),
    _case("file://localhost/, inside the image root", "file://localhost{photos}/a.jpg", "ok"),
    _case("a symbolic link that stays inside the image root", "inside.jpg", "ok"),
    _case("../canary.jpg", "../canary.jpg"),
    _case("sub/../../canary.jpg", "sub/../../canary.jpg"),
    _case("../photos/a.jpg, which leads back in", "../photos/a.jpg", "ok"),
    _case("%2e%2e as a file name: percent signs mean themselves", "%2e%2e", "ok"),
    _case("%2e%2e/canary.jpg as a file name", "%2e%2e/canary.jpg", NOT_FOUND),
    _case("file:///PHOTOS/%2e%2e/canary.jpg", "file://{photos}/%2e%2e/canary.jpg"),
    _case("file:///PHOTOS/..%2fcanary.jpg", "file://{photos}/..%2fcanary.jpg"),
    _case("file:///PHOTOS/%252e%252e (quoted twice)", "file://{photos}/%252e%252e", "ok"),
    _case("overlong UTF-8 for a dot, %c0%ae", "file://{photos}/%c0%ae%c0%ae/canary.jpg"),
    _case("full-width dots, \uff0e\uff0e/canary.jpg", "\uff0e\uff0e/canary.jpg", NOT_FOUND),
    _case("..\\canary.jpg: a backslash is part of a name", "..\\canary.jpg", NOT_FOUND),
    _case("a symbolic link out of the image root", "link.jpg"),
    _case("a linked folder out of the image root", "folder/canary.jpg"),
    _case("a linked folder that leads back into the image root", "folder/photos/a.jpg", "ok"),
    _case("a symbolic link to itself", "loop.jpg", NOT_FOUND),
    _case("file:///etc/passwd", "file:///etc/passwd"),
    _case("/etc/passwd", "/etc/passwd"),
    _case("//etc/passwd", "//etc/passwd"),
    _case("/proc/self/environ", "/proc/self/environ"),
    _case("~/.ssh/id_rsa: no home folder is looked up", "~/.ssh/id_rsa", NOT_FOUND),
    _case("$HOME/a.jpg: no variable is replaced", "$HOME/a.jpg", NOT_FOUND),
    _case("file://localhost/..", "file://localhost/.."),
    _case("file://otherhost/share/a.jpg", "file://otherhost/share/a.jpg"),
    _case("file:a.jpg", "file:a.jpg"),
    _case("a device, /dev/zero", "/dev/zero"),
    _case("a device in a folder of fetch.allow_roots", "/dev/zero", REFUSED, allow_roots=("/dev",)),
    _case("a FIFO in the image root", "pipe.jpg"),
    _case("a folder in the image root", "sub"),
    _case("the image root itself", "."),
    _case("a file name of 300 characters", "n" * 300, NOT_FOUND),
    _case("a path below a file, a.jpg/b.jpg", "a.jpg/b.jpg", NOT_FOUND),
    _case("a UNC path, \\\\server\\share", "\\\\server\\share\\a.jpg", NOT_FOUND),
    _case("a drive letter, C:\\a.jpg", "C:\\a.jpg"),
    _case(
        "a file while fetch.allow_schemes is https alone",
        "a.jpg",
        REFUSED,
        allow_schemes=("https",),
    ),
)
_TEXTS = (
    _case("a NUL character", "a\x00.jpg"),
    _case("a percent-encoded NUL", "file://{photos}/a.jpg%00.png"),
    _case("a line feed", "a\n.jpg"),
    _case("CR LF and a header", "http://shop.example/a\r\nX-Evil: 1", **_ANY),
    _case("a terminal escape sequence", "a\x1b[31m.jpg"),
    _case("a lone surrogate", "a\ud800.jpg"),
    _case("8193 characters", "a" * 8193),
    _case("a URL of 1 MB with a password", f"https://u:{SECRET}@h/" + "a" * 1_000_000),
)
_SCHEMES = (
    _case("local:///etc/passwd", "local:///etc/passwd"),
    _case("simplecache::file:///etc/hostname", "simplecache::file:///etc/hostname"),
    _case("filecache::https://h/a.jpg", "filecache::https://h/a.jpg", **_ANY),
    _case("zip://a.jpg::file:///photos.zip", "zip://a.jpg::file:///photos.zip"),
    _case("a::b.jpg", "a::b.jpg"),
    _case("s3://shop/a::file:///etc/passwd", "s3://shop/a::file:///etc/passwd"),
    _case("gs://shop/a::file:///etc/passwd", "gs://shop/a::file:///etc/passwd"),
    _case("file:///PHOTOS/a.jpg::http://h/", "file://{photos}/a.jpg::http://h/"),
    _case("ftp://h/a.jpg", "ftp://h/a.jpg"),
    _case("sftp://user:password@h/a.jpg", f"sftp://user:{SECRET}@h/a.jpg"),
    _case("gopher://127.0.0.1:6379/_FLUSHALL", "gopher://127.0.0.1:6379/_FLUSHALL"),
    _case("hdfs://namenode/a.jpg", "hdfs://namenode/a.jpg"),
    _case("github://owner:repo@main/a.jpg", "github://owner:repo@main/a.jpg"),
    _case("memory://a.jpg", "memory://a.jpg"),
    _case("javascript:alert(1)", "javascript:alert(1)"),
    _case("data:image/png;base64,AAAA", "data:image/png;base64,AAAA"),
    _case("an unknown scheme, x-y.z+1://h/a", "x-y.z+1://h/a"),
    _case("jar:file:///a.jar!/a.jpg", "jar:file:///a.jar!/a.jpg"),
)
_OBJECTS = (
    _case("s3:// without a bucket", "s3:///a.jpg"),
    _case("s3:// without a key", "s3://bucket"),
    _case("s3://user:password@bucket/a.jpg", f"s3://user:{SECRET}@bucket/a.jpg"),
    _case("s3:// with a bucket like a host and port", "s3://127.0.0.1:80/a.jpg"),
    _case(
        "s3:// into a bucket that fetch.allow_buckets lacks",
        f"s3://other/a.jpg?X-Amz-Signature={SECRET}",
        REFUSED,
        allow_buckets=("shop",),
    ),
    _case(
        "s3://shop/../other/a.jpg, a step out of the allowed bucket",
        "s3://shop/../other/a.jpg",
        REFUSED,
        allow_buckets=("shop",),
    ),
)
_HOSTS = (
    _case("http:// under the default settings", f"http://shop.example/a?token={SECRET}"),
    _case("http://127.0.0.1/ under the default settings", "http://127.0.0.1/a.jpg"),
    _case(
        "a host beside those of fetch.allow_hosts",
        "http://cdn.example.evil.example/a.jpg",
        REFUSED,
        allow_hosts=("cdn.example",),
    ),
    _case(
        "another port than the one in fetch.allow_hosts",
        "http://cdn.example:22/a.jpg",
        REFUSED,
        {"cdn.example": ["1.1.1.1"]},
        allow_hosts=("cdn.example:443",),
    ),
    _case(
        "a public address, with fetch.allow_hosts=*",
        "http://shop.example/a.jpg",
        "connects to 1.1.1.1",
        {"shop.example": ["1.1.1.1"]},
        **_ANY,
    ),
    _case(
        "a private address of a host that fetch.allow_hosts names",
        "http://images.internal/a.jpg",
        "connects to 10.0.0.7",
        {"images.internal": ["10.0.0.7"]},
        allow_hosts=("images.internal",),
    ),
    _case(
        "a named host that leads to the cloud's metadata service",
        "http://images.internal/a.jpg",
        REFUSED,
        {"images.internal": ["169.254.169.254"]},
        allow_hosts=("images.internal",),
    ),
    _case("http://good.example@evil.example/", "http://good.example@evil.example/a.jpg", **_ANY),
    _case("http://user:password@host/", f"http://user:{SECRET}@shop.example/a.jpg", **_ANY),
    _case("http://good.example\\@evil.example/", "http://good.example\\@evil.example/", **_ANY),
    _case("http:///a.jpg", "http:///a.jpg", **_ANY),
    _case("http:a.jpg", "http:a.jpg", **_ANY),
    _case("http://[::1/a.jpg", "http://[::1/a.jpg", **_ANY),
    _case("port 0", "http://shop.example:0/a.jpg", **_ANY),
    _case("port 99999", "http://shop.example:99999/a.jpg", **_ANY),
    _any_host("127.0.0.1"),
    _any_host("127.1"),
    _any_host("0x7f000001"),
    _any_host("2130706433"),
    _any_host("0177.0.0.1"),
    _any_host("0"),
    _any_host("0.0.0.0"),
    _any_host("127.0.0.1.", "a trailing dot, http://127.0.0.1./"),
    _any_host("localhost"),
    _any_host("LOCALHOST."),
    _any_host("①②⑦.0.0.1", "circled digits, http://①②⑦.0.0.1/"),
    _any_host("127。0。0。1", "ideographic full stops, http://127。0。0。1/"),
    _any_host("[::1]"),
    _any_host("[::]"),
    _any_host("[::ffff:127.0.0.1]"),
    _any_host("[::ffff:7f00:1]"),
    _any_host("[64:ff9b::7f00:1]", "loopback behind NAT64, [64:ff9b::7f00:1]"),
    _any_host("[2002:7f00:1::]", "loopback behind 6to4, [2002:7f00:1::]"),
    _any_host("[fe80::1%lo]", "a zone id, [fe80::1%lo]"),
    _case("a zone id as browsers write it", "http://[fe80::1%25lo]/a.jpg", UNREACHABLE, **_ANY),
    _any_host("[fd00:ec2::254]", "the IPv6 metadata service, fd00::/8"),
    _any_host("169.254.169.254"),
    _any_host("metadata.google.internal", "", {"metadata.google.internal": ["169.254.169.254"]}),
    _any_host("100.64.0.1", "carrier-grade NAT, 100.64/10"),
    _any_host("10.1.2.3"),
    _any_host("172.16.0.1"),
    _any_host("192.168.1.1"),
    _any_host("224.0.0.1", "multicast, 224.0.0.1"),
    _any_host("255.255.255.255"),
    _any_host("a.example", "a name of a private address", {"a.example": ["10.0.0.7"]}),
    _any_host(
        "a.example",
        "a name of a public and a private address",
        {"a.example": ["1.1.1.1 10.0.0.7"]},
    ),
    _case(
        "a name that is rebound to loopback once it is judged: it is looked up once",
        "http://a.example/a.jpg",
        "connects to 1.1.1.1",
        {"a.example": ["1.1.1.1", "127.0.0.1"]},
        **_ANY,
    ),
    _case("a name that nobody knows", "http://no.example/a.jpg", UNREACHABLE, **_ANY),
    _any_host(
        "bücher.example.",
        "an IDN host of a private address",
        {"xn--bcher-kva.example": ["10.0.0.7"]},
    ),
    _case(
        "a host that is no IDN, \u2488.example",
        "http://\u2488\u2488.example/a.jpg",
        REFUSED,
        **_ANY,
    ),
)

CASES: tuple[Case, ...] = (*_FILES, *_TEXTS, *_SCHEMES, *_OBJECTS, *_HOSTS)
