"""A service inside the network, and a server outside that sends the job there: who is asked when.

Both are real servers on loopback that count their requests: the internal one is 127.0.0.2, the
redirecting one, which a seller runs, is 127.0.0.1.
"""

import json
from collections.abc import Iterator

import pyarrow.parquet as pq
import pytest

from dedup_job.cli import main
from tests.e2e.jobs import read_report, write_csv
from tests.photos import jpeg
from tests.servers import PhotoServer, drip, hang, redirect, reset, serve_photos

pytestmark = pytest.mark.spark
SELLER, INTERNAL = "127.0.0.1", "127.0.0.2"
PASSWORD, TOKEN = "hunter2pw", "hunter2tok"
# What else a night may meet: it lasts as long as the deadlines below, not as the servers.
HOLDING_ON = {"drips": drip, "hangs": hang, "resets": reset}
REFUSED = dict.fromkeys(
    ("internal", "number", "mapped", "userinfo", "own", "redirects", *HOLDING_ON), "uri_refused"
)
HELD = {"drips": "timeout", "hangs": "timeout", "resets": "unreachable"}
SETTINGS = (
    "fetch.total_timeout_s=5",  # three tries of `resets` take two when the machine is quiet
    "fetch.read_timeout_s=1",
    "gates.max_reject_rate=1",
    "match.min_cosine=0.9",
    "candidates.search=exact",
)


@pytest.fixture
def internal() -> Iterator[PhotoServer]:
    with serve_photos(host=INTERNAL) as server:
        server.routes |= {"/photo.jpg": jpeg(1), "/plain.jpg": jpeg(2)}
        yield server


@pytest.fixture
def seller(internal) -> Iterator[PhotoServer]:
    with serve_photos(host=SELLER) as server:
        towards = internal.url(f"/photo.jpg?token={TOKEN}", INTERNAL)
        server.routes |= {"/redirects.jpg": redirect(towards), "/own.jpg": jpeg(3)}
        server.routes |= {f"/{name}.jpg": behave for name, behave in HOLDING_ON.items()}
        yield server


@pytest.fixture
def catalog(internal, seller, tmp_path):
    (tmp_path / "local.jpg").write_bytes(jpeg(4))
    uris = {
        "local": "local.jpg",
        "internal": internal.url(f"/plain.jpg?token={TOKEN}", INTERNAL),
        "number": internal.url("/plain.jpg", "2130706434"),
        "mapped": internal.url("/plain.jpg", f"[::ffff:{INTERNAL}]"),
        "userinfo": internal.url("/plain.jpg", f"{SELLER}:{PASSWORD}@{INTERNAL}"),
        "own": seller.url(f"/own.jpg?token={TOKEN}", f"seller:{PASSWORD}@{SELLER}"),
        "redirects": seller.url(f"/redirects.jpg?token={TOKEN}"),
        **{name: seller.url(f"/{name}.jpg?token={TOKEN}") for name in HOLDING_ON},
    }
    rows = [{"sku_id": sku, "image_uri": uri} for sku, uri in uris.items()]
    return write_csv(tmp_path / "catalog.csv", rows)


def night(catalog, warehouse, *allow_hosts):
    """Run one night by the command line; returns sku_id -> (reason, detail) of the rejects."""
    arguments = ["run", "--catalog", str(catalog), "--warehouse", str(warehouse)]
    arguments += ["--set", f"fetch.allow_hosts={json.dumps(allow_hosts)}"] if allow_hosts else []
    for setting in SETTINGS:
        arguments += ["--set", setting]
    assert main(arguments) == 0
    rejects = read_report(warehouse, "rejected_images")
    return {row["sku_id"]: (row["reason"], row["detail"]) for row in rejects}


def reasons(rejects):
    return {sku: reason for sku, (reason, _) in rejects.items()}


def test_no_request_leaves_until_a_host_is_named(
    spark, catalog, internal, seller, tmp_path, caplog, capfd
):
    rejects = night(catalog, tmp_path / "default")
    assert reasons(rejects) == REFUSED
    assert all("fetch.allow_hosts" in detail for _, detail in rejects.values())
    assert (internal.requests, seller.requests) == ([], [])

    rejects = night(catalog, tmp_path / "seller", SELLER)
    assert reasons(rejects) == REFUSED | HELD
    assert f"host {INTERNAL} is not in fetch.allow_hosts" in rejects["redirects"][1]
    assert (internal.requests, seller.count("/redirects.jpg")) == ([], 1)
    assert seller.count("/own.jpg") == 0  # a host is named, never a user of it
    assert [seller.count(f"/{name}.jpg") for name in HOLDING_ON] == [1, 1, 3]
    check_that_nothing_is_told(catalog, tmp_path, caplog, capfd)


@pytest.mark.slow
def test_an_internal_host_is_asked_when_it_is_named(
    spark, catalog, internal, seller, tmp_path, caplog, capfd
):
    rejects = night(catalog, tmp_path / "both", SELLER, INTERNAL)
    still = {sku: "uri_refused" for sku in ("number", "mapped", "userinfo", "own")}
    assert reasons(rejects) == still | HELD
    assert sorted(internal.paths()) == [f"/photo.jpg?token={TOKEN}", f"/plain.jpg?token={TOKEN}"]
    check_that_nothing_is_told(catalog, tmp_path, caplog, capfd)


def check_that_nothing_is_told(catalog, folder, caplog, capfd):
    """No password and no query of a URI stands in a table, manifest, log or summary."""
    told = capfd.readouterr()
    said = {"log": caplog.text, "stdout": told.out, "stderr": told.err}
    said |= {str(path): text for path, text in _texts(folder, besides=catalog)}
    assert said["log"] and said["stdout"] and "uri_refused" in "".join(said.values())
    for where, text in said.items():
        assert PASSWORD not in text and TOKEN not in text, where


def _texts(folder, besides):
    """Every file below a folder as text, those of tables by their values."""
    for path in folder.rglob("*"):
        if path.is_file() and path != besides:
            is_table = path.suffix == ".parquet"
            yield path, repr(pq.read_table(path).to_pylist()) if is_table else _readable(path)


def _readable(path):
    return path.read_bytes().decode("utf-8", "replace")
