"""The URI checker and the fetcher: no text of a catalog reaches what the default settings forbid.

A case is the number of an image root and the URI, in UTF-8. Python's audit events tell which files
are opened and whom a socket turns to, whatever the code under test believes.
"""

import ipaddress
import os
import random
import re
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from zlib import crc32

from dedup_job.config import FetchConfig
from dedup_job.errors import ImageRejected, RejectReason
from dedup_job.io import addresses, fetch
from dedup_job.io.fetch_policy import FetchPolicy
from dedup_job.io.uris import fetch_key, local_path, redact, resolve, split_object, uri_key
from tests.fuzz.mutate import below, pick
from tests.fuzz.targets import expect

# Stand for the folders of a run, whose names a case must not depend on.
INSIDE, OUTSIDE = "@IN@", "@OUT@"
PASSWORD, QUERY = "s3cretpw", "s3cretq"
_HEX = re.compile(r"[0-9a-f]{64}")
# From RFC 6890 and the IANA registries, written down apart from the code under test.
_PRIVATE_RANGES = """
0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.2.0/24 192.168.0.0/16
198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
::/127 100::/64 2001:db8::/32 fc00::/7 fe80::/10 fec0::/10 ff00::/8 64:ff9b:1::/48
"""
_PRIVATE = [ipaddress.ip_network(text) for text in _PRIVATE_RANGES.split()]
# Where an IPv4 address stands inside an IPv6 one: prefix, bits behind it.
_EMBEDDING = [
    (ipaddress.ip_network(prefix), behind)
    for prefix, behind in (("::ffff:0:0/96", 0), ("::/96", 0), ("64:ff9b::/96", 0), ("2002::/16", 80))
]  # fmt: skip

# URIs by grammar

_SCHEMES = (
    *("file", "s3", "gs", "http", "https") * 4,
    *("FILE", "Https", "S3", " file", "\tfile", "file\n", "ﬁle", "s3a", "local", "ftp", "data"),
    *("javascript", "simplecache::file", "filecache::https", "zip", "github", "memory", "", "a" * 50),
)  # fmt: skip
_AFTER = ("://",) * 12 + (":", ":/", ":///", ":////", "::", "//", ":\\\\", ":/\\", "%3a//")
_USERS = ("",) * 8 + (
    *("user@", f"user:{PASSWORD}@", f"user:{PASSWORD}?x@", f"user:{PASSWORD}#@", "good.example@"),
    *(f"user:{PASSWORD}%40@", f"user:{PASSWORD}/x@", f"a:{PASSWORD}@b:{PASSWORD}@", "@", ":@"),
)
_HOSTS = (
    *("shop.example", "SHOP.Example.", "localhost", "LOCALHOST.", "photos", "my-bucket", "", "."),
    *("127.0.0.1", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "0", "0.0.0.0", "127.0.0.1."),
    *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]"),
    *("[2002:7f00:1::]", "[fd00::1]", "[fe80::1%25eth0]", "[fe80::1%eth0]", "[v1.x]", "[", "]", "[]"),
    *("169.254.169.254", "metadata.google.internal", "100.64.0.1", "10.0.0.1", "192.168.1.1", "8.8.8.8"),
    *("[2001:4860:4860::8888]", "172.16.0.1", "①②⑦.⓪.⓪.①", "127。0。0。1", "ⓛocalhost", "xn--a", "xn--"),
    *("a" * 70, "a..b", "-a", "a_b", "münchen.example", "ex%61mple.com", "a,b", "a b", "a\u202eb"),
    *(f"{INSIDE}", f"{OUTSIDE}", "..", "%2e%2e", "evil.example\\@good.example", "good.example#@evil"),
)  # fmt: skip
_PORTS = ("",) * 10 + (
    ":80",
    ":443",
    ":0",
    ":65536",
    ":99999",
    ":-1",
    ":80:80",
    ":",
    ":\uff18\uff10",
    ":+8",
    ":1_0",
)
_PARTS = (
    *("a.jpg", "b.jpg", "c?d.jpg", "é.jpg", "e\u0301.jpg", "sub", "link.jpg", "folder", "canary.jpg"),
    *("..", ".", "%2e%2e", "%2E.", ".%2e", "..%2f", "%2f..", "..\\", "\\..", "%5c", "...", "\uff0e\uff0e", ".."),
    *("etc", "passwd", "proc", "self", "environ", "dev", "zero", "stdin", "fd", "0", "pipe", ""),
    *("%00", "%0a", "%0d%0a", "%c0%ae%c0%ae", "%25", "%252e%252e", "%", "%zz", "%ff", "::", "a::b"),
    *("file:", "http:", "@", "a@b", ":", "a:b", ";", "a;b=c", "*", "~", "~root", "$HOME", "\u202e"),
    *("\u2028", "\x7f", "\x00", "\n", "\u200b", "\ud800", "\U0001f984", "x" * 300, "aux", " ", "+"),
)  # fmt: skip
# What lies in the image root, and links of it that lead elsewhere.
_TRUE_PATHS = (
    *("a.jpg", "sub/b.jpg", "./sub/../a.jpg", "é.jpg", "a@b", "%2e%2e", "x\u202e", "sub//b.jpg"),
    *("link.jpg", "folder/canary.jpg", "sub/folder/canary.jpg", "pipe", "sub", "%252e%252e", "%61.jpg"),
    *("../photos/a.jpg", "sub/../../canary.jpg", "sub/folder/photos/a.jpg"),
)  # fmt: skip
_QUERIES = ("",) * 12 + (
    *(f"?X-Amz-Signature={QUERY}", f"?id=1&sig={QUERY}", f"??{QUERY}", f"?{QUERY}#x", f"#{QUERY}"),
    *(f"?a=b@{QUERY}", f"?Expires=1&Signature={QUERY}&Key-Pair-Id=K", f"?//u:{QUERY}@h", "?", "#", "&"),
    *("?id=1", "?w=100&h=200", "?id=1&id=2"),
)  # fmt: skip
_ODD_CHARACTERS = (
    "/\\:?#@%.[]&=;, \t\n\x00\x1f\x7f\u00a0\u2024\u2044\uff0f\uff1a\uff20\ufeff\ud800é0aA~*"
)


