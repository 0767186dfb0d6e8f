"""A URI as a catalog may hold it, resolved and fetched for real, on a machine without a network.

Names are answered here; a connection that is about to be opened is an outcome.
"""

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dedup_job.errors import ImageRejected, RejectReason
from dedup_job.io import addresses, http_client
from dedup_job.io.uris import redact, resolve
from tests.unit.test_fetch import make_fetcher

SECRET = "hunter2"
_PHOTO, _CANARY = b"\xff\xd8 photo", b"not for strangers"
_SETTINGS = ("fetch.allow_", "catalog.image_root")


class _Connected(Exception):
    """A connection was about to be opened to the address that the message holds."""


def fetch_as_a_row(
    uri: str, folder: Path, names: Mapping[str, list[str]], settings: Mapping[str, Any]
) -> str:
    """What becomes of a URI that stands in a catalog beside `folder`/photos.

    Args:
        uri: `{photos}` stands for the image root, `{outside}` for its parent.
        folder: empty.
        names: host -> the addresses, with blanks between, that each look-up of it finds, in turn;
            the last ones repeat.
        settings: of the section `fetch`.
    """
    photos = _make_folders(folder)
    uri = uri.replace("{photos}", str(photos)).replace("{outside}", str(folder))
    assert SECRET not in redact(uri)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(addresses.socket, "getaddrinfo", _resolver(names))
        patch.setattr(http_client, "_open", _refuse_to_connect)
        try:
            data = make_fetcher([photos], max_attempts=1, **settings).fetch(
                resolve(uri, str(photos))
            )
        except _Connected as connected:
            return f"connects to {connected}"
        except ImageRejected as rejected:
            _check_detail(rejected)
            return f"reject: {rejected.reason}"
    return "ok" if data.data == _PHOTO else f"read {data.data!r}"


def _make_folders(folder: Path) -> Path:
    photos = folder / "photos"
    photos.mkdir()
    (folder / "canary.jpg").write_bytes(_CANARY)
    for name in ("a.jpg", "%2e%2e", "ünï.jpg", "q?x.jpg"):
        (photos / name).write_bytes(_PHOTO)
    (photos / "link.jpg").symlink_to(folder / "canary.jpg")
    (photos / "inside.jpg").symlink_to(photos / "a.jpg")
    (photos / "folder").symlink_to(folder)
    (photos / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(photos / "pipe.jpg")
    (photos / "sub").mkdir()
    return photos


def _resolver(names: Mapping[str, list[str]]) -> Callable[..., list[Any]]:
    real, answers = socket.getaddrinfo, {host: list(found) for host, found in names.items()}

    def look_up(host: str, port: int, *_args: object, **_kwargs: object) -> list[Any]:
        found = answers.get(host, [host])
        hosts = (found.pop(0) if len(found) > 1 else found[0]).split(" ")
        # The C library reads numbers in all their spellings, but asks nobody about a name.
        flags = 0 if host == "localhost" else socket.AI_NUMERICHOST
        kind = socket.SOCK_STREAM
        return [entry for h in hosts for entry in real(h, port, type=kind, flags=flags)]

    return look_up


def _refuse_to_connect(address: addresses.Address, *_args: object) -> None:
    raise _Connected(address.sockaddr[0])


def _check_detail(rejected: ImageRejected) -> None:
    """One line without a secret; a refusal names what would allow it."""
    assert rejected.detail.isprintable() and SECRET not in rejected.detail, rejected.detail
    if rejected.reason is RejectReason.URI_REFUSED and "character" not in rejected.detail:
        assert any(name in rejected.detail for name in _SETTINGS), rejected.detail
