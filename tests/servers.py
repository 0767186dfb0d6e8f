"""Real servers on loopback: a web server that misbehaves on order, and an S3 API (moto)."""

import gzip
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Behaviour = Callable[["_Handler"], None]


def answer(body: bytes = b"", status: int = 200, **headers: str) -> Behaviour:
    """A plain answer; header names are given with underscores."""

    def behave(handler: "_Handler") -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return behave


def versioned(
    body: bytes, etag: str | None = None, modified: str | None = None, **headers: str
) -> Behaviour:
    """Tells a version by ETag, Last-Modified or both, and answers 304 to who names it (RFC 9110)."""
    told = {"ETag": etag, "Last_Modified": modified}
    told = {name: value for name, value in told.items() if value is not None}

    def behave(handler: "_Handler") -> None:
        asked = handler.headers.get("If-None-Match")
        since = handler.headers.get("If-Modified-Since")
        is_same = asked == etag if asked is not None else since is not None and since == modified
        status = 304 if is_same else 200
        answer(b"" if is_same else body, status, **told, **headers)(handler)

    return behave


def redirect(location: str, status: int = 302) -> Behaviour:
    return answer(status=status, Location=location)


def gzipped(body: bytes) -> Behaviour:
    return answer(gzip.compress(body), Content_Encoding="gzip")


def lying_length(body: bytes, claimed: int) -> Behaviour:
    """Announces `claimed` bytes, sends `body`, closes."""
    return answer(body, Content_Length=str(claimed))


def hang(handler: "_Handler") -> None:
    """Accepts the request and never answers."""
    handler.owner.stopping.wait()


def drip(handler: "_Handler") -> None:
    """Sends a header, then a byte every 50 ms for ever."""
    handler.send_response(200)
    handler.end_headers()
    while not handler.owner.stopping.wait(0.05):
        handler.wfile.write(b"x")


def drip_headers(handler: "_Handler") -> None:
    """Sends its status line at a byte every 50 ms, for ever."""
    handler.wfile.write(b"HTTP/1.1 200 ")
    while not handler.owner.stopping.wait(0.05):
        handler.wfile.write(b"x")


def endless_chunks(handler: "_Handler") -> None:
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while not handler.owner.stopping.is_set():
        handler.wfile.write(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")


def reset(handler: "_Handler") -> None:
    """Resets the connection in the middle of the body."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"x" * 10)
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # shutdown() would send a polite FIN first; closing the descriptor itself sends the RST.
    os.close(handler.connection.detach())


def not_http(handler: "_Handler") -> None:
    handler.wfile.write(b"220 smtp.example ESMTP\r\n")


@dataclass
class PhotoServer:
    """`routes`: path -> bytes, a behaviour, or a list of behaviours (the last one repeats)."""

    port: int
    routes: dict[str, Any] = field(default_factory=dict)
    requests: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def count(self, path: str) -> int:
        """Requests for a path, whatever their query."""
        return sum(asked.partition("?")[0] == path for asked in self.paths())

    def next_behaviour(self, path: str) -> Behaviour:
        route = self.routes.get(path.partition("?")[0], answer(status=404))
        if isinstance(route, list):
            route = route.pop(0) if len(route) > 1 else route[0]
        return answer(route) if isinstance(route, bytes) else route


class _Handler(BaseHTTPRequestHandler):
    owner: PhotoServer

    def do_GET(self) -> None:
        self.owner.requests.append((self.path, dict(self.headers)))
        try:
            self.owner.next_behaviour(self.path)(self)
        except OSError:
            self.close_connection = True  # the client gave up, as these behaviours make it do

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:
            return  # the behaviour closed the connection itself

    def log_message(self, format: str, *args: object) -> None:
        return


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def shutdown_request(self, request: Any) -> None:
        if request.fileno() >= 0:
            super().shutdown_request(request)


@contextmanager
def serve_photos(
    wrap: Callable[[socket.socket], socket.socket] | None = None, host: str = "127.0.0.1"
) -> Iterator[Any]:
    """Run a `PhotoServer` on loopback; `wrap` may put TLS around its listening socket."""
    owner = PhotoServer(port=0)
    handler = type("Handler", (_Handler,), {"owner": owner})
    server = _Server((host, 0), handler)
    owner.port = server.server_address[1]
    if wrap is not None:
        server.socket = wrap(server.socket)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield owner
    finally:
        owner.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class S3Server:
    """An S3 API on loopback; its address and credentials are in the environment."""

    endpoint: str

    def create_bucket(self, bucket: str, objects: Mapping[str, bytes] | None = None) -> None:
        """Make a bucket (one that exists is kept) and put objects into it."""
        import boto3

        client = boto3.client("s3")
        client.create_bucket(Bucket=bucket)
        for key, body in (objects or {}).items():
            client.put_object(Bucket=bucket, Key=key, Body=body)

    def get(self, bucket: str, key: str) -> bytes:
        import boto3

        return boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()


@contextmanager
def serve_s3() -> Iterator[S3Server]:
    """Run moto's S3 API; processes started meanwhile inherit how to reach it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    forget_s3_filesystems()
    try:
        yield S3Server(endpoint)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        forget_s3_filesystems()
        server.stop()


def forget_s3_filesystems() -> None:
    """s3fs keeps instances, and with them the endpoint they were made for."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()


@pytest.fixture
def photo_server() -> Iterator[PhotoServer]:
    with serve_photos() as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with serve_s3() as server:
        yield server