def write_uri(rng: random.Random) -> str:
    """A URI by the grammar: every part is one of the known or of the odd forms."""
    if rng.random() < 0.3:
        head = pick(rng, ("", "", "", "/", "./", "//", "../", INSIDE + "/", OUTSIDE + "/", "~/"))
    elif rng.random() < 0.3:
        head = f"{pick(rng, ('file', 'FILE', 'File'))}{pick(rng, _FILE_HEADS)}"
    else:
        authority = pick(rng, _USERS) + pick(rng, _HOSTS) + pick(rng, _PORTS)
        head = f"{pick(rng, _SCHEMES)}{pick(rng, _AFTER)}{authority}/"
    if rng.random() < 0.3:
        parts = [pick(rng, _TRUE_PATHS), *([""] if rng.random() < 0.1 else [])]
    else:
        parts = [pick(rng, _PARTS) for _ in range(below(rng, 6))]
    return head + "/".join(parts) + pick(rng, _QUERIES)


_FILE_HEADS = tuple(
    f"{slashes}{folder}/"
    for slashes in (":", "://", "://localhost", "://LOCALHOST", "://other", ":///..", "://.")
    for folder in (INSIDE, OUTSIDE, INSIDE + "/..", INSIDE + "/%2e%2e", "")
)


def mutate_uri(rng: random.Random, uri: str) -> str:
    """Insert, drop, repeat or replace a few characters."""
    characters = list(uri)
    for _ in range(1 + below(rng, 4)):
        at, what = below(rng, len(characters) + 1), below(rng, 6)
        if what == 0:
            characters[at:at] = pick(rng, _ODD_CHARACTERS)
        elif what == 1:
            del characters[at : at + 1 + below(rng, 3)]
        elif what == 2:
            characters[at:at] = characters[at : at + 1 + below(rng, 12)]
        elif what == 3:
            characters[at : at + 1] = f"%{below(rng, 256):02x}"
        elif what == 4:
            characters[at : at + 1] = chr(below(rng, pick(rng, (0x80, 0x3000, 0x110000))))
        else:
            characters[at : at + 1] = [c.swapcase() for c in characters[at : at + 1]]
    return "".join(characters)


# The target


def open_target() -> "UriTarget":
    """The target."""
    return UriTarget()


class UriTarget:
    """`resolve`, `redact`, the keys, and `Fetcher.fetch` under the default settings."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-uris-")
        self._inside, self._outside, self._contents = _make_folders(Path(self._folder.name))
        web = "https://shop.example/photos"
        self._bases = (*(self._inside,) * 5, "s3://photos/catalog", web, "gs://b")
        policy = FetchPolicy.from_config(FetchConfig(), [self._inside])
        self._fetcher = fetch.Fetcher(policy)
        self._watch = Watch(self._inside)
        self._asked: list[str] = []

    def corpus(self) -> list[bytes]:
        return []  # the grammar is part of this file

    def make(self, rng: random.Random) -> bytes:
        uri = write_uri(rng)
        if rng.random() < 0.5:
            uri = mutate_uri(rng, uri)
        return bytes([below(rng, len(self._bases))]) + uri.encode("utf-8", "surrogatepass")

    def run(self, case: bytes) -> str:
        base = self._bases[case[0] % len(self._bases)] if case else self._inside
        uri = case[1:].decode("utf-8", "surrogatepass" if _is_ours(case) else "surrogateescape")
        uri = uri.replace(INSIDE, self._inside).replace(OUTSIDE, self._outside)
        check_shown(uri)
        if crc32(case) % 8 == 0:
            self._check_address(uri)
        try:
            resolved = resolve(uri, base)
        except ImageRejected as rejected:
            check_refusal(rejected, uri)
            self._fetch(uri)
            return str(rejected.reason)
        check_resolved(resolved, base)
        return self._fetch(resolved)

    def _fetch(self, uri: str) -> str:
        self._asked.clear()
        outcome, data = "ok", None
        store = {"fetch_object": self._note_object, "open_object_store": lambda *_: None}
        with replaced(fetch, store), self._watch:
            try:
                data = self._fetcher.fetch(uri).data
            except ImageRejected as rejected:
                outcome = str(rejected.reason)
                check_refusal(rejected, uri)
        expect(not self._watch.seen, f"forbidden: {self._watch.seen[:3]}")
        if self._asked:
            bucket, key = split_object(self._asked[0])
            is_form = self._asked[0] == f"{self._asked[0].partition(':')[0]}://{bucket}/{key}"
            expect(is_form and resolve(self._asked[0], "/") == self._asked[0], "not one form")
            return "asked a bucket"
        if data is not None:
            expect(data in self._contents, f"bytes from elsewhere: {data[:40]!r}")
            path = local_path(resolve(uri, "/"))
            real = os.path.realpath(path)
            expect(real.startswith(self._inside + "/"), f"a file outside the root: {real}")
        return outcome

    def _note_object(self, store: object, uri: str, policy: object, known: object) -> object:
        self._asked.append(uri)
        raise ImageRejected(RejectReason.NOT_FOUND, "no such object")

    def _check_address(self, uri: str) -> None:
        """A host that `*` admits leads to no private address, whatever the resolver answers."""
        match = re.search(r"//(?:[^/@]*@)?(\[[^\]/]*\]|[^/:]*)", uri)
        if match is None:
            return
        host = match[1].strip("[]")
        try:
            with replaced(addresses, {"socket": _Resolver()}):
                found = addresses.permitted_addresses(host, 80, ("*",), 5.0)
        except (ImageRejected, OSError):
            return
        for address in found:
            expect(_is_harmless(address.sockaddr[0]), f"{host!r} leads to {address.sockaddr}")


def _is_ours(case: bytes) -> bool:
    try:
        case[1:].decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def check_shown(uri: str) -> None:
    """`redact` shows no secret, whatever the rest looks like; keys are keys."""
    shown = redact(uri)
    expect(len(shown) <= 1003, f"{len(shown)} characters shown")
    expect(not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", shown), "control shown")
    for secret in secrets_of(uri):
        expect(secret not in shown, f"{secret} of {uri!r} shown as {shown!r}")
    expect("?" not in shown and "#" not in shown, f"a query shown: {shown!r}")
    for key in (uri_key(uri), fetch_key(uri)):
        expect(bool(_HEX.fullmatch(key)), f"key {key!r}")
    expect(uri_key(uri) == uri_key(uri.partition("?")[0]), "uri_key sees the query")


def secrets_of(uri: str) -> list[str]:
    """Those of our secrets that stand where secrets stand: in a query, or before the @ of a host."""
    mark = re.search(r"[?#]", uri)
    end = mark.start() if mark else len(uri)
    found = [QUERY] if QUERY in uri[end:] and QUERY not in uri[:end] else []
    userinfo = rf"\s*[A-Za-z][A-Za-z0-9+.-]*://[^/\\?#@]*:{PASSWORD}[^/\\?#]*@[^/\\]*"
    if re.match(userinfo, uri) and uri.count(PASSWORD) == 1:
        found.append(PASSWORD)
    return found


def check_refusal(rejected: ImageRejected, uri: str) -> None:
    """A refusal is one line that gives no secret away."""
    detail = rejected.detail
    expect(0 < len(detail) <= 300 and detail.isprintable(), f"detail {detail!r}")
    for secret in secrets_of(uri):
        expect(secret not in detail, f"{secret} in {detail!r}")
    if rejected.reason is RejectReason.URI_REFUSED and "not valid Unicode" not in detail:
        is_helpful = re.search(r"fetch\.|catalog\.|limit \d", detail)
        expect(bool(is_helpful), f"no setting named: {detail!r}")


def check_resolved(resolved: str, base: str) -> None:
    """An absolute URI has one form, and a signature does not change its key."""
    expect(resolve(resolved, base) == resolved, f"{resolved!r} is no fixed point")
    expect(resolve(resolved, "/") == resolved, f"{resolved!r} depends on the image root")
    expect(resolved.startswith(("file:///", "s3://", "gs://", "http://", "https://")), resolved)
    expect("::" not in resolved or resolved.startswith("http"), f"chained: {resolved!r}")
    if resolved.startswith("file:"):
        path = local_path(resolved)
        expect("/../" not in path + "/" and "\x00" not in path, f"path {path!r}")
    if resolved.startswith("http") and "?" in resolved:
        signed = fetch_key(resolved + "&X-Amz-Signature=1")
        expect(signed == fetch_key(resolved + "&X-Amz-Signature=2"), "a signature names a photo")


def _is_harmless(text: str) -> bool:
    ip = ipaddress.ip_address(text.partition("%")[0])
    for prefix, behind in _EMBEDDING:
        if ip.version == 6 and ip in prefix and int(ip) > 1:
            return _is_harmless(str(ipaddress.IPv4Address(int(ip) >> behind & 0xFFFFFFFF)))
    return not any(ip in network for network in _PRIVATE if network.version == ip.version)


@contextmanager
def replaced(module: ModuleType, names: dict[str, object]) -> Iterator[None]:
    """While it is entered, a module has other values for some of its names."""
    before = {name: getattr(module, name) for name in names}
    vars(module).update(names)
    try:
        yield
    finally:
        vars(module).update(before)


class _Resolver:
    """Stands for the `socket` module in `addresses.py`: numbers are read as the C library reads
    them, and every name is a stranger's, who answers with any address."""

    gaierror, SOCK_STREAM = socket.gaierror, socket.SOCK_STREAM
    _ANSWERS = ("8.8.8.8", "10.0.0.1", "127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "fd00::1",
                "64:ff9b::a9fe:a9fe", "2001:4860:4860::8888", "::1", "0.0.0.0", "224.0.0.1")  # fmt: skip

    def getaddrinfo(self, host: str, port: int, type: int) -> list:
        try:
            return socket.getaddrinfo(host, port, type=type, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            start = crc32(host.encode("utf-8", "surrogatepass"))
            answers = [
                self._ANSWERS[(start + i) % len(self._ANSWERS)] for i in range(1 + start % 2)
            ]
            return [
                (socket.AF_INET6 if ":" in ip else socket.AF_INET, type, 6, "", (ip, port))
                for ip in answers
            ]


class Watch:
    """While it is entered, notes every file opened outside a folder and every use of a socket."""

    _NEVER = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname",
              "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.listdir", "os.scandir",
              "os.remove", "os.rename", "os.mkdir", "shutil.rmtree", "glob.glob")  # fmt: skip

    def __init__(self, folder: str) -> None:
        self._folder, self._is_on = folder + "/", False
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def __enter__(self) -> None:
        self.seen.clear()
        self._is_on = True

    def __exit__(self, *_: object) -> None:
        self._is_on = False

    def _hear(self, event: str, arguments: tuple) -> None:
        if not self._is_on:
            return
        if event in self._NEVER:
            self.seen.append(f"{event} {arguments!r}"[:200])
            raise PermissionError("not while this is watched")
        if event == "open" and isinstance(arguments[0], str | bytes):
            path = os.fsdecode(arguments[0])
            # Modules that are imported on the first use are no photos.
            if not path.startswith((self._folder, sys.prefix, sys.base_prefix)):
                self.seen.append(f"open {path}"[:200])


def _make_folders(folder: Path) -> tuple[str, str, set[bytes]]:
    """An image root with links that lead out of it, and what lies outside; returns what is inside."""
    folder = folder.resolve()
    inside, outside = folder / "photos", folder / "elsewhere"
    (inside / "sub" / "..%2f").mkdir(parents=True)
    outside.mkdir()
    (outside / "canary.jpg").write_bytes(b"outside")
    (folder / "canary.jpg").write_bytes(b"outside")
    names = ("a.jpg", "sub/b.jpg", "c?d.jpg", "é.jpg", "%2e%2e", "sub/%00", "a@b", "x\u202e")
    for name in names:
        (inside / name).write_bytes(f"inside {name}".encode())
    (inside / "link.jpg").symlink_to(outside / "canary.jpg")
    (inside / "folder").symlink_to(outside)
    (inside / "sub" / "folder").symlink_to("../..")
    os.mkfifo(inside / "pipe")
    return str(inside), str(outside), {f"inside {name}".encode() for name in names}
